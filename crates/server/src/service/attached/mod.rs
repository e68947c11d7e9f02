//! Boxes that an operator attached while the server ran: an endpoint is kept in the store as the boxes attached to it, and
//! laid over what is configured. The configuration has the last word on a name that both have.

mod probe;
mod stored;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use darkroom_core::{Endpoint, EndpointName};
use serde_json::Value;

pub use self::stored::AttachedBox;
use self::stored::Stored;
use super::{Error, Service};

/// The endpoint that there is without any configuration.
const IMPLIED: &str = "default";

/// What the configuration says, before anything is laid over it.
#[derive(Debug, Default)]
pub struct Attached {
    configured: RwLock<Configured>,
    /// One attaches or detaches at a time.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default, Clone)]
struct Configured {
    endpoints: Arc<BTreeMap<EndpointName, Endpoint>>,
    /// Nobody wrote `default`: it is there because there is nothing else.
    default_is_implied: bool,
}

impl Configured {
    /// Whether it has the last word on a name.
    fn holds(&self, name: &EndpointName) -> bool {
        let implied = self.default_is_implied && name.as_str() == IMPLIED;
        self.endpoints.contains_key(name) && !implied
    }
}

/// What to attach.
#[derive(Debug)]
pub struct Attach {
    /// To which endpoint; it is made if there is none.
    pub endpoint: EndpointName,
    /// What.
    pub attached: AttachedBox,
}

/// What was attached.
#[derive(Debug)]
pub struct AttachedTo {
    /// Its name.
    pub name: String,
    /// The endpoint was made for it.
    pub made: bool,
    /// What a server told when it was probed (see [`probe`]); an installation tells when it first starts.
    pub told: Option<Value>,
}

/// What was detached.
#[derive(Debug, PartialEq, Eq)]
pub struct Detached {
    /// From which endpoint.
    pub endpoint: EndpointName,
    /// What.
    pub attached: AttachedBox,
    /// The endpoint has no box any more and is gone with it.
    pub endpoint_is_gone: bool,
}

impl Service {
    /// Takes over what is configured, with what is attached laid over it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn configure(
        &self,
        endpoints: BTreeMap<EndpointName, Endpoint>,
        default_is_implied: bool,
    ) -> Result<(), Error> {
        let configured = Configured {
            endpoints: Arc::new(endpoints),
            default_is_implied,
        };
        *self
            .attached
            .configured
            .write()
            .unwrap_or_else(PoisonError::into_inner) = configured;
        self.lay_over().await
    }

    /// Attaches a box. A server is asked what it is and runs a tiny graph before anything is kept.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what is wrong: the configuration has the endpoint, the name is taken, there is no ComfyUI.
    pub async fn attach(&self, wish: Attach) -> Result<AttachedTo, Error> {
        let _changing = self.attached.changing.lock().await;
        let Attach { endpoint, attached } = wish;
        if self.configured().holds(&endpoint) {
            return Err(Error::Invalid(format!(
                "endpoint '{endpoint}' stands in the configuration, which has the last word: add {} there, or attach it to \
                 another endpoint with --endpoint",
                attached.target
            )));
        }
        let before = self.stored(&endpoint).await?;
        let made = before.is_none();
        let stored = before.unwrap_or_default().with(&endpoint, attached.clone())?;
        let read = stored.endpoint(&endpoint)?;
        let probed = match attached.is_server() {
            true => Some(
                probe::probe(&attached.target, &*self.ids)
                    .await
                    .map_err(Error::Invalid)?,
            ),
            false => None,
        };
        self.keep(&endpoint, &stored).await?;
        self.lay_over().await?;
        let name = attached.name_on(&read);
        let mut told = None;
        if let Some(probed) = probed {
            self.learn_object_info(&endpoint, &name, probed.object_info)
                .await?;
            told = Some(probed.told);
        }
        self.plan_again();
        tracing::info!(endpoint.name = %endpoint, box_name = name, "a box was attached");
        Ok(AttachedTo { name, made, told })
    }

    /// Detaches what has that name or address; what runs there goes on without us.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an endpoint that does not exist, [`Error::Invalid`] where nothing or more than one is meant.
    pub async fn detach(&self, what: &str, from: Option<&EndpointName>) -> Result<Detached, Error> {
        let _changing = self.attached.changing.lock().await;
        if let Some(name) = from.filter(|name| !self.endpoints().contains_key(*name)) {
            return Err(Error::not_found("endpoint", name));
        }
        let (endpoint, stored, at) = self.find_attached(what, from).await?;
        let mut left = stored;
        let attached = left.boxes.remove(at);
        let name = left.with(&endpoint, attached.clone())?.endpoint(&endpoint);
        let name = name.map_or_else(
            |_| attached.name.clone().unwrap_or_default(),
            |read| attached.name_on(&read),
        );
        let endpoint_is_gone = left.boxes.is_empty();
        match endpoint_is_gone {
            true => {
                self.store.remove_endpoint(&endpoint).await?;
            }
            false => self.keep(&endpoint, &left).await?,
        }
        self.lay_over().await?;
        self.forget_box(&endpoint, &name).await?;
        self.plan_again();
        tracing::info!(endpoint.name = %endpoint, box_name = name, "a box was detached");
        Ok(Detached {
            endpoint_is_gone: endpoint_is_gone && !self.endpoints().contains_key(&endpoint),
            endpoint,
            attached,
        })
    }

    /// What is attached, by endpoint.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn attached_boxes(&self) -> Result<BTreeMap<EndpointName, Vec<AttachedBox>>, Error> {
        let all = self.store.endpoints().await?;
        let read = all
            .into_iter()
            .filter_map(|(name, json)| Some((name, Stored::parse(&json)?.boxes)));
        Ok(read.collect())
    }

    async fn find_attached(
        &self,
        what: &str,
        from: Option<&EndpointName>,
    ) -> Result<(EndpointName, Stored, usize), Error> {
        let all = self.attached_boxes().await?;
        let mut found = Vec::new();
        for (endpoint, boxes) in all
            .iter()
            .filter(|(name, _)| from.is_none_or(|from| from == *name))
        {
            let places = boxes.iter().enumerate().filter(|(_, one)| one.is_called(what));
            found.extend(places.map(|(at, _)| (endpoint, at)));
        }
        match found.as_slice() {
            [(endpoint, at)] => {
                let stored = Stored {
                    boxes: all[*endpoint].clone(),
                };
                Ok(((*endpoint).clone(), stored, *at))
            }
            [] => Err(Error::Invalid(nothing_of_that_name(what, &all))),
            several => {
                let names: Vec<&str> = several.iter().map(|(endpoint, _)| endpoint.as_str()).collect();
                Err(Error::Invalid(format!(
                    "'{what}' is attached to several endpoints ({}): name one with --endpoint",
                    names.join(", ")
                )))
            }
        }
    }

    async fn stored(&self, endpoint: &EndpointName) -> Result<Option<Stored>, Error> {
        let all = self.store.endpoints().await?;
        let json = all.into_iter().find(|(name, _)| name == endpoint);
        Ok(json.and_then(|(_, json)| Stored::parse(&json)))
    }

    async fn keep(&self, endpoint: &EndpointName, stored: &Stored) -> Result<(), Error> {
        let json = serde_json::to_string(stored).map_err(|e| Error::Internal(e.into()))?;
        Ok(self.store.put_endpoint(endpoint, json).await?)
    }

    fn configured(&self) -> Configured {
        let configured = self.attached.configured.read();
        configured.unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn lay_over(&self) -> Result<(), Error> {
        let configured = self.configured();
        let mut endpoints = BTreeMap::clone(&configured.endpoints);
        for (name, json) in self.store.endpoints().await? {
            if configured.holds(&name) {
                tracing::warn!(endpoint.name = %name, "the configuration has the last word: what was attached to the endpoint is left out");
                continue;
            }
            let read = Stored::parse(&json).ok_or_else(|| Error::Invalid("it cannot be read".to_owned()));
            match read.and_then(|stored| stored.endpoint(&name)) {
                Ok(endpoint) => {
                    endpoints.insert(name, endpoint);
                }
                Err(error) => {
                    tracing::error!(endpoint.name = %name, %error, "an attached endpoint is left out");
                }
            }
        }
        self.set_endpoints(endpoints);
        Ok(())
    }
}

fn nothing_of_that_name(what: &str, all: &BTreeMap<EndpointName, Vec<AttachedBox>>) -> String {
    let shown: String = what.chars().take(200).collect();
    let known: Vec<String> = all
        .iter()
        .flat_map(|(endpoint, boxes)| {
            boxes
                .iter()
                .map(move |one| format!("{} ({endpoint})", one.shown()))
        })
        .collect();
    match known.is_empty() {
        true => format!(
            "nothing is attached, so not '{shown}' either; what the configuration names is removed there"
        ),
        false => format!(
            "nothing attached is called '{shown}'; there are {}",
            known.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests;
