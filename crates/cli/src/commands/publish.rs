//! `darkroom publish GRAPH --name NAME`: a workflow becomes the next version of something that applications call by name.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::{
    args::Global,
    client::segment,
    exit::{Exit, Failure},
    ui::Ui,
    workflow::Workflow,
};

/// Options of `publish`.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// A workflow in API format or as ComfyUI's page saves it (`-`: stdin)
    #[arg(required_unless_present = "from_draft", conflicts_with = "from_draft")]
    graph: Option<PathBuf>,
    /// The workflow's id: callers use it, and publishing under it again makes the next version
    #[arg(long, value_name = "ID")]
    name: String,
    /// What callers may set: NODE.FIELD=NAME, with ,type= ,default= ,min= ,max= ,choices=A|B ,required ,optional
    /// ,description= behind it where the node's own declaration does not do
    #[arg(long = "input", short, value_name = "NODE.FIELD=NAME")]
    inputs: Vec<String>,
    /// What they get: NODE.KIND=NAME (KIND is `images`, `text`, …), with ,shape=url for bare addresses
    #[arg(long = "output", short, value_name = "NODE.KIND=NAME")]
    outputs: Vec<String>,
    /// Which endpoint runs it
    #[arg(long, default_value = "default", value_name = "NAME")]
    endpoint: String,
    /// Point this alias at the new version (the first version is `main` anyway)
    #[arg(long, value_name = "NAME")]
    alias: Option<String>,
    /// A line about this version
    #[arg(long, default_value = "", value_name = "TEXT")]
    note: String,
    /// What it is for, for those who call it
    #[arg(long, default_value = "", value_name = "TEXT")]
    description: String,
    /// Keep it as the workflow's draft; nobody can call that
    #[arg(long, conflicts_with_all = ["from_draft", "alias", "check"])]
    draft: bool,
    /// Publish the draft
    #[arg(long, conflicts_with_all = ["inputs", "outputs", "description"])]
    from_draft: bool,
    /// Only say what would be found
    #[arg(long)]
    check: bool,
}

/// Publishes it. With `--json` the last line is an object with `workflow_id` and `version`.
pub async fn publish(args: PublishArgs, global: &Global) -> Result<Exit, Failure> {
    let client = global.client()?;
    let ui = global.ui();
    let mut body = json!({});
    if let Some(path) = &args.graph {
        let inputs: Vec<Value> = args
            .inputs
            .iter()
            .map(|text| input(text))
            .collect::<Result<_, _>>()?;
        let outputs: Vec<Value> = args
            .outputs
            .iter()
            .map(|text| output(text))
            .collect::<Result<_, _>>()?;
        body = json!({
            "endpoint": args.endpoint,
            "graph": Workflow::read(path)?.to_json(),
            "inputs": inputs,
            "outputs": outputs,
            "description": args.description,
        });
    }
    if args.draft {
        let path = format!("workflows/{}/draft", segment(&args.name));
        let answer = client.put(&path, &body).await?;
        tell(ui, &answer["findings"]);
        ui.show_line(&answer, &format!("{}: kept as its draft", args.name));
        return Ok(Exit::Ok);
    }
    body["workflow_id"] = json!(args.name);
    body["note"] = json!(args.note);
    body["dry_run"] = json!(args.check);
    if let Some(alias) = &args.alias {
        body["alias"] = json!(alias);
    }
    let answer = client.post("workflows", Some(&body)).await;
    let answer = answer.inspect_err(|failure| tell_failure(ui, failure))?;
    tell(ui, &answer["findings"]);
    if args.check {
        let good = answer["ok"] == true;
        ui.show_line(
            &answer,
            if good {
                "it can be published"
            } else {
                "it cannot be published"
            },
        );
        return Ok(if good { Exit::Ok } else { Exit::Usage });
    }
    let version = answer["version"].as_str().unwrap_or("?");
    let aliases: Vec<&str> = answer["aliases"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let pointed = match aliases.as_slice() {
        [] => format!(
            "no alias points at it; `darkroom workflows alias {} main {version}` makes it the one that is called",
            args.name
        ),
        some => format!("alias {}", some.join(", ")),
    };
    ui.show_line(&answer, &format!("{} {version} ({pointed})", args.name));
    Ok(Exit::Ok)
}

/// The findings of a refusal.
pub(super) fn tell_failure(ui: Ui, failure: &Failure) {
    if let Some(details) = &failure.details {
        tell(ui, &details["findings"]);
    }
}

/// Findings, a line each, on stderr.
pub(super) fn tell(ui: Ui, findings: &Value) {
    for finding in findings.as_array().into_iter().flatten() {
        let text = |key: &str| finding[key].as_str().unwrap_or_default();
        ui.note(&format!("{}: {}", text("level"), text("message")));
    }
}

/// `NODE.FIELD=NAME[,option…]` taken apart.
struct Assignment<'a> {
    node: &'a str,
    part: &'a str,
    name: &'a str,
    options: Vec<(&'a str, &'a str)>,
}

fn assignment<'a>(flag: &str, text: &'a str, words: &[&str]) -> Result<Assignment<'a>, Failure> {
    let wrong = |why: &str| Failure::usage(format!("--{flag} '{text}': {why}"));
    let form = if flag == "input" {
        "write NODE.FIELD=NAME"
    } else {
        "write NODE.KIND=NAME"
    };
    let (target, rest) = text.split_once('=').ok_or_else(|| wrong(form))?;
    // A title may contain dots, a field's name does not.
    let (node, part) = target.rsplit_once('.').ok_or_else(|| wrong(form))?;
    let (name, mut rest) = rest
        .split_once(',')
        .map_or((rest, None), |(name, rest)| (name, Some(rest)));
    if node.is_empty() || part.is_empty() || name.is_empty() {
        return Err(wrong(form));
    }
    let mut options = Vec::new();
    while let Some(text) = rest {
        // The description is for people and comes last: it may hold commas.
        let (one, more) = match text.starts_with("description=") {
            true => (text, None),
            false => text
                .split_once(',')
                .map_or((text, None), |(one, more)| (one, Some(more))),
        };
        let (word, value) = one.split_once('=').unwrap_or((one, ""));
        if !words.contains(&word) {
            return Err(wrong(&format!("'{word}' is none of {}", words.join(", "))));
        }
        options.push((word, value));
        rest = more;
    }
    Ok(Assignment {
        node,
        part,
        name,
        options,
    })
}

fn input(text: &str) -> Result<Value, Failure> {
    let words = [
        "type",
        "default",
        "min",
        "max",
        "choices",
        "required",
        "optional",
        "description",
    ];
    let Assignment {
        node,
        part,
        name,
        options,
    } = assignment("input", text, &words)?;
    let mut wish = Map::from_iter([
        ("name".to_owned(), json!(name)),
        ("node".to_owned(), json!(node)),
        ("field".to_owned(), json!(part)),
    ]);
    for (word, value) in options {
        let (key, value) = match word {
            "required" => ("required", json!(true)),
            "optional" => ("required", json!(false)),
            "choices" => ("choices", value.split('|').map(scalar).collect()),
            "type" | "description" => (word, json!(value)),
            _ => (word, scalar(value)),
        };
        wish.insert(key.to_owned(), value);
    }
    Ok(Value::Object(wish))
}

fn output(text: &str) -> Result<Value, Failure> {
    let Assignment {
        node,
        part,
        name,
        options,
    } = assignment("output", text, &["shape", "description"])?;
    let mut wish = json!({"name": name, "node": node, "kind": part});
    for (word, value) in options {
        wish[word] = json!(value);
    }
    Ok(wish)
}

/// A number, true or false where the text is one, else the text.
fn scalar(text: &str) -> Value {
    match serde_json::from_str::<Value>(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
        _ => Value::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_and_outputs_are_taken_apart() {
        assert_eq!(
            input("6.text=prompt").unwrap(),
            json!({"name": "prompt", "node": "6", "field": "text"})
        );
        assert_eq!(
            input("Sampler v1.5.steps=steps,min=1,max=50,required,description=how long, at most 50").unwrap(),
            json!({"name": "steps", "node": "Sampler v1.5", "field": "steps", "min": 1, "max": 50, "required": true,
                "description": "how long, at most 50"})
        );
        assert_eq!(
            input("3.sampler=s,choices=euler|dpmpp,default=euler").unwrap()["choices"],
            json!(["euler", "dpmpp"])
        );
        assert_eq!(
            output("10.images=images").unwrap(),
            json!({"name": "images", "node": "10", "kind": "images"})
        );
        assert_eq!(output("10.images=images,shape=url").unwrap()["shape"], "url");
        for bad in [
            "6=prompt",
            "6.text",
            ".text=a",
            "6.=a",
            "6.text=",
            "6.text=a,colour=red",
        ] {
            assert!(input(bad).is_err(), "{bad}");
        }
    }
}
