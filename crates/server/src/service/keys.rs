//! Keys made through the API: shown once, stored as a hash.

pub use darkroom_store::access::KeyRecord;

use super::{Error, Service};
use crate::{
    auth::{NewKey, mint},
    config::Secret,
};

impl Service {
    /// Makes a key; the secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a live key has that name, or it is no name.
    pub async fn create_key(&self, key: NewKey) -> Result<Secret, Error> {
        let good_name =
            !key.name.is_empty() && key.name.len() <= 63 && !key.name.chars().any(char::is_control);
        if !good_name {
            return Err(Error::Invalid("a key's name is 1 to 63 characters".into()));
        }
        if key.scopes.is_empty() {
            return Err(Error::Invalid("a key needs at least one scope".into()));
        }
        let name = key.name.clone();
        let (record, secret) = mint(key, &*self.ids, self.clock.now());
        match self.store.add_key(record).await? {
            true => Ok(secret),
            false => Err(Error::Invalid(format!("a key named '{}' exists", name))),
        }
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
