//! Statements are compiled once per connection, whatever is bound to them.

use rusqlite::StatementStatus;

use super::super::{Options, SqliteStore, jobs::read::RECORD};
use crate::{
    Jobs,
    conformance::{TestClock, TestIds, job},
};

#[tokio::test]
async fn a_read_is_not_compiled_anew_for_another_value() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("db"), Options::new(TestClock::new())).unwrap();
    let ids = TestIds::default();
    for _ in 0..10 {
        let new = job(&ids);
        let id = new.id;
        store.submit(new).await.unwrap();
        assert!(store.job(None, id).await.unwrap().is_some());
    }
    // One after the other they share one connection.
    let compiled_again = store
        .readers
        .run(|conn| {
            let statement = conn.prepare_cached(&format!("{RECORD} WHERE j.id = ?1"))?;
            assert!(
                statement.get_status(StatementStatus::Run) >= 10,
                "it is the one that was used"
            );
            Ok(statement.get_status(StatementStatus::RePrepare))
        })
        .await
        .unwrap();
    assert_eq!(compiled_again, 0);
}
