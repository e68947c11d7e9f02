//! Files of ComfyUI's editor, sent as they were saved: through each way in they run as the page would have run them.

use darkroom_tests::{Options, Server, binary, eventually, fc, graphs, http::JOB_LIMIT, pixels};
use serde_json::{Value, json};

/// A plain picture, inverted behind a reroute, in a subgraph that gives the width; a muted save; a note.
fn file() -> Value {
    let links = json!([
        [1, 7, 0, 3, 0, "*"],
        [2, 3, 0, 9, 0, "IMAGE"],
        [3, 3, 0, 8, 0, "IMAGE"]
    ]);
    let inner = json!({"id": "5f0c9e3e-plain", "inputNode": {"id": -10}, "outputNode": {"id": -20},
    "nodes": [
        {"id": 1, "type": "EmptyImage", "widgets_values": [1, 6, 1, 0x11_22_33],
            "inputs": [{"name": "width", "type": "INT", "link": 1, "widget": {"name": "width"}}]},
        {"id": 2, "type": "ImageInvert", "inputs": [{"name": "image", "type": "IMAGE", "link": 2}]},
    ],
    "links": [
        {"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": 1, "target_slot": 0, "type": "INT"},
        {"id": 2, "origin_id": 1, "origin_slot": 0, "target_id": 2, "target_slot": 0, "type": "IMAGE"},
        {"id": 3, "origin_id": 2, "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": "IMAGE"},
    ]});
    json!({
        "nodes": [
            {"id": 7, "type": "5f0c9e3e-plain", "widgets_values": [8],
                "inputs": [{"name": "width", "type": "INT", "link": null, "widget": {"name": "width"}}]},
            {"id": 3, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": 1}]},
            {"id": 9, "type": "SaveImage", "title": "图像", "widgets_values": ["edited"],
                "inputs": [{"name": "images", "type": "IMAGE", "link": 2}]},
            {"id": 8, "type": "SaveImage", "mode": 2, "widgets_values": ["muted"],
                "inputs": [{"name": "images", "type": "IMAGE", "link": 3}]},
            {"id": 5, "type": "Note", "widgets_values": ["for people"]},
        ],
        "links": links, "definitions": {"subgraphs": [inner]}, "version": 0.4,
    })
}

const INVERTED: u32 = 0xff_ff_ff - 0x11_22_33;

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_editor_runs_through_each_way_in_and_can_be_opened_again() {
    let server = Server::start(Options::default()).await;
    let api = server.api();

    let answer = api
        .post("/prompt", &json!({"prompt": file()}))
        .await
        .expect(200)
        .json();
    let id = answer["prompt_id"].as_str().expect("an id").to_owned();
    let entry = eventually("it stands in history", JOB_LIMIT, async || {
        let history = api.get(&format!("/history/{id}")).await.expect(200).json();
        history.get(&id).cloned()
    })
    .await;
    assert_eq!(entry["status"]["status_str"], "success", "{entry}");
    assert_eq!(
        entry["prompt"][2]["7:1"]["inputs"],
        json!({"width": 8, "height": 6, "batch_size": 1, "color": 0x11_22_33})
    );
    assert_eq!(entry["prompt"][2]["9"]["_meta"]["title"], "图像");
    assert_eq!(entry["prompt"][3]["extra_pnginfo"]["workflow"], file());
    let made = &entry["outputs"]["9"]["images"][0];
    assert_eq!(
        entry["outputs"].as_object().map(serde_json::Map::len),
        Some(1),
        "{entry}"
    );
    let name = made["filename"].as_str().expect("a name");
    let png = api.get(&format!("/view?filename={name}")).await.expect(200).body;
    pixels::assert_plain(&png, INVERTED, 8, 6);

    for sent in [file(), json!({"prompt": file()})] {
        let body = fc::run(&api, "output_base64=1", &sent).await.expect(200).json();
        assert_eq!(fc::results(&body).len(), 1, "{body}");
    }
    let job = api.finished(&api.submit(&file()).await).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    pixels::assert_plain(&api.outputs(&job).await[0], INVERTED, 8, 6);

    let home = tempfile::tempdir().expect("a directory");
    std::fs::write(home.path().join("page.json"), file().to_string()).expect("a file");
    let mut command = tokio::process::Command::new(binary::darkroom());
    command
        .current_dir(home.path())
        .args(["run", "page.json", "--json", "--server", &server.url()]);
    let ran = command.output().await.expect("darkroom runs");
    let said = String::from_utf8_lossy(&ran.stdout);
    let last: Value = serde_json::from_str(said.lines().last().unwrap_or_default()).expect("JSON");
    assert_eq!(last["ok"], true, "{last}");
    let saved = home.path().join(last["files"][0].as_str().expect("a file"));
    pixels::assert_plain(&std::fs::read(saved).expect("the picture"), INVERTED, 8, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_in_a_file_of_the_editor_are_named_as_in_any_graph() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let refused = async |change: &dyn Fn(&mut Value)| {
        let mut file = file();
        change(&mut file);
        let answer = api.post("/prompt", &json!({"prompt": file})).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        answer.json()
    };
    let wide = refused(&|file| file["nodes"][0]["widgets_values"] = json!([1_000_000])).await;
    assert_eq!(
        wide["node_errors"]["7:1"]["errors"][0]["type"], "value_bigger_than_max",
        "{wide}"
    );
    let unknown = refused(&|file| file["nodes"][2]["type"] = json!("SaveImages")).await;
    assert_eq!(
        unknown["error"]["extra_info"]["suggestions"][0], "SaveImage",
        "{unknown}"
    );
    let group = refused(&|file| file["nodes"][2]["type"] = json!("workflow>Mine")).await;
    assert!(
        group["error"]["details"].to_string().contains("group node"),
        "{group}"
    );
    let endless =
        refused(&|file| file["definitions"]["subgraphs"][0]["nodes"][1]["type"] = json!("5f0c9e3e-plain"))
            .await;
    assert!(
        endless["error"]["details"].to_string().contains("deep"),
        "{endless}"
    );
    fc::run(&api, "", &graphs::plain(1, 8, 8)).await.expect(200);
}
