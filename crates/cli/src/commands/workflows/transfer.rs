//! `darkroom workflows export ID` and `darkroom workflows import FILE`

use std::{fs, path::PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::{
    args::Global,
    client::segment,
    commands::publish::{tell, tell_failure},
    exit::{Exit, Failure},
};

/// Options of `workflows export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The workflow's id
    workflow: String,
    /// Where to [default: stdout]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Writes the file.
pub async fn export(args: ExportArgs, global: &Global) -> Result<Exit, Failure> {
    let file = global
        .client()?
        .get(&format!("workflows/{}/export", segment(&args.workflow)))
        .await?;
    let text = serde_json::to_string_pretty(&file).map_err(|error| Failure::local(error.to_string()))?;
    match &args.out {
        None if global.ui().json => global.ui().line(&file.to_string()),
        None => global.ui().line(&text),
        Some(path) => {
            fs::write(path, text + "\n")
                .map_err(|error| Failure::local(format!("{}: {error}", path.display())))?;
            let answer = json!({"workflow_id": args.workflow, "file": path.display().to_string()});
            global.ui().show_line(&answer, &path.display().to_string());
        }
    }
    Ok(Exit::Ok)
}

/// Options of `workflows import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// What `export` wrote
    file: PathBuf,
    /// Another id than the file's
    #[arg(long, value_name = "ID")]
    name: Option<String>,
    /// Another endpoint than the versions name
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Also where nodes, models or files that it needs are not here
    #[arg(long)]
    force: bool,
}

/// Brings it in.
pub async fn import(args: ImportArgs, global: &Global) -> Result<Exit, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", args.file.display()));
    let text = fs::read_to_string(&args.file).map_err(|error| wrong(&error))?;
    let file: Value = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
    if !file["format"].is_string() {
        return Err(wrong(
            &"this is not what `darkroom workflows export` writes; `darkroom publish` takes a graph",
        ));
    }
    let mut body = json!({"file": file, "force": args.force});
    if let Some(name) = &args.name {
        body["workflow_id"] = json!(name);
    }
    if let Some(endpoint) = &args.endpoint {
        body["endpoint"] = json!(endpoint);
    }
    let ui = global.ui();
    let answer = global.client()?.post("workflows/import", Some(&body)).await;
    let answer = answer.inspect_err(|failure| tell_failure(ui, failure))?;
    tell(ui, &answer["findings"]);
    let id = answer["workflow_id"].as_str().unwrap_or("?");
    let versions: Vec<&str> = answer["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    ui.show_line(&answer, &format!("{id}: {}", versions.join(", ")));
    Ok(Exit::Ok)
}
