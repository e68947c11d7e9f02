//! Makes a new key. The API and `darkroom keys create` without a server make them the same way.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use darkroom_core::{Ids, TenantId, Timestamp};
use darkroom_store::access::{AppCredential, KeyRecord, Scope};

use super::hash_key;
use crate::{
    config::Secret,
    service::{self, credentials::Vault},
};

/// Begins every secret of ours, so that scanners of leaked secrets can know it.
const PREFIX: &str = "dk_";
/// Begins every app key.
const APP_PREFIX: &str = "ak_";
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
        app: None,
    };
    (record, Secret::new(secret))
}

/// A key that signs requests.
#[derive(Debug)]
pub struct MintedApp {
    /// To be stored.
    pub record: KeyRecord,
    /// The public half.
    pub app_key: String,
    /// The secret half, shown once; the record holds it encrypted.
    pub app_secret: Secret,
}

/// A key for protocols that sign: 128 random bits that are sent, and 256 that never are. The secret alone opens nothing.
///
/// # Errors
/// When it cannot be encrypted.
pub fn mint_app(
    key: NewKey,
    vault: &Vault,
    ids: &dyn Ids,
    now: Timestamp,
) -> Result<MintedApp, service::Error> {
    let mut bits = [0_u8; 16];
    ids.fill(&mut bits);
    let app_key = format!("{APP_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bits));
    let (mut record, app_secret) = mint(key, ids, now);
    record.prefix = app_key.clone();
    record.app = Some(AppCredential {
        app_key: app_key.clone(),
        sealed_secret: vault.seal_secret(&app_key, &app_secret, ids)?,
    });
    Ok(MintedApp {
        record,
        app_key,
        app_secret,
    })
}

#[cfg(test)]
mod tests {
    use darkroom_ambient::SystemIds;

    use super::*;

    #[test]
    fn an_app_key_is_public_and_its_secret_comes_back_only_with_the_servers_key() {
        let key = NewKey {
            name: "app".to_owned(),
            scopes: vec![Scope::Client],
            endpoints: vec!["*".to_owned()],
            tenant: "default".parse().unwrap(),
        };
        let vault = Vault::new(&[1; 32]);
        let made = mint_app(key, &vault, &SystemIds, Timestamp::ZERO).unwrap();
        let app = made.record.app.clone().unwrap();
        assert_eq!(app.app_key, made.app_key);
        assert_eq!(
            vault.open_secret(&app.app_key, &app.sealed_secret),
            Some(made.app_secret.clone())
        );
        assert_eq!(
            Vault::new(&[2; 32]).open_secret(&app.app_key, &app.sealed_secret),
            None
        );
        assert_eq!(vault.open_secret("ak_other", &app.sealed_secret), None);
        let shown = format!("{:?}", made.record);
        assert!(
            !shown.contains(made.app_secret.expose())
                && !made.record.prefix.contains(made.app_secret.expose())
        );
    }

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
