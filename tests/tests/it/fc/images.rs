//! What may stand where ComfyUI wants a file name (reference §3.2), and what the server refuses to fetch.

use base64::{Engine, prelude::BASE64_STANDARD};
use darkroom_tests::{Api, Options, Server, fc, graphs, http::Answer, pixels};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    ended, error_body, jobs, refused,
    website::{Page, Website},
};

/// Only this host may be reached, and only by this name.
const FETCH: &str = "[fetch]\nallow = [\"127.0.0.1\"]\nmax_bytes = \"1MB\"\ntimeout = \"5s\"\n";

fn picture() -> Vec<u8> {
    pixels::encode(&pixels::gradient(12, 10))
}

/// The picture again, as the engine saves it: loaded and saved without a change.
fn pass_on(image: &str) -> Value {
    json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "same"}},
    })
}

async fn comes_through(api: &Api, image: &str) {
    let what: String = image.chars().take(80).collect();
    let answer = fc::run(api, "output_base64=1", &pass_on(image)).await;
    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    let content = fc::results(&answer.json())[0]["output"]["base64"]["content"].clone();
    let png = BASE64_STANDARD
        .decode(content.as_str().expect("content"))
        .expect("base64");
    assert_eq!(pixels::decode(&png), pixels::gradient(12, 10), "{what}");
}

async fn upload(api: &Api, name: &str, bytes: Vec<u8>) -> Answer {
    let path = format!("/darkroom/v1/endpoints/default/inputs/{name}");
    api.send(api.request(Method::PUT, &path).body(bytes)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_uploads_of_any_length_and_script() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let dotted = format!("{}.png", "n".repeat(66));
    // Every letter of these two could be base64.
    let letters = "a".repeat(72);
    let slashes = format!("{}/{}", "folder".repeat(6), "b".repeat(43));
    for name in [
        "cat.png",
        "照片 一.png",
        "sub/folder/cat.png",
        "Zm9vYmFy",
        dotted.as_str(),
        &letters,
        &slashes,
    ] {
        upload(&api, name, picture()).await.expect(201);
        comes_through(&api, name).await;
    }
    comes_through(&api, "cat.png [input]").await;
    // A second file of a name replaces the first.
    let other = pixels::encode(&pixels::gradient(5, 4));
    upload(&api, "cat.png", other).await.expect(201);
    let body = fc::run(&api, "output_base64=1", &pass_on("cat.png"))
        .await
        .expect(200)
        .json();
    let content = fc::results(&body)[0]["output"]["base64"]["content"].clone();
    let png = BASE64_STANDARD
        .decode(content.as_str().expect("content"))
        .expect("base64");
    assert_eq!(pixels::decode(&png).dimensions(), (5, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_in_the_text_itself() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let plain = BASE64_STANDARD.encode(picture());
    let lines: Vec<&str> = plain
        .as_bytes()
        .chunks(76)
        .map(|l| std::str::from_utf8(l).expect("ascii"))
        .collect();
    for image in [
        plain.clone(),
        plain.trim_end_matches('=').to_owned(),
        lines.join("\r\n"),
        format!("data:image/png;base64,{plain}"),
        format!("DATA:application/octet-stream;BASE64,{plain}"),
        format!("data:;base64,{plain}"),
    ] {
        comes_through(&api, &image).await;
    }
    // Another loader, and the same bytes twice in one graph.
    let image = pixels::data_uri(&picture());
    let graph = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "LoadImage", "inputs": {"image": image}},
        "3": {"class_type": "ImageBatch", "inputs": {"image1": ["1", 0], "image2": ["2", 0]}},
        "4": {"class_type": "LoadImageMask", "inputs": {"image": image, "channel": "red"}},
        "5": {"class_type": "MaskToImage", "inputs": {"mask": ["4", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "two"}},
        "10": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "red"}},
    });
    let body = fc::run(&api, "output_base64=1", &graph).await.expect(200).json();
    assert_eq!(fc::results(&body).len(), 3);
    let red = fc::results(&body)
        .into_iter()
        .find(|r| r["node_id"] == "10")
        .expect("the mask");
    let png = BASE64_STANDARD
        .decode(red["output"]["base64"]["content"].as_str().expect("content"))
        .expect("base64");
    let original = pixels::gradient(12, 10);
    for (x, y, pixel) in pixels::decode(&png).enumerate_pixels() {
        assert_eq!(pixel.0, [original.get_pixel(x, y).0[0]; 3], "at {x},{y}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_by_address() {
    let site = Website::start(&[
        ("/a.png", Page::Body(200, picture().into())),
        ("/no-ending?with=query&more=1", Page::Body(200, picture().into())),
        ("/hop", Page::Redirect("/a.png".into())),
        ("/empty", Page::Body(200, Default::default())),
        ("/down", Page::Body(503, "busy".into())),
        ("/page", Page::Body(200, "<html>no picture</html>".into())),
        ("/loop", Page::Redirect("/loop".into())),
        ("/endless", Page::Endless(64 << 20)),
    ])
    .await;
    let server = Server::start(Options::default().with_config(FETCH)).await;
    let api = server.api();
    let url = &site.url;
    for good in ["/a.png", "/no-ending?with=query&more=1", "/hop"] {
        comes_through(&api, &format!("{url}{good}")).await;
    }
    comes_through(&api, &format!("{}/a.png", url.replace("http", "HTTP"))).await;
    for (path, says) in [
        ("/missing", "got status code 404"),
        ("/down", "got status code 503"),
        ("/empty", "empty"),
        ("/page", "not an image"),
        ("/loop", "redirect"),
        ("/endless", "larger than"),
    ] {
        let answer = fc::run(&api, "", &pass_on(&format!("{url}{path}"))).await;
        let body = refused(&answer, 500, "UNCLASSIFY");
        let message = body["error_message"].as_str().unwrap_or_default();
        assert!(
            message.starts_with("LoadImage failed: ") && message.contains(says),
            "{path}: {message}"
        );
    }
    let answer = fc::run(&api, "", &pass_on(&format!("{url}/missing"))).await;
    assert_eq!(
        answer.json()["error_message"],
        format!("LoadImage failed: can not get image {url}/missing from http url, got status code 404")
    );
    // A secret in a query is not told to everybody who reads the error.
    let answer = fc::run(&api, "", &pass_on(&format!("{url}/missing?signature=s3cr3t"))).await;
    assert!(!answer.text().contains("s3cr3t"), "{}", answer.text());
    assert!(!server.log().contains("s3cr3t"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asynchronous_call_finds_out_later_what_an_address_gives() {
    let site = Website::start(&[
        ("/a.png", Page::Body(200, picture().into())),
        ("/page", Page::Body(200, "<html>no picture</html>".into())),
    ])
    .await;
    let server = Server::start(Options::default().with_config(FETCH)).await;
    let api = server.api();
    let url = &site.url;
    for (id, path, code) in [
        ("good", "/a.png", None),
        ("gone", "/missing", Some("UNCLASSIFY")),
        ("page", "/page", None),
    ] {
        fc::run_async(&api, id, "output_base64=1", &pass_on(&format!("{url}{path}")))
            .await
            .expect(202);
        let last = ended(&api, id).await.pop().expect("an end");
        match (id, code) {
            ("good", _) => assert_eq!(fc::results(&last).len(), 1),
            (_, Some(code)) => {
                error_body(&last, code);
                let message = last["error_message"].as_str().unwrap_or_default();
                assert!(message.contains("404"), "{message}");
            }
            _ => assert_eq!(last["type"], "error", "{last}"),
        }
    }
    // What is plainly forbidden is not even accepted.
    let answer = fc::run_async(
        &api,
        "never",
        "",
        &pass_on("http://169.254.169.254/latest/meta-data/"),
    )
    .await;
    refused(&answer, 500, "UNCLASSIFY");
    assert!(fc::status(&api, "never").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_private_is_fetched_however_it_is_spelled() {
    let inner = Website::start(&[("/secret.png", Page::Body(200, picture().into()))]).await;
    let port = inner.url.rsplit(':').next().unwrap_or_default().to_owned();
    let site = Website::start(&[
        (
            "/metadata",
            Page::Redirect("http://169.254.169.254/latest/meta-data/".into()),
        ),
        (
            "/loopback",
            Page::Redirect(format!("http://127.0.0.1:{port}/secret.png")),
        ),
        (
            "/mapped",
            Page::Redirect(format!("http://[::ffff:127.0.0.1]:{port}/secret.png")),
        ),
        ("/file", Page::Redirect("file:///etc/passwd".into())),
    ])
    .await;
    // The first hop is open by its name, so that only the second is judged: the address itself is not open.
    let server = Server::start(Options::default().with_config("[fetch]\nallow = [\"localhost\"]\n")).await;
    let api = server.api();
    let by_name = site.url.replace("127.0.0.1", "localhost");
    for path in ["/metadata", "/loopback", "/mapped", "/file"] {
        let answer = fc::run(&api, "", &pass_on(&format!("{by_name}{path}"))).await;
        let body = refused(&answer, 500, "UNCLASSIFY");
        assert!(!body.to_string().contains("root:"), "{body}");
    }
    assert_eq!(site.asked().await.len(), 4);
    assert!(inner.asked().await.is_empty(), "{:?}", inner.asked().await);
    assert_eq!(jobs(&api).await, 0);

    let closed = Server::start(Options::default()).await;
    let api = closed.api();
    for url in [
        format!("http://127.0.0.1:{port}/secret.png"),
        format!("http://localhost:{port}/secret.png"),
        format!("http://LOCALHOST.:{port}/secret.png"),
        format!("http://2130706433:{port}/secret.png"),
        format!("http://0x7f.1:{port}/secret.png"),
        format!("http://127.1:{port}/secret.png"),
        format!("http://[::ffff:127.0.0.1]:{port}/secret.png"),
        format!("http://0.0.0.0:{port}/secret.png"),
        "http://169.254.169.254/latest/meta-data/".into(),
        "http://10.0.0.1/x.png".into(),
        "http://[fe80::1]/x.png".into(),
        format!("http://user:password@127.0.0.1:{port}/secret.png"),
        "http://".into(),
        "https://[".into(),
    ] {
        let answer = fc::run(&api, "", &pass_on(&url)).await;
        let body = refused(&answer, 500, "UNCLASSIFY");
        assert!(!body.to_string().contains("password@"), "{body}");
    }
    assert!(inner.asked().await.is_empty(), "{:?}", inner.asked().await);
    assert_eq!(jobs(&api).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_never_leave_the_input_directory() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    std::fs::write(server.home().join("secret.png"), picture()).expect("written");
    let absolute = server.home().join("secret.png").display().to_string();
    for name in [
        "../secret.png",
        "../../secret.png",
        "../../../../../../secret.png",
        "a/../../secret.png",
        "..",
        ".",
        "/",
        "/etc/passwd",
        absolute.as_str(),
        "..\\secret.png",
        "C:\\secret.png",
        "../secret.png [input]",
        "../secret.png [output]",
        "../secret.png [temp]",
        "",
        " ",
        "\u{0}",
        "no-such.png",
        "file:///etc/passwd",
        "ftp://example.com/x.png",
        "oss://bucket.oss-cn-hangzhou.aliyuncs.com/../x.png",
    ] {
        let answer = fc::run(&api, "", &pass_on(name)).await;
        assert_eq!(answer.status, 500, "{name:?}: {}", answer.text());
        let body = answer.json();
        assert_eq!(body["type"], "error", "{name:?}: {body}");
        assert!(!body.to_string().contains("root:"), "{name:?}");
    }
    assert_eq!(jobs(&api).await, 0);
    for name in [
        "..%2Fx.png",
        "a%2F..%2F..%2Fx.png",
        "%2Fetc%2Fx.png",
        "a%00b.png",
        "a%5C..%5Cx.png",
        ".",
        "..",
    ] {
        let answer = upload(&api, name, picture()).await;
        assert!(answer.status.is_client_error(), "{name}: {}", answer.status);
    }
    assert!(!server.home().join("x.png").exists() && !server.data_dir().join("x.png").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_where_a_name_is_wanted_harms_nobody() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let graph = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": ["5", 0]}},
        "5": {"class_type": "PrimitiveString", "inputs": {"value": "x.png"}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    });
    let answer = fc::run(&api, "", &graph).await;
    assert!([200, 500].contains(&answer.status.as_u16()), "{}", answer.text());
    for odd in [
        json!(7),
        json!(null),
        json!({"a": 1}),
        json!([]),
        json!(["5"]),
        json!(true),
        json!([["5", 0]]),
    ] {
        let mut graph = graph.clone();
        graph["1"]["inputs"]["image"] = odd.clone();
        let answer = fc::run(&api, "", &graph).await;
        assert_eq!(answer.status, 500, "{odd}: {}", answer.text());
        assert_eq!(answer.json()["type"], "error", "{odd}");
    }
    fc::run(&api, "", &graphs::plain(1, 8, 8)).await.expect(200);
}

/// A picture that does not compress, of about three bytes a pixel.
fn noise(side: u32, seed: u32) -> Vec<u8> {
    let mut state = seed;
    pixels::encode(&image::RgbImage::from_fn(side, side, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [a, b, c, _] = state.to_be_bytes();
        image::Rgb([a, b, c])
    }))
}

/// A graph that loads all of these and saves the last.
fn load_all(images: &[String]) -> Value {
    let mut graph = json!({});
    for (n, image) in images.iter().enumerate() {
        graph[n.to_string()] = json!({"class_type": "LoadImage", "inputs": {"image": image}});
        graph[format!("s{n}")] = json!({"class_type": "SaveImage", "inputs":
            {"images": [n.to_string(), 0], "filename_prefix": "all"}});
    }
    graph
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_fetched_once_for_a_graph_however_often_it_is_named() {
    let site = Website::start(&[("/a.png", Page::Body(200, picture().into()))]).await;
    let server = Server::start(Options::default().with_config(FETCH)).await;
    let api = server.api();
    let graph = load_all(&vec![format!("{}/a.png", site.url); 5]);
    let body = fc::run(&api, "", &graph).await.expect(200).json();
    assert_eq!(fc::results(&body).len(), 5);
    assert_eq!(site.asked().await, ["/a.png"]);
    // The same for one that is fetched when its attempt starts.
    fc::run_async(&api, "later", "", &graph).await.expect(202);
    assert_eq!(
        fc::results(&ended(&api, "later").await.pop().expect("an end")).len(),
        5
    );
    assert_eq!(site.asked().await, ["/a.png"; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_one_graph_have_a_number_and_a_size_together() {
    let (one, two) = (noise(440, 1), noise(440, 2));
    assert!(
        one.len() < 1_000_000 && one.len() + two.len() > 1_000_000,
        "{}",
        one.len()
    );
    let site = Website::start(&[
        ("/1.png", Page::Body(200, one.into())),
        ("/2.png", Page::Body(200, two.into())),
    ])
    .await;
    let server = Server::start(Options::default().with_config(FETCH)).await;
    let api = server.api();
    let url = &site.url;
    let many: Vec<String> = (0..65).map(|n| format!("{url}/{n}.gif")).collect();
    for asynchronous in [false, true] {
        let answer = match asynchronous {
            true => fc::run_async(&api, "many", "", &load_all(&many)).await,
            false => fc::run(&api, "", &load_all(&many)).await,
        };
        let body = refused(&answer, 500, "PROMPT_ERROR");
        assert!(body.to_string().contains("at most 64"), "{body}");
    }
    assert!(site.asked().await.is_empty());

    let both = load_all(&[format!("{url}/1.png"), format!("{url}/2.png")]);
    let body = refused(&fc::run(&api, "", &both).await, 500, "UNCLASSIFY");
    let message = body["error_message"].as_str().unwrap_or_default();
    assert!(message.contains("together are larger"), "{message}");
    assert_eq!(jobs(&api).await, 0);
    for alone in ["/1.png", "/2.png"] {
        fc::run(&api, "", &pass_on(&format!("{url}{alone}")))
            .await
            .expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_for_a_refused_request_goes_with_it() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let good = pixels::data_uri(&picture());
    let bad = BASE64_STANDARD.encode([7; 100]);
    for second in [bad.as_str(), "no-such.png", "http://127.0.0.1:1/x.png"] {
        let answer = fc::run(&api, "", &load_all(&[good.clone(), second.to_owned()])).await;
        assert_eq!(answer.status, 500, "{}", answer.text());
    }
    let inputs = server.data_dir().join("blobs/data/inputs");
    assert!(
        !inputs.exists(),
        "{:?}",
        std::fs::read_dir(&inputs).map(Iterator::count)
    );
    fc::run(&api, "", &load_all(&[good])).await.expect(200);
    assert!(inputs.exists());
}
