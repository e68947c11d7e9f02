//! What an instance tells of itself beside `object_info`, read once when it is up.

use std::collections::BTreeMap;

use bytes::Bytes;
use darkroom_comfy::client::{Client, Error};
use futures::FutureExt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::service::{facts::Facts, models::is_offered_by_a_loader};

/// Folders of models whose files are asked for: those of custom nodes are a handful.
const MOST_FOLDERS: usize = 64;
/// Scripts of custom nodes that are copied; a full house of them brings some hundreds.
const MOST_SCRIPTS: usize = 5_000;

/// Everything; what a version of ComfyUI does not have, or answers in another shape, stays empty.
///
/// # Errors
/// When it does not answer.
pub(super) async fn facts(client: &Client) -> Result<Facts, Error> {
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
    let unoffered = facts
        .model_folders
        .iter()
        .filter(|folder| !is_offered_by_a_loader(folder));
    for folder in unoffered.take(MOST_FOLDERS) {
        let files: Vec<String> = shaped(client.told(&["models", folder]).await?);
        if !files.is_empty() {
            facts.models.insert(folder.clone(), files);
        }
    }
    Ok(facts)
}

/// The scripts that custom nodes bring to the page, as paths below `/extensions/`. ComfyUI's own are the page's.
pub(super) fn scripts(facts: &Facts) -> impl Iterator<Item = &str> {
    facts
        .extensions
        .iter()
        .filter_map(|path| path.strip_prefix("/extensions/"))
        .filter(|path| !path.starts_with("core/"))
        .take(MOST_SCRIPTS)
}

/// One of them; `None` when it is not there.
///
/// # Errors
/// When the instance does not answer.
pub(super) async fn script(client: &Client, path: &str) -> Result<Option<Bytes>, Error> {
    let parts: Vec<&str> = std::iter::once("extensions").chain(path.split('/')).collect();
    client.file(&parts).await
}

fn shaped<T: DeserializeOwned + Default>(told: Option<Value>) -> T {
    told.and_then(|value| serde_json::from_value(value).ok())
        .unwrap_or_default()
}

fn object(told: Option<Value>) -> Value {
    told.filter(Value::is_object).unwrap_or_default()
}
