//! `darkroom attach` and `darkroom detach`: ComfyUIs that are there, put behind an endpoint of the running server.

use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use crate::{
    args::Global,
    client::segment,
    exit::{Exit, Failure},
};

/// Options of `attach`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// A ComfyUI: the URL of one that runs, or the directory of an installation on the server's machine
    #[arg(value_name = "URL|DIR")]
    target: String,
    /// The endpoint it works for; made if there is none
    #[arg(long, default_value = "default", value_name = "NAME")]
    endpoint: String,
    /// What to call it
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The installation's Python [default: the one of its virtual environment]
    #[arg(long, value_name = "FILE")]
    python: Option<String>,
    /// Further arguments of the installation's main.py, after `--`
    #[arg(last = true, value_name = "ARG")]
    args: Vec<String>,
}

/// Options of `detach`.
#[derive(Debug, Args)]
pub struct DetachArgs {
    /// What was attached: its name, URL, or directory
    what: String,
    /// The endpoint it works for, where several have it
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
}

/// Attaches and shows what was found; the server has a tiny graph run there before it keeps anything.
pub async fn attach(args: AttachArgs, global: &Global) -> Result<Exit, Failure> {
    let client = global.client()?;
    let is_url = args.target.contains("://");
    if !is_url && (args.target.contains(':') && !Path::new(&args.target).exists()) {
        let hint = format!("A URL begins with http://: http://{}", args.target);
        return Err(Failure::usage(format!("there is no directory '{}'", args.target)).with_hint(hint));
    }
    if is_url && (args.python.is_some() || !args.args.is_empty()) {
        return Err(Failure::usage(
            "--python and arguments are for an installation, not for a URL",
        ));
    }
    let target = match is_url {
        true => args.target.clone(),
        false => absolute(&args.target)?,
    };
    let path = format!("endpoints/{}/boxes", segment(&args.endpoint));
    let wish = json!({"target": target, "name": args.name, "python": args.python, "args": args.args});
    if !is_url {
        global.ui().note("starting it once to see what it has ...");
    }
    let answer = client.post(&path, Some(&wish)).await?;
    global.ui().show(&answer, found);
    Ok(Exit::Ok)
}

/// Detaches; what runs there goes on.
pub async fn detach(args: DetachArgs, global: &Global) -> Result<Exit, Failure> {
    let client = global.client()?;
    let what = match Path::new(&args.what).is_dir() {
        true => absolute(&args.what)?,
        false => args.what,
    };
    let answer = client
        .post("detach", Some(&json!({"what": what, "endpoint": args.endpoint})))
        .await?;
    global.ui().show(&answer, |answer| {
        let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
        let gone = match answer["endpoint_is_gone"].as_bool() {
            Some(true) => ", which has no box left and is gone",
            _ => "",
        };
        format!(
            "{} detached from endpoint {}{gone}\n",
            text("target"),
            text("endpoint")
        )
    });
    Ok(Exit::Ok)
}

fn absolute(path: &str) -> Result<String, Failure> {
    let absolute = std::path::absolute(path).map_err(|error| Failure::usage(format!("{path}: {error}")))?;
    let absolute = absolute.into_os_string().into_string();
    absolute.map_err(|path| Failure::usage(format!("{}: not a Unicode path", path.display())))
}

fn found(answer: &Value) -> String {
    let text = |key: &str| answer[key].as_str().unwrap_or_default();
    let made = match answer["made"].as_bool() {
        Some(true) => " (made for it)",
        _ => "",
    };
    let told = &answer["told"];
    let mut lines = vec![format!(
        "{} works for endpoint {}{made}",
        text("name"),
        text("endpoint")
    )];
    let versions = [
        ("ComfyUI", "version"),
        ("Python", "python"),
        ("PyTorch", "pytorch"),
    ];
    let versions: Vec<String> = versions
        .iter()
        .filter_map(|(name, key)| {
            Some(format!(
                "{name} {}",
                told[*key].as_str()?.split_whitespace().next()?
            ))
        })
        .collect();
    if !versions.is_empty() {
        lines.push(format!("  versions  {}", versions.join(", ")));
    }
    for device in told["devices"].as_array().into_iter().flatten() {
        let memory = device["vram_total"].as_u64().unwrap_or(0);
        let name = device["name"].as_str().unwrap_or("?");
        lines.push(format!("  device    {name}, {}", crate::ui::size(memory)));
    }
    if let Some(nodes) = told["nodes"].as_u64() {
        lines.push(format!("  nodes     {nodes} classes"));
    }
    let models = told["models"].as_object().into_iter().flatten();
    let models: Vec<String> = models
        .map(|(folder, count)| format!("{count} {folder}"))
        .collect();
    let models = match models.is_empty() {
        true => "none".to_owned(),
        false => models.join(", "),
    };
    lines.push(format!("  models    {models}"));
    lines.push(match told["tested_ms"].as_u64() {
        Some(ms) => format!("  test      a tiny graph ran in {ms} ms"),
        None => "  test      it has no nodes for a tiny graph".to_owned(),
    });
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_said_line_by_line() {
        let answer = json!({"name": "gpu:8188", "endpoint": "sdxl", "made": true, "told": {
            "version": "0.3.64", "python": "3.11.2 (main)", "pytorch": null,
            "devices": [{"name": "cuda:0 NVIDIA", "vram_total": 85_899_345_920_u64}],
            "nodes": 383, "models": {"checkpoints": 2, "vae": 1}, "tested_ms": 210,
        }});
        let said = found(&answer);
        for part in [
            "gpu:8188 works for endpoint sdxl (made for it)",
            "ComfyUI 0.3.64, Python 3.11.2\n",
            "cuda:0 NVIDIA",
            "383 classes",
            "2 checkpoints, 1 vae",
            "210 ms",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let installation = json!({"name": "/opt/ComfyUI", "endpoint": "default", "made": false, "told": {"nodes": 1, "models": {}}});
        assert!(found(&installation).contains("models    none"));
    }
}
