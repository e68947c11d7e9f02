//! What a ComfyUI tells of itself beside `object_info`: versions and devices, embeddings, model folders, scripts of custom
//! nodes.

use std::collections::BTreeMap;

use futures::FutureExt;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::{Client, Error};

/// Folders of models whose files are asked for: those of custom nodes are a handful.
const MOST_FOLDERS: usize = 64;
/// The version that is told while no instance has told its own: whose behaviour is repeated.
const COMFYUI_VERSION: &str = "0.3.64";

/// What a ComfyUI tells of itself beside `object_info`. Read with [`Facts::of`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// `/system_stats`.
    pub system_stats: Value,
    /// `/embeddings`.
    pub embeddings: Vec<String>,
    /// `/extensions`: the scripts that the page loads.
    pub extensions: Vec<String>,
    /// `/models`.
    pub model_folders: Vec<String>,
    /// `/models/{folder}`, for folders that `object_info` says nothing of.
    pub models: BTreeMap<String, Vec<String>>,
    /// `/workflow_templates`.
    pub workflow_templates: Value,
    /// `/i18n`.
    pub i18n: Value,
    /// `/node_replacements`.
    pub node_replacements: Value,
    /// `/global_subgraphs`.
    pub global_subgraphs: Value,
}

impl Facts {
    /// Asks for everything; what a version of ComfyUI does not have, or answers in another shape, stays empty. Files of
    /// folders are asked for unless they are `known` otherwise (loaders list them in `object_info`).
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn of(client: &Client, known: impl Fn(&str) -> bool + Send) -> Result<Self, Error> {
        let told = |parts: &'static [&'static str]| client.told(parts).boxed();
        let mut facts = Facts {
            system_stats: object(told(&["system_stats"]).await?),
            embeddings: shaped(told(&["embeddings"]).await?),
            extensions: shaped(told(&["extensions"]).await?),
            model_folders: shaped(told(&["models"]).await?),
            models: BTreeMap::new(),
            workflow_templates: object(told(&["workflow_templates"]).await?),
            i18n: object(told(&["i18n"]).await?),
            node_replacements: object(told(&["node_replacements"]).await?),
            global_subgraphs: object(told(&["global_subgraphs"]).await?),
        };
        let unknown: Vec<String> = facts
            .model_folders
            .iter()
            .filter(|folder| !known(folder))
            .cloned()
            .collect();
        for folder in unknown.into_iter().take(MOST_FOLDERS) {
            let files: Vec<String> = shaped(client.told(&["models", &folder]).await?);
            if !files.is_empty() {
                facts.models.insert(folder, files);
            }
        }
        Ok(facts)
    }

    /// `/system_stats` as anybody may see it: without the command line, which tells paths of the machine. Zeros where no
    /// instance has told anything.
    pub fn stats_for_clients(&self) -> Value {
        let mut stats = match &self.system_stats {
            Value::Object(stats) => stats.clone(),
            _ => unknown_stats(),
        };
        if let Some(Value::Object(system)) = stats.get_mut("system") {
            system.insert("argv".to_owned(), json!(["main.py"]));
        }
        Value::Object(stats)
    }
}

fn unknown_stats() -> Map<String, Value> {
    let stats = json!({
        "system": {
            "os": "posix", "ram_total": 0, "ram_free": 0, "comfyui_version": COMFYUI_VERSION,
            "required_frontend_version": null, "installed_templates_version": null,
            "required_templates_version": null, "python_version": "unknown", "pytorch_version": "unknown",
            "embedded_python": false, "argv": [],
        },
        "devices": [{
            "name": "none is running", "type": "cpu", "index": null, "vram_total": 0, "vram_free": 0,
            "torch_vram_total": 0, "torch_vram_free": 0,
        }],
    });
    match stats {
        Value::Object(stats) => stats,
        _ => Map::new(),
    }
}

fn shaped<T: DeserializeOwned + Default>(told: Option<Value>) -> T {
    told.and_then(|value| serde_json::from_value(value).ok())
        .unwrap_or_default()
}

fn object(told: Option<Value>) -> Value {
    told.filter(Value::is_object).unwrap_or_default()
}
