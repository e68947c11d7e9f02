//! Whatever is brought, named, dropped and swept in whatever order, and wherever the process dies in between: no row names
//! a blob that is gone, and no blob stays that nothing refers to.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use darkroom_core::{AssetId, BlobKey, Clock, ContentHash, Digest, Ids};
use proptest::prelude::*;

use super::super::{Durability, Options, SqliteStore};
use crate::{
    Assets, Files,
    assets::{Content, IfTaken, NewAsset},
    conformance::{TestClock, TestIds, tenant},
    files::FileRef,
};

const OWNER: &str = "input:t:e";
const DELAY: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone)]
enum Verb {
    /// Bytes, path, hours it lasts; whether the process dies before the row, and before the bytes that are not needed go.
    Bring(u8, u8, Option<u8>, bool, bool),
    Mint(u8, u8),
    Name(u8, u8, bool),
    Unname(u8),
    Remove(usize),
    Advance(u8),
    Sweep,
    /// Whether the process dies between giving a blob up and deleting it.
    EmptyTrash(bool),
}

fn verbs() -> impl Strategy<Value = Vec<Verb>> {
    let verb = prop_oneof![
        4 => (0..3u8, 0..2u8, proptest::option::of(1..4u8), any::<bool>(), any::<bool>())
            .prop_map(|(n, path, hours, one, two)| Verb::Bring(n, path, hours, one && two, two && !one)),
        2 => (0..3u8, 0..2u8).prop_map(|(n, path)| Verb::Mint(n, path)),
        3 => (0..3u8, 0..2u8, any::<bool>()).prop_map(|(n, name, replace)| Verb::Name(n, name, replace)),
        2 => (0..2u8).prop_map(Verb::Unname),
        3 => (0..6usize).prop_map(Verb::Remove),
        2 => (1..30u8).prop_map(Verb::Advance),
        2 => Just(Verb::Sweep),
        3 => any::<bool>().prop_map(Verb::EmptyTrash),
    ];
    proptest::collection::vec(verb, 1..50)
}

struct Run {
    store: SqliteStore,
    clock: Arc<TestClock>,
    ids: TestIds,
    /// The blob store: what was written, and what it holds.
    blobs: BTreeMap<BlobKey, u8>,
    assets: Vec<AssetId>,
}

impl Run {
    fn begin(dir: &Path) -> Run {
        let clock = TestClock::new();
        let options = Options {
            durability: Durability::Never,
            ..Options::new(clock.clone())
        };
        Run {
            store: SqliteStore::open(&dir.join("db.sqlite"), options).unwrap(),
            clock,
            ids: TestIds::default(),
            blobs: BTreeMap::new(),
            assets: Vec::new(),
        }
    }

    async fn write(&mut self, n: u8) -> Content {
        let blob: BlobKey = format!("inputs/t/{}", self.ids.uuid_v7()).parse().unwrap();
        self.store.intend(&blob).await.unwrap();
        self.blobs.insert(blob.clone(), n);
        Content {
            tenant: tenant("t"),
            blake3: Digest::new([n; 32]),
            sha256: Digest::new([n; 32]),
            size: 1,
            blob,
        }
    }

    fn asset(&self, path: u8, hours: Option<u8>) -> NewAsset {
        let until = |hours: u8| {
            self.clock
                .now()
                .plus(Duration::from_secs(3600) * u32::from(hours))
        };
        NewAsset {
            id: AssetId::from_uuid(self.ids.uuid_v7()),
            tenant: tenant("t"),
            file_path: Some(format!("{path}.png")),
            content_type: String::new(),
            expires_at: hours.map(until),
        }
    }

    /// What the service does with bytes that were written for nothing.
    async fn discard(&mut self, blob: &BlobKey) {
        if self.store.withdraw(blob).await.unwrap() {
            self.blobs.remove(blob);
        }
    }

    async fn empty_trash(&mut self, dies: bool) {
        for blob in self.store.trash_due(DELAY, 200).await.unwrap() {
            if self.store.empty_trash(&blob).await.unwrap() && !dies {
                self.blobs.remove(&blob);
            }
        }
    }

    async fn step(&mut self, verb: Verb) {
        match verb {
            Verb::Bring(n, path, hours, dies_before, dies_after) => {
                let content = self.write(n).await;
                if dies_before {
                    return;
                }
                let asset = self.asset(path, hours);
                let added = self.store.add_asset(asset, content.clone()).await.unwrap();
                self.assets.push(added.asset.id);
                if !added.new_bytes && !dies_after {
                    self.discard(&content.blob).await;
                }
            }
            Verb::Mint(n, path) => {
                let hash = ContentHash::Blake3(Digest::new([n; 32]));
                let seen = self.store.content(&tenant("t"), hash).await.unwrap();
                let minted = self.store.mint_asset(self.asset(path, None), hash).await.unwrap();
                assert!(seen.is_none() || minted.is_some(), "what is told can be had");
                self.assets.extend(minted.map(|minted| minted.asset.id));
            }
            Verb::Name(n, name, replace) => {
                let content = self.write(n).await;
                let reference = FileRef {
                    owner: OWNER.to_owned(),
                    name: name.to_string(),
                    tenant: tenant("t"),
                    blob: content.blob.clone(),
                    size: 1,
                    content_type: String::new(),
                    created_at: self.clock.now(),
                };
                let rule = if replace { IfTaken::Replace } else { IfTaken::Keep };
                let kept = self
                    .store
                    .keep_content(reference, content.clone(), rule)
                    .await
                    .unwrap();
                if kept.as_ref() != Some(&content.blob) {
                    self.discard(&content.blob).await;
                }
            }
            Verb::Unname(name) => {
                self.store.drop_ref(OWNER, &name.to_string()).await.unwrap();
            }
            Verb::Remove(n) => {
                if let Some(id) = self.assets.get(n) {
                    self.store.remove_asset(&tenant("t"), *id).await.unwrap();
                }
            }
            Verb::Advance(hours) => self.clock.advance(Duration::from_secs(3600) * u32::from(hours)),
            Verb::Sweep => {
                self.store.sweep_assets(2).await.unwrap();
            }
            Verb::EmptyTrash(dies) => self.empty_trash(dies).await,
        }
    }

    /// Every row has its bytes, and the right ones.
    async fn check(&self) {
        let mut kept = BTreeSet::new();
        for asset in self.store.assets(&tenant("t"), None, 100).await.unwrap() {
            let n = self.blobs.get(&asset.content.blob);
            assert_eq!(
                n.map(|n| Digest::new([*n; 32])),
                Some(asset.content.blake3),
                "{asset:?}"
            );
            assert!(kept.insert((asset.content.blob, asset.file_path)), "one of each");
        }
        for reference in self.store.refs_of(OWNER).await.unwrap() {
            assert!(self.blobs.contains_key(&reference.blob), "{reference:?}");
        }
        for n in 0..3 {
            let hash = ContentHash::Blake3(Digest::new([n; 32]));
            if let Some(content) = self.store.content(&tenant("t"), hash).await.unwrap() {
                assert_eq!(self.blobs.get(&content.blob), Some(&n));
            }
        }
    }

    /// Everything is dropped, and time passes.
    async fn end(&mut self) {
        for id in std::mem::take(&mut self.assets) {
            self.store.remove_asset(&tenant("t"), id).await.unwrap();
        }
        for name in 0..2 {
            self.store.drop_ref(OWNER, &name.to_string()).await.unwrap();
        }
        self.clock.advance(Duration::from_secs(48 * 3600));
        while self.store.sweep_assets(2).await.unwrap() > 0 {}
        // What a walk through the blob store finds (control/strays.rs).
        let found: Vec<BlobKey> = self.blobs.keys().cloned().collect();
        for some in found.chunks(200) {
            self.store.trash_unknown(some.to_vec()).await.unwrap();
        }
        self.clock.advance(Duration::from_secs(48 * 3600));
        self.empty_trash(false).await;
        assert!(self.blobs.is_empty(), "{:?}", self.blobs);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn rows_have_their_blobs_and_blobs_their_rows(verbs in verbs()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let mut run = Run::begin(dir.path());
            for verb in verbs {
                run.step(verb).await;
                run.check().await;
            }
            run.end().await;
        });
    }
}
