//! Keys in the store of a server that is not running.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use darkroom_ambient::{SystemClock, SystemIds};
use darkroom_core::{Clock, Timestamp};
use darkroom_server::{
    auth::{MintedApp, NewKey, ServerKey, mint, mint_app, scope_name},
    config::{Config, Overrides, layout},
    service::credentials::Vault,
};
use darkroom_store::{
    Access,
    access::KeyRecord,
    sqlite::{Options, SqliteStore},
};
use serde_json::{Value, json};

use crate::{
    commands::config::refused,
    data_dir::{self, DataDir},
    exit::{Exit, Failure},
};

/// The keys of a data directory, which stays locked as long as this lives.
pub struct Keys {
    store: SqliteStore,
    dir: PathBuf,
    _held: DataDir,
}

impl Keys {
    /// Locks the directory, which is made if need be, and opens its store.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        let held = DataDir::lock(dir).map_err(|error| match error {
            data_dir::Error::InUse { .. } => Failure::new(Exit::Usage, "in_use", error.to_string())
                .with_hint("If its server is running, leave --data-dir out and name it with --server."),
            _ => Failure::from(anyhow::Error::from(error)),
        })?;
        let options = Options::new(Arc::new(SystemClock::new()));
        let store = SqliteStore::open(&layout::database(dir), options)
            .map_err(|error| Failure::local(format!("{}: {error}", dir.display())))?;
        Ok(Keys {
            store,
            dir: dir.to_owned(),
            _held: held,
        })
    }

    /// Makes an app key; returns both halves. The secret is stored encrypted with the server's own key, which is made if
    /// the server never ran.
    pub async fn create_app(self, key: NewKey) -> Result<(String, String), Failure> {
        let name = key.name.clone();
        let made = self.mint_app(key);
        let added = match &made {
            Ok(made) => Some(self.store.add_key(made.record.clone()).await),
            Err(_) => None,
        };
        self.store.close().await;
        let made = made?;
        stored(added.unwrap_or(Ok(false)), &name)?;
        Ok((made.app_key, made.app_secret.expose().to_owned()))
    }

    fn mint_app(&self, key: NewKey) -> Result<MintedApp, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::local(error.to_string());
        let mut server = Config::load(&Overrides::default())
            .map_err(|error| refused(&error))?
            .server;
        server.data_dir = self.dir.clone();
        let server_key = ServerKey::load_or_create(&server, &SystemIds).map_err(|error| failed(&error))?;
        let vault = Vault::new(server_key.expose());
        mint_app(key, &vault, &SystemIds, SystemClock::new().now()).map_err(|error| failed(&error))
    }

    /// Makes a key; returns its secret.
    pub async fn create(self, key: NewKey) -> Result<String, Failure> {
        let name = key.name.clone();
        let (record, secret) = mint(key, &SystemIds, SystemClock::new().now());
        let added = self.store.add_key(record).await;
        self.store.close().await;
        stored(added, &name).map(|()| secret.expose().to_owned())
    }

    /// All keys, in the shape of the API.
    pub async fn list(self) -> Result<Value, Failure> {
        let keys = self.store.keys().await;
        self.store.close().await;
        let keys = keys.map_err(|error| Failure::local(error.to_string()))?;
        Ok(json!({"keys": keys.iter().map(to_json).collect::<Vec<_>>()}))
    }

    /// Revokes a key.
    pub async fn revoke(self, name: &str) -> Result<(), Failure> {
        let revoked = self.store.revoke_key(name).await;
        self.store.close().await;
        match revoked {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::new(
                Exit::NotFound,
                "not_found",
                format!("no live key is named '{name}'"),
            )),
            Err(error) => Err(Failure::local(error.to_string())),
        }
    }
}

fn stored(added: Result<bool, darkroom_store::Error>, name: &str) -> Result<(), Failure> {
    match added {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new(
            Exit::Usage,
            "conflict",
            format!("a key named '{name}' is there already"),
        )
        .with_hint("Revoke it first, or choose another name.")),
        Err(error) => Err(Failure::local(error.to_string())),
    }
}

fn to_json(key: &KeyRecord) -> Value {
    json!({
        "name": key.name,
        "prefix": key.prefix,
        "app_key": key.app.as_ref().map(|app| &app.app_key),
        "scopes": key.scopes.iter().map(|scope| scope_name(*scope)).collect::<Vec<_>>(),
        "endpoints": key.endpoints,
        "tenant": key.tenant,
        "created_at": rfc3339(key.created_at),
        "revoked_at": key.revoked_at.map(rfc3339),
    })
}

fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.as_micros()).map_or_else(|_| at.to_string(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use darkroom_store::access::Scope;

    use super::*;

    fn app() -> NewKey {
        NewKey {
            name: "app".to_owned(),
            scopes: vec![Scope::Client],
            endpoints: vec!["*".to_owned()],
            tenant: "default".parse().unwrap(),
        }
    }

    #[tokio::test]
    async fn a_key_is_made_listed_without_its_secret_and_revoked() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("state");
        let secret = Keys::open(&dir).unwrap().create(app()).await.unwrap();
        let again = Keys::open(&dir).unwrap().create(app()).await.unwrap_err();
        assert_eq!(again.code, "conflict");

        let list = Keys::open(&dir).unwrap().list().await.unwrap();
        assert_eq!(list["keys"][0]["name"], "app");
        assert_eq!(list["keys"][0]["scopes"], json!(["client"]));
        assert!(!list.to_string().contains(&secret));

        Keys::open(&dir).unwrap().revoke("app").await.unwrap();
        let missing = Keys::open(&dir).unwrap().revoke("app").await.unwrap_err();
        assert_eq!(missing.exit, Exit::NotFound);
        let list = Keys::open(&dir).unwrap().list().await.unwrap();
        assert!(list["keys"][0]["revoked_at"].is_string());
    }

    #[tokio::test]
    async fn an_app_key_made_without_a_server_opens_with_the_key_that_the_server_will_use() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("state");
        let (app_key, app_secret) = Keys::open(&dir).unwrap().create_app(app()).await.unwrap();
        let keys = Keys::open(&dir).unwrap();
        let stored = keys.store.keys().await.unwrap().remove(0).app.unwrap();
        let mut server = Config::from_text(None, "", &Default::default(), &Overrides::default())
            .unwrap()
            .server;
        server.data_dir = dir;
        let vault = Vault::new(ServerKey::load_or_create(&server, &SystemIds).unwrap().expose());
        let opened = vault.open_secret(&app_key, &stored.sealed_secret).unwrap();
        assert_eq!(opened.expose(), app_secret);
        keys.store.close().await;
    }

    #[tokio::test]
    async fn the_state_of_a_running_server_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let held = Keys::open(home.path()).unwrap();
        let refused = Keys::open(home.path()).err().unwrap();
        assert_eq!(refused.code, "in_use");
        held.store.close().await;
    }
}
