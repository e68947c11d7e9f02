//! Blobs in a bucket: outputs lie there and are read through the server, a bucket that is away costs nobody a job, and
//! `doctor` says what is wrong with one.

use std::{path::Path, process::Output, time::Duration};

use darkroom_tests::{Api, Options, Server, binary::darkroom, bucket::Bucket, eventually, graphs, pixels};
use serde_json::{Value, json};
use tokio::process::Command;

const LIMIT: Duration = Duration::from_secs(180);

fn files_below(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        match entry.path().is_dir() {
            true => found.extend(files_below(&entry.path())),
            false => found.push(entry.path().display().to_string()),
        }
    }
    found
}

async fn assert_plain(api: &Api, job: &Value, colour: u32) {
    assert_eq!(job["state"], "succeeded", "{job}");
    let outputs = api.outputs(job).await;
    assert_eq!(outputs.len(), 1, "{job}");
    pixels::assert_plain(&outputs[0], colour, 16, 16);
}

/// Its attempt waits for the bucket; the instance is free.
async fn collecting(api: &Api, id: &str) {
    eventually("the attempt is collecting", LIMIT, async || {
        let job = api.job(id).await;
        let states: Vec<&str> = job["attempts"]
            .as_array()?
            .iter()
            .filter_map(|attempt| attempt["state"].as_str())
            .collect();
        assert_ne!(job["state"], "succeeded", "the bucket is away: {job}");
        (states == ["collecting"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn outputs_lie_in_the_bucket_and_a_bucket_that_is_away_costs_nobody_a_job() {
    let bucket = Bucket::start().await;
    let mut server = Server::start(Options::test_nodes().with_config(&bucket.config())).await;
    let api = server.api();
    let first = api.submit(&graphs::plain(0x10_20_30, 16, 16)).await;
    assert_plain(&api, &api.finished(&first).await, 0x10_20_30).await;
    let stored = files_below(&bucket.objects());
    let output =
        |file: &&String| file.contains(&format!("some/prefix/outputs/{first}/")) && file.ends_with(".png");
    assert_eq!(stored.iter().filter(output).count(), 1, "{stored:?}");
    assert_eq!(
        files_below(&server.data_dir().join("blobs")),
        Vec::<String>::new()
    );

    bucket.kill().await;
    // One after the other, each while those before it wait: the one instance goes on.
    let mut waiting = Vec::new();
    for colour in [0x11_11_11, 0x22_22_22, 0x33_33_33] {
        let id = api.submit(&graphs::plain(colour, 16, 16)).await;
        collecting(&api, &id).await;
        waiting.push((id, colour));
    }
    bucket.come_back().await;
    for (id, colour) in waiting {
        let job = api.finished_within(&id, LIMIT).await;
        assert_plain(&api, &job, colour).await;
        assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "{job}");
    }

    // An upload goes there as well, and comes back as a loader's input.
    let picture = pixels::gradient(16, 16);
    let graph = graphs::invert(&pixels::data_uri(&pixels::encode(&picture)));
    let inverted = api.submit(&graph).await;
    let inverted = api.finished(&inverted).await;
    pixels::assert_inverse(&api.outputs(&inverted).await[0], &picture);

    let url = inverted["outputs"][0]["url"].as_str().unwrap();
    let part = api
        .send(
            api.request(reqwest::Method::GET, url)
                .header("Range", "bytes=1-3"),
        )
        .await
        .expect(206);
    assert_eq!(part.body, b"PNG"[..]);
    assert!(server.stop().await.success());
    assert!(!server.log().contains("s3cret-of-the-bucket") && !server.log().contains("X-Amz-Signature"));
}

async fn doctor(config: &str) -> Output {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("darkroom.toml"), config).unwrap();
    Command::new(darkroom())
        .args([
            "doctor",
            "--json",
            "--config",
            "darkroom.toml",
            "--data-dir",
            "state",
        ])
        .current_dir(home.path())
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .output()
        .await
        .unwrap()
}

fn blobs_of(output: &Output) -> Value {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    checks
        .iter()
        .find(|check| check["name"] == "blobs")
        .cloned()
        .unwrap_or_else(|| json!({"checks": checks}))
}

#[tokio::test]
async fn doctor_says_what_is_wrong_with_a_bucket() {
    let bucket = Bucket::start().await;
    let found = blobs_of(&doctor(&bucket.config()).await);
    assert_eq!(found["verdict"], "ok", "{found}");
    assert_eq!(
        files_below(&bucket.objects()),
        Vec::<String>::new(),
        "it leaves nothing"
    );
    for (config, words) in [
        (bucket.config_with("wrong"), "secret_key"),
        (
            bucket.config().replace("darkroom-test", "no-such-bucket"),
            "make the bucket",
        ),
    ] {
        let found = blobs_of(&doctor(&config).await);
        assert_eq!(found["verdict"], "fail", "{found}");
        let text = found["found"].as_str().unwrap();
        assert!(text.contains(words) && text.contains("put a file"), "{text}");
        assert!(!text.contains("X-Amz"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workflows_name_files_of_buckets_that_were_opened_and_of_no_others() {
    let bucket = Bucket::start().await;
    let config = bucket.config() + "[fetch]\nbuckets = [\"darkroom-test/in\"]\n";
    let server = Server::start(Options::default().with_config(&config)).await;
    let api = server.api();
    let picture = pixels::gradient(6, 5);
    let address = bucket.put("in/图 1.png", &pixels::encode(&picture));
    for address in [address.clone(), address.replace("s3://", "oss://")] {
        let id = api.submit(&graphs::invert(&address)).await;
        let job = api.finished(&id).await;
        pixels::assert_inverse(&api.outputs(&job).await[0], &picture);
    }
    let kept = files_below(&bucket.objects());
    let own = kept
        .iter()
        .find(|path| path.ends_with(".png"))
        .expect("an output");
    let own = own.split("/some/prefix/").nth(1).expect("its key");
    for address in [
        bucket.put("out/a.png", &pixels::encode(&picture)),
        bucket.put("in/text.png", b"no picture"),
        format!("s3://darkroom-test/some/prefix/{own}"),
        "s3://darkroom-test/in/missing.png".to_owned(),
        "s3://elsewhere/in/a.png".to_owned(),
    ] {
        let graph = json!({"graph": graphs::invert(&address)});
        api.post("/darkroom/v1/endpoints/default/jobs", &graph)
            .await
            .expect(400);
    }
}
