//! `/upload/*` and `/view`.

use darkroom_tests::{Options, Server, config, graphs, pixels};
use reqwest::Method;
use serde_json::json;

use super::{upload, uploaded};

#[tokio::test(flavor = "multi_thread")]
async fn uploads_keep_comfyuis_naming_rule_and_every_instance_can_load_them() {
    let mut server = Server::start(Options::default()).await;
    let api = server.api();
    let (one, two) = (pixels::gradient(6, 5), pixels::gradient(9, 4));
    let (first, second) = (pixels::encode(&one), pixels::encode(&two));
    let named = |name: &str, subfolder: &str, folder: &str| json!({"name": name, "subfolder": subfolder, "type": folder});
    let up =
        async |bytes: &[u8], fields: &[(&str, &str)]| uploaded(&api, "up1.png", bytes.to_vec(), fields).await;
    assert_eq!(up(&first, &[]).await, named("up1.png", "", "input"));
    assert_eq!(up(&first, &[]).await, named("up1.png", "", "input"));
    assert_eq!(up(&second, &[]).await, named("up1 (1).png", "", "input"));
    assert_eq!(up(&second, &[]).await, named("up1 (1).png", "", "input"));
    assert_eq!(
        up(&second, &[("overwrite", "true")]).await,
        named("up1.png", "", "input")
    );
    assert_eq!(
        up(&first, &[("overwrite", "1")]).await,
        named("up1.png", "", "input")
    );
    assert_eq!(
        up(&first, &[("subfolder", "a/b")]).await,
        named("up1.png", "a/b", "input")
    );
    assert_eq!(
        up(&first, &[("type", "temp")]).await,
        named("up1.png", "", "temp")
    );

    for (path, bytes) in [
        ("/view?filename=up1.png&type=input", &first),
        ("/api/view?filename=up1 (1).png [input]", &second),
        (
            "/e/default/view?filename=up1.png&type=input&subfolder=a/b",
            &first,
        ),
        ("/view?filename=up1.png&type=temp", &first),
    ] {
        let answer = api.get(path).await.expect(200);
        assert_eq!(answer.body, *bytes, "{path}");
        assert_eq!(answer.header("content-type"), Some("image/png"));
    }
    // A job on an instance that never saw the upload.
    let job = api.submit(&graphs::invert("up1 (1).png")).await;
    let job = api.finished(&job).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    pixels::assert_inverse(&api.outputs(&job).await[0], &two);
    let of_folder = api.submit(&graphs::invert("a/b/up1.png")).await;
    assert_eq!(api.finished(&of_folder).await["state"], "succeeded");

    // What the job made is there under its public and under its plain name, also after a restart without instances.
    let id = job["id"].as_str().expect("an id").replace('-', "");
    server.kill_everything().await;
    server.restart().await;
    let url = job["outputs"][0]["url"].as_str().expect("a URL");
    let made = api.get(url).await.expect(200).body;
    for name in [format!("invert_00001_~{id}.png"), "invert_00001_.png".to_owned()] {
        let path = format!("/view?filename={name}&subfolder=&type=output");
        assert_eq!(api.get(&path).await.expect(200).body, made, "{name}");
    }
    assert!(api.instances().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn views_have_ranges_versions_previews_and_channels() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let picture = pixels::encode(&pixels::gradient(40, 30));
    uploaded(&api, "h.png", picture.clone(), &[]).await;
    uploaded(&api, "page.html", b"<script>alert(1)</script>".to_vec(), &[]).await;
    let path = "/view?filename=h.png&type=input";

    let part = api
        .send(api.request(Method::GET, path).header("range", "bytes=0-9"))
        .await
        .expect(206);
    assert_eq!(
        (&part.body[..], part.header("content-range")),
        (
            &picture[..10],
            Some(format!("bytes 0-9/{}", picture.len()).as_str())
        )
    );
    let etag = part.header("etag").expect("a version").to_owned();
    api.send(api.request(Method::GET, path).header("if-none-match", etag))
        .await
        .expect(304);

    for (query, media_type) in [
        ("preview=webp;90", "image/webp"),
        ("preview=jpeg;50", "image/jpeg"),
        ("preview=png", "image/webp"),
        ("channel=rgb", "image/png"),
        ("channel=a", "image/png"),
        ("channel=rgba", "image/png"),
        ("preview=webp;75&channel=rgb", "image/webp"),
    ] {
        let answer = api.get(&format!("{path}&{query}")).await.expect(200);
        assert_eq!(answer.header("content-type"), Some(media_type), "{query}");
        let shown = image::load_from_memory(&answer.body).expect("a picture");
        assert_eq!((shown.width(), shown.height()), (40, 30), "{query}");
    }
    api.get("/view?filename=page.html&type=input&preview=webp")
        .await
        .expect(400);
    let page = api.get("/view?filename=page.html&type=input").await.expect(200);
    assert!(
        page.header("content-disposition")
            .is_some_and(|d| d.starts_with("attachment")),
        "{page:?}"
    );

    for (path, status) in [
        ("/view", 404),
        ("/view?filename=nope.png", 404),
        ("/view?filename=h.png&type=bogus", 400),
        ("/view?filename=&type=input", 400),
        ("/view?filename=/etc/passwd", 400),
        ("/view?filename=../h.png&type=input", 400),
        ("/view?filename=h.png&type=input&subfolder=../..", 403),
        ("/view?filename=h.png&type=input&subfolder=/etc", 403),
    ] {
        api.get(path).await.expect(status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_uploads_are_refused_and_masks_change_alpha_alone() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let picture = pixels::encode(&pixels::gradient(4, 4));
    for (name, fields, status) in [
        ("x.png", &[("type", "bogus")][..], 400),
        ("x.png", &[("subfolder", "../..")], 400),
        ("x.png", &[("subfolder", "/tmp")], 400),
        ("../x.png", &[], 400),
    ] {
        upload(&api, "/upload/image", name, picture.clone(), fields)
            .await
            .expect(status);
    }
    let no_file = reqwest::multipart::Form::new().text("image", "abc");
    api.send(api.request(Method::POST, "/upload/image").multipart(no_file))
        .await
        .expect(400);
    api.send(api.request(Method::POST, "/upload/image").body("x"))
        .await
        .expect(400);
    let inputs = api
        .get("/darkroom/v1/endpoints/default/inputs")
        .await
        .expect(200)
        .json();
    assert_eq!(inputs["inputs"], json!([]), "nothing was kept");

    uploaded(&api, "o.png", picture, &[]).await;
    let mut mask = image::RgbaImage::from_pixel(4, 4, image::Rgba([255, 255, 255, 7]));
    mask.put_pixel(1, 2, image::Rgba([0, 0, 0, 200]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    mask.write_to(&mut bytes, image::ImageFormat::Png).expect("a PNG");
    let original = [
        (
            "original_ref",
            r#"{"filename":"o.png","type":"input","subfolder":""}"#,
        ),
        ("subfolder", "clipspace"),
    ];
    let answer = upload(&api, "/upload/mask", "m.png", bytes.get_ref().clone(), &original)
        .await
        .expect(200)
        .json();
    assert_eq!(
        answer,
        json!({"name": "m.png", "subfolder": "clipspace", "type": "input"})
    );
    let kept = api
        .get("/view?filename=m.png&type=input&subfolder=clipspace")
        .await
        .expect(200);
    let kept = image::load_from_memory(&kept.body)
        .expect("a picture")
        .into_rgba8();
    for ((x, y, pixel), under) in kept.enumerate_pixels().zip(pixels::gradient(4, 4).pixels()) {
        let alpha = if (x, y) == (1, 2) { 200 } else { 7 };
        assert_eq!(pixel.0, [under[0], under[1], under[2], alpha]);
    }
    upload(&api, "/upload/mask", "m.png", bytes.into_inner(), &[])
        .await
        .expect(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_no_others_files_and_strangers_only_what_they_cannot_guess() {
    let keys = config::alice_and_bob() + "[endpoints.default]\nanonymous = true\n";
    let server = Server::start(Options::default().with_config(&keys)).await;
    let (alice, bob, nobody) = (
        server.api_as(Some("sk_alice")),
        server.api_as(Some("sk_bob")),
        server.api_as(None),
    );
    let picture = pixels::encode(&pixels::gradient(3, 3));
    uploaded(&alice, "a.png", picture.clone(), &[]).await;
    let job = alice.submit(&graphs::plain(0x00_80_ff, 8, 8)).await;
    alice.finished(&job).await;
    let made = format!("/view?filename=plain_00001_~{}.png", job.replace('-', ""));
    alice.get(&made).await.expect(200);
    for other in [&bob, &nobody] {
        other.get("/view?filename=a.png&type=input").await.expect(404);
        other.get(&made).await.expect(404);
        other.get("/view?filename=plain_00001_.png").await.expect(404);
    }
    let kept = uploaded(&nobody, "open.png", picture, &[]).await;
    let name = kept["name"].as_str().expect("a name");
    assert!(name.starts_with("open~") && name.len() > 30, "{name}");
    nobody
        .get(&format!("/view?filename={name}&type=input"))
        .await
        .expect(200);
    nobody.get("/view?filename=open.png&type=input").await.expect(404);
    nobody.get("/internal/files/input").await.expect(401);
    for path in ["/object_info", "/object_info/LoadImage"] {
        let choices = nobody.get(path).await.expect(200).text();
        assert!(!choices.contains("open~"), "{path} tells what cannot be guessed");
        let choices = alice.get(path).await.expect(200).text();
        assert!(
            choices.contains("\"a.png\"") && !choices.contains("open~"),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn previews_are_there_after_their_instance_and_no_loader_leaves_its_folder() {
    let mut server = Server::start(Options::default()).await;
    let api = server.api();
    let mut graph = graphs::plain(0x11_22_33, 12, 6);
    graph["9"] = json!({"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}});
    let job = api.submit(&graph).await;
    let job = api.finished(&job).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let history = api.get("/history").await.expect(200).json();
    let entry = history
        .as_object()
        .and_then(|all| all.values().next())
        .expect("an entry");
    let image = &entry["outputs"]["9"]["images"][0];
    assert_eq!(image["type"], "temp", "{entry}");
    let view = format!(
        "/view?filename={}&type=temp",
        image["filename"].as_str().expect("a name")
    );
    server.kill_everything().await;
    server.restart().await;
    let api = server.api();
    let shown = api.get(&view).await.expect(200).body;
    let shown = image::load_from_memory(&shown).expect("a picture");
    assert_eq!((shown.width(), shown.height()), (12, 6));

    std::fs::write(server.home().join("secret.png"), "not a picture's business").expect("a file");
    let absolute = server.home().join("secret.png").display().to_string();
    for name in [
        "../secret.png",
        "../../../../etc/passwd",
        "..\\..\\secret.png",
        "a/../../secret.png",
        "/etc/passwd",
        "C:\\secret.png",
        "../secret.png [output]",
        "../secret.png [temp]",
        absolute.as_str(),
    ] {
        let refused = api
            .post("/prompt", &json!({"prompt": graphs::invert(name)}))
            .await;
        assert_eq!(refused.status, 400, "{name}: {}", refused.text());
        let named = refused.json()["node_errors"]["1"]["errors"][0]["extra_info"]["input_name"].clone();
        assert_eq!(named, "image", "{name}: {}", refused.text());
    }
    assert!(api.instances().await.is_empty(), "nobody was asked to load one");
}
