//! What is laid over the file: environment variables, then flags.

use std::{collections::BTreeMap, path::PathBuf};

use toml::{Table, Value};

use super::server::LogFormat;

/// Flags of `darkroom serve`.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config FILE`.
    pub config: Option<PathBuf>,
    /// `--listen ADDR`.
    pub listen: Option<String>,
    /// `--data-dir DIR`.
    pub data_dir: Option<PathBuf>,
    /// `--comfyui PATH`: what the endpoint `default` runs on.
    pub comfyui: Option<String>,
    /// `--log-format text|json`.
    pub log_format: Option<LogFormat>,
    /// `--insecure-no-auth`.
    pub insecure_no_auth: bool,
}

/// Sections whose keys the environment may set. Keys and endpoints have no fixed names to spell in a variable.
const ENV_SECTIONS: &[&str] = &["server", "store", "blobs", "fetch"];

const ENV_PREFIX: &str = "DARKROOM__";

/// Writes `DARKROOM__SECTION__KEY` variables into the file's tables; returns which paths came from where.
/// Variables that name no section are returned as problems: (path, variable).
pub(super) fn apply_env(
    root: &mut Table,
    env: &BTreeMap<String, String>,
    origins: &mut BTreeMap<String, String>,
) -> Vec<(String, String)> {
    let mut misnamed = Vec::new();
    for (variable, text) in env {
        let Some(path) = variable.strip_prefix(ENV_PREFIX) else {
            continue;
        };
        let path = path.to_ascii_lowercase();
        match path.split_once("__") {
            Some((section, key)) if ENV_SECTIONS.contains(&section) && !key.contains("__") => {
                set(root, section, key, Value::String(text.clone()));
                origins.insert(format!("{section}.{key}"), variable.clone());
            }
            _ => misnamed.push((path.replace("__", "."), variable.clone())),
        }
    }
    misnamed
}

/// Writes flags over everything else.
pub(super) fn apply_flags(root: &mut Table, flags: &Overrides, origins: &mut BTreeMap<String, String>) {
    let mut set_flag = |key: &str, text: String, flag: &str| {
        set(root, "server", key, Value::String(text));
        origins.insert(format!("server.{key}"), flag.to_owned());
    };
    if let Some(listen) = &flags.listen {
        set_flag("listen", listen.clone(), "--listen");
    }
    if let Some(data_dir) = &flags.data_dir {
        set_flag("data_dir", data_dir.to_string_lossy().into_owned(), "--data-dir");
    }
    if let Some(format) = flags.log_format {
        let word = match format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        set_flag("log_format", word.to_owned(), "--log-format");
    }
    if let Some(comfyui) = &flags.comfyui {
        set_comfyui(root, comfyui, origins);
    }
}

/// `--comfyui` replaces what `default` runs on, and leaves its scaling and limits.
fn set_comfyui(root: &mut Table, comfyui: &str, origins: &mut BTreeMap<String, String>) {
    let Some(endpoints) = table(root, "endpoints") else {
        return;
    };
    let Some(default) = table(endpoints, "default") else {
        return;
    };
    for key in ["backend", "comfyui", "urls", "command"] {
        default.remove(key);
    }
    let is_url = comfyui.starts_with("http://") || comfyui.starts_with("https://");
    let key = if is_url { "urls" } else { "comfyui" };
    if is_url {
        default.insert("backend".to_owned(), "remote".into());
        default.insert("urls".to_owned(), Value::Array(vec![comfyui.into()]));
    } else {
        default.insert("comfyui".to_owned(), comfyui.into());
    }
    for key in [key, "backend"] {
        origins.insert(format!("endpoints.default.{key}"), "--comfyui".to_owned());
    }
}

fn set(root: &mut Table, section: &str, key: &str, value: Value) {
    if let Some(section) = table(root, section) {
        section.insert(key.to_owned(), value);
    }
}

/// The sub-table of this name, made when missing; `None` when something else has its place (reported on reading).
fn table<'a>(parent: &'a mut Table, name: &str) -> Option<&'a mut Table> {
    parent
        .entry(name.to_owned())
        .or_insert_with(|| Value::Table(Table::new()))
        .as_table_mut()
}
