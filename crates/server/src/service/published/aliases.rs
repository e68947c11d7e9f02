//! Aliases: moved in one step, with their history, and back.

use darkroom_core::workflow::{AliasName, Version};

use super::{Actor, Denied, MoveRecord, Moved, Target, WorkflowKey, WorkflowRecord};
use crate::service::{Error, Service};

impl Service {
    /// Points an alias at a version, or back at the one before. Calls that were accepted before keep the version that they
    /// began with.
    ///
    /// # Errors
    /// [`Error::NotFound`] for what is not there, [`Error::Invalid`] when there is nothing to go back to, [`Denied`].
    pub async fn move_alias(
        &self,
        actor: &Actor,
        key: &WorkflowKey,
        alias: &AliasName,
        to: Target,
    ) -> Result<(Option<Version>, Version), Denied> {
        self.own_workflow(actor, key).await?;
        let moved = self.store.move_alias(key, alias, to, &actor.by).await;
        let refused = match moved.map_err(Error::from)? {
            Moved::Done { from, to } => {
                tracing::info!(workflow = %key.id, %alias, to = %to, "an alias was moved");
                return Ok((from, to));
            }
            Moved::NoWorkflow => Error::not_found("workflow", &key.id),
            Moved::NoAlias => Error::not_found("alias", alias),
            Moved::NothingBefore => Error::Invalid(format!(
                "alias '{alias}' points where it began: there is no move of it to take back"
            )),
            Moved::NoVersion => match to {
                Target::Version(version) => Error::not_found("version", version),
                Target::Back => Error::not_found("version", "before"),
            },
        };
        Err(refused.into())
    }

    /// Where a workflow's aliases point, and where they pointed: moves before `before`, newest first.
    ///
    /// # Errors
    /// [`Denied`], or when the store fails.
    pub async fn alias_history(
        &self,
        actor: &Actor,
        key: &WorkflowKey,
        alias: Option<&AliasName>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<(WorkflowRecord, Vec<MoveRecord>), Denied> {
        let record = self.own_workflow(actor, key).await?;
        let moves = self.store.alias_moves(key, alias, before, limit).await;
        Ok((record, moves.map_err(Error::from)?))
    }
}
