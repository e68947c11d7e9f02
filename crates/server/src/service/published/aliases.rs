//! Aliases: moved in one step, with their history, and back.

use darkroom_core::workflow::{AliasName, Version};

use super::{MoveRecord, Moved, Target, WorkflowKey};
use crate::service::{Error, Service};

/// Moves told at once.
const MAX_MOVES: u32 = 200;

impl Service {
    /// Points an alias at a version, or back at the one before. Calls that were accepted before keep the version that they
    /// began with.
    ///
    /// # Errors
    /// [`Error::NotFound`] for what is not there, [`Error::Invalid`] when there is nothing to go back to.
    pub async fn move_alias(
        &self,
        key: &WorkflowKey,
        alias: &AliasName,
        to: Target,
        by: &str,
    ) -> Result<(Option<Version>, Version), Error> {
        match self.store.move_alias(key, alias, to, by).await? {
            Moved::Done { from, to } => {
                tracing::info!(workflow = %key.id, %alias, to = %to, "an alias was moved");
                Ok((from, to))
            }
            Moved::NoWorkflow => Err(Error::not_found("workflow", &key.id)),
            Moved::NoAlias => Err(Error::not_found("alias", alias)),
            Moved::NothingBefore => Err(Error::Invalid(format!(
                "alias '{alias}' never pointed at another version: there is nothing to go back to"
            ))),
            Moved::NoVersion => Err(match to {
                Target::Version(version) => Error::not_found("version", version),
                Target::Back => Error::not_found("version", "before"),
            }),
        }
    }

    /// Where aliases pointed, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn alias_history(
        &self,
        key: &WorkflowKey,
        alias: Option<&AliasName>,
    ) -> Result<Vec<MoveRecord>, Error> {
        Ok(self.store.alias_moves(key, alias, MAX_MOVES).await?)
    }
}
