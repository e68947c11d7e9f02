//! What the page keeps: settings and files of a user, through restarts.

use darkroom_tests::{Api, Options, Server, config, http::Answer};
use reqwest::Method;
use serde_json::json;

async fn write(api: &Api, path: &str, text: &str) -> Answer {
    api.send(api.request(Method::POST, path).body(text.to_owned()))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_and_files_are_each_tenants_own_and_outlive_the_server() {
    let keys = config::alice_and_bob() + "[endpoints.default]\nanonymous = true\n";
    let mut server = Server::start(Options::default().with_config(&keys)).await;
    let (alice, bob, nobody) = (
        server.api_as(Some("sk_alice")),
        server.api_as(Some("sk_bob")),
        server.api_as(None),
    );
    alice
        .post("/settings", &json!({"Comfy.Locale": "zh", "a": [1, null]}))
        .await
        .expect(200);
    alice
        .post("/api/settings/Comfy.Locale", &json!("en"))
        .await
        .expect(200);
    let workflow = "/api/userdata/workflows%2F流%20a.json";
    let written = write(
        &alice,
        &format!("{workflow}?overwrite=false&full_info=true"),
        "{\"v\":1}",
    )
    .await
    .expect(200)
    .json();
    assert_eq!(
        (&written["path"], &written["size"]),
        (&json!("workflows/流 a.json"), &json!(7))
    );
    write(&alice, &format!("{workflow}?overwrite=false"), "{}")
        .await
        .expect(409);
    assert_eq!(
        write(&alice, "/userdata/workflows%2Fsub%2Fb.json", "{}")
            .await
            .expect(200)
            .json(),
        "workflows/sub/b.json"
    );

    server.kill_everything().await;
    server.restart().await;
    assert_eq!(
        alice.get("/settings").await.expect(200).json(),
        json!({"Comfy.Locale": "en", "a": [1, null]})
    );
    assert_eq!(alice.get("/settings/unset").await.expect(200).json(), json!(null));
    let read = alice.get(workflow).await.expect(200);
    assert_eq!(
        (read.text().as_str(), read.header("content-disposition")),
        ("{\"v\":1}", Some("attachment"))
    );
    let list = async |query: &str| {
        alice
            .get(&format!("/userdata?dir=workflows{query}"))
            .await
            .expect(200)
            .json()
    };
    assert_eq!(list("").await, json!(["流 a.json"]));
    assert_eq!(list("&recurse=true").await, json!(["sub/b.json", "流 a.json"]));
    assert_eq!(
        list("&recurse=true&split=true").await[0],
        json!(["sub/b.json", "sub", "b.json"])
    );
    assert_eq!(list("&full_info=true").await[0]["path"], "流 a.json");
    let tree = alice.get("/v2/userdata?path=workflows").await.expect(200).json();
    assert_eq!(
        (&tree[0]["path"], &tree[0]["type"]),
        (&json!("workflows/sub"), &json!("directory"))
    );
    assert_eq!(tree.as_array().map(Vec::len), Some(3));

    let moved = write(
        &alice,
        &format!("{workflow}/move/workflows%2Fc.json?overwrite=false"),
        "",
    )
    .await;
    assert_eq!(moved.expect(200).json(), "workflows/c.json");
    alice.get(workflow).await.expect(404);
    let delete = async |api: &Api| {
        api.send(api.request(Method::DELETE, "/userdata/workflows%2Fc.json"))
            .await
    };
    delete(&bob).await.expect(404);
    delete(&alice).await.expect(204);
    delete(&alice).await.expect(404);

    assert_eq!(bob.get("/settings").await.expect(200).json(), json!({}));
    let empty = bob.get("/userdata?dir=workflows").await.expect(404);
    assert_eq!(empty.text(), "Directory not found");
    // Whoever has no key shares a tenant with strangers: nothing is kept for them.
    assert_eq!(nobody.get("/settings").await.expect(200).json(), json!({}));
    nobody.post("/settings", &json!({"a": 1})).await.expect(403);
    write(&nobody, workflow, "{}").await.expect(403);

    for (path, status) in [
        ("/userdata", 400),
        ("/userdata?dir=..", 403),
        ("/userdata/..%2F..%2Fkeys", 403),
        ("/userdata/%2Fetc%2Fpasswd", 403),
        ("/v2/userdata?path=../x", 400),
    ] {
        alice.get(path).await.expect(status);
    }
    assert_eq!(
        alice
            .get("/api/userdata/user.css")
            .await
            .expect(200)
            .header("content-type"),
        Some("text/css")
    );
}
