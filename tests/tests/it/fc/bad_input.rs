//! Bad input, thing by thing: each gets an answer in this protocol's shape, nothing is half accepted, and the server
//! lives.

use darkroom_tests::{Api, Options, Server, fc, graphs, pixels, within};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{LIMIT, RUN, jobs, post, refused};

/// The number of jobs is what it was, and a good call still works.
async fn unharmed(api: &Api, before: usize) {
    assert_eq!(jobs(api).await, before, "nothing was half accepted");
    fc::run(api, "", &graphs::plain(1, 8, 8)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_workflow() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let deep = "[".repeat(100_000);
    let deep_object = format!("{}1{}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
    for body in [
        "",
        " ",
        "{",
        "}",
        "{]",
        "nonsense",
        "{\"1\":}",
        "{'1': {}}",
        "{\"1\": {},}",
        "{\"1\": NaN}",
        "{} {}",
        "\u{feff}{}",
        "[]",
        "[{}]",
        "3",
        "\"x\"",
        "null",
        "true",
        "1e999",
        "\u{0}",
        &deep,
        &deep_object,
    ] {
        let answer = post(&api, RUN, &[], body.to_owned()).await;
        let what: String = body.chars().take(40).collect();
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        refused(&answer, 400, "INVALID_PARAMS");
        assert!(
            answer.body.len() < 2048,
            "{what}: the answer does not repeat the request"
        );
    }
    for bytes in [&b"\xff\xfe{\0}\0"[..], b"{\"\xc3\x28\":{}}", b"\x1f\x8b\x08\x00"] {
        refused(&post(&api, RUN, &[], bytes.to_vec()).await, 400, "INVALID_PARAMS");
    }
    let wrapped = json!({"prompt": graphs::plain(1, 8, 8), "extra_data": [1]});
    refused(&fc::run(&api, "", &wrapped).await, 400, "INVALID_PARAMS");
    unharmed(&api, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workflows_that_cannot_run() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let image =
        json!({"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}});
    let save =
        |of: Value| json!({"class_type": "SaveImage", "inputs": {"images": of, "filename_prefix": "x"}});
    let with = |input: &str, value: Value| {
        let mut node = image.clone();
        node["inputs"][input] = value;
        json!({"1": node, "9": save(json!(["1", 0]))})
    };
    let invert = |of: &str| json!({"class_type": "ImageInvert", "inputs": {"image": [of, 0]}});
    // What is wrong, the workflow, and what the answer must name.
    let cases = [
        ("no node", json!({}), ""),
        ("node is a number", json!({"1": 7}), "1"),
        ("node is null", json!({"1": null}), "1"),
        ("no class", json!({"41": {"inputs": {}}}), "41"),
        (
            "class is a number",
            json!({"41": {"class_type": 7, "inputs": {}}}),
            "41",
        ),
        ("no inputs", json!({"41": {"class_type": "EmptyImage"}}), "41"),
        (
            "inputs is a list",
            json!({"41": {"class_type": "EmptyImage", "inputs": []}}),
            "41",
        ),
        (
            "unknown class",
            json!({"41": {"class_type": "Nonsense", "inputs": {}}}),
            "Nonsense",
        ),
        (
            "class with a path",
            json!({"41": {"class_type": "../../x", "inputs": {}}}),
            "41",
        ),
        ("too small", with("width", json!(0)), "width"),
        ("too large", with("width", json!(1_000_000_000)), "width"),
        ("beyond every integer", with("width", json!(1e300)), "width"),
        (
            "a batch as large as memory",
            with("batch_size", json!(1_000_000)),
            "batch_size",
        ),
        ("text for a number", with("width", json!("wide")), "width"),
        ("a list for a number", with("width", json!([])), "width"),
        ("an object for a number", with("width", json!({"a": 1})), "width"),
        ("null for a number", with("width", json!(null)), "width"),
        ("link to nowhere", json!({"9": save(json!(["77", 0]))}), "77"),
        (
            "link with a text slot",
            json!({"1": image, "9": save(json!(["1", "0"]))}),
            "images",
        ),
        (
            "link with a negative slot",
            json!({"1": image, "9": save(json!(["1", -1]))}),
            "images",
        ),
        (
            "link to slot 5",
            json!({"1": image, "9": save(json!(["1", 5]))}),
            "images",
        ),
        (
            "link to slot 2^63",
            json!({"1": image, "9": save(json!(["1", 9_223_372_036_854_775_808_u64]))}),
            "images",
        ),
        (
            "wrong type at a link",
            json!({
                "1": image, "2": {"class_type": "ImageToMask", "inputs": {"image": ["1", 0], "channel": "red"}},
                "9": save(json!(["2", 0])),
            }),
            "images",
        ),
        ("no output", json!({"1": image}), "output"),
        (
            "itself",
            json!({"1": invert("1"), "9": save(json!(["1", 0]))}),
            "",
        ),
        (
            "a cycle of two",
            json!({"1": invert("2"), "2": invert("1"), "9": save(json!(["1", 0]))}),
            "",
        ),
        (
            "an editor's file of nothing",
            json!({"nodes": [], "links": [], "version": 0.4}),
            "output",
        ),
        (
            "an editor's file of nothing that could be",
            json!({"nodes": [{"type": "EmptyImage"}], "links": []}),
            "'nodes'",
        ),
        (
            "an editor's file with a group node",
            json!({"nodes": [{"id": 41, "type": "workflow>Mine"}], "links": []}),
            "41",
        ),
        (
            "not in the list",
            json!({
                "1": image, "2": {"class_type": "ImageScaleBy", "inputs":
                    {"image": ["1", 0], "upscale_method": "magic", "scale_by": 1.0}}, "9": save(json!(["2", 0])),
            }),
            "upscale_method",
        ),
    ];
    for (what, graph, names) in &cases {
        for query in ["", "stream=true"] {
            let answer = fc::run(&api, query, graph).await;
            assert_eq!(
                answer.status,
                500,
                "{what} ({query}): {} {}",
                answer.status,
                answer.text()
            );
            let body = refused(&answer, 500, "PROMPT_ERROR");
            assert!(
                body.to_string().contains(names),
                "{what}: '{names}' is not named in {body}"
            );
            assert!(
                body["raw"]["error"].is_object() && body["raw"]["node_errors"].is_object(),
                "{what}: {body}"
            );
        }
        let answer = fc::run_async(&api, "bad", "", graph).await;
        assert_eq!(
            answer.status, 500,
            "{what}: an asynchronous call is refused at once, too"
        );
        assert!(fc::status(&api, "bad").await.is_empty(), "{what}");
    }
    // ComfyUI takes a plain value where a picture is linked, and the node trips over it; so does the engine.
    let answer = fc::run(&api, "", &json!({"9": save(json!("picture"))})).await;
    refused(&answer, 500, "EXECUTION_FAILED");
    unharmed(&api, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_cycle_and_a_wide_graph_are_judged_quickly() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let mut cycle = serde_json::Map::new();
    for n in 0..15_000_u32 {
        let next = ((n + 1) % 15_000).to_string();
        cycle.insert(
            n.to_string(),
            json!({"class_type": "ImageInvert", "inputs": {"image": [next, 0]}}),
        );
    }
    let save = json!({"class_type": "SaveImage", "inputs": {"images": ["0", 0], "filename_prefix": "x"}});
    cycle.insert("save".into(), save);
    let answer = fc::run(&api, "", &Value::Object(cycle)).await;
    refused(&answer, 500, "PROMPT_ERROR");
    assert!(answer.body.len() < 64 << 10, "{} bytes", answer.body.len());
    // Each node uses the one before twice: paths grow as 2^n, the work must not.
    let mut wide = graphs::plain(1, 8, 8);
    for n in 0..200 {
        let before = if n == 0 {
            "1".to_owned()
        } else {
            format!("b{}", n - 1)
        };
        wide[format!("b{n}")] = json!({"class_type": "ImageCompositeMasked", "inputs":
            {"destination": [before, 0], "source": [before, 0], "x": "wide", "y": 0, "resize_source": false}});
    }
    wide["9"]["inputs"]["images"] = json!(["b199", 0]);
    refused(&fc::run(&api, "", &wide).await, 500, "PROMPT_ERROR");
    unharmed(&api, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_try_to_leave() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    for prefix in [
        "../../../escaped",
        "/tmp/escaped",
        "a/../../../escaped",
        "..\\..\\escaped",
        "%year%/../../../escaped",
    ] {
        let mut graph = graphs::plain(1, 8, 8);
        graph["9"]["inputs"]["filename_prefix"] = json!(prefix);
        let answer = fc::run(&api, "", &graph).await;
        if answer.status == 200 {
            let raw = fc::results(&answer.json())[0]["output"]["raw"].clone();
            let path = raw["filepath"].as_str().expect("a path");
            assert!(path.split('/').all(|part| part != ".."), "{prefix}: {raw}");
        } else {
            assert_eq!(answer.json()["type"], "error", "{prefix}: {}", answer.text());
        }
    }
    let outside: Vec<_> = walk(server.home())
        .into_iter()
        .filter(|path| path.contains("escaped"))
        .collect();
    assert!(
        outside
            .iter()
            .all(|path| path.contains("/output/") || path.contains("/blobs/")),
        "{outside:?}"
    );
    assert!(!std::path::Path::new("/tmp/escaped_00001_.png").exists());
}

fn walk(dir: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn base64_that_is_no_picture() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let text = "bm90IGEgcGljdHVyZSBhdCBhbGwsIGp1c3QgYSBmZXcgd29yZHMgb2YgdGV4dCwgYW5kIG1vcmU=";
    let cut = pixels::data_uri(&pixels::encode(&pixels::gradient(64, 64))[..20]);
    for (image, code) in [
        (text.to_owned(), "UNCLASSIFY"),
        (format!("data:image/png;base64,{text}"), "UNCLASSIFY"),
        ("data:image/png;base64,".to_owned(), "UNCLASSIFY"),
        (cut, "UNCLASSIFY"),
        ("data:image/png;base64,%%%".to_owned(), "PROMPT_ERROR"),
        ("data:image/png,plain".to_owned(), "PROMPT_ERROR"),
        ("%".repeat(100), "PROMPT_ERROR"),
    ] {
        let answer = fc::run(&api, "", &graphs::invert(&image)).await;
        let what: String = image.chars().take(60).collect();
        assert_eq!(answer.status, 500, "{what}: {}", answer.text());
        let body = answer.json();
        assert_eq!(body["error_code"], code, "{what}: {body}");
        refused(&answer, 500, code);
    }
    unharmed(&api, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_ids_in_any_letters_come_back_as_they_were() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let graph = json!({
        "图像 ✨": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "__proto__": {"class_type": "SaveImage", "inputs": {"images": ["图像 ✨", 0], "filename_prefix": "文件/名 字'\"&<b>"}},
    });
    let body = fc::run(&api, "output_oss=1", &graph).await.expect(200).json();
    let [entry] = &fc::results(&body)[..] else {
        panic!("{body}")
    };
    assert_eq!(entry["node_id"], "__proto__");
    assert_eq!(entry["output"]["raw"]["subfolder"], "文件");
    let url = entry["output"]["oss"]["url"].as_str().expect("a URL");
    pixels::assert_plain(&api.get(url).await.expect(200).body, 0, 8, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_and_rebound_names() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let graph = graphs::plain(1, 8, 8).to_string();
    let port = server.port();
    let rebound = format!("evil.example:{port}");
    let like_ours = format!("127.0.0.1.evil.example:{port}");
    for (name, value) in [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://localhost.evil.example"),
        ("Host", rebound.as_str()),
        ("Host", like_ours.as_str()),
        ("Host", "10.0.0.1"),
        ("Host", "0.0.0.0"),
    ] {
        for path in [
            RUN.to_owned(),
            format!("{RUN}?stream=true"),
            format!("/e/default{RUN}"),
        ] {
            let answer = post(
                &api,
                &path,
                &[(name, value), ("Content-Type", "text/plain")],
                graph.clone(),
            )
            .await;
            refused(&answer, 403, "AccessDenied");
        }
        for path in ["status?task_id=x", "task/x", "tasks"] {
            let request = api
                .request(Method::GET, &format!("/api/serverless/{path}"))
                .header(name, value);
            refused(&api.send(request).await, 403, "AccessDenied");
        }
    }
    assert_eq!(jobs(&api).await, 0);
    // A page of this machine may.
    post(
        &api,
        RUN,
        &[("Origin", &format!("http://localhost:{port}"))],
        graph,
    )
    .await
    .expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_and_headers_beyond_all_measure() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let graph = graphs::plain(1, 8, 8).to_string();
    let long = "x".repeat(20_000);
    for (path, header) in [
        (format!("{RUN}?output_oss={long}"), None),
        (RUN.to_owned(), Some(("X-Fc-Trace-Id", long.as_str()))),
        (RUN.to_owned(), Some(("X-Anything", long.as_str()))),
    ] {
        let headers: Vec<(&str, &str)> = header.into_iter().collect();
        let answer = post(&api, &path, &headers, graph.clone()).await;
        assert!(
            answer.status == 200 || answer.status.is_client_error(),
            "{}",
            answer.status
        );
    }
    // Percent signs that mean nothing, and text that is no UTF-8.
    for query in ["%", "%zz=1", "output_oss=%ff", "&&&", "=", "output_oss"] {
        let answer = post(&api, &format!("{RUN}?{query}"), &[], graph.clone()).await;
        assert!(
            answer.status == 200 || answer.json()["type"] == "error",
            "{query}: {}",
            answer.text()
        );
        let answer = api
            .get(&format!("/api/serverless/status?task_id=x&{query}"))
            .await;
        assert!(
            answer.status == 200 || answer.json()["type"] == "error",
            "{query}: {}",
            answer.text()
        );
        let answer = api.get(&format!("/api/serverless/tasks?{query}")).await;
        assert!(
            answer.status == 200 || answer.json()["type"] == "error",
            "{query}: {}",
            answer.text()
        );
    }
    fc::run(&api, "", &graphs::plain(1, 8, 8)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_break_off_or_are_no_http_are_not_half_accepted() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let graph = graphs::plain(1, 8, 8).to_string();
    let head = |more: &str| format!("POST {RUN} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
    let sized = head(&format!("Content-Length: {}\r\n", graph.len() + 1));
    let short = head(&format!("Content-Length: {}\r\n", graph.len() - 1));
    let chunked = head("Transfer-Encoding: chunked\r\n");
    for (what, request) in [
        ("a byte is missing", format!("{sized}{graph}")),
        ("a byte too many", format!("{short}{graph}")),
        ("no body", sized.clone()),
        (
            "no end of the chunks",
            format!("{chunked}{:x}\r\n{graph}\r\n", graph.len()),
        ),
        (
            "no number of a chunk",
            format!("{chunked}zz\r\n{graph}\r\n0\r\n\r\n"),
        ),
        (
            "a chunk as large as all numbers",
            format!("{chunked}ffffffffffffffff\r\n{graph}"),
        ),
        (
            "two lengths",
            head("Content-Length: 2\r\nContent-Length: 9999\r\n") + &graph,
        ),
        ("a length below zero", head("Content-Length: -1\r\n") + &graph),
        ("half a head", format!("POST {RUN} HTTP/1.1\r\nHost: loc")),
        ("another protocol", "\u{16}\u{3}\u{1}\u{2}\0\r\n\r\n".to_owned()),
        (
            "no host",
            format!("POST {RUN} HTTP/1.1\r\nContent-Length: 0\r\n\r\n"),
        ),
        (
            "a host in the first line",
            format!(
                "POST http://evil.example{RUN} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{graph}",
                graph.len()
            ),
        ),
    ] {
        let mut socket = TcpStream::connect(("127.0.0.1", server.port()))
            .await
            .expect("a connection");
        // The server may hang up before it has all of it; the write end is closed as a client that dies would.
        let _ = socket.write_all(request.as_bytes()).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let _ = within(what, LIMIT, socket.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{what}: {answer}"
        );
    }
    unharmed(&api, 0).await;
}
