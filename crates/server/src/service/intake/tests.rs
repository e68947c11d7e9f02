use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{given::tests::png, *};
use crate::service::{jobs::JobMeta, submit::ComfySubmit, testing::Bench};

/// Nobody serves it, and nothing is known of its nodes.
const PARKED: &str = "[fetch]\nallow = [\"127.0.0.1\"]\ncache = \"4KB\"\n[endpoints.parked]\ncommand = [\"/nobody\", \"{port}\"]\nscaling = { max_instances = 0 }\n";

/// Serves a file with these lines in the head, and counts who asks.
async fn serves(head: &'static str, body: &'static [u8]) -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicU32::new(0));
    let counted = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = socket.read(&mut request).await;
            counted.fetch_add(1, Ordering::SeqCst);
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{head}connection: close\r\n\r\n",
                body.len()
            );
            let _ = socket.write_all(head.as_bytes()).await;
            let _ = socket.write_all(body).await;
        }
    });
    (format!("http://{address}/a.bin"), asked)
}

async fn submit(bench: &Bench, tenant: &str, class: &str, input: &str, text: &str) -> Result<BlobKey, Error> {
    let graph = json!({"1": {"class_type": class, "inputs": {input: text}}});
    let submit = ComfySubmit {
        tenant: tenant.parse().unwrap(),
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
    let body = bench
        .service
        .read_payload(&bench.record(job).await.input)
        .await?
        .unwrap();
    let work: Value = serde_json::from_slice(&body).unwrap();
    let blob = work["files"][0]["source"]["blob"].as_str().unwrap();
    Ok(blob.parse().unwrap())
}

#[tokio::test]
async fn a_file_is_fetched_again_when_its_server_says_so_and_for_each_tenant() {
    let bench = Bench::configured(PARKED);
    let (url, asked) = serves("cache-control: max-age=60\r\n", b"sound").await;
    let sound = async |tenant: &str| submit(&bench, tenant, "LoadAudio", "audio", &url).await.unwrap();
    let first = sound("t").await;
    let written = bench.blobs.puts();
    assert_eq!(sound("t").await, first);
    assert_eq!((asked.load(Ordering::SeqCst), bench.blobs.puts()), (1, written));
    let foreign = sound("u").await;
    assert_ne!(foreign, first);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    bench.clock.advance(Duration::from_secs(61));
    assert_eq!(sound("t").await, first, "the same bytes are kept once");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    assert_eq!(bench.service.store.refs_of("fetched").await.unwrap().len(), 2);
    bench.clock.advance(Duration::from_secs(1));
    bench.service.forget_fetched().await.unwrap();
    assert!(
        bench.service.store.refs_of("fetched").await.unwrap().is_empty(),
        "as at a start"
    );
}

#[tokio::test]
async fn what_may_not_be_kept_or_is_too_large_is_fetched_each_time() {
    let bench = Bench::configured(PARKED);
    for (head, body) in [
        ("", &b"sound"[..]),
        ("cache-control: no-store\r\n", b"sound"),
        ("cache-control: max-age=60\r\n", &[7; 2000]),
    ] {
        let (url, asked) = serves(head, body).await;
        for _ in 0..2 {
            submit(&bench, "t", "LoadAudio", "audio", &url).await.unwrap();
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2, "{head}");
    }
    assert!(bench.service.store.refs_of("fetched").await.unwrap().is_empty());
}

#[tokio::test]
async fn pictures_are_decoded_before_a_job_loads_them_and_each_once() {
    let bench = Bench::configured(PARKED);
    let service = &bench.service;
    let upload = async |name: &str, bytes: Vec<u8>| {
        let (tenant, endpoint) = ("t".parse().unwrap(), "parked".parse().unwrap());
        let bytes = futures::stream::iter([Ok(Bytes::from(bytes))]).boxed();
        service
            .upload(&tenant, &endpoint, name, bytes, 1 << 20)
            .await
            .unwrap();
    };
    let mut damaged = png();
    for byte in &mut damaged[44..48] {
        *byte ^= 0xff;
    }
    upload("good.png", png()).await;
    upload("damaged.png", damaged).await;
    upload("other.psd", b"8BPS, which only the instance knows".to_vec()).await;
    let load = async |name: &str| submit(&bench, "t", "LoadImage", "image", name).await;
    load("good.png").await.unwrap();
    load("other.psd").await.unwrap();
    let refused = load("damaged.png").await.unwrap_err().to_string();
    assert!(
        refused.starts_with("LoadImage failed: the image is damaged"),
        "{refused}"
    );
    // It is known to be good: a read would fail now.
    bench.blobs.fail_reads(1);
    let _ = load("good.png").await.unwrap();
    assert_eq!(bench.blobs.failures_left(), 1);
}

#[test]
fn files_in_buckets_count_as_addresses() {
    let loader = |given| Loader {
        node_id: "1".to_owned(),
        class: "LoadImage",
        input: "image",
        media: Media::Image,
        given,
    };
    let half = MAX_URLS / 2;
    let mut loaders: Vec<Loader> = (0..half)
        .flat_map(|n| {
            [
                Given::Url(format!("http://x/{n}")),
                Given::Name(format!("s3://b/{n}")),
                Given::Name(n.to_string()),
            ]
        })
        .map(loader)
        .collect();
    let count = |loaders: &[Loader]| count_urls(loaders, |name| name.starts_with("s3://"));
    loaders.push(loader(Given::Name("s3://b/0".to_owned())));
    assert!(count(&loaders).is_ok(), "one that is named twice is one");
    loaders.push(loader(Given::Name("s3://b/one-more".to_owned())));
    assert!(count(&loaders).is_err());
}
