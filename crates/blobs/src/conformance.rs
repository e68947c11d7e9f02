//! What every blob store does, as functions over the trait; each implementation calls [`all`].

use std::io;

use bytes::Bytes;
use darkroom_core::BlobKey;
use futures::{StreamExt, TryStreamExt, stream};

use crate::{Blobs, Error};

/// Runs every check on an empty store.
pub(crate) async fn all(blobs: &dyn Blobs) {
    bytes_come_back_with_their_hash(blobs).await;
    what_is_not_there_is_none(blobs).await;
    a_put_replaces(blobs).await;
    names_in_any_language_round_trip(blobs).await;
    ranges_are_cut_to_the_blob(blobs).await;
    a_file_is_copied(blobs).await;
    a_stream_is_stored_whole(blobs).await;
    a_broken_or_long_stream_stores_nothing(blobs).await;
    reading_is_bounded(blobs).await;
    listing_pages_in_key_order(blobs).await;
    concurrent_puts_and_deletes_of_neighbours_do_not_disturb(blobs).await;
}

pub(crate) fn key(text: &str) -> BlobKey {
    text.parse().unwrap()
}

async fn bytes_come_back_with_their_hash(blobs: &dyn Blobs) {
    for (name, size) in [
        ("empty", 0_usize),
        ("small", 3),
        ("odd", 65_537),
        ("large", 300_000),
    ] {
        let key = key(&format!("hash/{name}"));
        let bytes: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
        let meta = blobs.put_bytes(&key, bytes.clone().into()).await.unwrap();
        assert_eq!(meta.size, size as u64);
        assert_eq!(meta.blake3, blake3::hash(&bytes).to_hex().to_string());
        assert_eq!(blobs.read(&key, 1 << 20).await.unwrap().unwrap(), bytes);
        let reader = blobs.open(&key, None).await.unwrap().unwrap();
        assert_eq!((reader.size, reader.range.clone()), (size as u64, 0..size as u64));
        let pieces: Vec<Bytes> = reader.stream.try_collect().await.unwrap();
        assert!(pieces.iter().all(|piece| piece.len() <= 64 * 1024));
        assert_eq!(pieces.concat(), bytes);
    }
}

async fn what_is_not_there_is_none(blobs: &dyn Blobs) {
    blobs.put_bytes(&key("none/a"), "x".into()).await.unwrap();
    for absent in ["none/b", "none", "none/a/below", "never/was"].map(key) {
        assert!(blobs.open(&absent, None).await.unwrap().is_none(), "{absent}");
        assert!(blobs.read(&absent, 10).await.unwrap().is_none(), "{absent}");
        assert!(blobs.stat(&absent).await.unwrap().is_none(), "{absent}");
        blobs.delete(&absent).await.unwrap();
    }
    assert!(blobs.stat(&key("none/a")).await.unwrap().is_some());
    blobs.delete(&key("none/a")).await.unwrap();
    assert!(blobs.stat(&key("none/a")).await.unwrap().is_none());
    blobs.delete(&key("none/a")).await.unwrap();
    // Its folder may be gone now; a new blob must not mind.
    blobs.put_bytes(&key("none/a"), "y".into()).await.unwrap();
}

async fn a_put_replaces(blobs: &dyn Blobs) {
    let key = key("replace/me");
    blobs.put_bytes(&key, "a longer text".into()).await.unwrap();
    // A reader that was opened before keeps the old bytes.
    let before = blobs.open(&key, None).await.unwrap().unwrap();
    blobs.put_bytes(&key, "short".into()).await.unwrap();
    assert_eq!(blobs.read(&key, 100).await.unwrap().unwrap(), "short");
    let old: Vec<Bytes> = before.stream.try_collect().await.unwrap();
    assert_eq!(old.concat(), b"a longer text");
}

async fn names_in_any_language_round_trip(blobs: &dyn Blobs) {
    for name in [
        "图像 1.png",
        "a b%2F?#&.png",
        "'\"$(x).txt",
        ".hidden",
        "…",
        "e\u{301}",
    ] {
        let key = key(&format!("names/{name}"));
        blobs.put_bytes(&key, name.to_owned().into()).await.unwrap();
        assert_eq!(blobs.read(&key, 100).await.unwrap().unwrap(), name);
        let listed = blobs
            .list(Some(&"names/\u{20}".parse().unwrap()), 100)
            .await
            .unwrap();
        assert!(listed.iter().any(|l| l.key == key), "{name}");
    }
}

async fn ranges_are_cut_to_the_blob(blobs: &dyn Blobs) {
    let key = key("range/digits");
    blobs.put_bytes(&key, "0123456789".into()).await.unwrap();
    for (asked, got) in [
        (0..10, "0123456789"),
        (3..5, "34"),
        (9..10, "9"),
        (8..99, "89"),
        (4..4, ""),
        (10..20, ""),
        (50..60, ""),
    ] {
        let reader = blobs.open(&key, Some(asked.clone())).await.unwrap().unwrap();
        assert_eq!(reader.size, 10);
        assert_eq!(reader.range.end - reader.range.start, got.len() as u64);
        let part: Vec<Bytes> = reader.stream.try_collect().await.unwrap();
        assert_eq!(part.concat(), got.as_bytes(), "{asked:?}");
    }
}

async fn a_file_is_copied(blobs: &dyn Blobs) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.png");
    std::fs::write(&path, vec![7; 200_000]).unwrap();
    let meta = blobs.put_file(&key("file/out.png"), &path).await.unwrap();
    assert_eq!(meta.size, 200_000);
    // Its owner may write into it afterwards.
    std::fs::write(&path, "rewritten").unwrap();
    assert_eq!(
        blobs.read(&key("file/out.png"), 1 << 20).await.unwrap().unwrap(),
        vec![7; 200_000]
    );
    for bad in [dir.path().join("missing"), dir.path().to_owned()] {
        let error = blobs.put_file(&key("file/bad"), &bad).await.unwrap_err();
        assert!(matches!(error, Error::Source { .. }), "{error}");
        assert!(blobs.stat(&key("file/bad")).await.unwrap().is_none());
    }
}

async fn a_stream_is_stored_whole(blobs: &dyn Blobs) {
    let pieces: Vec<io::Result<Bytes>> = (0..500_u32)
        .map(|i| Ok(vec![i as u8; (i % 777) as usize].into()))
        .collect();
    let whole: Vec<u8> = pieces.iter().flat_map(|p| p.as_ref().unwrap().to_vec()).collect();
    let max = whole.len() as u64;
    let meta = blobs
        .put_stream(&key("stream/a"), stream::iter(pieces).boxed(), max)
        .await
        .unwrap();
    assert_eq!(meta.blake3, blake3::hash(&whole).to_hex().to_string());
    assert_eq!(blobs.read(&key("stream/a"), max).await.unwrap().unwrap(), whole);
}

async fn a_broken_or_long_stream_stores_nothing(blobs: &dyn Blobs) {
    let key = key("stream/bad");
    let piece = || Ok(Bytes::from(vec![1; 100_000]));
    let broken = stream::iter([piece(), Err(io::ErrorKind::ConnectionReset.into())]);
    let error = blobs
        .put_stream(&key, broken.boxed(), u64::MAX)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Source { .. }), "{error}");
    let long = stream::iter([piece(), piece()]);
    let error = blobs.put_stream(&key, long.boxed(), 199_999).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooLarge {
                max_bytes: 199_999,
                ..
            }
        ),
        "{error}"
    );
    {
        // A client that goes away: the future is dropped.
        let endless = stream::once(async move { piece() }).chain(stream::pending());
        let put = blobs.put_stream(&key, endless.boxed(), u64::MAX);
        tokio::time::timeout(std::time::Duration::from_millis(50), put)
            .await
            .unwrap_err();
    }
    assert!(blobs.stat(&key).await.unwrap().is_none());
}

async fn reading_is_bounded(blobs: &dyn Blobs) {
    let key = key("bounded/a");
    blobs.put_bytes(&key, "12345".into()).await.unwrap();
    assert!(blobs.read(&key, 5).await.unwrap().is_some());
    let error = blobs.read(&key, 4).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { max_bytes: 4, .. }), "{error}");
}

async fn listing_pages_in_key_order(blobs: &dyn Blobs) {
    // '-' and '.' sort before '/', '0' after it: folders must not upset the order.
    let mut keys: Vec<BlobKey> = ["a/1", "a-b", "a.c", "a0", "a/2/x", "a/10", "b/图", "b/z", "c"]
        .map(|k| key(&format!("list/{k}")))
        .to_vec();
    for key in &keys {
        blobs.put_bytes(key, key.to_string().into()).await.unwrap();
    }
    keys.sort();
    for limit in [1, 2, 100] {
        let mut seen = Vec::new();
        let mut after = Some(key("list"));
        loop {
            let page = blobs.list(after.as_ref(), limit).await.unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            assert!(
                page.iter()
                    .all(|l| l.size == l.key.as_str().len() as u64 || !l.key.as_str().starts_with("list/"))
            );
            seen.extend(
                page.into_iter()
                    .map(|l| l.key)
                    .filter(|k| k.as_str().starts_with("list/")),
            );
        }
        assert_eq!(seen, keys, "limit {limit}");
    }
    assert!(blobs.list(None, 0).await.unwrap().is_empty());
}

async fn concurrent_puts_and_deletes_of_neighbours_do_not_disturb(blobs: &dyn Blobs) {
    // Deleting the last blob of a folder may remove the folder, just when another puts into it.
    let rounds = (0..40).map(|round| async move {
        let kept = key(&format!("busy/{}/kept-{round}", round % 4));
        let brief = key(&format!("busy/{}/brief-{round}", round % 4));
        blobs.put_bytes(&brief, "x".into()).await.unwrap();
        blobs.delete(&brief).await.unwrap();
        blobs.put_bytes(&kept, "y".into()).await.unwrap();
        if round % 2 == 0 {
            blobs.delete(&kept).await.unwrap();
        }
        (round, kept)
    });
    for (round, kept) in futures::future::join_all(rounds).await {
        assert_eq!(
            blobs.stat(&kept).await.unwrap().is_some(),
            round % 2 == 1,
            "{kept}"
        );
    }
}
