//! The routes without prompts that run: files, lists, refusals.

mod common;

use common::{TestEngine, files};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

fn golden_input(name: &str) -> Vec<u8> {
    std::fs::read(format!(
        "{}/tests/golden/inputs/{name}",
        env!("CARGO_MANIFEST_DIR")
    ))
    .unwrap()
}

fn graph() -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 4, "height": 4, "batch_size": 1, "color": 0}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    })
}

async fn upload(
    engine: &TestEngine,
    path: &str,
    name: &str,
    bytes: &[u8],
    fields: &[(&str, &str)],
) -> (u16, Value) {
    let mut form = Form::new().part("image", Part::bytes(bytes.to_vec()).file_name(name.to_owned()));
    for (key, value) in fields {
        form = form.text(key.to_string(), value.to_string());
    }
    let response = engine
        .http
        .post(format!("{}{path}", engine.base))
        .multipart(form)
        .send()
        .await
        .unwrap();
    let status = response.status().as_u16();
    (
        status,
        serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default(),
    )
}

#[tokio::test]
async fn classes_are_described_field_by_field_as_recorded() {
    let engine = TestEngine::start().await;
    for name in ["example.png", "h1_rgb.jpg", "h1_rgba.png"] {
        std::fs::write(engine.file("input").join(name), "x").unwrap();
    }
    let recorded = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../comfy/tests/data/object_info.json"
    );
    let recorded: Value = serde_json::from_str(&std::fs::read_to_string(recorded).unwrap()).unwrap();
    let described = engine.json("/object_info").await;
    let described = described.as_object().unwrap();
    assert!(described.len() >= 32);
    for (name, class) in described.iter().filter(|(name, _)| !name.starts_with("Test")) {
        assert_eq!(class, &recorded[name], "{name}");
        assert_eq!(
            class["input"].to_string(),
            recorded[name]["input"].to_string(),
            "order of inputs of {name}"
        );
    }
    assert_eq!(
        engine.json("/api/object_info/LoadImage").await["LoadImage"],
        recorded["LoadImage"]
    );
    assert_eq!(engine.json("/object_info/NoSuch").await, json!({}));
}

#[tokio::test]
async fn small_answers_have_the_recorded_shape() {
    let engine = TestEngine::start().await;
    for (path, answer) in [
        ("/prompt", json!({"exec_info": {"queue_remaining": 0}})),
        ("/queue", json!({"queue_running": [], "queue_pending": []})),
        ("/history", json!({})),
        ("/history/nonexistent", json!({})),
        ("/history?max_items=2&offset=0", json!({})),
        ("/embeddings", json!([])),
        ("/models/checkpoints", json!([])),
        (
            "/features",
            json!({"supports_preview_metadata": true, "max_upload_size": 1 << 20}),
        ),
        ("/users", json!({"storage": "server", "migrated": false})),
        ("/settings", json!({})),
        ("/i18n", json!({})),
    ] {
        assert_eq!(engine.json(path).await, answer, "{path}");
        assert_eq!(engine.json(&format!("/api{path}")).await, answer, "/api{path}");
    }
    let stats = engine.json("/system_stats").await;
    assert_eq!(stats["system"]["comfyui_version"], "0.3.64");
    assert_eq!(stats["devices"][0]["type"], "cpu");
    assert!(!stats.to_string().contains(engine.dir.path().to_str().unwrap()));
    for (path, status) in [
        ("/nosuchroute", 404),
        ("/interrupt", 404),
        ("/free", 404),
        ("/api/interrupt", 404),
        ("/api/internal/logs", 404),
        ("/models/nosuch", 404),
        ("/userdata?dir=workflows", 404),
        ("/userdata?dir=..", 403),
        ("/ws", 400),
        ("/history?max_items=abc", 400),
    ] {
        assert_eq!(engine.get(path).await.status(), status, "{path}");
    }
}

#[tokio::test]
async fn prompts_that_are_wrong_are_refused_in_the_known_shape() {
    let engine = TestEngine::start().await;
    for (body, kind) in [
        (json!({}), "no_prompt"),
        (json!([1]), "no_prompt"),
        (json!({"prompt": null}), "invalid_prompt"),
        (json!({"prompt": [1]}), "invalid_prompt"),
        (json!({"prompt": {"1": 5}}), "invalid_prompt"),
        (
            json!({"prompt": {"1": {"class_type": "NoSuch", "inputs": {}}}}),
            "invalid_prompt",
        ),
        (json!({"prompt": {}}), "prompt_no_outputs"),
        (
            json!({"prompt": graph(), "partial_execution_targets": ["1"]}),
            "prompt_no_outputs",
        ),
        (
            json!({"prompt": graph(), "partial_execution_targets": 5}),
            "invalid_request",
        ),
        (json!({"prompt": graph(), "number": "x"}), "invalid_request"),
        (json!({"prompt": graph(), "number": "nan"}), "invalid_request"),
        (
            json!({"prompt": graph(), "extra_data": null, "client_id": "x"}),
            "invalid_request",
        ),
        (
            json!({"prompt": {"2": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}}}}),
            "prompt_outputs_failed_validation",
        ),
    ] {
        let (status, reply) = engine.post("/prompt", body.clone()).await;
        assert_eq!(
            (status, reply["error"]["type"].as_str()),
            (400, Some(kind)),
            "{body}: {reply}"
        );
        assert!(reply["node_errors"].is_object() && reply["error"]["extra_info"].is_object());
    }
    for path in ["/prompt", "/queue", "/history", "/free"] {
        let response = engine
            .http
            .post(format!("{}{path}", engine.base))
            .body("{oops")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 400, "{path}");
    }
    let missing = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": "../secret.png"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    });
    std::fs::write(engine.file("secret.png"), golden_input("rgb_64x48.png")).unwrap();
    let (status, reply) = engine.post("/prompt", json!({"prompt": missing})).await;
    assert_eq!(status, 400);
    let error = &reply["node_errors"]["1"]["errors"][0];
    assert_eq!(error["type"], "custom_validation_failed");
    assert_eq!(error["details"], "image - Invalid image file: ../secret.png");
    let (_, reply) = engine
        .post("/prompt", json!({"prompt": graph(), "prompt_id": 7}))
        .await;
    assert_eq!(reply["prompt_id"], "7");
    let (_, reply) = engine
        .post(
            "/prompt",
            json!({"prompt": graph(), "prompt_id": null, "number": "3.5"}),
        )
        .await;
    assert_eq!(
        (&reply["prompt_id"], &reply["number"]),
        (&json!("None"), &json!(3.5))
    );
}

#[tokio::test]
async fn keys_of_others_are_not_in_history() {
    let engine = TestEngine::start().await;
    let mut socket = engine.connect("a").await;
    let extra = json!({"api_key_comfy_org": "SECRET", "auth_token_comfy_org": "SECRET", "other": 1});
    let body = json!({"prompt": graph(), "client_id": "a", "extra_data": extra, "prompt_id": "p"});
    engine.post("/prompt", body).await;
    socket.until_end("p").await;
    assert_eq!(
        engine.json("/history/p").await["p"]["prompt"][3],
        json!({"other": 1, "client_id": "a"})
    );
    engine.post("/history", json!({"delete": ["p"]})).await;
    assert_eq!(engine.json("/history").await, json!({}));
}

#[tokio::test]
async fn other_sites_are_refused() {
    let engine = TestEngine::start().await;
    let ask = |origin: String| {
        engine
            .http
            .get(format!("{}/queue", engine.base))
            .header("Origin", origin)
            .send()
    };
    assert_eq!(ask("http://evil.example".into()).await.unwrap().status(), 403);
    assert_eq!(ask(engine.base.clone()).await.unwrap().status(), 200);
    let options = engine
        .http
        .request(reqwest::Method::OPTIONS, format!("{}/prompt", engine.base));
    assert_eq!(options.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn uploads_are_named_as_recorded_and_stay_inside() {
    let engine = TestEngine::start().await;
    let (a, b) = (golden_input("rgb_64x48.png"), golden_input("rgba_50x40.png"));
    let image =
        |name: &str, subfolder: &str, kind: &str| json!({"name": name, "subfolder": subfolder, "type": kind});
    for (name, bytes, fields, answer) in [
        ("up1.png", &a, vec![], image("up1.png", "", "input")),
        ("up1.png", &a, vec![], image("up1.png", "", "input")),
        ("up1.png", &b, vec![], image("up1 (1).png", "", "input")),
        (
            "up1.png",
            &b,
            vec![("overwrite", "true")],
            image("up1.png", "", "input"),
        ),
        (
            "up2.png",
            &a,
            vec![("subfolder", "a/b")],
            image("up2.png", "a/b", "input"),
        ),
        (
            "up3.png",
            &a,
            vec![("type", "temp")],
            image("up3.png", "", "temp"),
        ),
        ("snow ☃.png", &a, vec![], image("snow ☃.png", "", "input")),
        ("a/b/up5.png", &a, vec![], image("a/b/up5.png", "", "input")),
    ] {
        assert_eq!(
            upload(&engine, "/upload/image", name, bytes, &fields).await,
            (200, answer),
            "{name} {fields:?}"
        );
    }
    for (name, fields) in [
        ("x.png", vec![("subfolder", "../..")]),
        ("x.png", vec![("subfolder", "/tmp")]),
        ("x.png", vec![("type", "bogus")]),
        ("../x.png", vec![]),
        ("/etc/x.png", vec![]),
        ("..", vec![]),
        ("newdir/x.png", vec![]),
    ] {
        assert_eq!(
            upload(&engine, "/upload/image", name, &a, &fields).await.0,
            400,
            "{name} {fields:?}"
        );
    }
    let without_name = Form::new().text("image", "abc");
    let response = engine
        .http
        .post(format!("{}/upload/image", engine.base))
        .multipart(without_name)
        .send()
        .await;
    assert_eq!(response.unwrap().status(), 400);
    let too_large = vec![0; (1 << 20) + 1];
    assert_eq!(
        upload(&engine, "/upload/image", "big.bin", &too_large, &[])
            .await
            .0,
        413
    );
    assert_eq!(
        files(engine.dir.path()),
        [
            "input/a/b/up2.png",
            "input/a/b/up5.png",
            "input/snow ☃.png",
            "input/up1 (1).png",
            "input/up1.png",
            "temp/up3.png"
        ]
    );
}

#[tokio::test]
async fn a_mask_becomes_the_alpha_of_its_original() {
    let engine = TestEngine::start().await;
    let original = golden_input("rgba_50x40.png");
    upload(&engine, "/upload/image", "o.png", &original, &[]).await;
    let reference = json!({"filename": "o.png", "type": "input", "subfolder": ""}).to_string();
    let (status, _) = upload(
        &engine,
        "/upload/mask",
        "m.png",
        &original,
        &[("original_ref", &reference)],
    )
    .await;
    assert_eq!(status, 200);
    assert!(engine.file("input/m.png").is_file());
    let missing = json!({"filename": "nope.png", "type": "input"}).to_string();
    let (status, reply) = upload(
        &engine,
        "/upload/mask",
        "n.png",
        &original,
        &[("original_ref", &missing)],
    )
    .await;
    assert_eq!((status, &reply["name"]), (200, &json!("n.png")));
    assert!(!engine.file("input/n.png").exists());
    assert_eq!(
        upload(&engine, "/upload/mask", "n.png", &original, &[]).await.0,
        400
    );
}

#[tokio::test]
async fn files_are_served_whole_in_parts_and_converted() {
    let engine = TestEngine::start().await;
    let bytes = golden_input("rgba_50x40.png");
    std::fs::create_dir(engine.file("input/sub")).unwrap();
    for name in ["a.png", "sub/s.png"] {
        std::fs::write(engine.file("input").join(name), &bytes).unwrap();
    }
    std::fs::write(engine.file("output/o.txt"), "hello").unwrap();
    std::fs::write(engine.file("output/x.html"), "<script>").unwrap();
    std::fs::write(engine.file("secret.txt"), "secret").unwrap();
    for (query, status, content_type) in [
        ("filename=a.png&type=input", 200, "image/png"),
        ("filename=a.png%20[input]", 200, "image/png"),
        ("filename=a.png", 404, ""),
        ("filename=o.txt", 200, "text/plain"),
        ("filename=x.html", 200, "application/octet-stream"),
        ("filename=s.png&type=input&subfolder=sub", 200, "image/png"),
        ("filename=sub/s.png&type=input", 404, ""),
        (
            "filename=s.png&type=input&subfolder=../input/sub",
            200,
            "image/png",
        ),
        ("filename=secret.txt&type=input&subfolder=..", 403, ""),
        ("filename=secret.txt&subfolder=/", 403, ""),
        ("filename=../secret.txt", 400, ""),
        ("filename=/etc/passwd", 400, ""),
        ("filename=&type=input", 400, ""),
        ("filename=a.png&type=bogus", 400, ""),
        ("type=input", 404, ""),
        ("filename=sub&type=input", 404, ""),
        ("filename=a.png&type=input&preview=webp;90", 200, "image/webp"),
        ("filename=a.png&type=input&preview=jpeg;50", 200, "image/jpeg"),
        (
            "filename=a.png&type=input&preview=jpeg;80&channel=a",
            200,
            "image/webp",
        ),
        ("filename=a.png&type=input&channel=rgb", 200, "image/png"),
        ("filename=a.png&type=input&channel=a", 200, "image/png"),
        ("filename=o.txt&preview=webp", 400, "application/json"),
        ("filename=o.txt&channel=rgb", 400, "application/json"),
    ] {
        let response = engine.get(&format!("/view?{query}")).await;
        let headers = response.headers();
        let kind = headers
            .get("content-type")
            .map(|v| v.to_str().unwrap())
            .unwrap_or_default();
        assert_eq!(
            (response.status().as_u16(), kind),
            (status, content_type),
            "{query}"
        );
    }
    let whole = engine.get("/api/view?filename=a.png&type=input").await;
    let header =
        |response: &reqwest::Response, name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header(&whole, "content-disposition"), "filename=\"a.png\"");
    let (etag, modified) = (header(&whole, "etag"), header(&whole, "last-modified"));
    assert_eq!(whole.bytes().await.unwrap(), bytes);
    let ask = |name: &'static str, value: String| {
        let url = format!("{}/view?filename=a.png&type=input", engine.base);
        engine.http.get(url).header(name, value).send()
    };
    let part = ask("range", "bytes=0-9".into()).await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(
        header(&part, "content-range"),
        format!("bytes 0-9/{}", bytes.len())
    );
    assert_eq!(part.bytes().await.unwrap(), bytes[..10]);
    assert_eq!(ask("if-none-match", etag).await.unwrap().status(), 304);
    assert_eq!(ask("if-modified-since", modified).await.unwrap().status(), 304);
    assert_eq!(ask("range", "bytes=999999-".into()).await.unwrap().status(), 416);
    let rgb = engine
        .get("/view?filename=a.png&type=input&channel=rgb")
        .await
        .bytes()
        .await
        .unwrap();
    assert_eq!(rgb[25], 2, "colour type of the PNG header: RGB");
}

/// A PNG that says it is huge, and one that is a very long run of zeros.
fn bombs() -> [Vec<u8>; 2] {
    let mut declared = Vec::new();
    png::Encoder::new(&mut declared, 60_000, 60_000)
        .write_header()
        .unwrap();
    let mut long = Vec::new();
    let mut encoder = png::Encoder::new(&mut long, 16_384, 16_384);
    encoder.set_depth(png::BitDepth::One);
    encoder
        .write_header()
        .unwrap()
        .write_image_data(&vec![0; 16_384 / 8 * 16_384])
        .unwrap();
    [declared, long]
}

#[tokio::test]
async fn image_bombs_end_as_an_error_of_their_node() {
    let engine = TestEngine::start().await;
    for (index, bomb) in bombs().into_iter().enumerate() {
        std::fs::write(engine.file("input/bomb.png"), bomb).unwrap();
        let graph = json!({
            "1": {"class_type": "LoadImage", "inputs": {"image": "bomb.png"}},
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        });
        let (_, history) = engine.run(&graph).await;
        let error = &history["status"]["messages"][2][1];
        assert_eq!(
            error["exception_type"], "PIL.Image.DecompressionBombError",
            "bomb {index}: {error}"
        );
        assert_eq!(
            engine
                .get("/view?filename=bomb.png&type=input&preview=webp")
                .await
                .status(),
            400
        );
    }
    let graph = json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16384, "height": 16384, "batch_size": 4096, "color": 0}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    });
    let (_, history) = engine.run(&graph).await;
    assert_eq!(
        history["status"]["messages"][2][1]["exception_type"],
        "RuntimeError"
    );
}

#[tokio::test]
async fn user_data_is_kept_and_confined() {
    let engine = TestEngine::start().await;
    assert_eq!(engine.post("/settings", json!({"a": 1})).await.0, 200);
    assert_eq!(engine.post("/settings/b", json!("x")).await.0, 200);
    assert_eq!(engine.json("/settings").await, json!({"a": 1, "b": "x"}));
    let url = |path: &str| format!("{}/userdata/{path}", engine.base);
    let put = |path: &str| engine.http.post(url(path)).body("{}").send();
    assert_eq!(put("workflows%2Fw.json").await.unwrap().status(), 200);
    assert_eq!(
        put("workflows%2Fw.json?overwrite=false").await.unwrap().status(),
        409
    );
    assert_eq!(put("..%2F..%2Fevil").await.unwrap().status(), 403);
    assert_eq!(engine.json("/userdata?dir=workflows").await, json!(["w.json"]));
    assert_eq!(
        engine
            .get("/userdata/workflows%2Fw.json")
            .await
            .text()
            .await
            .unwrap(),
        "{}"
    );
    assert_eq!(
        engine
            .http
            .delete(url("workflows%2Fw.json"))
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    assert_eq!(engine.get("/userdata/workflows%2Fw.json").await.status(), 404);
}
