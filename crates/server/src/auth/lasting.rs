//! Access that was granted once and is used for long: a socket, a stream. It ends when the keys of the moment would refuse
//! it, so that revoking a key closes what is open under it.

use darkroom_core::EndpointName;
use darkroom_store::access::Scope;
use tokio::sync::watch;

use super::{caller::Caller, state::AuthState};

/// One such access.
pub struct Lasting {
    auth: AuthState,
    changes: watch::Receiver<()>,
    caller: Caller,
    endpoint: EndpointName,
}

impl AuthState {
    /// The access of somebody who was let in as a client of an endpoint.
    pub fn lasting(&self, caller: Caller, endpoint: EndpointName) -> Lasting {
        Lasting {
            changes: self.changes(),
            auth: self.clone(),
            caller,
            endpoint,
        }
    }
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
        now.is_ok_and(|now| {
            now.tenant == self.caller.tenant && now.may(Scope::Client, &self.endpoint).is_ok()
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
