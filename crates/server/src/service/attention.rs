//! People at an endpoint's page: what they do keeps an idle instance for some minutes; an open page alone keeps nothing.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use darkroom_core::{EndpointName, Timestamp};

use super::Service;

/// When a person last did something, per endpoint. In memory: after a restart nobody has done anything yet.
#[derive(Debug, Default)]
pub struct Attention(Mutex<BTreeMap<EndpointName, Timestamp>>);

impl Service {
    /// A person did something at the endpoint's page (queued, uploaded, saved, clicked): not what a page asks for by itself,
    /// and no ping of a socket. It starts nothing; an instance that idles is kept for as long as
    /// [`ATTENTION`](darkroom_core::scheduler::autoscale::ATTENTION) says, or its `idle_timeout` if that is shorter.
    pub fn user_was_active(&self, endpoint: &EndpointName) {
        // Names of callers' own making must not gather here.
        if self.endpoints().contains_key(endpoint) {
            let mut all = self.attention.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(endpoint.clone(), self.clock.now());
        }
    }

    /// When a person last did something there.
    pub fn user_active_at(&self, endpoint: &EndpointName) -> Option<Timestamp> {
        let all = self.attention.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(endpoint).copied()
    }
}
