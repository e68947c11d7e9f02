//! Files by what they hold.

use std::time::Duration;

use darkroom_core::{AssetId, Clock, ContentHash, Digest, Ids, TenantId, Timestamp};

use super::{World, tenant, tests, world::blob};
use crate::{
    assets::{Added, AssetRecord, AssetUpload, Content, IfTaken, NewAsset, Piece},
    files::FileRef,
};

const HOUR: Duration = Duration::from_secs(3600);

/// Bytes of tenant `t`, written to this blob.
fn bytes(n: u8, key: &str) -> Content {
    Content {
        tenant: tenant("t"),
        blake3: Digest::new([n; 32]),
        sha256: Digest::new([!n; 32]),
        size: 5,
        blob: blob(key),
    }
}

fn blake3(n: u8) -> ContentHash {
    ContentHash::Blake3(Digest::new([n; 32]))
}

fn new(world: &World, path: Option<&str>, expires_at: Option<Timestamp>) -> NewAsset {
    NewAsset {
        id: AssetId::from_uuid(world.ids.uuid_v7()),
        tenant: tenant("t"),
        file_path: path.map(str::to_owned),
        content_type: "image/png".to_owned(),
        expires_at,
    }
}

async fn bring(world: &World, path: Option<&str>, content: Content) -> Added {
    world.store().intend(&content.blob).await.unwrap();
    let asset = NewAsset {
        tenant: content.tenant.clone(),
        ..new(world, path, None)
    };
    world.store().add_asset(asset, content).await.unwrap()
}

async fn found(world: &World, id: AssetId) -> Option<AssetRecord> {
    world.store().asset(&tenant("t"), id).await.unwrap()
}

fn name(world: &World, name: &str, content: &Content) -> FileRef {
    FileRef {
        owner: "input:t:e".to_owned(),
        name: name.to_owned(),
        tenant: content.tenant.clone(),
        blob: content.blob.clone(),
        size: content.size,
        content_type: "image/png".to_owned(),
        created_at: world.clock.now(),
    }
}

tests! {
    async fn the_same_bytes_are_kept_once_for_each_tenant(world: World) {
        let first = bring(&world, Some("a.png"), bytes(1, "k1")).await;
        assert!(first.new_asset && first.new_bytes);
        assert_eq!(found(&world, first.asset.id).await, Some(first.asset.clone()));
        let again = bring(&world, Some("a.png"), bytes(1, "k2")).await;
        assert_eq!((again.asset.id, again.new_asset, again.new_bytes), (first.asset.id, false, false));
        let elsewhere = bring(&world, Some("b.png"), bytes(1, "k3")).await;
        assert!(elsewhere.new_asset && !elsewhere.new_bytes && elsewhere.asset.id != first.asset.id);
        assert_eq!(elsewhere.asset.content.blob, blob("k1"));
        let nameless = bring(&world, None, bytes(1, "k4")).await;
        assert!(nameless.new_asset, "without a path is one more");
        assert_eq!(bring(&world, None, bytes(1, "k5")).await.asset.id, nameless.asset.id);
        assert_eq!(nameless.asset.file_path, None);
        let foreign = Content { tenant: tenant("u"), ..bytes(1, "k6") };
        let foreign = bring(&world, Some("a.png"), foreign).await;
        assert!(foreign.new_bytes && foreign.asset.content.blob == blob("k6"));
        assert_eq!(found(&world, foreign.asset.id).await, None, "of another tenant");
    }

    async fn strangers_have_each_their_own(world: World) {
        let anonymous = || Content { tenant: tenant(TenantId::ANONYMOUS), ..bytes(1, "k1") };
        let one = bring(&world, Some("a.png"), anonymous()).await;
        let two = bring(&world, Some("a.png"), anonymous()).await;
        assert!(two.new_asset && one.asset.id != two.asset.id);
        assert!(world.store().remove_asset(&tenant(TenantId::ANONYMOUS), two.asset.id).await.unwrap());
        let left = world.store().asset(&tenant(TenantId::ANONYMOUS), one.asset.id).await.unwrap();
        assert_eq!(left, Some(one.asset));
    }

    async fn bytes_are_found_by_either_hash_while_something_refers_to_them(world: World) {
        let kept = bring(&world, None, bytes(1, "k1")).await.asset;
        let sha = ContentHash::Sha256(Digest::new([!1; 32]));
        for hash in [blake3(1), sha] {
            assert_eq!(world.store().content(&tenant("t"), hash).await.unwrap(), Some(kept.content.clone()));
            assert_eq!(world.store().content(&tenant("u"), hash).await.unwrap(), None);
        }
        assert_eq!(world.store().content_of(&blob("k1")).await.unwrap(), Some(kept.content.clone()));
        assert!(world.store().remove_asset(&tenant("t"), kept.id).await.unwrap());
        assert!(!world.store().remove_asset(&tenant("t"), kept.id).await.unwrap());
        assert_eq!(world.store().content(&tenant("t"), sha).await.unwrap(), None);
        assert_eq!(found(&world, kept.id).await, None);
    }

    async fn what_was_found_by_hash_can_be_minted_until_the_trash_is_emptied(world: World) {
        let kept = bring(&world, Some("a.png"), bytes(1, "k1")).await.asset;
        world.store().remove_asset(&tenant("t"), kept.id).await.unwrap();
        let minted = world.store().mint_asset(new(&world, Some("b.png"), None), blake3(1)).await.unwrap().unwrap();
        assert_eq!((minted.new_asset, minted.asset.content.clone()), (true, kept.content));
        assert!(world.store().trash_due(Duration::ZERO, 9).await.unwrap().is_empty(), "it is out of the trash");
        world.store().remove_asset(&tenant("t"), minted.asset.id).await.unwrap();
        assert!(world.store().empty_trash(&blob("k1")).await.unwrap());
        assert_eq!(world.store().mint_asset(new(&world, None, None), blake3(1)).await.unwrap(), None);
        let anew = bring(&world, None, bytes(1, "k2")).await;
        assert!(anew.new_bytes && anew.asset.content.blob == blob("k2"), "of what is gone nothing is told");
    }

    async fn bytes_that_were_taken_back_are_not_found_again(world: World) {
        let kept = bring(&world, None, bytes(1, "k1")).await.asset;
        world.store().remove_asset(&tenant("t"), kept.id).await.unwrap();
        world.store().intend(&blob("k1")).await.unwrap();
        assert!(world.store().withdraw(&blob("k1")).await.unwrap());
        assert_eq!(world.store().mint_asset(new(&world, None, None), blake3(1)).await.unwrap(), None);
    }

    async fn retention_is_extended_and_never_shortened(world: World) {
        let at = |hours: u32| Some(world.clock.now().plus(HOUR * hours));
        let (one, two, three) = (at(1), at(2), at(3));
        let add = async |until| {
            world.store().add_asset(new(&world, Some("a"), until), bytes(1, "k1")).await.unwrap().asset
        };
        let id = add(two).await.id;
        assert_eq!(add(one).await.expires_at, two);
        assert_eq!(add(three).await.expires_at, three);
        let extend = async |until| world.store().extend_asset(&tenant("t"), id, until).await.unwrap();
        assert_eq!(extend(one).await.unwrap().expires_at, three);
        assert_eq!(found(&world, id).await.unwrap().expires_at, three);
        world.clock.advance(HOUR * 3);
        assert_eq!(found(&world, id).await, None, "its time is over");
        assert_eq!(extend(None).await, None);
        assert!(world.store().newest_asset(&tenant("t"), "a").await.unwrap().is_none());
        assert!(world.store().assets(&tenant("t"), None, 9).await.unwrap().is_empty());
        assert_eq!(add(None).await.id, id, "brought again before it was swept");
        assert_eq!(found(&world, id).await.unwrap().expires_at, None);
        assert_eq!(add(one).await.expires_at, None, "for ever is longest");
    }

    async fn what_has_expired_is_swept_a_few_at_a_time_and_its_bytes_stay_where_they_are_used(world: World) {
        let soon = Some(world.clock.now().plus(HOUR));
        for n in 1..=3 {
            let content = bytes(n, &format!("k{n}"));
            world.store().add_asset(new(&world, None, soon), content).await.unwrap();
        }
        let used = name(&world, "a.png", &bytes(1, "other"));
        let kept = world.store().keep_content(used, bytes(1, "other"), IfTaken::Keep).await.unwrap();
        assert_eq!(kept, Some(blob("k1")), "the bytes are there already");
        bring(&world, None, bytes(4, "k4")).await;
        assert_eq!(world.store().sweep_assets(2).await.unwrap(), 0);
        world.clock.advance(HOUR);
        assert_eq!(world.store().sweep_assets(2).await.unwrap(), 2);
        assert_eq!(world.store().sweep_assets(2).await.unwrap(), 1);
        let mut due = world.store().trash_due(Duration::ZERO, 9).await.unwrap();
        due.sort();
        assert_eq!(due, [blob("k2"), blob("k3")]);
    }

    async fn of_a_path_the_one_that_was_brought_last_counts(world: World) {
        let one = bring(&world, Some("a.png"), bytes(1, "k1")).await.asset.id;
        world.clock.advance(HOUR);
        let two = bring(&world, Some("a.png"), bytes(2, "k2")).await.asset.id;
        let newest = async || world.store().newest_asset(&tenant("t"), "a.png").await.unwrap().unwrap().id;
        assert_eq!(newest().await, two);
        world.clock.advance(HOUR);
        assert_eq!(bring(&world, Some("a.png"), bytes(1, "k3")).await.asset.id, one);
        assert_eq!(newest().await, one);
        assert!(world.store().newest_asset(&tenant("u"), "a.png").await.unwrap().is_none());
        assert!(world.store().newest_asset(&tenant("t"), "b.png").await.unwrap().is_none());
    }

    async fn a_tenants_assets_are_told_newest_first_page_by_page(world: World) {
        let mut ids = Vec::new();
        for n in 0..5 {
            ids.insert(0, bring(&world, None, bytes(n, &format!("k{n}"))).await.asset.id);
        }
        bring(&world, None, Content { tenant: tenant("u"), ..bytes(9, "k9") }).await;
        let page = async |before, limit| -> Vec<AssetId> {
            let page = world.store().assets(&tenant("t"), before, limit).await.unwrap();
            page.into_iter().map(|asset| asset.id).collect()
        };
        assert_eq!(page(None, 3).await, ids[..3]);
        assert_eq!(page(Some(ids[2]), 3).await, ids[3..]);
        assert!(page(Some(ids[4]), 3).await.is_empty());
    }

    async fn an_upload_grows_by_pieces_in_order_and_takes_them_with_it(world: World) {
        let (id, t) = (AssetId::from_uuid(world.ids.uuid_v7()), tenant("t"));
        let at = |hours: u32| world.clock.now().plus(HOUR * hours);
        let upload = AssetUpload {
            id,
            tenant: t.clone(),
            terms: serde_json::json!({"file_path": "图.png"}),
            received: 0,
            pieces: 0,
            expires_at: at(1),
        };
        world.store().begin_upload(upload.clone()).await.unwrap();
        assert_eq!(world.store().asset_upload(&t, id).await.unwrap(), Some(upload.clone()));
        assert_eq!(world.store().asset_upload(&tenant("u"), id).await.unwrap(), None);
        let add = async |offset, key: &str, until| {
            world.store().intend(&blob(key)).await.unwrap();
            let piece = Piece { offset, size: 5, blob: blob(key) };
            let stands = world.store().add_piece(&t, id, piece, until).await.unwrap();
            stands.map(|upload| (upload.received, upload.pieces))
        };
        assert_eq!(add(0, "p0", at(2)).await, Some((5, 1)));
        assert_eq!(add(0, "again", at(2)).await, Some((5, 1)), "it begins elsewhere");
        assert!(world.store().withdraw(&blob("again")).await.unwrap(), "nothing refers to it");
        assert_eq!(add(5, "p5", at(1)).await, Some((10, 2)));
        let pieces = world.store().upload_pieces(id).await.unwrap();
        let told: Vec<_> = pieces.iter().map(|piece| (piece.offset, piece.size, piece.blob.clone())).collect();
        assert_eq!(told, [(0, 5, blob("p0")), (5, 5, blob("p5"))]);
        world.clock.advance(HOUR);
        assert_eq!(world.store().sweep_uploads(9).await.unwrap(), 0, "the end was put off");
        world.clock.advance(HOUR);
        assert_eq!(world.store().asset_upload(&t, id).await.unwrap(), None);
        assert_eq!(add(10, "p10", at(1)).await, None);
        assert_eq!(world.store().sweep_uploads(9).await.unwrap(), 1);
        let mut due = world.store().trash_due(Duration::ZERO, 9).await.unwrap();
        due.sort();
        assert_eq!(due, [blob("p0"), blob("p5")]);
        let again = AssetUpload { expires_at: at(1), ..upload };
        world.store().begin_upload(again).await.unwrap();
        assert!(!world.store().end_upload(&tenant("u"), id).await.unwrap());
        assert!(world.store().end_upload(&t, id).await.unwrap());
        assert!(!world.store().end_upload(&t, id).await.unwrap());
    }

    async fn names_share_bytes_and_a_taken_one_changes_nothing(world: World) {
        let keep = async |as_: &str, content: Content, rule| {
            let reference = name(&world, as_, &content);
            world.store().intend(&content.blob).await.unwrap();
            world.store().keep_content(reference, content, rule).await.unwrap()
        };
        assert_eq!(keep("a", bytes(1, "k1"), IfTaken::Keep).await, Some(blob("k1")));
        assert_eq!(keep("b", bytes(1, "k2"), IfTaken::Keep).await, Some(blob("k1")));
        assert_eq!(keep("a", bytes(2, "k3"), IfTaken::Keep).await, None);
        assert!(world.store().withdraw(&blob("k3")).await.unwrap(), "nothing refers to what was refused");
        assert_eq!(world.store().mint_asset(new(&world, None, None), blake3(2)).await.unwrap(), None);
        assert_eq!(keep("a", bytes(2, "k4"), IfTaken::Replace).await, Some(blob("k4")));
        let named = world.store().file_ref("input:t:e", "b").await.unwrap().unwrap();
        assert_eq!(named.blob, blob("k1"), "the other name keeps the bytes");
    }
}
