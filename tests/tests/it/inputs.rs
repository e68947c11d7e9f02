//! Files that callers bring for their graphs: uploaded, listed, removed, each tenant's own; and names of files that jobs
//! made.

use darkroom_tests::{
    Api, Options, Server, config, graphs, http::Answer, pixels, server::endpoint_with_test_nodes,
};
use reqwest::Method;
use serde_json::{Value, json};

const INPUTS: &str = "/darkroom/v1/endpoints/default/inputs";

fn keys() -> String {
    config::alice_and_bob() + "[endpoints.default]\nanonymous = true\n"
}

async fn put(api: &Api, name: &str, bytes: Vec<u8>) -> Answer {
    api.send(api.request(Method::PUT, &format!("{INPUTS}/{name}")).body(bytes))
        .await
}

async fn delete(api: &Api, name: &str) -> Answer {
    api.send(api.request(Method::DELETE, &format!("{INPUTS}/{name}")))
        .await
}

async fn names(api: &Api, query: &str) -> (Vec<String>, Value) {
    let page = api.get(&format!("{INPUTS}?{query}")).await.expect(200).json();
    let names = page["inputs"].as_array().expect("a list").iter();
    let names = names.map(|i| i["name"].as_str().expect("a name").to_owned());
    (names.collect(), page["next"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_listed_and_removed_by_their_tenant_alone() {
    let server = Server::start(Options::default().with_config(&keys())).await;
    let (alice, bob) = (server.api_as(Some("sk_alice")), server.api_as(Some("sk_bob")));
    let picture = pixels::encode(&pixels::gradient(6, 5));
    for name in ["b.png", "sub/a.png", "图 1.png"] {
        put(&alice, name, picture.clone()).await.expect(201);
    }
    put(&bob, "b.png", picture.clone()).await.expect(201);

    let first = names(&alice, "limit=2").await;
    assert_eq!(
        first,
        (vec!["b.png".into(), "sub/a.png".into()], json!("sub/a.png"))
    );
    let rest = names(&alice, "limit=2&after=sub/a.png").await;
    assert_eq!(rest, (vec!["图 1.png".into()], Value::Null));
    let shown = alice.get(INPUTS).await.expect(200).json()["inputs"][0].clone();
    assert_eq!(
        (&shown["size"], &shown["content_type"]),
        (&json!(picture.len()), &json!("image/png"))
    );

    // A job that was accepted keeps its file.
    let waits = json!({"graph": graphs::invert("b.png")});
    let job = alice
        .post("/darkroom/v1/endpoints/default/jobs", &waits)
        .await
        .expect(201)
        .json();
    delete(&alice, "b.png").await.expect(204);
    delete(&alice, "b.png").await.expect(404);
    delete(&alice, "no-such.png").await.expect(404);
    let id = job["id"].as_str().expect("an id");
    assert_eq!(alice.finished(id).await["state"], "succeeded");
    alice
        .post("/darkroom/v1/endpoints/default/jobs", &waits)
        .await
        .expect(400);
    assert_eq!(names(&alice, "").await.0, ["sub/a.png", "图 1.png"]);
    assert_eq!(
        names(&bob, "").await.0,
        ["b.png"],
        "another tenant's is untouched"
    );

    // Whoever has no key shares a tenant with all others who have none.
    let nobody = server.api_as(None);
    put(&nobody, "open.png", picture).await.expect(201);
    nobody.get(INPUTS).await.expect(401);
    delete(&nobody, "open.png").await.expect(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_made_is_an_input_of_the_next_for_its_tenant_alone() {
    let server = Server::start(Options::default().with_config(&keys())).await;
    let (alice, bob) = (server.api_as(Some("sk_alice")), server.api_as(Some("sk_bob")));
    let colour = 0x10_20_4d;
    let first = alice.submit(&graphs::plain(colour, 7, 5)).await;
    alice.finished(&first).await;
    let entry = alice.get(&format!("/history/{first}")).await.expect(200).json();
    let told = entry[&first]["outputs"]["9"]["images"][0]["filename"]
        .as_str()
        .expect("history names the file")
        .to_owned();
    let mut by_class = graphs::invert(&format!("{told} [output]"));
    by_class["1"]["class_type"] = json!("LoadImageOutput");
    let plain = pixels::plain(colour, 7, 5);
    // By the name that was told, in both loaders; and by the one that a script counts for itself.
    for graph in [
        graphs::invert(&format!("{told} [output]")),
        by_class,
        graphs::invert("plain_00001_.png [output]"),
    ] {
        let second = alice.submit(&graph).await;
        let job = alice.finished(&second).await;
        pixels::assert_inverse(&alice.outputs(&job).await[0], &plain);
        let refused = bob
            .post("/darkroom/v1/endpoints/default/jobs", &json!({"graph": graph}))
            .await;
        assert_eq!(refused.expect(400).json()["error"]["code"], "invalid_graph");
    }
    // Without the folder it is the name of an upload, and there is none.
    let wrong_folder = json!({"graph": graphs::invert(&told)});
    alice
        .post("/darkroom/v1/endpoints/default/jobs", &wrong_folder)
        .await
        .expect(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_no_job_made_are_refused_with_what_to_do() {
    let config = endpoint_with_test_nodes("default", "")
        + "[endpoints.parked]\ncommand = [\"/nobody\", \"{port}\"]\nscaling = { max_instances = 0 }\n";
    let server = Server::start(Options::default().with_config(&config)).await;
    let api = server.api();
    let mut by_class = graphs::invert("plain_00001_.png");
    by_class["1"]["class_type"] = json!("LoadImageOutput");
    by_class["1"]["inputs"]["image"] = json!("plain_00001_.png [output]");
    for graph in [
        graphs::invert("plain_00001_.png [output]"),
        graphs::invert("sub/ComfyUI_temp_00001_.png [temp]"),
        graphs::invert("../../secret.png [output]"),
        by_class,
    ] {
        for endpoint in ["default", "parked"] {
            let answer = api
                .post(&format!("/e/{endpoint}/api/serverless/run"), &graph)
                .await;
            let body = answer.expect(500).json();
            assert_eq!(body["error_code"], "PROMPT_ERROR", "{body}");
            let message = body["error_message"].as_str().unwrap_or_default();
            assert!(
                message.contains("none of your jobs") && message.contains("a data URI"),
                "{message}"
            );
            assert!(body["raw"]["node_errors"]["1"].is_object(), "{body}");
            let path = format!("/darkroom/v1/endpoints/{endpoint}/jobs");
            let body = api.post(&path, &json!({"graph": graph})).await.expect(400).json();
            assert_eq!(body["error"]["code"], "invalid_graph", "{body}");
        }
    }
    let jobs = api.get("/darkroom/v1/jobs").await.expect(200).json();
    assert_eq!(jobs["jobs"], json!([]), "nothing was accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn object_storage_addresses_are_refused_with_what_to_do() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    for address in ["oss://bucket/a.png", "s3://bucket/a.png"] {
        let answer = api.post("/api/serverless/run", &graphs::invert(address)).await;
        let body = answer.expect(500).json();
        assert_eq!(body["error_code"], "PROMPT_ERROR", "{body}");
        let message = body["error_message"].as_str().unwrap_or_default();
        assert!(
            message.contains("no bucket that the operator opened") && message.contains("http(s)"),
            "{message}"
        );
    }
}
