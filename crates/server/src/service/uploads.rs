//! Files that come as ComfyUI's own clients send them: under a name of their choice, which is kept when the same bytes
//! have it and becomes `name (1).ext` when others do (`comfyui/behaviour.md` §10).

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use darkroom_core::{BlobKey, Digest, EndpointName, PublicName, TenantId};
use darkroom_store::{
    assets::{Content, IfTaken},
    files::FileRef,
};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use sha2::{Digest as _, Sha256};

use super::{Error, Service, folders::Folder};
use crate::beside::beside;

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
    sha256: Option<Digest>,
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

    /// What they are as a tenant's content; `None` for bytes that are not kept by what they hold.
    pub(super) fn content(&self, tenant: &TenantId) -> Option<Content> {
        Some(Content {
            tenant: tenant.clone(),
            blake3: Digest::from_hex(&self.blake3)?,
            sha256: self.sha256?,
            size: self.size,
            blob: self.key.clone(),
        })
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
        let sha256 = Mutex::new(Sha256::new());
        let incoming = self.stream_into(key, hashed(bytes, &sha256), max_bytes).await?;
        let sha256 = std::mem::take(&mut *lock(&sha256)).finalize();
        Ok(Incoming {
            sha256: Some(Digest::new(sha256.into())),
            ..incoming
        })
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
                sha256: None,
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
    /// [`Error::Invalid`] when too many files have that name, or the stores' own.
    pub async fn keep_upload(
        &self,
        place: Place<'_>,
        incoming: Incoming,
        overwrite: bool,
    ) -> Result<String, Error> {
        let named = self.name_upload(place, &incoming, overwrite).await;
        if let Ok((_, Some(_))) = &named {
            self.pickers.changed();
        }
        let kept = named.as_ref().ok().and_then(|(_, blob)| blob.as_ref());
        let settled = self.settle_incoming(incoming, kept).await;
        let (path, _) = named?;
        settled.map(|()| path)
    }

    /// Gives received bytes a name, under which the same bytes are kept once for each tenant; `false`: the name is taken, and
    /// they are gone.
    ///
    /// # Errors
    /// The store's own; the bytes are gone then, too.
    pub(super) async fn keep_incoming(
        &self,
        reference: FileRef,
        incoming: Incoming,
        if_taken: IfTaken,
    ) -> Result<bool, Error> {
        let kept = self.name_content(reference, &incoming, if_taken).await;
        let blob = kept.as_ref().ok().and_then(Option::as_ref);
        let settled = self.settle_incoming(incoming, blob).await;
        let is_kept = kept?.is_some();
        settled.map(|()| is_kept)
    }

    /// The blob that has the name then, which is an older one where the bytes are known; `None`: the name is taken.
    async fn name_content(
        &self,
        reference: FileRef,
        incoming: &Incoming,
        if_taken: IfTaken,
    ) -> Result<Option<BlobKey>, Error> {
        if let Some(content) = incoming.content(&reference.tenant) {
            return Ok(self.store.keep_content(reference, content, if_taken).await?);
        }
        let done = match if_taken {
            IfTaken::Replace => {
                self.store.put_ref(reference).await?;
                true
            }
            IfTaken::Keep => self.store.add_ref(reference).await?,
        };
        Ok(done.then(|| incoming.key.clone()))
    }

    /// Throws received bytes away unless they are what is kept.
    ///
    /// # Errors
    /// When nobody can tell that the blob which is kept is whole: the received bytes stay for a day then, and the caller sends
    /// them again.
    pub(super) async fn settle_incoming(
        &self,
        incoming: Incoming,
        kept: Option<&BlobKey>,
    ) -> Result<(), Error> {
        if kept == Some(&incoming.key) {
            return Ok(());
        }
        if let Some(kept) = kept
            && let Err(error) = self.restore(kept, &incoming).await
        {
            tracing::warn!(error = ?error, blob.key = %kept, "cannot look after a blob that bytes are kept in");
            return Err(error);
        }
        self.forget_incoming(incoming).await;
        Ok(())
    }

    /// A blob that the store knows but nobody has (its database is older than the files, or somebody deleted one) is whole
    /// again once its bytes were brought again.
    async fn restore(&self, kept: &BlobKey, incoming: &Incoming) -> Result<(), Error> {
        let there = self.blobs.stat(kept).await?;
        if there.is_some_and(|there| there.size == incoming.size) {
            return Ok(());
        }
        tracing::warn!(blob.key = %kept, "a blob was gone; its bytes were brought again");
        let reader = self.blobs.open(&incoming.key, None).await?;
        let reader =
            reader.ok_or_else(|| Error::Internal(anyhow::anyhow!("bytes that just came are gone")))?;
        self.blobs.put_stream(kept, reader.stream, incoming.size).await?;
        Ok(())
    }

    /// The path, and the blob that has it now; `None`: the same bytes had it already.
    async fn name_upload(
        &self,
        place: Place<'_>,
        incoming: &Incoming,
        overwrite: bool,
    ) -> Result<(String, Option<BlobKey>), Error> {
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
            let blob = self.name_content(reference, incoming, IfTaken::Replace).await?;
            return Ok((place.path.to_owned(), blob));
        }
        for number in 0..MAX_TWINS {
            reference.name = twin(place.path, number);
            let kept = self
                .name_content(reference.clone(), incoming, IfTaken::Keep)
                .await?;
            if kept.is_some() {
                return Ok((reference.name, kept));
            }
            // One that went away meanwhile has left its name free; the next is as good.
            if let Some(taken) = self.store.file_ref(&owner, &reference.name).await?
                && taken.size == incoming.size
                && self.blake3_of(&taken.blob).await?.as_deref() == Some(incoming.blake3.as_str())
            {
                return Ok((reference.name, None));
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

    /// As it was noted when the bytes came; read where it was not.
    async fn blake3_of(&self, key: &BlobKey) -> Result<Option<String>, Error> {
        match self.store.content_of(key).await? {
            Some(content) => Ok(Some(content.blake3.to_string())),
            None => self.hash_of(key).await,
        }
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

/// The same bytes, hashed on their way.
fn hashed<'a>(
    bytes: BoxStream<'a, Result<Bytes, std::io::Error>>,
    into: &'a Mutex<Sha256>,
) -> BoxStream<'a, Result<Bytes, std::io::Error>> {
    let hash = move |piece: Bytes| async move {
        let mut hasher = std::mem::take(&mut *lock(into));
        let (hasher, piece) = beside(piece.len(), move || {
            hasher.update(&piece);
            (hasher, piece)
        })
        .await;
        *lock(into) = hasher;
        Ok(piece)
    };
    bytes.and_then(hash).boxed()
}

fn lock(hasher: &Mutex<Sha256>) -> MutexGuard<'_, Sha256> {
    hasher.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `a/b.png`, then `a/b (1).png`, and so on.
pub(super) fn twin(path: &str, number: u32) -> String {
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
        // Of what was sent again, nothing stays but what was there; the first a came out of the trash again.
        assert_eq!(bench.blob_keys().await.len(), 3, "a, b, c");
    }

    #[tokio::test]
    async fn a_blob_that_is_gone_is_whole_again_when_its_bytes_come_again() {
        let bench = Bench::new();
        upload(&bench, "a.png", b"a", false).await;
        let key: BlobKey = bench.blob_keys().await[0].parse().unwrap();
        bench.service.blobs.delete(&key).await.unwrap();
        upload(&bench, "b.png", b"a", false).await;
        assert_eq!(bench.blob_keys().await, [key.to_string()]);
        let read = bench.service.blobs.read(&key, 9).await.unwrap();
        assert_eq!(read.as_deref(), Some(&b"a"[..]));
    }

    #[tokio::test]
    async fn bytes_whose_blob_cannot_be_looked_after_are_not_said_to_be_kept() {
        let bench = Bench::new();
        upload(&bench, "a.png", b"a", false).await;
        let key: BlobKey = bench.blob_keys().await[0].parse().unwrap();
        bench.service.blobs.delete(&key).await.unwrap();
        let tenant: TenantId = "default".parse().unwrap();
        let stream = futures::stream::iter([Ok(Bytes::from_static(b"a"))]).boxed();
        let incoming = bench
            .service
            .receive(&tenant, "b.png", stream, 100)
            .await
            .unwrap();
        bench.blobs.fail_reads(1);
        let settled = bench.service.settle_incoming(incoming, Some(&key)).await;
        assert!(settled.is_err());
        assert_eq!(bench.blob_keys().await.len(), 1, "what came is still there");
        upload(&bench, "b.png", b"a", false).await;
        assert!(bench.service.blobs.stat(&key).await.unwrap().is_some());
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
