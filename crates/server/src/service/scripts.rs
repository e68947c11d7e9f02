//! The files (scripts, styles, pictures) that custom nodes bring to ComfyUI's page: copied from the first instance that has them, so that the page is
//! whole while nothing runs.

use bytes::Bytes;
use darkroom_core::{EndpointName, TenantId};
use darkroom_store::files::FileRef;
use futures::StreamExt;

use super::{Error, Service, folders::inside, view::FoundFile};

/// Largest script, in bytes: bundles of whole applications have a few megabytes.
const MAX_SCRIPT_BYTES: u64 = 32 << 20;

impl Service {
    /// Keeps a script under its path below `/extensions/`; the last one told is the one that is served.
    ///
    /// # Errors
    /// For what is no path or too large, and the stores' own.
    pub async fn keep_page_script(
        &self,
        endpoint: &EndpointName,
        path: &str,
        bytes: Bytes,
    ) -> Result<(), Error> {
        let Some(path) = inside("extensions", path).filter(|path| !path.is_empty()) else {
            return Err(Error::Invalid(format!("'{path}' is no path of a script")));
        };
        let owner = owner(endpoint);
        if let Some(known) = self.store.file_ref(&owner, &path).await?
            && self.hash_of(&known.blob).await?.as_deref() == Some(blake3::hash(&bytes).to_hex().as_str())
        {
            return Ok(());
        }
        let tenant: TenantId = "default".parse().expect("a constant name that follows the rule");
        let name = path.rsplit('/').next().unwrap_or(&path);
        let stream = futures::stream::iter([Ok(bytes)]).boxed();
        let incoming = self.receive(&tenant, name, stream, MAX_SCRIPT_BYTES).await?;
        let reference = FileRef {
            owner,
            name: path.clone(),
            tenant,
            blob: incoming.key().clone(),
            size: incoming.size(),
            content_type: content_type(&path).to_owned(),
            created_at: self.clock.now(),
        };
        if let Err(error) = self.store.put_ref(reference).await {
            self.forget_incoming(incoming).await;
            return Err(error.into());
        }
        Ok(())
    }

    /// The script at a path below `/extensions/`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn page_script(&self, endpoint: &EndpointName, path: &str) -> Result<Option<FoundFile>, Error> {
        let Some(path) = inside("extensions", path) else {
            return Ok(None);
        };
        let found = self.store.file_ref(&owner(endpoint), &path).await?;
        Ok(found.map(|found| FoundFile {
            key: found.blob,
            size: found.size,
            content_type: found.content_type,
            name: path.rsplit('/').next().unwrap_or(&path).to_owned(),
        }))
    }
}

/// What a browser takes a file of the page for; `None`: nothing that a page has.
pub fn web_type(path: &str) -> Option<&'static str> {
    let (_, extension) = path.rsplit('/').next()?.rsplit_once('.')?;
    Some(match extension.to_ascii_lowercase().as_str() {
        "js" | "mjs" => "text/javascript",
        "css" => "text/css; charset=utf-8",
        "html" | "htm" => "text/html; charset=utf-8",
        "json" | "map" => "application/json",
        "wasm" => "application/wasm",
        "txt" | "md" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        _ => return None,
    })
}

fn content_type(path: &str) -> &'static str {
    web_type(path).unwrap_or("application/octet-stream")
}

fn owner(endpoint: &EndpointName) -> String {
    format!("page:{endpoint}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::testing::Bench;

    #[tokio::test]
    async fn the_last_script_told_is_the_one_that_is_served() {
        let bench = Bench::new();
        let (service, endpoint) = (&bench.service, bench.endpoint());
        for text in ["let a = 1", "let a = 1", "let a = 2"] {
            service
                .keep_page_script(&endpoint, "pack/js/a.js", text.into())
                .await
                .unwrap();
            let found = service.page_script(&endpoint, "pack/js/a.js").await.unwrap();
            assert_eq!(found.map(|f| (f.size, f.name)), Some((9, "a.js".to_owned())));
        }
        assert_eq!(
            service.page_script(&endpoint, "pack/js/b.js").await.unwrap(),
            None
        );
        assert_eq!(service.page_script(&endpoint, "../a.js").await.unwrap(), None);
        for (path, is) in [
            ("pack/js/a.js", "text/javascript"),
            ("pack/style.CSS", "text/css; charset=utf-8"),
            ("pack/fonts/x.woff2", "font/woff2"),
        ] {
            service
                .keep_page_script(&endpoint, path, "x".into())
                .await
                .unwrap();
            let found = service.page_script(&endpoint, path).await.unwrap();
            assert_eq!(found.map(|f| f.content_type).as_deref(), Some(is));
        }
        for none in ["pack/nodes.py", "pack/model.safetensors", "pack/README", "a.b/c"] {
            assert_eq!(web_type(none), None);
        }
        for bad in ["../a.js", "/a.js", ""] {
            let kept = service.keep_page_script(&endpoint, bad, "x".into()).await;
            assert!(matches!(kept, Err(Error::Invalid(_))), "{bad}");
        }
    }
}
