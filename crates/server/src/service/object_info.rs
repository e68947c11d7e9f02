//! What an endpoint's instances can do, kept so that graphs are checked while nothing runs.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use darkroom_comfy::object_info::ObjectInfo;
use darkroom_core::EndpointName;

use super::{Error, Service};
use crate::beside::beside;

/// Parsed `object_info` per endpoint; the store holds the text.
#[derive(Debug, Default)]
pub struct Cache(RwLock<HashMap<EndpointName, Arc<ObjectInfo>>>);

impl Service {
    /// What the endpoint's instances can do; `None` until the first of them told.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn object_info(&self, endpoint: &EndpointName) -> Result<Option<Arc<ObjectInfo>>, Error> {
        if let Some(known) = self
            .object_infos
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(endpoint)
        {
            return Ok(Some(known.clone()));
        }
        let Some((json, _)) = self.store.object_info(endpoint).await? else {
            return Ok(None);
        };
        // A ComfyUI with many custom nodes tells megabytes.
        match beside(json.len(), move || parse(&json)).await {
            Ok(info) => Ok(Some(self.remember(endpoint, info))),
            Err(error) => {
                tracing::warn!(endpoint.name = %endpoint, %error, "the stored object_info cannot be read");
                Ok(None)
            }
        }
    }

    /// Learns what an instance can do; stored only when it differs from what is known.
    ///
    /// # Errors
    /// When it is not `object_info`, or the store fails.
    pub async fn learn_object_info(&self, endpoint: &EndpointName, json: Vec<u8>) -> Result<(), Error> {
        let text = json.clone();
        let info = beside(json.len(), move || parse(&text))
            .await
            .map_err(Error::Invalid)?;
        let known = self.store.object_info(endpoint).await?;
        if known.is_none_or(|(stored, _)| stored != json) {
            self.store.put_object_info(endpoint, json).await?;
        }
        self.remember(endpoint, info);
        Ok(())
    }

    fn remember(&self, endpoint: &EndpointName, info: ObjectInfo) -> Arc<ObjectInfo> {
        let info = Arc::new(info);
        self.object_infos
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(endpoint.clone(), info.clone());
        info
    }
}

fn parse(json: &[u8]) -> Result<ObjectInfo, String> {
    let value = serde_json::from_slice(json).map_err(|e| format!("not JSON: {e}"))?;
    ObjectInfo::parse(value).map_err(|e| e.to_string())
}
