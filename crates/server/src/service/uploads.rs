//! Files that come as ComfyUI's own clients send them: under a name of their choice, which is kept when the same bytes
//! have it and becomes `name (1).ext` when others do (`comfyui/behaviour.md` §10).

use bytes::Bytes;
use darkroom_core::{BlobKey, EndpointName, PublicName, TenantId};
use darkroom_store::files::FileRef;
use futures::{TryStreamExt, stream::BoxStream};

use super::{Error, Service, folders::Folder};

/// Largest upload, in bytes: ComfyUI's default, which its clients read from `/features`.
pub const MAX_UPLOAD_BYTES: u64 = 100 * 1024 * 1024;

/// Names tried for a file whose name is taken by other bytes.
const MAX_TWINS: u32 = 10_000;

/// Bytes that were stored and are named by nothing yet.
#[derive(Debug)]
pub struct Incoming {
    key: BlobKey,
    size: u64,
    blake3: String,
}

impl Incoming {
    /// The bytes' key.
    pub fn key(&self) -> &BlobKey {
        &self.key
    }

    /// Their length.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// Where a file is to be kept.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Whose it is.
    pub tenant: &'a TenantId,
    /// For which endpoint.
    pub endpoint: &'a EndpointName,
    /// In which folder.
    pub folder: Folder,
    /// Its path there.
    pub path: &'a str,
}

impl Service {
    /// Stores bytes as they come; [`Service::keep_upload`] names them. What is never named goes within a day.
    ///
    /// # Errors
    /// [`Error::TooLarge`], or the stores' own.
    pub async fn receive(
        &self,
        tenant: &TenantId,
        file_name: &str,
        bytes: BoxStream<'_, Result<Bytes, std::io::Error>>,
        max_bytes: u64,
    ) -> Result<Incoming, Error> {
        let key = self.asset_key(tenant, file_name)?;
        self.store.intend_input(&key).await?;
        self.stream_into(key, bytes, max_bytes).await
    }

    /// Stores what a running job made, as it comes: also below the disk reserve, which is kept for that.
    ///
    /// # Errors
    /// [`Error::TooLarge`], or the stores' own.
    pub(super) async fn receive_output(
        &self,
        key: BlobKey,
        bytes: BoxStream<'_, Result<Bytes, std::io::Error>>,
        max_bytes: u64,
    ) -> Result<Incoming, Error> {
        self.store.intend(&key).await?;
        self.stream_into(key, bytes, max_bytes).await
    }

    async fn stream_into(
        &self,
        key: BlobKey,
        bytes: BoxStream<'_, Result<Bytes, std::io::Error>>,
        max_bytes: u64,
    ) -> Result<Incoming, Error> {
        match self.blobs.put_stream(&key, bytes, max_bytes).await {
            Ok(meta) => Ok(Incoming {
                key,
                size: meta.size,
                blake3: meta.blake3,
            }),
            Err(error) => {
                self.discard(vec![key]).await;
                Err(error.into())
            }
        }
    }

    /// Throws received bytes away.
    pub async fn forget_incoming(&self, incoming: Incoming) {
        self.discard(vec![incoming.key]).await;
    }

    /// Gives received bytes their name, and says which path they have then.
    ///
    /// # Errors
    /// [`Error::Invalid`] when too many files have that name, or the store's own.
    pub async fn keep_upload(
        &self,
        place: Place<'_>,
        incoming: Incoming,
        overwrite: bool,
    ) -> Result<String, Error> {
        let kept = self.name_incoming(place, &incoming, overwrite).await;
        match &kept {
            Ok((_, Named::New)) => self.pickers.changed(),
            Ok((_, Named::Known)) | Err(_) => self.forget_incoming(incoming).await,
        }
        kept.map(|(path, _)| path)
    }

    async fn name_incoming(
        &self,
        place: Place<'_>,
        incoming: &Incoming,
        overwrite: bool,
    ) -> Result<(String, Named), Error> {
        let owner = place.folder.owner(place.tenant, place.endpoint);
        let mut reference = FileRef {
            owner: owner.clone(),
            name: place.path.to_owned(),
            tenant: place.tenant.clone(),
            blob: incoming.key.clone(),
            size: incoming.size,
            content_type: self.content_type_of(&incoming.key, place.path).await,
            created_at: self.clock.now(),
        };
        if overwrite {
            self.store.put_ref(reference).await?;
            return Ok((place.path.to_owned(), Named::New));
        }
        for number in 0..MAX_TWINS {
            reference.name = twin(place.path, number);
            if self.store.add_ref(reference.clone()).await? {
                return Ok((reference.name, Named::New));
            }
            // One that went away meanwhile has left its name free; the next is as good.
            if let Some(taken) = self.store.file_ref(&owner, &reference.name).await?
                && taken.size == incoming.size
                && self.hash_of(&taken.blob).await?.as_deref() == Some(incoming.blake3.as_str())
            {
                return Ok((reference.name, Named::Known));
            }
        }
        Err(Error::Invalid(format!(
            "too many files are called {}",
            place.path
        )))
    }

    /// A name that nobody guesses, for callers who share a tenant with strangers.
    pub fn unguessable_name(&self, file_name: &str) -> String {
        let id = darkroom_core::JobId::from_uuid(self.ids.uuid_v4());
        PublicName::new(id, file_name).to_string()
    }

    pub(super) async fn hash_of(&self, key: &BlobKey) -> Result<Option<String>, Error> {
        let Some(mut reader) = self.blobs.open(key, None).await? else {
            return Ok(None);
        };
        let mut hasher = blake3::Hasher::new();
        while let Some(chunk) = reader
            .stream
            .try_next()
            .await
            .map_err(|e| Error::Internal(e.into()))?
        {
            hasher.update(&chunk);
        }
        Ok(Some(hasher.finalize().to_hex().to_string()))
    }
}

enum Named {
    /// The bytes have a name now.
    New,
    /// The same bytes had it already.
    Known,
}

/// `a/b.png`, then `a/b (1).png`, and so on.
fn twin(path: &str, number: u32) -> String {
    if number == 0 {
        return path.to_owned();
    }
    let name_at = path.rfind('/').map_or(0, |slash| slash + 1);
    // A name that begins with its only dot has no extension.
    let dot = path[name_at..].rfind('.').filter(|dot| *dot > 0);
    let (stem, extension) = path.split_at(dot.map_or(path.len(), |dot| name_at + dot));
    format!("{stem} ({number}){extension}")
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;
    use crate::service::testing::Bench;

    #[test]
    fn twins_keep_folder_and_extension() {
        for (path, number, name) in [
            ("a.png", 0, "a.png"),
            ("a.png", 1, "a (1).png"),
            ("x.y/a", 2, "x.y/a (2)"),
            ("s/.hidden", 1, "s/.hidden (1)"),
            ("a.tar.gz", 1, "a.tar (1).gz"),
        ] {
            assert_eq!(twin(path, number), name);
        }
    }

    async fn upload(bench: &Bench, name: &str, bytes: &'static [u8], overwrite: bool) -> String {
        let tenant: TenantId = "default".parse().unwrap();
        let stream = futures::stream::iter([Ok(Bytes::from_static(bytes))]).boxed();
        let incoming = bench.service.receive(&tenant, name, stream, 100).await.unwrap();
        let endpoint = bench.endpoint();
        let place = Place {
            tenant: &tenant,
            endpoint: &endpoint,
            folder: Folder::Input,
            path: name,
        };
        bench
            .service
            .keep_upload(place, incoming, overwrite)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn equal_bytes_keep_their_name_and_others_get_a_twin() {
        let bench = Bench::new();
        assert_eq!(upload(&bench, "up1.png", b"a", false).await, "up1.png");
        assert_eq!(upload(&bench, "up1.png", b"a", false).await, "up1.png");
        assert_eq!(upload(&bench, "up1.png", b"b", false).await, "up1 (1).png");
        assert_eq!(upload(&bench, "up1.png", b"b", false).await, "up1 (1).png");
        assert_eq!(upload(&bench, "up1.png", b"c", true).await, "up1.png");
        assert_eq!(upload(&bench, "up1.png", b"a", false).await, "up1 (2).png");
        // Of what was sent again, nothing stays but what was there.
        assert_eq!(
            bench.blob_keys().await.len(),
            4,
            "a, b, c, a again; the first a is trash"
        );
    }

    #[tokio::test]
    async fn two_uploads_at_once_do_not_take_each_others_name() {
        let bench = Bench::new();
        let (one, two) = tokio::join!(
            upload(&bench, "same.png", b"one", false),
            upload(&bench, "same.png", b"two", false)
        );
        let mut names = [one, two];
        names.sort();
        assert_eq!(names, ["same (1).png", "same.png"]);
    }

    #[tokio::test]
    async fn what_is_too_large_leaves_nothing() {
        let bench = Bench::new();
        let tenant: TenantId = "default".parse().unwrap();
        let stream = futures::stream::iter([Ok(Bytes::from_static(b"four"))]).boxed();
        let refused = bench.service.receive(&tenant, "a.png", stream, 3).await;
        assert!(matches!(refused, Err(Error::TooLarge { .. })));
        assert!(bench.blob_keys().await.is_empty());
    }
}
