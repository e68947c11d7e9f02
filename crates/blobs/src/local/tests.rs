use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use proptest::prelude::*;

use super::{
    power_loss::{Lie, PowerLossDisk},
    *,
};
use crate::conformance::{self, key};

fn entries(path: &Path) -> Vec<String> {
    fs::read_dir(path)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[tokio::test]
async fn the_local_store_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = LocalBlobs::open(&dir.path().join("blobs"), None).unwrap();
    conformance::all(&blobs).await;
    assert_eq!(
        entries(&dir.path().join("blobs/tmp")),
        Vec::<String>::new(),
        "no put leaves a temporary file"
    );
}

#[tokio::test]
async fn the_power_loss_disk_conforms_too() {
    let dir = tempfile::tempdir().unwrap();
    let disk = PowerLossDisk::new(dir.path(), Lie::None).unwrap();
    let blobs = LocalBlobs::open_on(Arc::new(disk), dir.path(), None).unwrap();
    conformance::all(&blobs).await;
}

#[tokio::test]
async fn leftovers_of_a_dead_process_are_removed_and_blobs_kept() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = LocalBlobs::open(dir.path(), None).unwrap();
    blobs.put_bytes(&key("a/b"), "x".into()).await.unwrap();
    fs::write(dir.path().join("tmp/7"), "half").unwrap();
    let blobs = LocalBlobs::open(dir.path(), None).unwrap();
    assert_eq!(entries(&dir.path().join("tmp")), Vec::<String>::new());
    assert_eq!(blobs.read(&key("a/b"), 9).await.unwrap().unwrap(), "x");
}

#[tokio::test]
async fn a_key_that_is_a_folder_of_another_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = LocalBlobs::open(dir.path(), None).unwrap();
    blobs.put_bytes(&key("a/b/c"), "x".into()).await.unwrap();
    for clash in ["a/b", "a/b/c/d", "a/b/c/d/e"] {
        let error = blobs.put_bytes(&key(clash), "y".into()).await.unwrap_err();
        assert!(matches!(error, Error::KeyClash(_)), "{clash}: {error:?}");
    }
    assert_eq!(blobs.read(&key("a/b/c"), 9).await.unwrap().unwrap(), "x");
}

#[tokio::test]
async fn emptied_folders_go() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = LocalBlobs::open(dir.path(), None).unwrap();
    blobs.put_bytes(&key("jobs/1/in"), "x".into()).await.unwrap();
    blobs.put_bytes(&key("jobs/2/in"), "x".into()).await.unwrap();
    blobs.delete(&key("jobs/1/in")).await.unwrap();
    assert_eq!(entries(&dir.path().join("data/jobs")), ["2"]);
    blobs.delete(&key("jobs/2/in")).await.unwrap();
    assert_eq!(entries(&dir.path().join("data")), Vec::<String>::new());
}

#[tokio::test]
async fn the_failpoints_frame_the_moment_a_blob_appears() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("data/a");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let failpoint: Failpoint = {
        let seen = Arc::clone(&seen);
        Arc::new(move |point| seen.lock().unwrap().push((point, target.exists())))
    };
    let blobs = LocalBlobs::open(dir.path(), Some(failpoint)).unwrap();
    blobs.put_bytes(&key("a"), "x".into()).await.unwrap();
    assert_eq!(
        *seen.lock().unwrap(),
        [("blob_before_rename", false), ("blob_after_rename", true)]
    );
}

#[tokio::test]
async fn a_full_disk_is_told_apart_and_forgotten_when_space_returns() {
    let dir = tempfile::tempdir().unwrap();
    let disk = PowerLossDisk::new(dir.path(), Lie::None).unwrap();
    let blobs = LocalBlobs::open_on(Arc::new(disk.clone()), dir.path(), None).unwrap();
    disk.set_full(true);
    let error = blobs.put_bytes(&key("a/b"), "x".into()).await.unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
    assert!(error.is_transient());
    assert!(blobs.stat(&key("a/b")).await.unwrap().is_none());
    disk.set_full(false);
    blobs.put_bytes(&key("a/b"), "x".into()).await.unwrap();
}

/// One step of a random life of a store.
#[derive(Debug, Clone)]
enum Step {
    Put(u8, u16),
    Delete(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..6_u8, 0..3000_u16).prop_map(|(key, size)| Step::Put(key, size)),
        1 => (0..6_u8).prop_map(Step::Delete),
    ];
    proptest::collection::vec(step, 1..12)
}

/// Six keys in nested folders, some shared.
fn nth_key(n: u8) -> BlobKey {
    key(["a", "b/1", "b/2", "c/d/e", "c/d/f", "c/g"][usize::from(n) % 6])
}

/// Runs the steps until the power goes after `effects`; gives back the acknowledged keys that do not read back as one
/// of the values they may have.
async fn lost_after_power_loss(lie: Lie, steps: &[Step], effects: Option<u64>) -> BTreeSet<BlobKey> {
    let dir = tempfile::tempdir().unwrap();
    let disk = PowerLossDisk::new(dir.path(), lie).unwrap();
    let blobs = LocalBlobs::open_on(Arc::new(disk.clone()), dir.path(), None).unwrap();
    if let Some(effects) = effects {
        disk.cut_after(effects);
    }
    // Per key: whether it must exist, and the values it may have.
    let mut model: std::collections::BTreeMap<BlobKey, (bool, Vec<Vec<u8>>)> = Default::default();
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Put(n, size) => {
                let bytes = vec![number as u8; usize::from(*size)];
                let done = blobs.put_bytes(&nth_key(*n), bytes.clone().into()).await.is_ok();
                let state = model.entry(nth_key(*n)).or_default();
                if done {
                    *state = (true, vec![bytes]);
                } else {
                    state.1.push(bytes);
                }
            }
            Step::Delete(n) => {
                let _ = blobs.delete(&nth_key(*n)).await;
                if let Some(state) = model.get_mut(&nth_key(*n)) {
                    state.0 = false;
                }
            }
        }
    }
    disk.power_loss().unwrap();
    let disk = PowerLossDisk::new(dir.path(), Lie::None).unwrap();
    let blobs = LocalBlobs::open_on(Arc::new(disk), dir.path(), None).unwrap();
    let mut lost = BTreeSet::new();
    for (key, (must_exist, values)) in model {
        match blobs.read(&key, u64::MAX).await.unwrap() {
            Some(found) if values.iter().any(|v| v[..] == found) => {}
            None if !must_exist => {}
            _ => {
                lost.insert(key);
            }
        }
    }
    lost
}

fn on_runtime<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn acknowledged_puts_survive_a_power_loss_at_any_effect(steps in steps(), effects in proptest::option::of(0..120_u64)) {
        let lost = on_runtime(lost_after_power_loss(Lie::None, &steps, effects));
        prop_assert!(lost.is_empty(), "lost {lost:?}");
    }
}

#[test]
fn a_disk_that_lies_about_syncs_is_caught() {
    // Without either kind of sync the test above fails: so it would notice if the store forgot one.
    let steps = [Step::Put(0, 100), Step::Put(3, 100)];
    for lie in [Lie::Files, Lie::Directories] {
        let lost = on_runtime(lost_after_power_loss(lie, &steps, None));
        assert_eq!(lost.len(), 2, "{lie:?}");
    }
}

#[tokio::test]
async fn a_folder_made_but_not_synced_by_a_killed_process_is_synced_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let disk = PowerLossDisk::new(dir.path(), Lie::None).unwrap();
    drop(LocalBlobs::open_on(Arc::new(disk.clone()), dir.path(), None).unwrap());
    disk.create_dir(&dir.path().join("data/jobs")).unwrap();
    // The next process finds the folder there; no power was lost in between.
    let blobs = LocalBlobs::open_on(Arc::new(disk.clone()), dir.path(), None).unwrap();
    blobs.put_bytes(&key("jobs/1"), "x".into()).await.unwrap();
    disk.power_loss().unwrap();
    let blobs = LocalBlobs::open(dir.path(), None).unwrap();
    assert_eq!(blobs.read(&key("jobs/1"), 9).await.unwrap().unwrap(), "x");
}

#[tokio::test]
async fn concurrent_puts_into_a_new_folder_all_survive() {
    let dir = tempfile::tempdir().unwrap();
    let disk = PowerLossDisk::new(dir.path(), Lie::None).unwrap();
    let blobs = LocalBlobs::open_on(Arc::new(disk.clone()), dir.path(), None).unwrap();
    let keys: Vec<BlobKey> = (0..32).map(|n| key(&format!("x/y/{}/{n}", n % 3))).collect();
    futures::future::join_all(keys.iter().map(|k| blobs.put_bytes(k, "x".into())))
        .await
        .into_iter()
        .for_each(|r| drop(r.unwrap()));
    disk.power_loss().unwrap();
    let blobs = LocalBlobs::open(dir.path(), None).unwrap();
    for key in &keys {
        assert!(blobs.stat(key).await.unwrap().is_some(), "{key}");
    }
}
