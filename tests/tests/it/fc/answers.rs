//! The success body, key by key (reference §4).

use base64::{Engine, prelude::BASE64_STANDARD};
use darkroom_tests::{Options, Server, fc, graphs, pixels};
use serde_json::{Value, json};

use super::{LIMIT, RUN, file_node, keys, post};

const BOTH: &str = "output_oss=true&output_base64=true";

#[tokio::test(flavor = "multi_thread")]
async fn the_envelope_has_exactly_these_keys() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    for query in ["", "output_oss=true", "output_base64=true", BOTH] {
        let answer = fc::run(&api, query, &graphs::plain(0x10_20_30, 8, 8))
            .await
            .expect(200);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let request_id = answer.header("x-fc-request-id").expect("a request id").to_owned();
        let body = answer.json();
        assert_eq!(keys(&body), ["data", "type"]);
        assert_eq!(body["type"], "serverless_api");
        let data = &body["data"];
        assert_eq!(keys(data), ["execution_time", "prompt_id", "results"]);
        let seconds = data["execution_time"].as_f64().expect("a float");
        assert!((0.0..LIMIT.as_secs_f64()).contains(&seconds), "{seconds}");
        assert_eq!(
            data["prompt_id"],
            request_id.as_str(),
            "without an id of the caller's the task is named by the prompt id"
        );
        let [entry] = &fc::results(&body)[..] else {
            panic!("one file, one entry: {body}")
        };
        assert_eq!(keys(entry), ["batch_id", "node_id", "output"]);
        assert_eq!(entry["node_id"], "9");
        assert_eq!(entry["batch_id"], 0);
        let output = &entry["output"];
        assert_eq!(keys(output), ["base64", "oss", "raw", "type"]);
        assert_eq!(output["type"], "images");
        assert_eq!(
            keys(&output["raw"]),
            ["filename", "filepath", "subfolder", "type"]
        );
        assert_eq!(output["raw"]["type"], "output");
        assert_eq!(output["raw"]["subfolder"], "");
        let filename = output["raw"]["filename"].as_str().expect("a name");
        assert_eq!(output["raw"]["filepath"], format!("output/{filename}"));
        assert_eq!(keys(&output["base64"]), ["content"]);
        assert_eq!(keys(&output["oss"]), ["bucket", "object", "region", "url"]);
        // Told whether or not an upload was asked for.
        assert!(
            output["oss"]["bucket"].is_string() && output["oss"]["region"].is_string(),
            "{output}"
        );

        let wants = |name: &str| query.contains(name);
        match wants("output_base64") {
            true => {
                let text = output["base64"]["content"].as_str().expect("content");
                let png = BASE64_STANDARD
                    .decode(text)
                    .expect("plain base64, without a data URI in front");
                pixels::assert_plain(&png, 0x10_20_30, 8, 8);
            }
            false => assert_eq!(output["base64"]["content"], Value::Null),
        }
        match wants("output_oss") {
            true => {
                let object = output["oss"]["object"].as_str().expect("an object");
                assert!(object.ends_with(".png"), "{object}");
                assert!(!object.starts_with('/') && !object.contains(".."), "{object}");
                let url = output["oss"]["url"].as_str().expect("a URL");
                assert!(
                    url.starts_with(api.base()),
                    "absolute, and where the caller asked: {url}"
                );
                let file = server.api_as(None).get(url).await.expect(200);
                pixels::assert_plain(&file.body, 0x10_20_30, 8, 8);
                server.api_as(None).get(&format!("{url}0")).await.expect(403);
            }
            false => {
                assert_eq!(output["oss"]["object"], Value::Null);
                assert_eq!(output["oss"]["url"], Value::Null);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_are_four_words_in_any_case_and_nothing_else() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    for (word, set) in [
        ("true", true),
        ("TRUE", true),
        ("1", true),
        ("Yes", true),
        ("on", true),
        ("false", false),
        ("0", false),
        ("no", false),
        ("", false),
        ("2", false),
        ("%00", false),
    ] {
        let answer = fc::run(&api, &format!("output_base64={word}"), &graphs::plain(1, 8, 8))
            .await
            .expect(200);
        let content = fc::results(&answer.json())[0]["output"]["base64"]["content"].clone();
        assert_eq!(content.is_string(), set, "output_base64={word}: {content}");
    }
    // A repeated or unknown parameter is no reason to fail a job that is otherwise fine, or is told as the caller's.
    fc::run(&api, "unknown=1", &graphs::plain(1, 8, 8))
        .await
        .expect(200);
    let twice = fc::run(&api, "output_oss=true&output_oss=false", &graphs::plain(1, 8, 8)).await;
    assert!(
        twice.status == 200 || twice.json()["type"] == "error",
        "{}",
        twice.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_of_every_kind_has_an_entry_in_the_order_of_the_history() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let mut graph = graphs::plain(0x33_44_55, 8, 8);
    graph["1"]["inputs"]["batch_size"] = json!(3);
    graph["9"]["inputs"]["filename_prefix"] = json!("sub/批/batch");
    for (id, kind, name) in [
        ("20", "gifs", "clip.mp4"),
        ("21", "audio", "sound.flac"),
        ("22", "3d", "mesh.glb"),
    ] {
        graph[id] = file_node(name, &format!("the bytes of {name}"), kind)["7"].clone();
    }
    graph["23"] = json!({"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}});
    // Texts are no files, and a file that the history does not mention is no result of this protocol.
    graph["24"] = json!({"class_type": "TestText", "inputs": {"text": "no file"}});
    graph["25"] = file_node("unmentioned.bin", "x", "hidden")["7"].clone();

    let body = fc::run(&api, BOTH, &graph).await.expect(200).json();
    let results = fc::results(&body);
    let of = |node: &str| -> Vec<&Value> { results.iter().filter(|r| r["node_id"] == node).collect() };
    assert_eq!(results.len(), 3 + 3 + 3, "{body}");
    for (node, kind) in [("9", "output"), ("23", "temp")] {
        let entries = of(node);
        assert_eq!(entries.len(), 3);
        for (index, entry) in entries.iter().enumerate() {
            assert_eq!(entry["batch_id"], index, "{entry}");
            assert_eq!(entry["output"]["type"], "images");
            assert_eq!(entry["output"]["raw"]["type"], kind);
            let url = entry["output"]["oss"]["url"].as_str().expect("a URL");
            pixels::assert_plain(&api.get(url).await.expect(200).body, 0x33_44_55, 8, 8);
        }
    }
    assert_eq!(of("9")[0]["output"]["raw"]["subfolder"], "sub/批");
    let name = of("9")[0]["output"]["raw"]["filename"].as_str().expect("a name");
    assert_eq!(
        of("9")[0]["output"]["raw"]["filepath"],
        format!("output/sub/批/{name}")
    );
    for (node, kind, name) in [
        ("20", "gifs", "clip.mp4"),
        ("21", "audio", "sound.flac"),
        ("22", "3d", "mesh.glb"),
    ] {
        let [entry] = of(node)[..] else {
            panic!("one entry of {node}: {body}")
        };
        assert_eq!(entry["output"]["type"], kind);
        assert_eq!(entry["output"]["raw"]["filename"], name);
        let content = entry["output"]["base64"]["content"].as_str().expect("content");
        assert_eq!(
            BASE64_STANDARD.decode(content).expect("base64"),
            format!("the bytes of {name}").as_bytes()
        );
        let extension = name.rsplit('.').next().unwrap_or_default();
        let object = entry["output"]["oss"]["object"].as_str().expect("an object");
        assert!(object.ends_with(&format!(".{extension}")), "{object}");
    }
    // What else the node said of its file is passed on.
    assert_eq!(of("20")[0]["output"]["raw"]["format"], "video/h264-mp4");
    assert_eq!(of("20")[0]["output"]["raw"]["frame_rate"], 8.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_rerun_gives_the_same_pictures_again() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let graph = graphs::plain(0xab_cd_ef, 8, 8);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let body = fc::run(&api, BOTH, &graph).await.expect(200).json();
        let url = fc::results(&body)[0]["output"]["oss"]["url"]
            .as_str()
            .expect("a URL")
            .to_owned();
        pixels::assert_plain(&api.get(&url).await.expect(200).body, 0xab_cd_ef, 8, 8);
        ids.push(body["data"]["prompt_id"].clone());
    }
    assert!(ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_be_wrapped_as_the_page_sends_it() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let graph = graphs::plain(0x01_02_03, 8, 8);
    let wrapped = json!({
        "client_id": "5f1c", "prompt": graph, "extra_data": {"extra_pnginfo": {"workflow": {}}}, "number": 1,
    });
    let body = fc::run(&api, "output_base64=1", &wrapped)
        .await
        .expect(200)
        .json();
    assert_eq!(fc::results(&body).len(), 1);
    // A node may be called "prompt": then nothing is wrapped.
    let odd = json!({
        "prompt": graph["1"],
        "9": {"class_type": "SaveImage", "inputs": {"images": ["prompt", 0], "filename_prefix": "x"}},
    });
    let body = fc::run(&api, "", &odd).await.expect(200).json();
    assert_eq!(fc::results(&body).len(), 1);
    // What says it is something else than JSON is read all the same: the samples' library may be any.
    let text = post(&api, RUN, &[("content-type", "text/plain")], graph.to_string()).await;
    assert!(
        text.status == 200 || text.json()["type"] == "error",
        "{}",
        text.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn images_sent_over_the_socket_are_results_like_files() {
    let server = Server::start(Options::default()).await;
    let graph = json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 2, "color": 0x0a_0b_0c}},
        "2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}},
    });
    let answer = fc::run(&server.api(), "output_base64=1", &graph)
        .await
        .expect(200);
    let results = fc::results(&answer.json());
    assert_eq!(results.len(), 2);
    for (index, result) in results.iter().enumerate() {
        assert_eq!(
            (&result["node_id"], &result["batch_id"]),
            (&json!("2"), &json!(index))
        );
        let raw = &result["output"]["raw"];
        assert_eq!(raw["filename"], format!("websocket_0000{}.png", index + 1));
        let content = result["output"]["base64"]["content"].as_str().expect("content");
        let png = BASE64_STANDARD.decode(content).expect("base64");
        pixels::assert_plain(&png, 0x0a_0b_0c, 8, 8);
    }
}
