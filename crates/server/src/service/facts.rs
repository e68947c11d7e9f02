//! What the instances of an endpoint told about themselves beside `object_info`: versions and devices, embeddings, scripts
//! of custom nodes. Kept, so that it is answered while none of them runs.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use darkroom_core::EndpointName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Error, Service};

/// The version that is told while no instance has told its own: whose behaviour is repeated.
const COMFYUI_VERSION: &str = "0.3.64";

/// What an instance told; the last one that started is believed.
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

/// Facts in memory; the store holds the text.
#[derive(Debug, Default)]
pub struct Known(RwLock<HashMap<EndpointName, Arc<Facts>>>);

impl Service {
    /// What is known of an endpoint's instances; nothing until the first of them told.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn facts(&self, endpoint: &EndpointName) -> Result<Arc<Facts>, Error> {
        let known = self
            .facts
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(endpoint)
            .cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let stored = self.store.setting(&name(endpoint)).await?;
        let facts = stored
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        // What was learned meanwhile is newer than what was read.
        let mut known = self.facts.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(endpoint.clone()).or_insert_with(|| Arc::new(facts));
        Ok(known.clone())
    }

    /// Learns what an instance told; stored only when it differs.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn learn_facts(&self, endpoint: &EndpointName, facts: Facts) -> Result<(), Error> {
        if *self.facts(endpoint).await? != facts {
            let text = serde_json::to_string(&facts).map_err(|e| Error::Internal(e.into()))?;
            self.store.put_setting(&name(endpoint), &text).await?;
            let mut known = self.facts.0.write().unwrap_or_else(PoisonError::into_inner);
            known.insert(endpoint.clone(), Arc::new(facts));
        }
        Ok(())
    }
}

impl Facts {
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

fn name(endpoint: &EndpointName) -> String {
    format!("facts/{endpoint}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::testing::Bench;

    #[tokio::test]
    async fn what_an_instance_told_is_known_after_it_is_gone() {
        let bench = Bench::new();
        let endpoint = bench.endpoint();
        let service = &bench.service;
        let before = service.facts(&endpoint).await.unwrap().stats_for_clients();
        assert_eq!(before["devices"][0]["vram_total"], 0);
        let facts = Facts {
            system_stats: json!({
                "system": {"comfyui_version": "0.4.0", "argv": ["main.py", "/secret/path"]}, "devices": [],
            }),
            embeddings: vec!["easynegative".to_owned()],
            ..Facts::default()
        };
        service.learn_facts(&endpoint, facts.clone()).await.unwrap();
        // As after a restart: only the store knows.
        service.facts.0.write().unwrap().clear();
        let told = service.facts(&endpoint).await.unwrap();
        assert_eq!(*told, facts);
        let stats = told.stats_for_clients();
        assert_eq!(stats["system"]["comfyui_version"], "0.4.0");
        assert!(!stats.to_string().contains("secret"), "{stats}");
    }
}
