//! Access that was granted once and is used for long: a socket, a stream. It ends when the keys of the moment would refuse
//! it, so that revoking a key, or logging out, closes what is open under it.

use axum::{body::Body, extract::Request, response::Response};
use darkroom_core::EndpointName;
use darkroom_store::access::Scope;
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, header};
use tokio::sync::watch;

use super::{
    caller::Caller,
    credential::{Presented, presented},
    state::AuthState,
};
use crate::http::RequestId;

/// One such access.
pub struct Lasting {
    auth: AuthState,
    changes: watch::Receiver<()>,
    caller: Caller,
    was_let: To,
}

/// What somebody was let in to do.
enum To {
    /// Be a client of this endpoint.
    Use(EndpointName),
    /// Whatever their rights are good for: none of them may go.
    UseRights,
}

impl AuthState {
    /// The access of somebody who was let in as a client of an endpoint.
    pub fn lasting(&self, caller: Caller, endpoint: EndpointName) -> Lasting {
        self.lasting_to(To::Use(endpoint), caller)
    }

    fn lasting_to(&self, was_let: To, caller: Caller) -> Lasting {
        Lasting {
            changes: self.changes(),
            auth: self.clone(),
            caller,
            was_let,
        }
    }
}

/// Ends every answer that is a stream of events when the rights go under which it was asked for. Whoever still has some
/// asks again, and goes on after the last event that it saw.
pub async fn end_streams<F>(auth: &AuthState, request: Request, answer: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    let credential = credential_of(request.headers());
    let request_id = RequestId::of(request.extensions());
    let response = answer(request).await;
    if !is_stream_of_events(&response) {
        return response;
    }
    let mut lasting = match auth.by_credential(&credential, request_id) {
        Ok(caller) => auth.lasting_to(To::UseRights, caller),
        // It was let in by something else than what is read here.
        Err(_) if presented(&credential) == Presented::Nothing => return response,
        // Its key went while it was worked on.
        Err(_) => return response.map(|_| Body::empty()),
    };
    response.map(|body| {
        let refused = async move { lasting.refused().await };
        Body::from_stream(body.into_data_stream().take_until(Box::pin(refused)))
    })
}

fn credential_of(headers: &HeaderMap) -> HeaderMap {
    let mut credential = HeaderMap::new();
    for name in [header::AUTHORIZATION, header::COOKIE] {
        for value in headers.get_all(&name) {
            credential.append(&name, value.clone());
        }
    }
    credential
}

fn is_stream_of_events(response: &Response) -> bool {
    let says = |value: &HeaderValue| value.as_bytes().starts_with(b"text/event-stream");
    response.headers().get(header::CONTENT_TYPE).is_some_and(says)
}

impl Lasting {
    /// Resolves once it is refused. Cancel-safe.
    pub async fn refused(&mut self) {
        while self.holds() {
            if self.changes.changed().await.is_err() {
                // The server ends, and with it the socket.
                return;
            }
        }
    }

    fn holds(&self) -> bool {
        let now = self.auth.again(&self.caller);
        now.is_ok_and(|now| match &self.was_let {
            To::Use(endpoint) => now.tenant == self.caller.tenant && now.may(Scope::Client, endpoint).is_ok(),
            To::UseRights => now.has_rights_of(&self.caller),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use darkroom_ambient::{SystemClock, SystemIds};
    use futures::FutureExt;

    use super::*;
    use crate::{
        auth::{Keyring, Rules},
        config::{Credential, KeyConfig, Secret},
        http::RequestId,
    };

    fn keyring(keys: &[(&str, &str, &str)]) -> Keyring {
        let keys = keys.iter().map(|(secret, tenant, endpoint)| KeyConfig {
            name: format!("{secret}-{tenant}"),
            credential: Credential::Key(Secret::new(*secret)),
            scopes: vec![Scope::Client],
            endpoints: vec![(*endpoint).to_owned()],
            tenant: tenant.parse().unwrap(),
        });
        Keyring::new(&keys.collect::<Vec<_>>(), &[], [])
    }

    #[tokio::test]
    async fn an_access_ends_when_its_key_no_longer_gives_it_and_not_before() {
        let rules = Rules {
            on_loopback: true,
            insecure_no_auth: false,
            cors_origins: Vec::new(),
            public_url: None,
            body_digest: crate::auth::signed::BodyDigest::Tolerant,
        };
        for (then, ends) in [
            (vec![("a", "acme", "*"), ("b", "acme", "*")], false),
            (vec![("a", "acme", "default")], false),
            (vec![("b", "acme", "*")], true),
            (vec![("a", "acme", "other")], true),
            (vec![("a", "another", "*")], true),
        ] {
            let auth = AuthState::new(
                rules.clone(),
                keyring(&[("a", "acme", "*")]),
                Arc::new(SystemClock::new()),
                Arc::new(SystemIds),
            );
            let caller = auth
                .identify_key("a", RequestId::of(&http::Extensions::new()))
                .unwrap();
            let mut lasting = auth.lasting(caller, "default".parse().unwrap());
            assert!(lasting.refused().now_or_never().is_none());
            auth.set_keyring(keyring(&then));
            assert_eq!(lasting.refused().now_or_never().is_some(), ends, "{then:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_gets_its_first_key_ends_what_was_open_without() {
        let rules = Rules {
            on_loopback: true,
            insecure_no_auth: false,
            cors_origins: Vec::new(),
            public_url: None,
            body_digest: crate::auth::signed::BodyDigest::Tolerant,
        };
        let auth = AuthState::new(
            rules,
            keyring(&[]),
            Arc::new(SystemClock::new()),
            Arc::new(SystemIds),
        );
        let caller = auth
            .identify_key("whatever", RequestId::of(&http::Extensions::new()))
            .unwrap();
        let mut lasting = auth.lasting(caller, "default".parse().unwrap());
        assert!(lasting.refused().now_or_never().is_none());
        auth.set_keyring(keyring(&[("a", "acme", "*")]));
        lasting.refused().await;
    }
}
