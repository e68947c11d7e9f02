//! Boxes that an operator attached while the server ran: an endpoint is kept in the store as the boxes attached to it, and
//! laid over what is configured. The configuration has the last word on a name that both have.
//!
//! A change is whole or does not happen: a box is probed before anything is kept, and what follows goes on to its end when
//! the caller leaves. [`overlay`] lays what is kept over the configuration.

mod introduce;
mod overlay;
mod probe;
mod stored;

use std::{collections::BTreeMap, sync::Arc};

use darkroom_core::{Endpoint, EndpointName, endpoint::Backend};
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::{overlay::Attached, stored::AttachedBox};
use self::{probe::Probed, stored::Stored};
use super::{Error, Service};

/// An installation that was started for a try-out; it ends when this is dropped.
#[derive(Debug)]
pub struct Trial {
    /// Where it answers.
    pub base_url: String,
    /// Ends it.
    pub ends: DropGuard,
}

/// What to attach.
#[derive(Debug, Clone)]
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
    /// What it told when it was probed (see [`probe`]).
    pub told: Value,
}

/// What attaching a box would make of its endpoint.
struct Change {
    /// What is kept.
    stored: Stored,
    /// The endpoint that this is.
    endpoint: Endpoint,
    /// It is made for the box.
    made: bool,
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
    /// Attaches a box. It is asked what it is and runs a tiny graph before anything is kept; an installation is started for
    /// that, and ended again.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what is wrong: the configuration has the endpoint, the name or the address is taken, there is
    /// no ComfyUI.
    pub async fn attach(&self, wish: Attach) -> Result<AttachedTo, Error> {
        let planned = self.change_for(&wish).await?;
        // Nobody waits for this one meanwhile: a box that hangs is in no other's way.
        let left = CancellationToken::new();
        let _leaves = left.clone().drop_guard();
        let service = self.clone();
        let (target, is_server) = (wish.attached.target.clone(), wish.attached.is_server());
        let probed = self
            .to_its_end(async move {
                let probed = match is_server {
                    true => probe::server(&target, &*service.ids, &left).await,
                    false => service.probe_installation(&planned.endpoint, &left).await,
                };
                probed.map_err(Error::Invalid)
            })
            .await?;
        let service = self.clone();
        self.to_its_end(async move { service.attach_probed(wish, probed).await })
            .await
    }

    async fn attach_probed(&self, wish: Attach, probed: Probed) -> Result<AttachedTo, Error> {
        let _changing = self.attached.changing().await;
        // Others changed something since this one was looked at.
        let Change {
            stored,
            endpoint: read,
            made,
        } = self.change_for(&wish).await?;
        let Attach { endpoint, attached } = wish;
        self.keep(&endpoint, &stored).await?;
        self.lay_over().await?;
        let name = attached.name_on(&read);
        // It is attached by now; what cannot be written down here, it tells again when it runs.
        let learned = async {
            self.learn_object_info(&endpoint, &name, probed.object_info)
                .await?;
            self.learn_facts(&endpoint, probed.facts).await
        };
        if let Err(error) = learned.await {
            tracing::warn!(endpoint.name = %endpoint, box_name = name, error = ?error, "what a new box told could not be kept");
        }
        self.plan_again();
        tracing::info!(endpoint.name = %endpoint, box_name = name, "a box was attached");
        Ok(AttachedTo {
            name,
            made,
            told: probed.told,
        })
    }

    async fn change_for(&self, wish: &Attach) -> Result<Change, Error> {
        let Attach { endpoint, attached } = wish;
        if self.is_configured(endpoint) {
            return Err(Error::Invalid(format!(
                "endpoint '{endpoint}' stands in the configuration, which has the last word: add {} there, or attach it to \
                 another endpoint with --endpoint",
                attached.target
            )));
        }
        let before = self.stored(endpoint).await?;
        let made = before.is_none();
        let stored = before.unwrap_or_default().with(endpoint, attached.clone())?;
        let read = stored.endpoint(endpoint)?;
        if let Some(other) = attached.address().and_then(|address| self.user_of(&address)) {
            return Err(Error::Invalid(format!(
                "{} works for endpoint '{other}' already, and one ComfyUI runs one prompt at a time; detach it there first",
                attached.target
            )));
        }
        Ok(Change {
            stored,
            endpoint: read,
            made,
        })
    }

    /// The endpoint that has a server of this address among its boxes, whatever it calls it.
    fn user_of(&self, address: &str) -> Option<EndpointName> {
        let endpoints = self.endpoints();
        let uses = |endpoint: &&Arc<Endpoint>| match &endpoint.backend {
            Backend::Remote { servers } => servers
                .iter()
                .any(|server| stored::address(&server.url).as_deref() == Some(address)),
            Backend::Process(_) | Backend::External => false,
        };
        endpoints.values().find(uses).map(|found| found.name.clone())
    }

    async fn probe_installation(
        &self,
        endpoint: &Endpoint,
        left: &CancellationToken,
    ) -> Result<Probed, String> {
        let Some(control) = self.planner.get() else {
            return Err("this server starts no instances yet".to_owned());
        };
        let trial = tokio::select! {
            trial = control.try_out(endpoint) => trial?,
            () = left.cancelled() => return Err("nobody waits for it any more".to_owned()),
        };
        probe::server(&trial.base_url, &*self.ids, left).await
    }

    /// Detaches what has that name or address; what runs there goes on without us. Jobs that wait go on waiting for a box
    /// that can run them.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an endpoint that does not exist, [`Error::Invalid`] where nothing or more than one is meant.
    pub async fn detach(&self, what: &str, from: Option<&EndpointName>) -> Result<Detached, Error> {
        let (service, what, from) = (self.clone(), what.to_owned(), from.cloned());
        self.to_its_end(async move { service.detach_at_once(&what, from.as_ref()).await })
            .await
    }

    async fn detach_at_once(&self, what: &str, from: Option<&EndpointName>) -> Result<Detached, Error> {
        let _changing = self.attached.changing().await;
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
        if let Err(error) = self.forget_box(&endpoint, &name).await {
            // Nobody reads it: the endpoint has no such box any more.
            tracing::warn!(endpoint.name = %endpoint, box_name = name, error = ?error, "what a detached box could do stays in the store");
        }
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
