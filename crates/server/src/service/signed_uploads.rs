//! Uploads by signed address: who may upload is asked once, the bytes then come by a link that is bound to one name, a media
//! type, a length and a time, and is good once. What came is read by another link, and kept for a day.
//!
//! Our own addresses, of these files and of outputs, are never fetched over the network: a graph that names one gets the
//! file ([`Service::own_file`]).

use std::time::Duration;

use bytes::Bytes;
use darkroom_blobs::signed_url::{self, Method, SignatureError, UploadTerms};
use darkroom_core::{BlobKey, TenantId, Timestamp, blob_key::safe_segment};
use darkroom_store::{assets::IfTaken, files::FileRef, jobs::InputBlob};
use futures::stream::BoxStream;
use percent_encoding::percent_decode_str;

use super::{Error, Service, uploads::MAX_UPLOAD_BYTES};

/// The path of such uploads, in front of the name.
const PATH_PREFIX: &str = "/darkroom/v1/uploads/";
/// Who refers to them. Names begin with a time-ordered id, so the oldest come first.
const OWNER: &str = "temp";
/// How long the link for the upload is good.
const PUT_EXPIRY: Duration = Duration::from_secs(3600);
/// How long a file is kept at least.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Longest media type.
const MAX_TYPE_BYTES: usize = 200;

/// Where to put a file, and where it will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedUpload {
    /// Its name.
    pub object_key: BlobKey,
    /// Path and query for the `PUT`.
    pub upload_path: String,
    /// Path and query for reading it.
    pub access_path: String,
    /// Until when it may be put.
    pub expires_at: Timestamp,
    /// How large it may be.
    pub max_bytes: u64,
}

/// Why an upload was refused.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The link is not one of ours, or for something else.
    #[error(transparent)]
    Link(#[from] SignatureError),
    /// It was used.
    #[error("the upload address was used already: ask for another one")]
    Used,
    /// More came than was signed for.
    #[error("the file is larger than the {0} bytes that were signed for")]
    TooLarge(u64),
    /// Something else went wrong.
    #[error(transparent)]
    Service(#[from] Error),
}

impl Service {
    /// A link for one upload. `size`: how long the file will be, if that is known.
    ///
    /// # Errors
    /// [`Error::Invalid`] for names and types that are none, [`Error::TooLarge`].
    pub fn sign_upload(
        &self,
        tenant: &TenantId,
        file_name: &str,
        content_type: &str,
        size: Option<u64>,
    ) -> Result<SignedUpload, Error> {
        let plain = |c: char| c.is_ascii_graphic() || c == ' ';
        if content_type.is_empty() || content_type.len() > MAX_TYPE_BYTES || !content_type.chars().all(plain)
        {
            return Err(Error::Invalid("the content type is missing or is none".into()));
        }
        if size.is_some_and(|size| size > MAX_UPLOAD_BYTES) {
            return Err(Error::TooLarge {
                what: "the file",
                limit_bytes: MAX_UPLOAD_BYTES,
            });
        }
        let file = file_name.rsplit(['/', '\\']).next().unwrap_or(file_name);
        let key = format!("{OWNER}/{}/{tenant}/{}", self.ids.uuid_v7(), safe_segment(file));
        let object_key: BlobKey = key.parse().map_err(|e| Error::Internal(anyhow::Error::new(e)))?;
        let now = self.clock.now();
        let (expires_at, max_bytes) = (now.plus(PUT_EXPIRY), size.unwrap_or(MAX_UPLOAD_BYTES));
        let terms = UploadTerms {
            max_bytes,
            content_type,
        };
        let query = self.signer.sign_upload(&object_key, expires_at, &terms);
        Ok(SignedUpload {
            upload_path: format!("{}?{query}", path(&object_key)),
            access_path: self.access_path(&object_key),
            object_key,
            expires_at,
            max_bytes,
        })
    }

    fn access_path(&self, object_key: &BlobKey) -> String {
        let expires = self.clock.now().plus(self.settings.url_expiry.max(KEPT));
        format!(
            "{}?{}",
            path(object_key),
            self.signer.sign(Method::Get, object_key, expires, None)
        )
    }

    /// Takes an upload in, as it comes.
    ///
    /// # Errors
    /// [`UploadError`]; nothing stays of what was refused.
    pub async fn receive_signed(
        &self,
        object_key: &BlobKey,
        query: &str,
        content_type: &str,
        announced: Option<u64>,
        bytes: BoxStream<'_, Result<Bytes, std::io::Error>>,
    ) -> Result<(), UploadError> {
        let grant = self
            .signer
            .verify_upload(object_key, query, content_type, self.clock.now())?;
        let max_bytes = grant.max_bytes.unwrap_or(MAX_UPLOAD_BYTES);
        if announced.is_some_and(|length| length > max_bytes) {
            return Err(UploadError::TooLarge(max_bytes));
        }
        let (name, tenant) = name_and_tenant(object_key).ok_or(SignatureError::Mismatch)?;
        if self
            .store
            .file_ref(OWNER, name)
            .await
            .map_err(Error::from)?
            .is_some()
        {
            return Err(UploadError::Used);
        }
        // Each try has a key of its own: one that comes second changes nothing of what the first one brought.
        let received = self
            .receive(&tenant, object_key.file_name(), bytes, max_bytes)
            .await;
        let incoming = received.map_err(|error| match error {
            Error::TooLarge { limit_bytes, .. } => UploadError::TooLarge(limit_bytes),
            other => UploadError::Service(other),
        })?;
        let reference = FileRef {
            owner: OWNER.to_owned(),
            name: name.to_owned(),
            tenant,
            blob: incoming.key().clone(),
            size: incoming.size(),
            content_type: content_type.to_owned(),
            created_at: self.clock.now(),
        };
        match self.keep_incoming(reference, incoming, IfTaken::Keep).await? {
            true => Ok(()),
            false => Err(UploadError::Used),
        }
    }

    /// The blob of an upload, to who has the link for reading it. `None`: nothing was put there, or it is gone.
    ///
    /// # Errors
    /// [`UploadError::Link`].
    pub async fn signed_upload(
        &self,
        object_key: &BlobKey,
        query: &str,
    ) -> Result<Option<BlobKey>, UploadError> {
        self.signer
            .verify(Method::Get, object_key, query, self.clock.now())?;
        let Some((name, _)) = name_and_tenant(object_key) else {
            return Ok(None);
        };
        let found = self.store.file_ref(OWNER, name).await.map_err(Error::from)?;
        Ok(found.map(|reference| reference.blob))
    }

    /// Whether an upload is of this tenant.
    pub(super) fn owns_asset(&self, tenant: &TenantId, object_key: &BlobKey) -> bool {
        name_and_tenant(object_key).is_some_and(|(_, owner)| owner == *tenant)
    }

    /// An address of an upload that [`Service::own_file`] knows again; no other program does.
    pub(super) fn own_address(&self, object_key: &BlobKey) -> String {
        format!("http://asset.invalid{}", self.access_path(object_key))
    }

    /// The file behind an address that this server signed; `None` for all others.
    ///
    /// # Errors
    /// [`Error::InputUnavailable`] for one that has expired, or whose file is not there.
    pub(super) async fn own_file(&self, url: &str) -> Result<Option<InputBlob>, Error> {
        let Ok(url) = url::Url::parse(url) else {
            return Ok(None);
        };
        if url.path().starts_with(super::objects::PATH) {
            return self.own_object(&url).await;
        }
        let (prefix, is_upload) = match url.path() {
            path if path.starts_with(PATH_PREFIX) => (PATH_PREFIX, true),
            path if path.starts_with(signed_url::PATH_PREFIX) => (signed_url::PATH_PREFIX, false),
            _ => return Ok(None),
        };
        let name = percent_decode_str(&url.path()[prefix.len()..]).decode_utf8();
        let Some(key) = name.ok().and_then(|name| name.parse::<BlobKey>().ok()) else {
            return Ok(None);
        };
        match self.signer.verify(
            Method::Get,
            &key,
            url.query().unwrap_or_default(),
            self.clock.now(),
        ) {
            Ok(_) => {}
            // Perhaps another server's.
            Err(SignatureError::Missing | SignatureError::Mismatch) => return Ok(None),
            Err(SignatureError::Expired) => {
                return Err(Error::input_unavailable(format!(
                    "the address of {} has expired",
                    key.file_name()
                )));
            }
        }
        let gone = || {
            Error::input_unavailable(format!(
                "the file {} was not uploaded, or is gone",
                key.file_name()
            ))
        };
        if !is_upload {
            let stat = self.blobs.stat(&key).await?.ok_or_else(gone)?;
            let content_type = self.content_type_of(&key, key.file_name()).await;
            return Ok(Some(InputBlob {
                size: stat.size,
                content_type,
                key,
            }));
        }
        let (name, _) = name_and_tenant(&key).ok_or_else(gone)?;
        let found = self.store.file_ref(OWNER, name).await?.ok_or_else(gone)?;
        Ok(Some(InputBlob {
            key: found.blob,
            size: found.size,
            content_type: found.content_type,
        }))
    }

    /// Forgets uploads that are older than they are kept. Jobs that were accepted with one have a reference of their own.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sweep_signed_uploads(&self) -> Result<(), Error> {
        let before = self.clock.now().minus(self.settings.url_expiry.max(KEPT));
        loop {
            let oldest = self.store.refs_page(OWNER, None, 100).await?;
            let due = oldest.iter().filter(|reference| reference.created_at < before);
            let mut dropped = false;
            for reference in due {
                self.store.drop_ref(OWNER, &reference.name).await?;
                dropped = true;
            }
            if !dropped {
                return Ok(());
            }
        }
    }
}

fn path(object_key: &BlobKey) -> String {
    signed_url::path(object_key).replacen(signed_url::PATH_PREFIX, PATH_PREFIX, 1)
}

/// `temp/{id}/{tenant}/{file}`: the reference's name, and whose it is.
fn name_and_tenant(object_key: &BlobKey) -> Option<(&str, TenantId)> {
    let name = object_key.as_str().strip_prefix("temp/")?;
    let tenant = name.split('/').nth(1)?.parse().ok()?;
    Some((name, tenant))
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;
    use crate::service::testing::Bench;

    fn query(path: &str) -> &str {
        path.split_once('?').unwrap().1
    }

    async fn put(
        bench: &Bench,
        signed: &SignedUpload,
        media: &str,
        bytes: &'static [u8],
    ) -> Result<(), UploadError> {
        let stream = futures::stream::iter([Ok(Bytes::from_static(bytes))]).boxed();
        let link = query(&signed.upload_path);
        bench
            .service
            .receive_signed(&signed.object_key, link, media, Some(bytes.len() as u64), stream)
            .await
    }

    fn sign(bench: &Bench, name: &str, size: Option<u64>) -> SignedUpload {
        bench
            .service
            .sign_upload(&"default".parse().unwrap(), name, "image/png", size)
            .unwrap()
    }

    #[tokio::test]
    async fn an_upload_is_read_by_its_link_and_by_a_graph() {
        let bench = Bench::new();
        let signed = sign(&bench, "dir/中文 名.png", None);
        assert_eq!(signed.object_key.file_name(), "中文 名.png");
        let before = bench
            .service
            .signed_upload(&signed.object_key, query(&signed.access_path))
            .await
            .unwrap();
        assert_eq!(before, None);
        put(&bench, &signed, "image/png", b"pixels").await.unwrap();
        let blob = bench
            .service
            .signed_upload(&signed.object_key, query(&signed.access_path))
            .await
            .unwrap();
        let url = format!("https://elsewhere.example{}", signed.access_path);
        let own = bench.service.own_file(&url).await.unwrap().unwrap();
        assert_eq!(
            (Some(own.key), own.size, own.content_type.as_str()),
            (blob, 6, "image/png")
        );
        let tampered = url.replace("temp/", "temp/0");
        assert!(bench.service.own_file(&tampered).await.unwrap().is_none());
        assert!(
            bench
                .service
                .own_file("https://example.com/a.png")
                .await
                .unwrap()
                .is_none()
        );
    }

    #[tokio::test]
    async fn a_link_is_good_once_for_its_type_its_length_and_its_time() {
        let bench = Bench::new();
        let signed = sign(&bench, "a.png", Some(4));
        assert!(matches!(
            put(&bench, &signed, "image/jpeg", b"four").await,
            Err(UploadError::Link(_))
        ));
        assert!(matches!(
            put(&bench, &signed, "image/png", b"fives").await,
            Err(UploadError::TooLarge(4))
        ));
        put(&bench, &signed, "image/png", b"four").await.unwrap();
        assert!(matches!(
            put(&bench, &signed, "image/png", b"more").await,
            Err(UploadError::Used)
        ));
        let late = sign(&bench, "b.png", None);
        bench.clock.advance(PUT_EXPIRY);
        assert!(matches!(
            put(&bench, &late, "image/png", b"late").await,
            Err(UploadError::Link(SignatureError::Expired))
        ));
        assert_eq!(
            bench.blob_keys().await.len(),
            1,
            "of what was refused nothing stays"
        );
        assert!(
            bench
                .service
                .sign_upload(&"default".parse().unwrap(), "a", "a\nb", None)
                .is_err()
        );
        assert!(
            bench
                .service
                .sign_upload(&"default".parse().unwrap(), "a", "a/b", Some(u64::MAX))
                .is_err()
        );
    }

    #[tokio::test]
    async fn uploads_go_after_a_day() {
        let bench = Bench::new();
        let signed = sign(&bench, "a.png", None);
        put(&bench, &signed, "image/png", b"x").await.unwrap();
        let url = format!("http://h{}", signed.access_path);
        bench.service.sweep_signed_uploads().await.unwrap();
        assert!(bench.service.own_file(&url).await.unwrap().is_some());
        bench.clock.advance(KEPT + Duration::from_secs(1));
        let expired = bench.service.own_file(&url).await.unwrap_err();
        assert!(expired.to_string().contains("expired"), "{expired}");
        bench.service.sweep_signed_uploads().await.unwrap();
        assert!(bench.service.store.refs_of(OWNER).await.unwrap().is_empty());
    }
}
