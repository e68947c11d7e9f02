//! The keys of the moment, and the endpoints that need none: a value that is swapped as a whole.

use std::collections::{BTreeMap, BTreeSet};

use darkroom_core::{Endpoint, EndpointName, TenantId};
use darkroom_store::access::{AppCredential, KeyRecord, Scope};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::{Credential, KeyConfig, Secret};

/// A key that is good now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: String,
    /// Whom it belongs to.
    pub tenant: TenantId,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// Endpoints it may use.
    pub endpoints: Grant,
}

/// Which endpoints a key may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// Every one.
    All,
    /// These.
    Named(BTreeSet<String>),
}

impl Grant {
    /// From the configuration's list, where `*` is every one.
    pub fn from_list(names: &[String]) -> Self {
        if names.iter().any(|name| name == "*") {
            Grant::All
        } else {
            Grant::Named(names.iter().cloned().collect())
        }
    }

    /// Whether it holds this one.
    pub fn holds(&self, endpoint: &EndpointName) -> bool {
        match self {
            Grant::All => true,
            Grant::Named(names) => names.contains(endpoint.as_str()),
        }
    }
}

/// SHA-256 of a key, under which it is known and stored.
pub type KeyHash = [u8; 32];

/// The hash of what a caller presents.
pub fn hash_key(presented: &str) -> KeyHash {
    Sha256::digest(presented.as_bytes()).into()
}

/// All keys and what anonymous callers may use.
#[derive(Debug, Default)]
pub struct Keyring {
    keys: Vec<(KeyHash, Key)>,
    apps: BTreeMap<String, (Secret, Key)>,
    /// Whether there is or ever was a key. Revoking the last one must not open the server to everybody.
    has_history: bool,
    anonymous: BTreeMap<EndpointName, AnonymousUse>,
}

/// What callers without credentials may do on an anonymous endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnonymousUse {
    /// Submit, and reach jobs and files by their ids.
    ByIdOnly,
    /// Also list.
    WithHistory,
}

impl Keyring {
    /// The same where no stored key signs.
    #[cfg(test)]
    pub fn new<'a>(
        config: &[KeyConfig],
        stored: &[KeyRecord],
        endpoints: impl IntoIterator<Item = &'a Endpoint>,
    ) -> Self {
        Keyring::with_apps(config, stored, |_| None, endpoints)
    }

    /// Keys of the file and of the store, and the endpoints whose anonymity matters. `opened` decrypts the secret of a
    /// stored app key.
    pub fn with_apps<'a>(
        config: &[KeyConfig],
        stored: &[KeyRecord],
        opened: impl Fn(&AppCredential) -> Option<Secret>,
        endpoints: impl IntoIterator<Item = &'a Endpoint>,
    ) -> Self {
        let mut ring = Keyring {
            has_history: !config.is_empty() || !stored.is_empty(),
            ..Keyring::default()
        };
        for key in config {
            let entry = Key {
                name: key.name.clone(),
                tenant: key.tenant.clone(),
                scopes: key.scopes.iter().copied().collect(),
                endpoints: Grant::from_list(&key.endpoints),
            };
            match &key.credential {
                Credential::Key(secret) => ring.keys.push((hash_key(secret.expose()), entry)),
                Credential::App { app_key, app_secret } => {
                    ring.apps.insert(app_key.clone(), (app_secret.clone(), entry));
                }
            }
        }
        for key in stored.iter().filter(|key| key.revoked_at.is_none()) {
            let entry = Key {
                name: key.name.clone(),
                tenant: key.tenant.clone(),
                scopes: key.scopes.iter().copied().collect(),
                endpoints: Grant::from_list(&key.endpoints),
            };
            match &key.app {
                None => ring.keys.push((key.secret_sha256, entry)),
                Some(app) => match opened(app) {
                    // One of the file wins: an operator wrote it there.
                    Some(secret) => drop(ring.apps.entry(app.app_key.clone()).or_insert((secret, entry))),
                    None => tracing::error!(
                        key.name = key.name,
                        "the secret of an app key cannot be decrypted (the server's own key changed?); it does not count"
                    ),
                },
            }
        }
        for endpoint in endpoints.into_iter().filter(|endpoint| endpoint.anonymous) {
            let may = if endpoint.anonymous_history {
                AnonymousUse::WithHistory
            } else {
                AnonymousUse::ByIdOnly
            };
            ring.anonymous.insert(endpoint.name.clone(), may);
        }
        ring
    }

    /// The key with this hash. Looks at every key, so that the time says nothing about which one matched.
    pub fn find(&self, hash: &KeyHash) -> Option<&Key> {
        let mut found = None;
        for (known, key) in &self.keys {
            if bool::from(known.ct_eq(hash)) {
                found = Some(key);
            }
        }
        found
    }

    /// The secret and the rights of an app key, for protocols that sign.
    pub fn app(&self, app_key: &str) -> Option<(&Secret, &Key)> {
        self.apps.get(app_key).map(|(secret, key)| (secret, key))
    }

    /// Whether a live key of this name may do the worker side of an endpoint.
    pub fn may_work(&self, name: &str, endpoint: &EndpointName) -> bool {
        let mut named = self.keys.iter().filter(|(_, key)| key.name == name);
        named.any(|(_, key)| may_work(key, endpoint))
    }

    /// The same of a live key whose hash begins with these digits (in hexadecimal).
    pub fn may_work_with(&self, hash_digits: &str, endpoint: &EndpointName) -> bool {
        let begins = |hash: &KeyHash| {
            let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            digits.starts_with(hash_digits)
        };
        let mut known = self.keys.iter().filter(|(hash, _)| begins(hash));
        known.any(|(_, key)| may_work(key, endpoint))
    }

    /// Whether any live key exists.
    pub fn has_live_keys(&self) -> bool {
        !self.keys.is_empty() || !self.apps.is_empty()
    }

    /// Whether any key exists or existed.
    pub fn has_history(&self) -> bool {
        self.has_history
    }

    /// Whether any endpoint takes callers without credentials.
    pub fn has_anonymous_endpoints(&self) -> bool {
        !self.anonymous.is_empty()
    }

    /// What callers without credentials may do there; `None`: nothing.
    pub fn anonymous_use(&self, endpoint: &EndpointName) -> Option<AnonymousUse> {
        self.anonymous.get(endpoint).copied()
    }
}

fn may_work(key: &Key, endpoint: &EndpointName) -> bool {
    (key.scopes.contains(&Scope::Worker) || key.scopes.contains(&Scope::Admin))
        && key.endpoints.holds(endpoint)
}
