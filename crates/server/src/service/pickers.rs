//! `object_info` as ComfyUI's clients read it: the union of what an endpoint's boxes can do, with the caller's uploads among
//! the choices of file pickers, made once and kept compressed until either changes.

use std::{
    collections::HashMap,
    io::Write,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use darkroom_comfy::object_info::{InputKind, InputSpec, NodeClass, ObjectInfo};
use darkroom_core::{EndpointName, TenantId};
use darkroom_store::files::FileRef;
use flate2::{Compression, write::GzEncoder};
use serde_json::Value;

use super::{Error, Service, folders::Folder, intake};
use crate::beside::beside;

/// Texts kept, for as many tenants and endpoints: megabytes each.
const KEPT: usize = 16;
/// Uploads offered by a picker: the newest names do not help in a list of ten thousand.
const MOST_OFFERED: u32 = 2_000;

/// The texts that were made, and how often uploads changed.
#[derive(Debug, Default)]
pub struct Pickers {
    uploads: AtomicU64,
    made: Mutex<HashMap<(Option<TenantId>, EndpointName), Made>>,
}

impl Pickers {
    /// An upload came or went.
    pub(super) fn changed(&self) {
        self.uploads.fetch_add(1, Ordering::SeqCst);
    }

    fn made(&self) -> std::sync::MutexGuard<'_, HashMap<(Option<TenantId>, EndpointName), Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Made {
    of: Weak<ObjectInfo>,
    uploads: u64,
    text: Arc<InfoText>,
}

/// The whole answer, ready to be sent.
#[derive(Debug)]
pub struct InfoText {
    /// As it is.
    pub json: Bytes,
    /// Compressed.
    pub gzip: Bytes,
    /// Changes with it.
    pub etag: String,
}

impl Service {
    /// What an endpoint can do, as this tenant sees it, or as one sees it who may not list uploads; `None` until one of its
    /// boxes told.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn object_info_text(
        &self,
        tenant: Option<&TenantId>,
        endpoint: &EndpointName,
    ) -> Result<Option<Arc<InfoText>>, Error> {
        let Some(info) = self.object_info(endpoint).await? else {
            return Ok(None);
        };
        // Read before the names are: an upload in between makes the next caller look again.
        let uploads = self.pickers.uploads.load(Ordering::SeqCst);
        let whose = (tenant.cloned(), endpoint.clone());
        let is_current = |made: &&Made| {
            made.uploads == uploads && made.of.upgrade().is_some_and(|of| Arc::ptr_eq(&of, &info))
        };
        if let Some(made) = self.pickers.made().get(&whose).filter(is_current) {
            return Ok(Some(made.text.clone()));
        }
        let names = self.offered(tenant, endpoint).await?;
        let of = Arc::downgrade(&info);
        // Megabytes, for a processor.
        let text = beside(usize::MAX, move || text_of(&info, &names)).await;
        let text = Arc::new(text);
        let mut all = self.pickers.made();
        if all.len() >= KEPT && !all.contains_key(&whose) {
            all.clear();
        }
        all.insert(
            whose,
            Made {
                of,
                uploads,
                text: text.clone(),
            },
        );
        Ok(Some(text))
    }

    /// One class, as [`Service::object_info_text`] has it; `None` for an unknown one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn class_info(
        &self,
        tenant: Option<&TenantId>,
        endpoint: &EndpointName,
        class: &str,
    ) -> Result<Option<NodeClass>, Error> {
        let Some(info) = self.object_info(endpoint).await? else {
            return Ok(None);
        };
        let Some(found) = info.get(class) else {
            return Ok(None);
        };
        let names = self.offered(tenant, endpoint).await?;
        Ok(Some(with_uploads(class, found, &names)))
    }

    /// The uploads that lie directly in the input folder, as pickers list them.
    async fn offered(
        &self,
        tenant: Option<&TenantId>,
        endpoint: &EndpointName,
    ) -> Result<Vec<FileRef>, Error> {
        let Some(tenant) = tenant else {
            return Ok(vec![]);
        };
        let owner = Folder::Input.owner(tenant, endpoint);
        let page = self.store.refs_page(&owner, None, MOST_OFFERED).await?;
        Ok(page.into_iter().filter(|f| !f.name.contains('/')).collect())
    }
}

fn text_of(info: &ObjectInfo, uploads: &[FileRef]) -> InfoText {
    let mut patched = ObjectInfo::clone(info);
    for (class, described) in &mut patched.classes {
        if described
            .inputs()
            .any(|(name, ..)| intake::is_loader_input(class, name))
        {
            *described = with_uploads(class, described, uploads);
        }
    }
    let json = serde_json::to_vec(&patched).expect("what was read from JSON is written as JSON");
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&json).expect("writing into memory cannot fail");
    let gzip = gzip.finish().expect("writing into memory cannot fail");
    InfoText {
        etag: format!("\"{}\"", &blake3::hash(&json).to_hex()[..32]),
        json: json.into(),
        gzip: gzip.into(),
    }
}

/// A class whose file pickers also offer these uploads.
fn with_uploads(class: &str, described: &NodeClass, uploads: &[FileRef]) -> NodeClass {
    let mut described = described.clone();
    for section in described.input.values_mut() {
        for (name, spec) in section.iter_mut() {
            if intake::is_loader_input(class, name) {
                offer(spec, uploads);
            }
        }
    }
    described
}

fn offer(spec: &mut InputSpec, uploads: &[FileRef]) {
    let Some(offered) = spec.choices() else { return };
    let flag = |name: &str| spec.options.get(name) == Some(&Value::Bool(true));
    // Which kinds of files a picker lists is told by its button.
    let families: Vec<&str> = [
        ("image_upload", "image/"),
        ("animated_image_upload", "image/"),
        ("audio_upload", "audio/"),
        ("video_upload", "video/"),
    ]
    .into_iter()
    .filter(|(name, _)| flag(name))
    .map(|(_, family)| family)
    .collect();
    let fits = |file: &&FileRef| {
        families.is_empty()
            || families
                .iter()
                .any(|family| file.content_type.starts_with(family))
    };
    let mut choices: Vec<Value> = offered.to_vec();
    let known: std::collections::HashSet<&str> = offered.iter().filter_map(Value::as_str).collect();
    let new: Vec<Value> = uploads
        .iter()
        .filter(fits)
        .filter(|file| !known.contains(file.name.as_str()))
        .map(|file| Value::from(file.name.clone()))
        .collect();
    choices.extend(new);
    choices.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    // A combo says its choices in its type's place or in its options.
    let mut options = spec.options.clone();
    let kind = match &spec.kind {
        InputKind::Choices(_) => InputKind::Choices(choices),
        InputKind::Named(name) => {
            options.insert("options".to_owned(), Value::Array(choices));
            InputKind::Named(name.clone())
        }
    };
    *spec = InputSpec::new(kind, options);
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use bytes::Bytes;
    use futures::StreamExt;
    use serde_json::json;

    use super::*;
    use crate::service::{testing::Bench, uploads::Place};

    async fn upload(bench: &Bench, tenant: &str, name: &str, bytes: Vec<u8>) {
        let tenant: TenantId = tenant.parse().unwrap();
        let stream = futures::stream::iter([Ok(Bytes::from(bytes))]).boxed();
        let incoming = bench
            .service
            .receive(&tenant, name, stream, 1 << 20)
            .await
            .unwrap();
        let endpoint = bench.endpoint();
        let place = Place {
            tenant: &tenant,
            endpoint: &endpoint,
            folder: Folder::Input,
            path: name,
        };
        bench.service.keep_upload(place, incoming, false).await.unwrap();
    }

    fn picker(text: &InfoText) -> Value {
        let json: Value = serde_json::from_slice(&text.json).unwrap();
        json["LoadImage"]["input"]["required"]["image"].clone()
    }

    #[tokio::test]
    async fn pickers_offer_each_tenant_its_uploads_from_a_text_that_is_made_once() {
        let bench = Bench::new();
        let service = &bench.service;
        let (alice, bob): (TenantId, TenantId) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let endpoint = bench.endpoint();
        assert!(
            service
                .object_info_text(Some(&alice), &endpoint)
                .await
                .unwrap()
                .is_none()
        );
        let recorded = include_bytes!("../../../comfy/tests/data/object_info.json");
        bench.learn(recorded.to_vec()).await;

        let before = service
            .object_info_text(Some(&alice), &endpoint)
            .await
            .unwrap()
            .unwrap();
        let again = service
            .object_info_text(Some(&alice), &endpoint)
            .await
            .unwrap()
            .unwrap();
        assert!(Arc::ptr_eq(&before, &again), "made once");
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&before.gzip[..])
            .read_to_end(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked, before.json);

        let png = intake::given::tests::png();
        upload(&bench, "alice", "b 图.png", png.clone()).await;
        upload(&bench, "alice", "sub/c.png", png).await;
        upload(&bench, "alice", "notes.txt", b"text".to_vec()).await;
        let after = service
            .object_info_text(Some(&alice), &endpoint)
            .await
            .unwrap()
            .unwrap();
        assert_ne!(after.etag, before.etag);
        let (was, is) = (picker(&before), picker(&after));
        let mut expected: Vec<String> = serde_json::from_value(was[0].clone()).unwrap();
        expected.push("b 图.png".to_owned());
        expected.sort();
        assert_eq!(is, json!([expected, {"image_upload": true}]));
        let class = service
            .class_info(Some(&alice), &endpoint, "LoadImage")
            .await
            .unwrap();
        let class = serde_json::to_value(class).unwrap();
        assert_eq!(class["input"]["required"]["image"], is);
        let of_bob = service
            .object_info_text(Some(&bob), &endpoint)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(picker(&of_bob), was, "bob sees none of it");
        let of_nobody = service.object_info_text(None, &endpoint).await.unwrap().unwrap();
        assert_eq!(picker(&of_nobody), was, "nor does who may not list");
        let class = service.class_info(None, &endpoint, "LoadImage").await.unwrap();
        let class = serde_json::to_value(class).unwrap();
        assert_eq!(class["input"]["required"]["image"], was);
        assert!(
            service
                .class_info(Some(&bob), &endpoint, "NoSuch")
                .await
                .unwrap()
                .is_none()
        );
    }
}
