//! `darkroom doctor WORKFLOW.json`: what it would miss, box by box.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    args::Global,
    client::{Client, segment},
    exit::{Exit, Failure},
    workflow::Workflow,
};

/// Asks every endpoint of ComfyUI, or one; the exit code says whether any box can run it.
pub(super) async fn check(path: &Path, endpoint: Option<&str>, global: &Global) -> Result<Exit, Failure> {
    let workflow = Workflow::read(path)?;
    let client = global.client()?;
    let endpoints = match endpoint {
        Some(endpoint) => vec![endpoint.to_owned()],
        None => comfyuis(&client).await?,
    };
    let body = json!({"graph": workflow.to_json()});
    let mut checked = Vec::new();
    for name in &endpoints {
        let asked = client
            .post(&format!("endpoints/{}/check", segment(name)), Some(&body))
            .await;
        checked.push(match asked {
            Ok(answer) => answer,
            // The others may know more.
            Err(failure) if endpoints.len() > 1 && failure.code == "invalid_request" => {
                json!({"endpoint": name, "runs": false, "boxes": [], "error": failure.message})
            }
            Err(failure) => return Err(failure),
        });
    }
    let runs = checked.iter().any(|one| one["runs"] == true);
    let report = json!({"runs": runs, "endpoints": checked});
    global.ui().show(&report, human);
    Ok(if runs { Exit::Ok } else { Exit::Local })
}

async fn comfyuis(client: &Client) -> Result<Vec<String>, Failure> {
    let answer = client.get("endpoints").await?;
    let all = answer["endpoints"].as_array().into_iter().flatten();
    let comfyuis = all.filter(|endpoint| endpoint["kind"] == "comfyui");
    Ok(comfyuis
        .filter_map(|endpoint| endpoint["name"].as_str().map(str::to_owned))
        .collect())
}

fn human(report: &Value) -> String {
    let mut lines = Vec::new();
    for endpoint in report["endpoints"].as_array().into_iter().flatten() {
        let name = endpoint["endpoint"].as_str().unwrap_or("?");
        if let Some(error) = endpoint["error"].as_str() {
            lines.push(format!("note  {name}: {error}"));
        }
        for one in endpoint["boxes"].as_array().into_iter().flatten() {
            let place = format!("{name}, box {}", one["name"].as_str().unwrap_or("?"));
            if one["runs"] == true {
                lines.push(format!("ok    {place}: can run it"));
                continue;
            }
            lines.push(format!("FAIL  {place}"));
            lines.extend(one["refusal"].as_str().map(|why| format!("        {why}")));
            let missing = one["missing"].as_array().into_iter().flatten();
            lines.extend(missing.map(|missing| format!("        {}", lacks(missing))));
        }
    }
    lines.join("\n") + "\n"
}

/// `lacks model 'x' (Loader.ckpt, node 4); nearest: y; box b has it`
fn lacks(missing: &Value) -> String {
    let list = |key: &str| -> Vec<&str> {
        let names = missing[key].as_array().into_iter().flatten();
        names.filter_map(Value::as_str).collect()
    };
    let class = missing["class"].as_str().unwrap_or("?");
    let nodes = list("nodes").join(", ");
    let mut text = match (missing["input"].as_str(), missing["value"].as_str()) {
        (Some(input), Some(value)) => format!("lacks '{value}' ({class}.{input}, node {nodes})"),
        _ => format!("lacks node class '{class}' (node {nodes})"),
    };
    if !list("nearest").is_empty() {
        text = format!("{text}; nearest: {}", list("nearest").join(", "));
    }
    if !list("on").is_empty() {
        text = format!("{text}; on {}", list("on").join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_box_is_a_line_and_each_lack_one_below() {
        let report = json!({"runs": true, "endpoints": [
            {"endpoint": "sdxl", "runs": true, "boxes": [
                {"name": "a", "runs": true, "missing": [], "refusal": null},
                {"name": "b", "runs": false, "refusal": null, "missing": [
                    {"class": "Flux", "input": null, "value": null, "nodes": ["1", "2"], "nearest": [], "on": ["a"]},
                    {"class": "Load", "input": "ckpt", "value": "x", "nodes": ["3"], "nearest": ["y"], "on": []},
                ]},
            ]},
            {"endpoint": "cold", "runs": false, "boxes": [], "error": "nothing was told"},
        ]});
        assert_eq!(
            human(&report),
            "ok    sdxl, box a: can run it\n\
             FAIL  sdxl, box b\n        lacks node class 'Flux' (node 1, 2); on a\n        lacks 'x' (Load.ckpt, node 3); nearest: y\n\
             note  cold: nothing was told\n"
        );
    }
}
