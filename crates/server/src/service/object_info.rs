//! What the boxes of an endpoint can do, kept so that graphs are checked while nothing runs.
//!
//! Each box (an installation, a remote server, an agent) tells its own; readers see the union, and placement asks each.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock, RwLockWriteGuard},
};

use darkroom_comfy::{graph, object_info::ObjectInfo};
use darkroom_core::{EndpointName, Timestamp, scheduler::Offers};
use darkroom_store::catalog::BoxInfo;

use super::{Error, Service, preflight::Checks};
use crate::beside::beside;

/// What is known per endpoint, parsed; the store holds the texts.
#[derive(Debug, Default)]
pub struct Cache {
    known: RwLock<Remembered>,
    /// Held while something is learned, so that two boxes do not overwrite each other's.
    learning: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Remembered {
    by_endpoint: HashMap<EndpointName, Known>,
    /// How often everything was forgotten: what was read before is not remembered after.
    forgotten: u64,
}

/// What is known of an endpoint.
#[derive(Debug, Clone)]
struct Known {
    boxes: Arc<Boxes>,
    union: Option<Arc<ObjectInfo>>,
}

/// What each box of an endpoint can do, by its name.
pub type Boxes = BTreeMap<String, Arc<BoxAbilities>>;

/// What a box can do.
#[derive(Debug)]
pub struct BoxAbilities {
    /// Its node classes.
    pub info: Arc<ObjectInfo>,
    /// The same for placement.
    pub offers: Arc<Offers>,
    /// When it was told last.
    pub learned_at: Timestamp,
}

impl Service {
    /// What the endpoint's boxes can do together; `None` until the first of them told.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn object_info(&self, endpoint: &EndpointName) -> Result<Option<Arc<ObjectInfo>>, Error> {
        Ok(self.known_of(endpoint).await?.union)
    }

    /// What each of the endpoint's boxes can do, as far as they told.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn boxes(&self, endpoint: &EndpointName) -> Result<Arc<Boxes>, Error> {
        Ok(self.known_of(endpoint).await?.boxes)
    }

    /// What a slot on a box is asked before it takes a job. A box that has not told yet offers nothing, so it takes only
    /// jobs of which nobody knows what they need. This holds for the only box of an endpoint too: jobs may have been
    /// accepted for another one, which was detached since or is not configured any more.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn offers(&self, endpoint: &EndpointName, box_name: &str) -> Result<Arc<Offers>, Error> {
        let boxes = self.boxes(endpoint).await?;
        Ok(boxes.get(box_name).map(|b| b.offers.clone()).unwrap_or_default())
    }

    /// Learns what a box can do.
    ///
    /// # Errors
    /// When it is not `object_info`, or the store fails.
    pub async fn learn_object_info(
        &self,
        endpoint: &EndpointName,
        box_name: &str,
        json: Vec<u8>,
    ) -> Result<(), Error> {
        let text = json.clone();
        let now = self.clock.now();
        let learned = beside(json.len(), move || parse(&text, now))
            .await
            .map_err(Error::Invalid)?;
        let _learning = self.object_infos.learning.lock().await;
        if !self.endpoint(endpoint).is_ok_and(|e| e.has_box(box_name)) {
            // It was detached while it told.
            return Ok(());
        }
        let before = self.forgotten();
        let known = self.known_of(endpoint).await?;
        self.store.put_object_info(endpoint, box_name, json).await?;
        let unchanged = known
            .boxes
            .get(box_name)
            .is_some_and(|known| known.info == learned.info);
        if !unchanged {
            tracing::info!(
                endpoint.name = %endpoint,
                box_name,
                nodes = learned.info.classes.len(),
                models = ?super::models::counted(&learned.info),
                "a box told what it can do"
            );
            let mut boxes = Boxes::clone(&known.boxes);
            boxes.insert(box_name.to_owned(), Arc::new(learned));
            self.remember(endpoint, boxes, before).await;
        }
        Ok(())
    }

    /// Forgets what a box could do that is no box of the endpoint any more.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn forget_box(&self, endpoint: &EndpointName, box_name: &str) -> Result<(), Error> {
        let _learning = self.object_infos.learning.lock().await;
        self.store.remove_object_info(endpoint, box_name).await?;
        self.forget_abilities();
        Ok(())
    }

    /// Reads all from the store again: endpoints changed, so other boxes count.
    pub(super) fn forget_abilities(&self) {
        let mut remembered = self.remembered();
        remembered.by_endpoint.clear();
        remembered.forgotten += 1;
    }

    fn remembered(&self) -> RwLockWriteGuard<'_, Remembered> {
        let remembered = self.object_infos.known.write();
        remembered.unwrap_or_else(PoisonError::into_inner)
    }

    fn forgotten(&self) -> u64 {
        let remembered = self.object_infos.known.read();
        remembered.unwrap_or_else(PoisonError::into_inner).forgotten
    }

    async fn known_of(&self, endpoint: &EndpointName) -> Result<Known, Error> {
        let (cached, before) = {
            let remembered = self.object_infos.known.read();
            let remembered = remembered.unwrap_or_else(PoisonError::into_inner);
            (
                remembered.by_endpoint.get(endpoint).cloned(),
                remembered.forgotten,
            )
        };
        if let Some(known) = cached {
            return Ok(known);
        }
        let stored = self.store.object_infos(endpoint).await?;
        // What an installation could do that the endpoint does not run any more says nothing.
        let stored: Vec<BoxInfo> = match self.endpoint(endpoint) {
            Ok(endpoint) => stored
                .into_iter()
                .filter(|b| endpoint.has_box(&b.box_name))
                .collect(),
            Err(_) => stored,
        };
        // A ComfyUI with many custom nodes tells megabytes.
        let size = stored.iter().map(|b| b.json.len()).sum();
        let boxes = beside(size, move || parse_all(&stored)).await;
        Ok(self.remember(endpoint, boxes, before).await)
    }

    /// Remembers what was read when all was forgotten `before` times; what is older is told once more and not kept.
    async fn remember(&self, endpoint: &EndpointName, boxes: Boxes, before: u64) -> Known {
        let infos: Vec<Arc<ObjectInfo>> = boxes.values().map(|b| b.info.clone()).collect();
        let union = match infos.len() {
            0 | 1 => infos.first().cloned(),
            many => {
                // Work of the processor, like reading as many.
                let size = many << 20;
                let union = beside(size, move || ObjectInfo::union(infos.iter().map(|i| &**i))).await;
                Some(Arc::new(union))
            }
        };
        let known = Known {
            boxes: Arc::new(boxes),
            union,
        };
        let mut remembered = self.remembered();
        if remembered.forgotten == before {
            remembered.by_endpoint.insert(endpoint.clone(), known.clone());
        }
        known
    }
}

fn parse_all(stored: &[BoxInfo]) -> Boxes {
    let mut boxes = Boxes::new();
    for one in stored {
        match parse(&one.json, one.learned_at) {
            Ok(abilities) => {
                boxes.insert(one.box_name.clone(), Arc::new(abilities));
            }
            Err(error) => {
                tracing::warn!(
                    box_name = one.box_name,
                    error,
                    "the stored object_info cannot be read"
                )
            }
        }
    }
    boxes
}

fn parse(json: &[u8], learned_at: Timestamp) -> Result<BoxAbilities, String> {
    let value = serde_json::from_slice(json).map_err(|e| format!("not JSON: {e}"))?;
    let info = ObjectInfo::parse(value).map_err(|e| e.to_string())?;
    let offers = graph::offers(&info, &Checks);
    Ok(BoxAbilities {
        info: Arc::new(info),
        offers: Arc::new(offers),
        learned_at,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::service::testing::Bench;

    fn info(class: &str) -> Vec<u8> {
        json!({ class: { "input": {"required": {}}, "output": [] } })
            .to_string()
            .into_bytes()
    }

    #[tokio::test]
    async fn readers_see_what_all_boxes_can_do_and_slots_what_theirs_can() {
        let bench = Bench::configured(
            "[endpoints.two]\nbackend = \"remote\"\nurls = [\"http://a:1\", \"http://b:1\"]\n[endpoints.default]\n",
        );
        let (service, two) = (&bench.service, "two".parse().unwrap());
        assert!(service.object_info(&two).await.unwrap().is_none());
        service.learn_object_info(&two, "a:1", info("A")).await.unwrap();
        service.learn_object_info(&two, "b:1", info("B")).await.unwrap();
        // No box of this endpoint (any more).
        service
            .store
            .put_object_info(&two, "c:1", info("C"))
            .await
            .unwrap();
        for _ in 0..2 {
            let union = service.object_info(&two).await.unwrap().unwrap();
            assert_eq!(union.classes.keys().collect::<Vec<_>>(), ["A", "B"]);
            assert_eq!(service.boxes(&two).await.unwrap().len(), 2);
            let offers = service.offers(&two, "a:1").await.unwrap();
            assert!(offers.has(&darkroom_core::scheduler::Need::Class("A".into())));
            let nothing = service.offers(&two, "c:1").await.unwrap();
            assert_eq!(*nothing, Offers::default());
            // Again, now from the store.
            service.forget_abilities();
        }
        let untold = service.offers(&bench.endpoint(), "engine").await.unwrap();
        assert_eq!(*untold, Offers::default());

        service.forget_box(&two, "b:1").await.unwrap();
        let union = service.object_info(&two).await.unwrap().unwrap();
        assert_eq!(union.classes.keys().collect::<Vec<_>>(), ["A"]);
        let refused = service.learn_object_info(&two, "a:1", b"[]".to_vec()).await;
        assert_eq!(refused.unwrap_err().code(), "invalid_request");
    }

    #[tokio::test]
    async fn a_box_that_is_gone_does_not_come_back_by_what_it_told_last() {
        let bench = Bench::configured(
            "[endpoints.two]\nbackend = \"remote\"\nurls = [\"http://a:1\", \"http://b:1\"]\n",
        );
        let (service, two) = (&bench.service, "two".parse().unwrap());
        service.learn_object_info(&two, "a:1", info("A")).await.unwrap();
        service.learn_object_info(&two, "b:1", info("B")).await.unwrap();
        // Read before the box went, remembered after.
        let before = service.forgotten();
        let known = service.known_of(&two).await.unwrap();
        let mut endpoints = BTreeMap::clone(&service.endpoints());
        let less = "[endpoints.two]\nbackend = \"remote\"\nurls = [\"http://a:1\"]\n";
        let less = Bench::configured(less).service.endpoint(&two).unwrap();
        endpoints.insert(two.clone(), less);
        service.set_endpoints(endpoints);
        service.forget_box(&two, "b:1").await.unwrap();
        service.remember(&two, Boxes::clone(&known.boxes), before).await;
        // And told while it went.
        service.learn_object_info(&two, "b:1", info("B")).await.unwrap();
        let union = service.object_info(&two).await.unwrap().unwrap();
        assert_eq!(union.classes.keys().collect::<Vec<_>>(), ["A"]);
        assert_eq!(service.store.object_infos(&two).await.unwrap().len(), 1);
    }
}
