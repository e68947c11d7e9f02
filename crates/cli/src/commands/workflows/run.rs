//! `darkroom workflows run ID --input NAME=VALUE`: calls a published workflow and saves what it makes.

use std::{fs, path::Path, path::PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::{
    args::Global,
    client::segment,
    exit::{Exit, Failure},
    follow, save, submit,
};

/// Options of `workflows run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The workflow's id
    workflow: String,
    /// Set an input: NAME=VALUE; for a file input the name of a file here is sent along, as is any value after `@`
    #[arg(long = "input", short, value_name = "NAME=VALUE")]
    inputs: Vec<String>,
    /// Which version (`v2`); wins over --alias
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Which alias [default: main]
    #[arg(long, value_name = "NAME")]
    alias: Option<String>,
    /// Choose every seed that is not given at random
    #[arg(long)]
    randomise_seeds: bool,
    /// Save temporary files as well
    #[arg(long)]
    return_temp_files: bool,
    /// Where it may run: resource configs, comma-separated
    #[arg(long, value_name = "IDS")]
    resource: Option<String>,
    /// Where to save the outputs
    #[arg(long, default_value = ".", value_name = "DIR")]
    out: PathBuf,
    /// Print the job's id and do not wait
    #[arg(long)]
    detach: bool,
}

/// Runs it. With `--json` the last line is the run, with `files`.
pub async fn run(args: RunArgs, global: &Global) -> Result<Exit, Failure> {
    let client = global.client()?;
    let ui = global.ui();
    let base = format!("workflows/{}", segment(&args.workflow));
    let which: Vec<String> = [("version", &args.version), ("alias", &args.alias)]
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", segment(value.as_deref()?))))
        .collect();
    let schema = client.get(&format!("{base}/schema?{}", which.join("&"))).await?;
    let inputs: Map<String, Value> = args
        .inputs
        .iter()
        .map(|text| input(text, &schema["properties"]))
        .collect::<Result<_, _>>()?;
    let mut body = json!({
        "inputs": inputs, "randomise_seeds": args.randomise_seeds, "return_temp_files": args.return_temp_files,
    });
    for (field, value) in [
        ("version", &args.version),
        ("alias", &args.alias),
        ("resource", &args.resource),
    ] {
        if let Some(value) = value {
            body[field] = json!(value);
        }
    }
    let accepted = client
        .post(&format!("{base}/run?mode=async"), Some(&body))
        .await?;
    let job = accepted["job"].as_str().unwrap_or_default().to_owned();
    if args.detach {
        ui.show_line(&accepted, &job);
        return Ok(Exit::Ok);
    }
    follow::follow(&client, &job, |_| {}).await?;
    let mut run = client.get(&format!("{base}/runs/{}", segment(&job))).await?;
    let exit = submit::exit_of(&run);
    let mut files = Vec::new();
    for output in run["outputs"]
        .as_object()
        .into_iter()
        .flatten()
        .flat_map(|(_, items)| items.as_array())
        .flatten()
    {
        match (
            output["url"].as_str(),
            output["filename"].as_str(),
            output["text"].as_str(),
        ) {
            (Some(url), Some(name), _) => {
                let path = save::save(&client, url, &args.out, name).await?;
                files.push(path.display().to_string());
            }
            (_, _, Some(text)) if !ui.json => ui.line(text),
            _ => {}
        }
    }
    if ui.json {
        run["files"] = json!(files);
        ui.line(&run.to_string());
        return Ok(exit);
    }
    files.iter().for_each(|path| ui.line(path));
    if exit != Exit::Ok {
        ui.note(&format!("error: job {job} {}", submit::why(&run)));
    }
    Ok(exit)
}

fn input(text: &str, properties: &Value) -> Result<(String, Value), Failure> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| Failure::usage(format!("--input '{text}': write NAME=VALUE")))?;
    let kind = properties[name]["x-darkroom-type"].as_str().unwrap_or("string");
    let is_file = matches!(kind, "image" | "audio" | "video" | "file");
    let path = match value.strip_prefix('@') {
        Some(path) => Some(Path::new(path)),
        None => Some(Path::new(value)).filter(|path| is_file && path.is_file()),
    };
    let value = match path {
        Some(path) => json!(data_uri(path)?),
        None if matches!(kind, "integer" | "number" | "boolean" | "choice" | "any") => {
            match serde_json::from_str::<Value>(value) {
                Ok(parsed) if kind == "any" || parsed.is_number() || parsed.is_boolean() => parsed,
                _ => json!(value),
            }
        }
        None => json!(value),
    };
    Ok((name.to_owned(), value))
}

fn data_uri(path: &Path) -> Result<String, Failure> {
    let bytes = fs::read(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    Ok(format!(
        "data:application/octet-stream;base64,{}",
        BASE64_STANDARD.encode(bytes)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_get_the_types_that_the_schema_says() {
        let properties = json!({
            "n": {"x-darkroom-type": "integer"}, "t": {"x-darkroom-type": "string"}, "on": {"x-darkroom-type": "boolean"},
            "image": {"x-darkroom-type": "image"}, "c": {"x-darkroom-type": "choice"},
        });
        for (text, name, value) in [
            ("n=7", "n", json!(7)),
            ("n=many", "n", json!("many")),
            ("t=7", "t", json!("7")),
            ("t=a=b", "t", json!("a=b")),
            ("on=true", "on", json!(true)),
            ("c=euler", "c", json!("euler")),
            ("image=https://x/a.png", "image", json!("https://x/a.png")),
            ("unknown=1", "unknown", json!("1")),
        ] {
            assert_eq!(
                input(text, &properties).unwrap(),
                (name.to_owned(), value),
                "{text}"
            );
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.png");
        fs::write(&file, b"abc").unwrap();
        let (_, value) = input(&format!("image={}", file.display()), &properties).unwrap();
        assert_eq!(value, "data:application/octet-stream;base64,YWJj");
        assert!(input("novalue", &properties).is_err());
    }
}
