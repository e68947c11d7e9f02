//! `darkroom workflows show ID`

use std::fmt::Write;

use clap::Args;
use serde_json::Value;

use super::list::{aliases, pages};
use crate::{
    args::Global,
    client::segment,
    exit::{Exit, Failure},
    ui,
};

/// Options of `workflows show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Its id
    workflow: String,
    /// One version (`v2`) or what an alias points at, with its graph
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
}

/// Prints a workflow, or one version of it.
pub async fn show(args: ShowArgs, global: &Global) -> Result<Exit, Failure> {
    let client = global.client()?;
    let path = format!("workflows/{}", segment(&args.workflow));
    let ui = global.ui();
    match &args.version {
        Some(version) => {
            let answer = client
                .get(&format!("{path}/versions/{}", segment(version)))
                .await?;
            ui.show(&answer, |answer| one(&args.workflow, answer));
        }
        None => {
            let mut answer = client.get(&path).await?;
            if !answer["next"].is_null() {
                answer["versions"] =
                    pages(&client, &format!("{path}/versions"), "versions").await?["versions"].take();
                answer["next"] = Value::Null;
            }
            ui.show(&answer, whole);
        }
    }
    Ok(Exit::Ok)
}

fn whole(answer: &Value) -> String {
    let id = answer["workflow_id"].as_str().unwrap_or("?");
    let mut out = String::new();
    let _ = writeln!(out, "{id}  {}", aliases(answer));
    if answer["has_draft"] == true {
        let _ = writeln!(out, "draft of {}", answer["draft_at"].as_str().unwrap_or("?"));
    }
    let rows: Vec<Vec<String>> = answer["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(version)
        .collect();
    out += &ui::table(&["VERSION", "ENDPOINT", "PUBLISHED", "BY", "NOTE"], &rows);
    if answer["current"].is_object() {
        out += "\n";
        out += &one(id, &answer["current"]);
    }
    out
}

fn version(version: &Value) -> Vec<String> {
    ["version", "endpoint", "published_at", "published_by", "note"]
        .map(|field| version[field].as_str().unwrap_or_default().to_owned())
        .to_vec()
}

/// What one version takes and gives.
fn one(id: &str, version: &Value) -> String {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let mut out = format!(
        "{id} {} on {}\n",
        text(version, "version"),
        text(version, "endpoint")
    );
    if version["checked"] == false {
        out += "not checked: no instance of its endpoint had told what it can do; its first call after one has checks it\n";
    }
    if !text(version, "description").is_empty() {
        let _ = writeln!(out, "{}", text(version, "description"));
    }
    let inputs: Vec<Vec<String>> = version["inputs"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|input| {
            let or_nothing = |field: &str| input.get(field).map(ToString::to_string).unwrap_or_default();
            vec![
                text(input, "name"),
                text(input, "type"),
                if input["required"] == true {
                    "required".to_owned()
                } else {
                    brief(&or_nothing("default"))
                },
                match (input.get("min"), input.get("max")) {
                    (None, None) => String::new(),
                    _ => format!("{}..{}", or_nothing("min"), or_nothing("max")),
                },
                format!("{}.{}", text(input, "node"), text(input, "field")),
                text(input, "description"),
            ]
        })
        .collect();
    out += &ui::table(&["INPUT", "TYPE", "DEFAULT", "RANGE", "FIELD", ""], &inputs);
    for output in version["outputs"].as_array().into_iter().flatten() {
        let _ = writeln!(
            out,
            "output {}: {}.{}",
            text(output, "name"),
            text(output, "node"),
            text(output, "kind")
        );
    }
    out
}

fn brief(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_version_takes_and_whether_it_was_checked_is_told() {
        let mut version = json!({"version": "v1", "endpoint": "default", "checked": false, "inputs": [
            {"name": "n", "type": "integer", "min": 1, "max": 9, "default": 4, "node": "3", "field": "steps"},
            {"name": "text", "type": "string", "required": true, "node": "6", "field": "text"},
        ], "outputs": [{"name": "images", "node": "10", "kind": "images"}]});
        let told = one("poster", &version);
        for part in [
            "poster v1 on default\nnot checked: ",
            "1..9",
            "required",
            "output images: 10.images\n",
        ] {
            assert!(told.contains(part), "{told}");
        }
        version["checked"] = json!(true);
        assert!(!one("poster", &version).contains("not checked"));
    }
}
