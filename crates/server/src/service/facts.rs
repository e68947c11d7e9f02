//! What the instances of an endpoint told about themselves beside `object_info`: versions and devices, embeddings, scripts
//! of custom nodes. Kept, so that it is answered while none of them runs.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

pub use darkroom_comfy::client::facts::Facts;
use darkroom_core::EndpointName;

use super::{Error, Service};

/// Facts in memory, the last that an endpoint's instance told; the store holds the text.
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

fn name(endpoint: &EndpointName) -> String {
    format!("facts/{endpoint}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
