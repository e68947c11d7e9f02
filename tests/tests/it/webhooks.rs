//! Webhooks: a real receiver is told of a job's end, signed, logged, again when asked, and after the server died half-way.

use std::{process::Command, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use darkroom_tests::{Api, Options, Receiver, Server, binary, config, eventually, graphs, receiver::Told};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

const LIMIT: Duration = Duration::from_secs(90);
const LOCAL: &str = "[fetch]\nallow = [\"127.0.0.1\"]\n";

async fn submit(api: &Api, colour: u32, webhook: &str) -> String {
    let body = json!({"graph": graphs::plain(colour, 8, 8), "webhook": webhook});
    let answer = api.post("/darkroom/v1/endpoints/default/jobs", &body).await;
    answer.expect(201).json()["id"]
        .as_str()
        .expect("an id")
        .to_owned()
}

async fn log(api: &Api, job: &str) -> Value {
    let path = format!("/darkroom/v1/jobs/{job}/webhooks");
    api.get(&path).await.expect(200).json()
}

/// Waits until the log has an acknowledged delivery.
async fn acknowledged(api: &Api, job: &str) -> Value {
    eventually("the webhook is acknowledged", LIMIT, async || {
        let path = format!("/darkroom/v1/jobs/{job}/webhooks");
        // The server may be dying just now.
        let request = api.request(reqwest::Method::GET, &path);
        let answer = api.try_send(request).await.ok().filter(|a| a.status == 200)?;
        let log = answer.json();
        let done = log["deliveries"].as_array()?.last()?["acknowledged"] == true;
        done.then_some(log)
    })
    .await
}

fn cli(server: &Server, args: &[&str]) -> String {
    let output = Command::new(binary::darkroom())
        .args(args)
        .env("DARKROOM_SERVER", server.url())
        .env("DARKROOM_KEY", "sk_alice")
        .output()
        .expect("darkroom runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Checks a signature as the Standard Webhooks convention says.
fn verify(secret: &str, told: &Told) {
    let key = STANDARD
        .decode(secret.strip_prefix("whsec_").expect("its prefix"))
        .expect("base64");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length");
    let head = format!(
        "{}.{}.",
        told.header("webhook-id"),
        told.header("webhook-timestamp")
    );
    mac.update(head.as_bytes());
    mac.update(&told.body);
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(told.header("webhook-signature"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_job_is_told_signed_logged_and_told_again() {
    let mut options = Options::default()
        .with_config(LOCAL)
        .with_config(&config::alice_and_bob());
    options.key = Some("sk_alice".into());
    let server = Server::start(options).await;
    let (api, receiver) = (server.api(), Receiver::answering(&[500]).await);
    let job = submit(&api, 0x11_2233, &receiver.url()).await;
    receiver.told(1).await;
    eventually("the failed try is logged", LIMIT, async || {
        (!log(&api, &job).await["deliveries"].as_array()?.is_empty()).then_some(())
    })
    .await;
    let failed = log(&api, &job).await;
    assert_eq!(failed["deliveries"][0]["problem"], "answered 500");
    assert!(failed["next_at"].is_string(), "{failed}");

    cli(&server, &["jobs", "redeliver", &job]);
    let after = acknowledged(&api, &job).await;
    // On a slow machine the server's own second try may have come before ours.
    assert!(after["deliveries"].as_array().map(Vec::len) >= Some(2), "{after}");
    assert_eq!(after["next_at"], Value::Null);
    let printed = cli(&server, &["jobs", "webhooks", &job]);
    assert!(
        printed.contains("answered 500") && printed.contains("acknowledged"),
        "{printed}"
    );

    let told = receiver.told(2).await;
    assert_eq!(told[0].header("webhook-id"), told[1].header("webhook-id"));
    let secret = cli(&server, &["keys", "webhook-secret"]);
    told.iter().for_each(|one| verify(&secret, one));
    let mut body = told[1].json();
    let mut shown = api.job(&job).await;
    let url = body["outputs"][0]["url"].as_str().expect("an address").to_owned();
    assert!(url.starts_with(&server.url()), "{url}");
    assert_eq!(
        server
            .api_as(None)
            .get(&url)
            .await
            .expect(200)
            .header("content-type"),
        Some("image/png")
    );
    for view in [&mut body, &mut shown] {
        view["outputs"][0]["url"] = Value::Null;
    }
    assert_eq!(body, shown, "the same JSON as the status");

    let bob = server.api_as(Some("sk_bob"));
    for path in [
        format!("/darkroom/v1/jobs/{job}/webhooks"),
        format!("/darkroom/v1/jobs/{job}/webhooks/redeliver"),
    ] {
        let answer = if path.ends_with("redeliver") {
            bob.post(&path, &json!({})).await
        } else {
            bob.get(&path).await
        };
        answer.expect(404);
    }
    let of_bob = bob.get("/darkroom/v1/webhooks/secret").await.expect(200).json();
    assert_ne!(of_bob["secret"], secret.as_str());
    bob.get("/darkroom/v1/webhooks/secret?tenant=alice")
        .await
        .expect(403);
    let logged = server.log();
    assert!(
        logged.contains("a webhook was tried") && !logged.contains("token=hidden"),
        "{logged}"
    );
    assert!(!logged.contains(&secret));
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_are_not_to_be_reached_are_refused_with_the_submit() {
    let server = Server::start(Options::default()).await;
    for url in [
        "http://127.0.0.1:1/",
        "http://169.254.169.254/",
        "http://[::1]/",
        "ftp://example.com/",
        "x",
    ] {
        let body = json!({"graph": graphs::plain(1, 8, 8), "webhook": url});
        let answer = server
            .api()
            .post("/darkroom/v1/endpoints/default/jobs", &body)
            .await
            .expect(400);
        let message = answer.json()["error"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(message.starts_with("webhook: "), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_between_the_record_and_the_acknowledgement_tells_again_under_the_same_id() {
    let server = Server::start(Options::test_nodes().with_config(LOCAL)).await;
    let (api, receiver) = (server.api(), Receiver::answering(&[]).await);
    // One dies when the receiver has answered and nobody wrote that down, the next when the end of a job was recorded.
    server.die_at(&["webhook_sent:1".into(), "recorded:1".into()]);
    server.kill_child().await;
    eventually("the server is back", LIMIT, async || {
        api.ready().await.then_some(())
    })
    .await;
    let first = submit(&api, 1, &receiver.url()).await;
    assert_eq!(
        acknowledged(&api, &first).await["deliveries"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    let told = receiver.told(2).await;
    assert_eq!(told.len(), 2);
    assert_eq!(told[0].header("webhook-id"), told[1].header("webhook-id"));
    assert_eq!(told[0].json()["state"], "succeeded");

    let second = submit(&api, 2, &receiver.url()).await;
    acknowledged(&api, &second).await;
    let later = receiver.told(3).await.split_off(2);
    for one in &later {
        assert_eq!(one.header("webhook-id"), later[0].header("webhook-id"));
        assert_eq!(one.json()["id"], second.as_str());
    }
}
