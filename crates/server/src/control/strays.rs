//! Finds blobs that no row knows: their write was not followed by the row, and the intent that should tell of them was lost
//! too (a power cut, a restored backup). A slow walk through the whole blob store puts them into the trash, where they
//! stay as long as everything else there before they are deleted.

use std::time::Duration;

use darkroom_core::BlobKey;
use tokio_util::sync::CancellationToken;

use crate::service::Service;

/// Blobs looked at in one step: one listing, one short transaction.
const STEP: usize = 200;
/// After a step this many times as long as it took nothing is done: at most 5 % of one core and of the disk.
const REST: u32 = 19;
/// And at least this long.
const REST_AT_LEAST: Duration = Duration::from_millis(100);
/// A younger blob may be about to get its row: an upload from a slow line, outputs that wait for the store.
const OLDER_THAN: Duration = Duration::from_secs(24 * 3600);
/// The first walk begins when the server has settled.
const FIRST_AFTER: Duration = Duration::from_secs(10 * 60);
/// Strays are rare; one walk a day finds each within two days.
const BETWEEN_WALKS: Duration = Duration::from_secs(24 * 3600);

/// Walks until `shutdown`.
pub(super) async fn look_for_strays(service: &Service, shutdown: &CancellationToken) {
    let mut pause = FIRST_AFTER;
    let mut after: Option<BlobKey> = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let started = service.clock.monotonic();
        after = match step(service, after.as_ref()).await {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!(error = ?error, "looking for blobs that no row knows failed; trying again tomorrow");
                None
            }
        };
        let took = service.clock.monotonic().saturating_sub(started);
        pause = match after {
            Some(_) => (took * REST).max(REST_AT_LEAST),
            None => BETWEEN_WALKS,
        };
    }
}

/// Looks at the blobs after `after`; returns where to go on, or `None` at the end.
async fn step(service: &Service, after: Option<&BlobKey>) -> anyhow::Result<Option<BlobKey>> {
    let found = service.blobs.list(after, STEP).await?;
    let next = (found.len() == STEP)
        .then(|| found.last().map(|blob| blob.key.clone()))
        .flatten();
    let before = service.clock.now().minus(OLDER_THAN);
    let old: Vec<BlobKey> = found
        .into_iter()
        .filter(|blob| blob.modified < before)
        .map(|blob| blob.key)
        .collect();
    if !old.is_empty() {
        let strays = service.store.trash_unknown(old).await?;
        if strays > 0 {
            tracing::info!(
                blobs.strays = strays,
                "blobs that no row knows went into the trash"
            );
        }
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::{super::sweep::empty_trash, *};
    use crate::service::testing::Bench;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn blobs_that_no_row_knows_go_after_a_day_and_no_others() {
        let bench = Bench::configured("");
        let service = &bench.service;
        let walk = async || {
            let (mut after, mut steps) = (None, 0);
            loop {
                steps += 1;
                after = step(service, after.as_ref()).await.unwrap();
                if after.is_none() {
                    return steps;
                }
            }
        };
        for n in 0..STEP + 50 {
            bench.put_blob(&format!("inputs/t/{n:03}")).await;
        }
        let tenant = "t".parse().unwrap();
        let endpoint = "default".parse().unwrap();
        let body = futures::stream::iter([Ok(bytes::Bytes::from_static(b"kept"))]);
        service
            .upload(&tenant, &endpoint, "kept.bin", Box::pin(body), 10)
            .await
            .unwrap();
        assert_eq!(walk().await, 2, "a bounded step at a time");
        bench.clock.advance(2 * HOUR);
        empty_trash(service, HOUR).await.unwrap();
        assert_eq!(bench.blob_keys().await.len(), STEP + 51, "all are too young");

        bench.clock.advance(24 * HOUR);
        walk().await;
        empty_trash(service, HOUR).await.unwrap();
        assert_eq!(
            bench.blob_keys().await.len(),
            STEP + 51,
            "the trash has its delay"
        );
        bench.clock.advance(HOUR);
        empty_trash(service, HOUR).await.unwrap();
        let left = bench.blob_keys().await;
        assert!(left.len() == 1 && left[0].ends_with("/kept.bin"), "{left:?}");
    }
}
