//! `darkroom open [ENDPOINT]`

use std::process::{Command, Stdio};

use clap::Args;
use serde_json::json;

use crate::{
    args::Global,
    exit::{Exit, Failure},
};

/// Options of `open`.
#[derive(Debug, Args)]
pub struct OpenArgs {
    /// The endpoint whose page to open
    #[arg(default_value = "default")]
    endpoint: String,
    /// Only print the address
    #[arg(long)]
    print: bool,
}

/// Prints the address of an endpoint's page, which logs a browser in once, and opens it where there is a screen.
pub async fn open(args: OpenArgs, global: &Global) -> Result<Exit, Failure> {
    let wanted = json!({ "endpoint": args.endpoint });
    let link = global.client()?.post("links", Some(&wanted)).await?;
    let url = link["url"].as_str().unwrap_or_default().to_owned();
    if !args.print && !global.json {
        show(&url);
    }
    global.ui().show(&link, |_| format!("{url}\n"));
    Ok(Exit::Ok)
}

/// Best effort: the address is printed in any case.
fn show(url: &str) {
    let program = if cfg!(target_os = "macos") {
        "open"
    } else if std::env::var_os("DISPLAY").is_some() || std::env::var_os("WAYLAND_DISPLAY").is_some() {
        "xdg-open"
    } else {
        return;
    };
    let quiet = Command::new(program)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    // The browser outlives this command; nobody waits for it.
    drop(quiet);
}
