//! `/e/{endpoint}/`: the page's files, and how a browser gets in. What a browser makes of the real page is `tests/browser`.

use std::fs;

use darkroom_tests::{Options, Server, binary, config};
use reqwest::{Method, header};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A page of two files, as a wheel's directory holds it.
fn page(home: &TempDir) -> String {
    let directory = home.path().join("comfyui_frontend_package/static");
    fs::create_dir_all(directory.join("assets")).expect("a directory");
    fs::write(directory.join("index.html"), "<p>the page</p>").expect("a file");
    fs::write(directory.join("assets/a-1f.js"), "let a = 1;").expect("a file");
    fs::write(home.path().join("secret.txt"), "not the page's").expect("a file");
    home.path().display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_served_to_who_logs_in_and_nothing_beside_it() {
    let home = TempDir::new().expect("a temporary directory");
    let pages = page(&home);
    let config =
        config::alice_and_bob() + &format!("[endpoints.default]\nfrontend = {pages:?}\n[endpoints.bare]\n");
    let server = Server::start(Options::default().with_config(&config)).await;
    let (alice, nobody) = (server.api_as(Some("sk_alice")), server.api_as(None));

    let index = alice.get("/e/default/").await.expect(200);
    assert_eq!(index.text(), "<p>the page</p>");
    assert_eq!(index.header("cache-control"), Some("private, no-cache"));
    for path in ["/e/default/assets/a-1f.js", "/assets/a-1f.js"] {
        let asset = alice.get(path).await.expect(200);
        assert_eq!(asset.header("content-type"), Some("text/javascript"), "{path}");
        assert!(
            asset
                .header("cache-control")
                .is_some_and(|c| c.contains("immutable")),
            "{path}"
        );
    }
    assert_eq!(
        alice
            .get("/e/default/templates/index.json")
            .await
            .expect(200)
            .json(),
        json!([])
    );
    for path in [
        "/e/default/nosuch.js",
        "/e/default/..%2F..%2Fsecret.txt",
        "/e/default/%2e%2e/%2e%2e/secret.txt",
        "/e/default/extensions/pack/a.js",
        "/e/bare/assets/a.js",
        "/e/nosuch/",
    ] {
        alice.get(path).await.expect(404);
    }
    assert!(
        alice
            .get("/e/bare/")
            .await
            .expect(404)
            .text()
            .contains("[endpoints.bare]\nfrontend")
    );

    // A program is refused, a browser is sent to the form.
    nobody.get("/e/default/").await.expect(401);
    nobody.get("/e/default/assets/a-1f.js").await.expect(401);
    let browser = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client");
    let visit = async |url: String, cookie: &str| {
        let request = browser.get(url).header(header::ACCEPT, "text/html");
        let request = request.header(header::COOKIE, cookie.to_owned());
        let answer = request.send().await.expect("an answer");
        let text = |name: header::HeaderName| {
            let value = answer.headers().get(name);
            value
                .map(|v| v.to_str().expect("text").to_owned())
                .unwrap_or_default()
        };
        (
            answer.status().as_u16(),
            text(header::LOCATION),
            text(header::SET_COOKIE),
        )
    };
    let (status, location, _) = visit(format!("{}/e/default/?a=b", server.url()), "").await;
    assert_eq!(
        (status, location.as_str()),
        (303, "/login?next=%2Fe%2Fdefault%2F%3Fa%3Db")
    );
    let (status, location, _) = visit(format!("{}/e/default", server.url()), "").await;
    assert_eq!((status, location.as_str()), (308, "/e/default/"));

    // The link of `darkroom open` is good once.
    let opened = tokio::process::Command::new(binary::darkroom())
        .args(["open", "default", "--print", "--json", "--key", "sk_alice"])
        .args(["--server", &server.url()])
        .output()
        .await
        .expect("the command runs");
    let link: Value = serde_json::from_slice(&opened.stdout).expect("JSON");
    let url = link["url"].as_str().expect("a URL").to_owned();
    let (status, location, cookie) = visit(url.clone(), "").await;
    assert_eq!((status, location.as_str()), (303, "/e/default/"));
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let session = cookie.split(';').next().expect("a pair");
    let (status, ..) = visit(format!("{}/e/default/", server.url()), session).await;
    assert_eq!(status, 200);
    assert_eq!(visit(url, "").await.0, 401);
    let nosuch = json!({"endpoint": "nosuch"});
    alice.post("/darkroom/v1/links", &nosuch).await.expect(404);
    let anybody = nobody.request(Method::POST, "/darkroom/v1/links");
    nobody
        .send(anybody.json(&json!({"endpoint": "default"})))
        .await
        .expect(401);
}
