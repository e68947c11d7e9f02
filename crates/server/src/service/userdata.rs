//! What ComfyUI's page keeps on the server, per tenant and endpoint: settings, and files (workflows, templates, style).
//!
//! ComfyUI has them in a directory of one user; here settings are rows and files are blobs, so that they outlive instances
//! and servers. Callers without a key share a tenant with strangers: they have none.

use bytes::Bytes;
use darkroom_core::{EndpointName, TenantId, Timestamp};
use darkroom_store::files::FileRef;
use futures::stream::BoxStream;
use serde_json::{Map, Value};

use super::{Error, Service, uploads::Incoming, view::FoundFile};

/// Largest file, in bytes.
pub const MAX_USER_FILE_BYTES: u64 = 32 * 1024 * 1024;

/// Whose page.
#[derive(Debug, Clone)]
pub struct PageUser {
    /// The tenant.
    pub tenant: TenantId,
    /// The endpoint whose page it is.
    pub endpoint: EndpointName,
}

/// A file of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserFile {
    /// Its path.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it was written.
    pub modified: Timestamp,
}

/// What became of a write or a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Done.
    Done(UserFile),
    /// Another file has that path, and was not to be replaced.
    Taken,
}

impl PageUser {
    fn owner(&self) -> String {
        format!("user:{}:{}", self.tenant, self.endpoint)
    }

    fn settings(&self) -> String {
        format!("page/{}/{}/", self.tenant, self.endpoint)
    }
}

impl Service {
    /// All settings of a user.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn page_settings(&self, user: &PageUser) -> Result<Map<String, Value>, Error> {
        let prefix = user.settings();
        let stored = self.store.settings_under(&prefix).await?;
        let read = |(name, value): (String, String)| {
            let value = serde_json::from_str(&value).ok()?;
            Some((name[prefix.len()..].to_owned(), value))
        };
        Ok(stored.into_iter().filter_map(read).collect())
    }

    /// One setting; `null` when it was never set.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn page_setting(&self, user: &PageUser, id: &str) -> Result<Value, Error> {
        let stored = self.store.setting(&format!("{}{id}", user.settings())).await?;
        Ok(stored
            .and_then(|value| serde_json::from_str(&value).ok())
            .unwrap_or_default())
    }

    /// Changes settings, all or none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn change_page_settings(
        &self,
        user: &PageUser,
        changes: Map<String, Value>,
    ) -> Result<(), Error> {
        let prefix = user.settings();
        let changes = changes
            .into_iter()
            .map(|(id, value)| (format!("{prefix}{id}"), value.to_string()));
        Ok(self.store.put_settings(changes.collect()).await?)
    }

    /// A user's files in a directory and below it, by path, with their paths from the root.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn user_files(&self, user: &PageUser, directory: &str) -> Result<Vec<UserFile>, Error> {
        let all = self.store.refs_of(&user.owner()).await?;
        let below = |path: &str| {
            directory.is_empty()
                || path
                    .strip_prefix(directory)
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        Ok(all
            .into_iter()
            .filter(|file| below(&file.name))
            .map(|file| UserFile {
                path: file.name,
                size: file.size,
                modified: file.created_at,
            })
            .collect())
    }

    /// One file.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn user_file(&self, user: &PageUser, path: &str) -> Result<Option<FoundFile>, Error> {
        let found = self.store.file_ref(&user.owner(), path).await?;
        Ok(found.map(|file| FoundFile {
            key: file.blob,
            size: file.size,
            content_type: file.content_type,
            name: path.rsplit('/').next().unwrap_or(path).to_owned(),
        }))
    }

    /// Writes a file.
    ///
    /// # Errors
    /// [`Error::TooLarge`], or the stores' own.
    pub async fn write_user_file(
        &self,
        user: &PageUser,
        path: &str,
        bytes: BoxStream<'_, Result<Bytes, std::io::Error>>,
        overwrite: bool,
    ) -> Result<Kept, Error> {
        let incoming = self
            .receive(&user.tenant, path, bytes, MAX_USER_FILE_BYTES)
            .await?;
        let kept = self.name_user_file(user, path, &incoming, overwrite).await;
        if !matches!(kept, Ok(Kept::Done(_))) {
            self.forget_incoming(incoming).await;
        }
        kept
    }

    async fn name_user_file(
        &self,
        user: &PageUser,
        path: &str,
        incoming: &Incoming,
        overwrite: bool,
    ) -> Result<Kept, Error> {
        let reference = FileRef {
            owner: user.owner(),
            name: path.to_owned(),
            tenant: user.tenant.clone(),
            blob: incoming.key().clone(),
            size: incoming.size(),
            content_type: self.content_type_of(incoming.key(), path).await,
            created_at: self.clock.now(),
        };
        self.refer(reference, overwrite).await
    }

    async fn refer(&self, reference: FileRef, overwrite: bool) -> Result<Kept, Error> {
        let file = UserFile {
            path: reference.name.clone(),
            size: reference.size,
            modified: reference.created_at,
        };
        let done = match overwrite {
            true => {
                self.store.put_ref(reference).await?;
                true
            }
            false => self.store.add_ref(reference).await?,
        };
        Ok(if done { Kept::Done(file) } else { Kept::Taken })
    }

    /// Gives a file another path.
    ///
    /// # Errors
    /// [`Error::NotFound`], or the store's own.
    pub async fn move_user_file(
        &self,
        user: &PageUser,
        from: &str,
        to: &str,
        overwrite: bool,
    ) -> Result<Kept, Error> {
        let owner = user.owner();
        let missing = || Error::not_found("file", from);
        let found = self.store.file_ref(&owner, from).await?.ok_or_else(missing)?;
        if from == to {
            return Ok(Kept::Taken);
        }
        // Both names for a moment rather than none.
        let kept = self
            .refer(
                FileRef {
                    name: to.to_owned(),
                    ..found
                },
                overwrite,
            )
            .await?;
        if let Kept::Done(_) = kept {
            self.store.drop_ref(&owner, from).await?;
        }
        Ok(kept)
    }

    /// Removes a file; `false` when there was none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn remove_user_file(&self, user: &PageUser, path: &str) -> Result<bool, Error> {
        Ok(self.store.drop_ref(&user.owner(), path).await?)
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use serde_json::json;

    use super::*;
    use crate::service::testing::Bench;

    fn user(tenant: &str) -> PageUser {
        PageUser {
            tenant: tenant.parse().unwrap(),
            endpoint: "default".parse().unwrap(),
        }
    }

    async fn write(bench: &Bench, user: &PageUser, path: &str, text: &'static str, overwrite: bool) -> Kept {
        let bytes = futures::stream::iter([Ok(Bytes::from_static(text.as_bytes()))]).boxed();
        let written = bench.service.write_user_file(user, path, bytes, overwrite);
        written.await.unwrap()
    }

    fn paths(files: &[UserFile]) -> Vec<&str> {
        files.iter().map(|file| file.path.as_str()).collect()
    }

    #[tokio::test]
    async fn files_are_written_moved_and_removed_by_their_user_alone() {
        let bench = Bench::new();
        let (alice, bob) = (user("alice"), user("bob"));
        for path in ["workflows/a.json", "workflows/sub/b.json", "workflowsish.json"] {
            assert!(matches!(
                write(&bench, &alice, path, "{}", false).await,
                Kept::Done(_)
            ));
        }
        assert_eq!(
            write(&bench, &alice, "workflows/a.json", "{1}", false).await,
            Kept::Taken
        );
        let Kept::Done(file) = write(&bench, &alice, "workflows/a.json", "{12}", true).await else {
            panic!("it replaces");
        };
        assert_eq!(file.size, 4);
        let service = &bench.service;
        let listed = service.user_files(&alice, "workflows").await.unwrap();
        assert_eq!(paths(&listed), ["workflows/a.json", "workflows/sub/b.json"]);
        assert_eq!(service.user_files(&alice, "").await.unwrap().len(), 3);
        assert!(service.user_files(&bob, "").await.unwrap().is_empty());
        assert_eq!(service.user_file(&bob, "workflows/a.json").await.unwrap(), None);

        let to = "workflows/sub/b.json";
        let moved = service
            .move_user_file(&alice, "workflows/a.json", to, false)
            .await;
        assert_eq!(moved.unwrap(), Kept::Taken);
        let moved = service.move_user_file(&alice, "workflows/a.json", to, true).await;
        assert!(matches!(moved.unwrap(), Kept::Done(file) if file.size == 4));
        assert!(service.move_user_file(&bob, to, "x", true).await.is_err());
        assert!(!service.remove_user_file(&bob, to).await.unwrap());
        assert!(service.remove_user_file(&alice, to).await.unwrap());
        assert!(!service.remove_user_file(&alice, to).await.unwrap());
    }

    #[tokio::test]
    async fn settings_are_each_users_own() {
        let bench = Bench::new();
        let (alice, bob) = (user("alice"), user("bob"));
        let service = &bench.service;
        let changes = json!({"Comfy.Locale": "zh", "Comfy.Queue": {"a": [1, null]}});
        let Value::Object(changes) = changes else {
            unreachable!()
        };
        service
            .change_page_settings(&alice, changes.clone())
            .await
            .unwrap();
        assert_eq!(service.page_settings(&alice).await.unwrap(), changes);
        assert_eq!(service.page_setting(&alice, "Comfy.Locale").await.unwrap(), "zh");
        assert_eq!(service.page_setting(&alice, "unset").await.unwrap(), Value::Null);
        assert!(service.page_settings(&bob).await.unwrap().is_empty());
    }
}
