//! Makes a new key. The API and `darkroom keys create` without a server make them the same way.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use darkroom_core::{Ids, TenantId, Timestamp};
use darkroom_store::access::{KeyRecord, Scope};

use super::hash_key;
use crate::config::Secret;

/// Begins every secret of ours, so that scanners of leaked secrets can know it.
const PREFIX: &str = "dk_";
/// How much of a secret is kept to recognise it by: the prefix and four of its characters.
const SHOWN: usize = PREFIX.len() + 4;

/// What the key is for.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Its name, unique among live keys.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Endpoints it may use; `*` is all.
    pub endpoints: Vec<String>,
    /// Whom it belongs to.
    pub tenant: TenantId,
}

/// A key of 256 random bits: the record to store, and the secret, which is shown once and kept nowhere.
pub fn mint(key: NewKey, ids: &dyn Ids, now: Timestamp) -> (KeyRecord, Secret) {
    let mut bits = [0_u8; 32];
    ids.fill(&mut bits);
    let secret = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bits));
    let record = KeyRecord {
        name: key.name,
        secret_sha256: hash_key(&secret),
        prefix: secret.chars().take(SHOWN).collect(),
        scopes: key.scopes,
        endpoints: key.endpoints,
        tenant: key.tenant,
        created_at: now,
        revoked_at: None,
    };
    (record, Secret::new(secret))
}

#[cfg(test)]
mod tests {
    use darkroom_ambient::SystemIds;

    use super::*;

    #[test]
    fn two_keys_differ_and_the_record_knows_its_secret_only_by_hash() {
        let make = || {
            let key = NewKey {
                name: "app".to_owned(),
                scopes: vec![Scope::Client],
                endpoints: vec!["*".to_owned()],
                tenant: "default".parse().unwrap(),
            };
            mint(key, &SystemIds, Timestamp::ZERO)
        };
        let ((record, secret), (other, _)) = (make(), make());
        assert_ne!(record.secret_sha256, other.secret_sha256);
        assert_eq!(record.secret_sha256, hash_key(secret.expose()));
        assert_eq!(secret.expose().len(), 3 + 43);
        assert!(secret.expose().starts_with(&record.prefix) && record.prefix.len() == 7);
        assert!(!format!("{record:?}").contains(secret.expose()));
    }
}
