//! Objects that come in parts. An upload's id holds all that is to be remembered of it; its parts are references that go when
//! they are joined, when the upload is given up, or after two days.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use darkroom_core::TenantId;
use darkroom_store::files::FileRef;
use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use uuid::Uuid;

use super::{Object, ObjectName, object_blob, tag_of};
use crate::service::{Error, Service, uploads::Incoming};

/// The owner of every part's reference.
const OWNER: &str = "object-parts";
/// What is not finished by then was given up.
const KEPT: Duration = Duration::from_secs(48 * 3600);
/// S3's own bound.
const MAX_PARTS: u32 = 10_000;
/// So many references are dropped side by side: they share commits.
const DROPPED_AT_ONCE: usize = 64;

/// Why a part was not taken, or parts not joined.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// Its id is none of ours, or of another object; or it has ended.
    #[error("there is no such upload")]
    NoUpload,
    /// A part that was named is not there, or is another than the client means.
    #[error("part {0} was not uploaded, or is another one")]
    Part(u32),
    /// Parts are numbered from 1 and named in order.
    #[error("parts have numbers from 1 to {MAX_PARTS}, in order")]
    Order,
    /// Something else went wrong.
    #[error(transparent)]
    Service(#[from] Error),
}

impl From<darkroom_store::Error> for PartError {
    fn from(error: darkroom_store::Error) -> Self {
        PartError::Service(error.into())
    }
}

/// A part that the client names: its number, and the tag it was told.
pub type Joined = (u32, String);

struct Upload {
    id: Uuid,
    content_type: Option<String>,
}

impl Service {
    /// Begins an upload and says its id.
    pub fn begin_object(&self, name: ObjectName<'_>, content_type: Option<&str>) -> String {
        let id = self.ids.uuid_v7().simple().to_string();
        let encoded = BASE64_URL_SAFE_NO_PAD.encode(content_type.unwrap_or_default());
        let tag = self.upload_tag(name, &id, &encoded);
        format!("{id}.{encoded}.{tag}")
    }

    fn upload_tag(&self, name: ObjectName<'_>, id: &str, encoded_type: &str) -> String {
        let parts = upload_parts(&name, id, encoded_type);
        self.objects.secrets.tag(&parts)
    }

    fn open_upload(&self, name: ObjectName<'_>, upload_id: &str) -> Result<Upload, PartError> {
        let mut pieces = upload_id.splitn(3, '.');
        let (Some(id), Some(encoded), Some(tag)) = (pieces.next(), pieces.next(), pieces.next()) else {
            return Err(PartError::NoUpload);
        };
        if !self
            .objects
            .secrets
            .is_tag(tag, &upload_parts(&name, id, encoded))
        {
            return Err(PartError::NoUpload);
        }
        let content_type = BASE64_URL_SAFE_NO_PAD
            .decode(encoded)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .filter(|text| !text.is_empty());
        let id = id.parse().map_err(|_| PartError::NoUpload)?;
        Ok(Upload { id, content_type })
    }

    /// Names received bytes as a part of an upload, in place of an earlier part of that number; says its tag.
    ///
    /// # Errors
    /// [`PartError`]; the bytes go then.
    pub async fn keep_part(
        &self,
        name: ObjectName<'_>,
        upload_id: &str,
        number: u32,
        incoming: Incoming,
    ) -> Result<String, PartError> {
        let kept = async {
            let upload = self.open_upload(name, upload_id)?;
            if !(1..=MAX_PARTS).contains(&number) {
                return Err(PartError::Order);
            }
            let reference = FileRef {
                owner: OWNER.to_owned(),
                name: part_name(upload.id, number),
                tenant: TenantId::default_tenant(),
                blob: incoming.key().clone(),
                size: incoming.size(),
                content_type: "application/octet-stream".to_owned(),
                created_at: self.clock.now(),
            };
            self.store.put_ref(reference).await?;
            Ok(tag_of(incoming.key()))
        };
        let kept = kept.await;
        if kept.is_err() {
            self.forget_incoming(incoming).await;
        }
        kept
    }

    /// Makes an object of parts. Said again after it was done, it answers the same.
    ///
    /// # Errors
    /// [`PartError`]; the parts stay then, so that it can be said better.
    pub async fn join_parts(
        &self,
        name: ObjectName<'_>,
        upload_id: &str,
        named: &[Joined],
    ) -> Result<Object, PartError> {
        let upload = self.open_upload(name, upload_id)?;
        let blob = object_blob(name, upload.id)?;
        let known = self.parts_of(upload.id).await?;
        if known.is_empty() {
            let done = self.object(name).await?.filter(|object| object.blob == blob);
            return done.ok_or(PartError::NoUpload);
        }
        let parts = chosen(&known, upload.id, named)?;
        let total = parts.iter().map(|part| part.size).sum();
        let blobs = self.blobs.clone();
        let bytes = stream::iter(parts)
            .map(Ok)
            .and_then(move |part| {
                let blobs = blobs.clone();
                async move {
                    match blobs.open(&part.blob, None).await {
                        Ok(Some(reader)) => Ok(reader.stream),
                        Ok(None) => Err(std::io::ErrorKind::NotFound.into()),
                        Err(error) => Err(std::io::Error::other(error)),
                    }
                }
            })
            .try_flatten()
            .boxed();
        let incoming = self.receive_output(blob, bytes, total).await?;
        let object = self
            .keep_object(name, upload.content_type.as_deref(), incoming)
            .await?;
        self.drop_parts(&known).await?;
        Ok(object)
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// [`PartError`].
    pub async fn forget_parts(&self, name: ObjectName<'_>, upload_id: &str) -> Result<(), PartError> {
        let upload = self.open_upload(name, upload_id)?;
        let known = self.parts_of(upload.id).await?;
        Ok(self.drop_parts(&known).await?)
    }

    /// Forgets parts of uploads that nobody finished.
    ///
    /// # Errors
    /// The store's own.
    pub async fn sweep_parts(&self) -> Result<(), Error> {
        self.drop_older(OWNER, self.clock.now().minus(KEPT)).await
    }

    async fn parts_of(&self, upload: Uuid) -> Result<Vec<FileRef>, Error> {
        let before_first = part_name(upload, 0);
        let found = self
            .store
            .refs_page(OWNER, Some(&before_first), MAX_PARTS)
            .await?;
        let prefix = format!("{}/", upload.simple());
        Ok(found
            .into_iter()
            .take_while(|part| part.name.starts_with(&prefix))
            .collect())
    }

    async fn drop_parts(&self, parts: &[FileRef]) -> Result<(), Error> {
        for some in parts.chunks(DROPPED_AT_ONCE) {
            let drops = some.iter().map(|part| self.store.drop_ref(OWNER, &part.name));
            try_join_all(drops).await?;
        }
        Ok(())
    }
}

fn upload_parts<'a>(name: &ObjectName<'a>, id: &'a str, encoded_type: &'a str) -> [&'a str; 6] {
    [
        "upload",
        name.endpoint.as_str(),
        name.bucket,
        name.key,
        id,
        encoded_type,
    ]
}

/// Five digits, so that the order of names is that of numbers.
fn part_name(upload: Uuid, number: u32) -> String {
    format!("{}/{number:05}", upload.simple())
}

/// The parts that were named, in their order.
fn chosen(known: &[FileRef], upload: Uuid, named: &[Joined]) -> Result<Vec<FileRef>, PartError> {
    if named.is_empty() || named.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
        return Err(PartError::Order);
    }
    let find = |(number, tag): &Joined| {
        let name = part_name(upload, *number);
        known
            .iter()
            .find(|part| part.name == name && tag_of(&part.blob) == *tag)
            .cloned()
            .ok_or(PartError::Part(*number))
    };
    named.iter().map(find).collect()
}
