//! Assets: brought once, found by hash, named by graphs, each tenant's own, and there after a restart.

use darkroom_tests::{Api, Options, Server, config, graphs, http::Answer, pixels};
use reqwest::Method;
use serde_json::{Value, json};

const ASSETS: &str = "/darkroom/v1/assets";

async fn bring(api: &Api, query: &str, bytes: Vec<u8>) -> Answer {
    let path = format!("{ASSETS}?{query}");
    api.send(api.request(Method::POST, &path).body(bytes)).await
}

async fn delete(api: &Api, id: &Value) -> Answer {
    let path = format!("{ASSETS}/{}", id.as_str().expect("an id"));
    api.send(api.request(Method::DELETE, &path)).await
}

fn text<'a>(view: &'a Value, key: &str) -> &'a str {
    view[key].as_str().unwrap_or_else(|| panic!("no {key} in {view}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asset_is_brought_once_read_in_parts_and_survives_a_restart() {
    let mut server = Server::start(Options::default().with_config(&config::alice_and_bob())).await;
    let (alice, bob) = (server.api_as(Some("sk_alice")), server.api_as(Some("sk_bob")));
    let picture = pixels::encode(&pixels::gradient(6, 5));
    let first = bring(&alice, "file_path=in%20put/%E5%9B%BE.png", picture.clone())
        .await
        .expect(201)
        .json();
    assert_eq!(first["size"], json!(picture.len()));
    assert_eq!(
        (text(&first, "content_type"), text(&first, "file_path")),
        ("image/png", "in put/图.png")
    );
    assert_eq!(first["new_bytes"], json!(true));
    let again = bring(&alice, "file_path=in%20put/%E5%9B%BE.png", picture.clone())
        .await
        .expect(200)
        .json();
    assert_eq!((&again["id"], &again["new_bytes"]), (&first["id"], &json!(false)));
    // From the hash alone, by who has the bytes here and by nobody else.
    let hash = text(&first, "hash").to_owned();
    let by_hash = format!("{ASSETS}/by-hash/{hash}");
    let head = async |api: &Api| {
        api.send(api.request(Method::HEAD, &by_hash))
            .await
            .status
            .as_u16()
    };
    assert_eq!((head(&alice).await, head(&bob).await), (200, 404));
    let mint = json!({"hash": hash, "file_path": "b.png", "expires_in": 3600});
    let minted = alice
        .post(&format!("{ASSETS}/from-hash"), &mint)
        .await
        .expect(201)
        .json();
    assert!(minted["expires_at"].is_string() && minted["id"] != first["id"]);
    bob.post(&format!("{ASSETS}/from-hash"), &mint).await.expect(404);
    let kept = format!("{ASSETS}/{}/keep", text(&minted, "id"));
    let kept = alice
        .post(&kept, &json!({"expires_in": null}))
        .await
        .expect(200)
        .json();
    assert_eq!(kept["expires_at"], Value::Null);
    let wrong = format!("hash=sha256:{}", "0".repeat(64));
    let refused = bring(&alice, &wrong, picture.clone()).await.expect(409).json();
    assert_eq!(refused["error"]["code"], "hash_mismatch");
    bring(&alice, "file_path=../a.png", picture.clone())
        .await
        .expect(400);
    bring(&alice, "hash=md5:0", picture.clone()).await.expect(400);

    server.restart().await;
    let (alice, bob) = (server.api_as(Some("sk_alice")), server.api_as(Some("sk_bob")));
    let path = format!("{ASSETS}/{}", text(&first, "id"));
    bob.get(&path).await.expect(404);
    assert_eq!(alice.get(&path).await.expect(200).json()["hash"], first["hash"]);
    let listed = alice.get(&format!("{ASSETS}?limit=1")).await.expect(200).json();
    assert_eq!(
        (&listed["assets"][0]["id"], &listed["next"]),
        (&minted["id"], &minted["id"])
    );
    let rest = format!("{ASSETS}?after={}", text(&listed, "next"));
    let rest = alice.get(&rest).await.expect(200).json();
    assert_eq!(
        (&rest["assets"][0]["id"], &rest["next"]),
        (&first["id"], &Value::Null)
    );
    let content = format!("{path}/content");
    assert_eq!(alice.get(&content).await.expect(200).body, picture);
    let part = alice.request(Method::GET, &content).header("range", "bytes=2-5");
    assert_eq!(alice.send(part).await.expect(206).body, picture[2..6]);
    bob.get(&content).await.expect(404);
    delete(&alice, &first["id"]).await.expect(204);
    delete(&alice, &first["id"]).await.expect(404);
    alice.get(&content).await.expect(404);
    // The other one has the same bytes.
    let other = format!("{ASSETS}/{}/content", text(&minted, "id"));
    assert_eq!(alice.get(&other).await.expect(200).body, picture);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_comes_in_pieces_over_a_restart_in_the_middle() {
    let mut server = Server::start(Options::default().with_config(&config::alice_and_bob())).await;
    let whole: Vec<u8> = (0..12_u32 << 20).map(|n| (n % 253) as u8).collect();
    let alice = server.api_as(Some("sk_alice"));
    let begun = alice
        .post(&format!("{ASSETS}/uploads"), &json!({"file_path": "big.bin"}))
        .await;
    let path = format!("{ASSETS}/uploads/{}", text(&begun.expect(201).json(), "id"));
    let put = async |api: &Api, from: usize, to: usize| {
        let part = format!("{path}?offset={from}");
        api.send(api.request(Method::PUT, &part).body(whole[from..to].to_vec()))
            .await
    };
    assert_eq!(
        put(&alice, 0, 9 << 20).await.expect(200).json()["received"],
        json!(9 << 20)
    );
    server.kill_tree().await;
    server.restart().await;
    let (alice, bob) = (server.api_as(Some("sk_alice")), server.api_as(Some("sk_bob")));
    let refused = put(&alice, 0, 10).await.expect(409).json();
    assert_eq!(
        refused["error"]["details"]["received"],
        json!(9 << 20),
        "{refused}"
    );
    put(&bob, 9 << 20, 12 << 20).await.expect(404);
    put(&alice, 9 << 20, 12 << 20).await.expect(200);
    let asset = alice
        .post(&format!("{path}/complete"), &Value::Null)
        .await
        .expect(201)
        .json();
    let content = format!("{ASSETS}/{}/content", text(&asset, "id"));
    assert!(alice.get(&content).await.expect(200).body == whole);
    alice.get(&path).await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_names_assets_by_id_by_object_and_by_path_and_what_a_job_made_is_one() {
    let server = Server::start(Options::default().with_config(&config::alice_and_bob())).await;
    let (alice, bob) = (server.api_as(Some("sk_alice")), server.api_as(Some("sk_bob")));
    let original = pixels::gradient(6, 5);
    let brought = bring(&alice, "file_path=photo.png", pixels::encode(&original))
        .await
        .expect(201)
        .json();
    let id = text(&brought, "id");
    let mut by_object = graphs::invert("");
    by_object["1"]["inputs"]["image"] = json!({"__type": "core/ASSET", "info": {"id": id, "hash": brought["hash"], "file_path": "photo.png"}});
    let graphs = [
        graphs::invert(&format!("asset:{id}")),
        by_object,
        graphs::invert("photo.png"),
    ];
    let mut last = String::new();
    for graph in &graphs {
        last = alice.submit(graph).await;
        let job = alice.finished(&last).await;
        pixels::assert_inverse(&alice.outputs(&job).await[0], &original);
        bob.post("/darkroom/v1/endpoints/default/jobs", &json!({"graph": graph}))
            .await
            .expect(400);
    }
    // All that it made, as one file.
    let zip = format!("/darkroom/v1/jobs/{last}/outputs.zip");
    bob.get(&zip).await.expect(404);
    let zip = alice.get(&zip).await.expect(200);
    assert_eq!(zip.header("content-type"), Some("application/zip"));
    assert_eq!(
        (&zip.body[..4], &zip.body[zip.body.len() - 22..][..4]),
        (&b"PK\x03\x04"[..], &b"PK\x05\x06"[..])
    );
    // What it made, by the job and the place.
    let made = format!("{last}.0");
    let path = format!("{ASSETS}/{made}");
    let view = alice.get(&path).await.expect(200).json();
    assert_eq!(
        (text(&view, "id"), text(&view, "job")),
        (made.as_str(), last.as_str())
    );
    bob.get(&path).await.expect(404);
    alice.get(&format!("{ASSETS}/{last}.7")).await.expect(404);
    delete(&alice, &view["id"]).await.expect(400);
    let back = alice.submit(&graphs::invert(&format!("asset:{made}"))).await;
    let job = alice.finished(&back).await;
    pixels::assert_inverse(&alice.outputs(&job).await[0], &pixels::inverse(&original));
}
