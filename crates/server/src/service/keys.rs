//! Keys made through the API: shown once, stored as a hash.

use darkroom_core::Timestamp;
pub use darkroom_store::access::{AppCredential, KeyRecord};

use super::{Error, Service};
use crate::{
    auth::{NewKey, mint, mint_app},
    config::Secret,
};

impl Service {
    /// Notes that a signed request was let in; `false` when one with its nonce was before.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn use_nonce(&self, nonce: [u8; 16], good_until: Timestamp) -> Result<bool, Error> {
        Ok(self.store.use_nonce(nonce, good_until).await?)
    }

    /// Makes a key; the secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a live key has that name, or it is no name.
    pub async fn create_key(&self, key: NewKey) -> Result<Secret, Error> {
        check(&key)?;
        let name = key.name.clone();
        let (record, secret) = mint(key, &*self.ids, self.clock.now());
        self.add_key(record, name).await.map(|()| secret)
    }

    /// Makes a key for protocols that sign: its public half, and its secret, which is in the answer and otherwise only
    /// encrypted.
    ///
    /// # Errors
    /// As [`Service::create_key`].
    pub async fn create_app_key(&self, key: NewKey) -> Result<(String, Secret), Error> {
        check(&key)?;
        let name = key.name.clone();
        let made = mint_app(key, &self.vault, &*self.ids, self.clock.now())?;
        self.add_key(made.record, name).await?;
        Ok((made.app_key, made.app_secret))
    }

    async fn add_key(&self, record: KeyRecord, name: String) -> Result<(), Error> {
        match self.store.add_key(record).await? {
            true => Ok(()),
            false => Err(Error::Invalid(format!("a key named '{name}' exists"))),
        }
    }

    /// The secret of a stored app key; `None` under another server's key.
    pub fn app_secret(&self, app: &AppCredential) -> Option<Secret> {
        self.vault.open_secret(&app.app_key, &app.sealed_secret)
    }

    /// All keys made through the API, also revoked ones.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn keys(&self) -> Result<Vec<KeyRecord>, Error> {
        Ok(self.store.keys().await?)
    }

    /// Revokes a key.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn revoke_key(&self, name: &str) -> Result<(), Error> {
        match self.store.revoke_key(name).await? {
            true => Ok(()),
            false => Err(Error::not_found("key", name)),
        }
    }
}

fn check(key: &NewKey) -> Result<(), Error> {
    let good_name = !key.name.is_empty() && key.name.len() <= 63 && !key.name.chars().any(char::is_control);
    if !good_name {
        return Err(Error::Invalid("a key's name is 1 to 63 characters".into()));
    }
    if key.scopes.is_empty() {
        return Err(Error::Invalid("a key needs at least one scope".into()));
    }
    Ok(())
}
