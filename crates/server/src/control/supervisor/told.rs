//! What an instance tells of itself beside `object_info`, read once when it is up.

use bytes::Bytes;
use darkroom_comfy::client::{Client, Error};

use crate::service::{facts::Facts, models::is_offered_by_a_loader};

/// Scripts of custom nodes that are copied; a full house of them brings some hundreds.
const MOST_SCRIPTS: usize = 5_000;

/// Everything.
///
/// # Errors
/// When it does not answer.
pub(super) async fn facts(client: &Client) -> Result<Facts, Error> {
    Facts::of(client, is_offered_by_a_loader).await
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
