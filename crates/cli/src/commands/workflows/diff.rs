//! `darkroom workflows diff ID FROM TO`

use std::fmt::Write;

use clap::Args;
use serde_json::Value;

use crate::{
    args::Global,
    client::segment,
    exit::{Exit, Failure},
};

/// Options of `workflows diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// Its id
    workflow: String,
    /// A version or an alias
    from: String,
    /// Another one
    to: String,
}

/// Prints what two versions differ in.
pub async fn diff(args: DiffArgs, global: &Global) -> Result<Exit, Failure> {
    let path = format!(
        "workflows/{}/diff?from={}&to={}",
        segment(&args.workflow),
        segment(&args.from),
        segment(&args.to)
    );
    let answer = global.client()?.get(&path).await?;
    global.ui().show(&answer, human);
    Ok(Exit::Ok)
}

fn human(answer: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let mut out = format!("{} to {}\n", text(&answer["from"]), text(&answer["to"]));
    let before = out.len();
    if answer["endpoint"].is_object() {
        let _ = writeln!(
            out,
            "endpoint: {} -> {}",
            text(&answer["endpoint"]["from"]),
            text(&answer["endpoint"]["to"])
        );
    }
    let diff = &answer["diff"];
    for (sign, key) in [
        ("+", "nodes_added"),
        ("-", "nodes_removed"),
        ("~", "nodes_changed"),
    ] {
        for node in diff[key].as_array().into_iter().flatten() {
            let was = node["class_before"]
                .as_str()
                .map(|was| format!(", was {was}"))
                .unwrap_or_default();
            let _ = writeln!(
                out,
                "{sign} node {} ({}{was})",
                text(&node["id"]),
                text(&node["class_type"])
            );
            for field in node["fields"].as_array().into_iter().flatten() {
                let _ = writeln!(
                    out,
                    "    {}: {} -> {}",
                    text(&field["field"]),
                    field["from"],
                    field["to"]
                );
            }
        }
    }
    for what in ["inputs", "outputs"] {
        for (sign, key) in [("+", "added"), ("-", "removed"), ("~", "changed")] {
            for name in diff[what][key].as_array().into_iter().flatten() {
                let _ = writeln!(out, "{sign} {} {}", what.trim_end_matches('s'), text(name));
            }
        }
    }
    if out.len() == before {
        out += "nothing differs\n";
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_fields_and_names_are_told_line_by_line() {
        let answer = json!({"from": "v1", "to": "v2", "endpoint": null, "diff": {
            "nodes_added": [{"id": "9", "class_type": "Save"}], "nodes_removed": [],
            "nodes_changed": [{"id": "3", "class_type": "K", "fields": [{"field": "steps", "from": 20, "to": 30}]}],
            "inputs": {"added": ["cfg"], "removed": [], "changed": []}, "outputs": {"added": [], "removed": [], "changed": []},
        }});
        assert_eq!(
            human(&answer),
            "v1 to v2\n+ node 9 (Save)\n~ node 3 (K)\n    steps: 20 -> 30\n+ input cfg\n"
        );
        assert!(human(&json!({"from": "v1", "to": "v1"})).contains("nothing differs"));
    }
}
