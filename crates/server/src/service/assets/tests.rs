use std::time::Duration;

use bytes::Bytes;
use darkroom_core::{BlobKey, TenantId};
use darkroom_runner::link::{ComfyWork, InputSource};
use futures::StreamExt;
use serde_json::{Value, json};

use super::{
    create::{AssetTerms, Created},
    *,
};
use crate::service::{Service, intake::Fetch, jobs::JobMeta, submit::ComfySubmit, testing::Bench};

/// Nobody serves it, and nothing is known of its nodes.
const PARKED: &str =
    "[endpoints.parked]\ncommand = [\"/nobody\", \"{port}\"]\nscaling = { max_instances = 0 }\n";

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn terms(path: &str) -> AssetTerms {
    AssetTerms {
        file_path: Some(path.to_owned()),
        ..AssetTerms::default()
    }
}

async fn bring(
    service: &Service,
    whose: &str,
    bytes: &'static [u8],
    terms: AssetTerms,
) -> Result<Created, AssetError> {
    let stream = futures::stream::iter([Ok(Bytes::from_static(bytes))]).boxed();
    let incoming = service.receive(&tenant(whose), "x", stream, 100).await.unwrap();
    service.create_asset(&tenant(whose), incoming, terms).await
}

async fn accepted(bench: &Bench, graph: Value) -> Result<ComfyWork, Error> {
    let submit = ComfySubmit {
        tenant: tenant("t"),
        endpoint: "parked".parse().unwrap(),
        size_bytes: 0,
        graph,
        extra_data: serde_json::Map::new(),
        targets: None,
        priority: 0,
        external_id: None,
        randomise_seeds: false,
        fetch: Fetch::Now,
        meta: JobMeta::default(),
        memory: crate::memory::Held::default(),
    };
    let job = bench.service.submit_comfy(submit).await?.job;
    let input = bench.record(job).await.input;
    let body = bench.service.read_payload(&input).await?.unwrap();
    Ok(serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn bytes_are_stored_once_and_known_by_their_true_hashes() {
    let bench = Bench::new();
    let service = &bench.service;
    let first = bring(service, "t", b"bytes", terms("a.png")).await.unwrap();
    assert!(first.new_asset && first.new_bytes);
    assert_eq!(
        first.asset.blake3.unwrap().to_string(),
        blake3::hash(b"bytes").to_hex().as_str()
    );
    // `printf bytes | sha256sum`
    let sha256 = "277089d91c0bdf4f2e6862ba7e4a07605119431f5d13f726dd352b06f1b206a9";
    assert_eq!(first.asset.sha256.unwrap().to_string(), sha256);
    let again = bring(service, "t", b"bytes", terms("a.png")).await.unwrap();
    assert_eq!(
        (again.asset.id, again.new_asset, again.new_bytes),
        (first.asset.id, false, false)
    );
    let other = bring(service, "t", b"bytes", terms("b.png")).await.unwrap();
    assert!(other.new_asset && !other.new_bytes);
    assert_eq!(bench.blob_keys().await.len(), 1);
    bring(service, "u", b"bytes", terms("a.png")).await.unwrap();
    assert_eq!(bench.blob_keys().await.len(), 2, "each tenant has its own");
    assert_eq!(service.asset(&tenant("u"), first.asset.id).await.unwrap(), None);
    assert_eq!(
        service.asset(&tenant("t"), first.asset.id).await.unwrap(),
        Some(first.asset)
    );
}

#[tokio::test]
async fn what_is_not_what_it_should_be_leaves_nothing() {
    let bench = Bench::new();
    let service = &bench.service;
    let hash = |text: &str| Some(text.parse().unwrap());
    for expected in ["blake3", "sha256"] {
        let wrong = AssetTerms {
            expected: hash(&format!("{expected}:{}", "0".repeat(64))),
            ..terms("a.png")
        };
        let refused = bring(service, "t", b"bytes", wrong).await;
        assert!(
            matches!(refused, Err(AssetError::HashMismatch { .. })),
            "{refused:?}"
        );
    }
    for path in ["../a", "/a", "a//b", ""] {
        let refused = bring(service, "t", b"bytes", terms(path)).await;
        assert!(matches!(refused, Err(AssetError::BadPath)), "{path}");
    }
    assert!(bench.blob_keys().await.is_empty());
    let right = AssetTerms {
        expected: hash("sha256:277089D91C0BDF4F2E6862BA7E4A07605119431F5D13F726DD352B06F1B206A9"),
        ..terms("a.png")
    };
    bring(service, "t", b"bytes", right).await.unwrap();
}

#[tokio::test]
async fn who_has_no_key_finds_nothing_by_what_it_holds() {
    let bench = Bench::new();
    let service = &bench.service;
    let nobody = TenantId::ANONYMOUS;
    for whose in ["t", nobody] {
        bring(service, whose, b"bytes", terms("a.png")).await.unwrap();
    }
    let again = bring(service, nobody, b"bytes", terms("a.png")).await.unwrap();
    assert!(
        again.new_asset && again.new_bytes,
        "nothing is told of a stranger's"
    );
    let hash = ContentHash::Blake3(Digest::new(*blake3::hash(b"bytes").as_bytes()));
    assert!(service.has_bytes(&tenant("t"), hash).await.unwrap());
    assert!(!service.has_bytes(&tenant("u"), hash).await.unwrap());
    assert!(!service.has_bytes(&tenant(nobody), hash).await.unwrap());
    assert!(
        service
            .mint_asset(&tenant("t"), hash, terms("b.png"))
            .await
            .unwrap()
            .new_asset
    );
    for whose in ["u", nobody] {
        let refused = service.mint_asset(&tenant(whose), hash, terms("b.png")).await;
        assert!(matches!(refused, Err(AssetError::NoSuchBytes(_))), "{whose}");
        assert!(service.assets(&tenant(whose), None, 9).await.unwrap().is_empty());
        assert!(
            service
                .asset_named(&tenant(whose), "a.png")
                .await
                .unwrap()
                .is_none()
        );
    }
    assert_eq!(service.assets(&tenant("t"), None, 9).await.unwrap().len(), 2);
}

#[tokio::test]
async fn uploads_of_every_kind_share_their_bytes_with_assets() {
    let bench = Bench::new();
    let service = &bench.service;
    bring(service, "t", b"bytes", terms("a.png")).await.unwrap();
    let endpoint = bench.endpoint();
    let stream = || futures::stream::iter([Ok(Bytes::from_static(b"bytes"))]).boxed();
    service
        .upload(&tenant("t"), &endpoint, "put.png", stream(), 100)
        .await
        .unwrap();
    let signed = service
        .sign_upload(&tenant("t"), "signed.png", "image/png", None)
        .unwrap();
    let query = signed.upload_path.split_once('?').unwrap().1;
    service
        .receive_signed(&signed.object_key, query, "image/png", None, stream())
        .await
        .unwrap();
    let incoming = service
        .receive(&tenant("t"), "native.png", stream(), 100)
        .await
        .unwrap();
    let place = crate::service::uploads::Place {
        tenant: &tenant("t"),
        endpoint: &endpoint,
        folder: crate::service::folders::Folder::Input,
        path: "native.png",
    };
    service.keep_upload(place, incoming, false).await.unwrap();
    assert_eq!(bench.blob_keys().await.len(), 1);
    // The last of them keeps the bytes.
    let listed = service.assets(&tenant("t"), None, 9).await.unwrap();
    service.delete_asset(&tenant("t"), listed[0].id).await.unwrap();
    for name in ["put.png", "native.png"] {
        service
            .remove_upload(&tenant("t"), &endpoint, name)
            .await
            .unwrap();
    }
    assert!(
        service
            .store
            .trash_due(Duration::ZERO, 9)
            .await
            .unwrap()
            .is_empty()
    );
    bench.clock.advance(Duration::from_secs(48 * 3600));
    service.sweep_signed_uploads().await.unwrap();
    assert_eq!(service.store.trash_due(Duration::ZERO, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_graph_gets_names_that_no_instance_has_a_say_in_and_keeps_the_files() {
    let bench = Bench::configured(PARKED);
    let service = &bench.service;
    let one = bring(service, "t", b"one", terms("input/sub/a.png"))
        .await
        .unwrap()
        .asset;
    let two = bring(service, "t", b"two", terms("b.wav")).await.unwrap().asset;
    let graph = json!({
        "1": {"class_type": "LoadAudio", "inputs": {"audio": format!("asset:{}", one.id)}},
        "2": {"class_type": "Custom", "inputs": {
            "file": {"__type": "core/ASSET", "info": {"id": two.id.to_string(), "hash": "blake3:0", "file_path": "zzz"}},
            "list": [{"file": format!("asset:{}", two.id)}]}},
        "3": {"class_type": "LoadAudio", "inputs": {"audio": "sub/a.png"}},
        "4": {"class_type": "LoadAudio", "inputs": {"audio": "b.wav"}},
    });
    let work = accepted(&bench, graph).await.unwrap();
    let (first, second) = (
        format!("{}.png", &one.blake3.unwrap().to_string()[..32]),
        format!("{}.wav", &two.blake3.unwrap().to_string()[..32]),
    );
    for node in ["1", "3"] {
        assert_eq!(work.graph[node]["inputs"]["audio"], json!(first));
    }
    assert_eq!(work.graph["4"]["inputs"]["audio"], json!(second));
    assert_eq!(
        work.graph["2"]["inputs"],
        json!({"file": second, "list": [{"file": second}]})
    );
    let mut told: Vec<_> = work
        .files
        .iter()
        .map(|f| {
            (
                f.node_id.as_str(),
                f.input.as_str(),
                f.nested.as_deref(),
                f.file_name.as_str(),
                &f.source,
            )
        })
        .collect();
    told.sort_by_key(|file| (file.0, file.1));
    let (one_is, two_is) = (
        InputSource::Blob(one.blob().unwrap().clone()),
        InputSource::Blob(two.blob().unwrap().clone()),
    );
    assert_eq!(
        told,
        [
            ("1", "audio", None, first.as_str(), &one_is),
            ("2", "file", None, second.as_str(), &two_is),
            ("2", "list", Some("/0/file"), second.as_str(), &two_is),
            ("3", "audio", None, first.as_str(), &one_is),
            ("4", "audio", None, second.as_str(), &two_is),
        ]
    );
    let of_jobs = service.store.refs_to(two.blob().unwrap()).await.unwrap();
    let of_jobs = of_jobs.iter().filter(|one| one.owner.starts_with("job:"));
    assert_eq!(of_jobs.count(), 1, "however often it is named");
    // The job keeps what it needs, whatever becomes of the assets.
    for id in [one.id, two.id] {
        service.delete_asset(&tenant("t"), id).await.unwrap();
    }
    assert!(
        service
            .store
            .trash_due(Duration::ZERO, 9)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_missing_asset_is_named_and_nothing_is_accepted() {
    let bench = Bench::configured(PARKED);
    let foreign = bring(&bench.service, "u", b"one", terms("a.png"))
        .await
        .unwrap()
        .asset
        .id;
    let graph = json!({
        "1": {"class_type": "LoadAudio", "inputs": {"audio": format!("asset:{foreign}")}},
        "2": {"class_type": "X", "inputs": {"a": {"__type": "core/ASSET", "info": {"id": "nonsense"}}}},
    });
    let parked = "parked".parse().unwrap();
    let (graph, missing) = bench
        .service
        .missing_assets(&tenant("t"), &parked, graph, 0)
        .await
        .unwrap();
    assert_eq!(missing, [foreign.to_string(), "nonsense".to_owned()]);
    let refused = accepted(&bench, graph).await.unwrap_err();
    let Error::InputUnavailable(why) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(why.missing_assets, missing);
}

#[tokio::test]
async fn of_an_upload_and_an_asset_the_newer_one_has_the_name() {
    let bench = Bench::configured(PARKED);
    let service = &bench.service;
    let parked = "parked".parse().unwrap();
    let graph = || json!({"1": {"class_type": "LoadAudio", "inputs": {"audio": "a.wav"}}});
    let source = async || accepted(&bench, graph()).await.unwrap().files[0].source.clone();
    bring(service, "t", b"asset", terms("a.wav")).await.unwrap();
    let asset = source().await;
    bench.clock.advance(Duration::from_secs(1));
    let stream = futures::stream::iter([Ok(Bytes::from_static(b"upload"))]).boxed();
    service
        .upload(&tenant("t"), &parked, "a.wav", stream, 100)
        .await
        .unwrap();
    let upload = source().await;
    assert_ne!(asset, upload);
    bench.clock.advance(Duration::from_secs(1));
    bring(service, "t", b"asset", terms("input/a.wav")).await.unwrap();
    assert_eq!(source().await, asset);
}

#[tokio::test]
async fn assets_go_when_their_time_is_over_and_last_as_long_as_the_longest_wish() {
    let bench = Bench::new();
    let service = &bench.service;
    let wish = |seconds| AssetTerms {
        expires_in: Some(Duration::from_secs(seconds)),
        ..terms("a.png")
    };
    let id = bring(service, "t", b"x", wish(200)).await.unwrap().asset.id;
    bring(service, "t", b"x", wish(60)).await.unwrap();
    bench.clock.advance(Duration::from_secs(150));
    service.sweep_assets().await.unwrap();
    assert!(service.asset(&tenant("t"), id).await.unwrap().is_some());
    bench.clock.advance(Duration::from_secs(60));
    assert!(service.asset(&tenant("t"), id).await.unwrap().is_none());
    service.sweep_assets().await.unwrap();
    let due = service.store.trash_due(Duration::ZERO, 9).await.unwrap();
    let key: BlobKey = bench.blob_keys().await[0].parse().unwrap();
    assert_eq!(due, [key]);
}

async fn part(
    bench: &Bench,
    id: AssetId,
    offset: u64,
    pieces: Vec<std::io::Result<Bytes>>,
) -> Result<u64, resumed::ResumeError> {
    let bytes = futures::stream::iter(pieces).boxed();
    let upload = bench
        .service
        .resume_upload(&tenant("t"), id, offset, bytes)
        .await?;
    Ok(upload.received)
}

#[tokio::test]
async fn what_came_before_a_connection_broke_stays_and_the_rest_follows() {
    let bench = Bench::new();
    let service = &bench.service;
    let whole: Vec<u8> = (0..20_u32 << 20).map(|n| (n % 251) as u8).collect();
    let whole = Bytes::from(whole);
    let expected = ContentHash::Blake3(Digest::new(*blake3::hash(&whole).as_bytes()));
    let terms = AssetTerms {
        expected: Some(expected),
        expires_in: Some(Duration::from_secs(60)),
        ..terms("big.bin")
    };
    let id = service.begin_resumed(&tenant("t"), &terms).await.unwrap().id;
    let piece = |from: usize, to: usize| Ok(whole.slice(from..to));
    // The connection breaks in the second piece.
    let mut first: Vec<_> = (0..9).map(|n| piece(n << 20, (n + 1) << 20)).collect();
    first.push(Err(std::io::Error::other("broken")));
    let broken = part(&bench, id, 0, first).await;
    assert!(broken.is_err(), "{broken:?}");
    let received = service.resumed(&tenant("t"), id).await.unwrap().received;
    assert_eq!(received, 9 << 20, "all that came");
    let elsewhere = part(&bench, id, 0, vec![piece(0, 9)]).await;
    assert!(
        matches!(elsewhere, Err(resumed::ResumeError::Elsewhere { received, offset: 0 }) if received == 9 << 20),
        "{elsewhere:?}"
    );
    let early = service.complete_resumed(&tenant("t"), id).await;
    assert!(
        matches!(
            early,
            Err(resumed::ResumeError::Asset(AssetError::HashMismatch { .. }))
        ),
        "{early:?}"
    );
    assert_eq!(
        part(&bench, id, 9 << 20, vec![piece(9 << 20, 20 << 20)])
            .await
            .unwrap(),
        20 << 20
    );
    let created = service.complete_resumed(&tenant("t"), id).await.unwrap();
    assert_eq!(
        (created.asset.size, created.asset.hash()),
        (20 << 20, Some(expected))
    );
    assert!(created.asset.expires_at.is_some());
    let gone = part(&bench, id, 20 << 20, vec![]).await;
    assert!(matches!(gone, Err(resumed::ResumeError::NoUpload)), "{gone:?}");
    // Of the pieces nothing stays.
    let due = service.store.trash_due(Duration::ZERO, 99).await.unwrap();
    assert_eq!(bench.blob_keys().await.len(), due.len() + 1);
}

#[tokio::test]
async fn uploads_that_nobody_goes_on_with_go_after_a_day() {
    let bench = Bench::new();
    let service = &bench.service;
    let id = service.begin_resumed(&tenant("t"), &terms("a")).await.unwrap().id;
    let day = Duration::from_secs(24 * 3600);
    bench.clock.advance(day / 2);
    part(&bench, id, 0, vec![Ok(Bytes::from_static(b"x"))])
        .await
        .unwrap();
    bench.clock.advance(day / 2 + Duration::from_secs(60));
    service.sweep_resumed().await.unwrap();
    assert_eq!(service.resumed(&tenant("t"), id).await.unwrap().received, 1);
    let foreign = service.resumed(&tenant("u"), id).await;
    assert!(
        matches!(foreign, Err(resumed::ResumeError::NoUpload)),
        "{foreign:?}"
    );
    bench.clock.advance(day);
    service.sweep_resumed().await.unwrap();
    assert!(service.resumed(&tenant("t"), id).await.is_err());
    assert_eq!(service.store.trash_due(Duration::ZERO, 9).await.unwrap().len(), 1);
}
