//! Published workflows: versions that never change, aliases that point at one, and what was moved when.
//!
//! What a version holds is the server's; the store keeps it as a payload.

use async_trait::async_trait;
use darkroom_core::{
    EndpointName, Payload, TenantId, Timestamp,
    workflow::{AliasName, Version, WorkflowId},
};

use crate::Error;

/// Which workflow: ids are unique within a tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkflowKey {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its id.
    pub id: WorkflowId,
}

/// What a version is.
#[derive(Debug, Clone)]
pub struct Content {
    /// The endpoint that runs it.
    pub endpoint: EndpointName,
    /// A line for people.
    pub note: String,
    /// Graph, inputs, outputs; a large one is a blob written before this call.
    pub definition: Payload,
}

/// A version to be published.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// Of which workflow; it is made when it is not there.
    pub workflow: WorkflowKey,
    /// What it is.
    pub content: Content,
    /// The name of the publisher's key.
    pub by: String,
    /// Point this alias at it.
    pub alias: Option<AliasName>,
    /// Throw the draft away: this is it.
    pub from_draft: bool,
}

/// What became of a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewlyPublished {
    /// The version's number.
    pub version: Version,
    /// The aliases that point at it now.
    pub aliases: Vec<AliasName>,
}

/// Versions and aliases to be brought in together.
#[derive(Debug, Clone)]
pub struct NewWorkflow {
    /// Into which workflow; it is made when it is not there.
    pub workflow: WorkflowKey,
    /// Its next versions, in order.
    pub versions: Vec<Content>,
    /// Aliases, each with the place in `versions` of what it is to point at.
    pub aliases: Vec<(AliasName, usize)>,
    /// The name of the key that brings them.
    pub by: String,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The new versions, in order: numbers go on where the workflow's own end.
    pub versions: Vec<Version>,
    /// Aliases that point at one of them now.
    pub aliases: Vec<AliasName>,
}

/// An alias and what it points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasRecord {
    /// Its name.
    pub name: AliasName,
    /// The version.
    pub version: Version,
    /// The endpoint that runs that one.
    pub endpoint: EndpointName,
}

/// A workflow without what its versions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkflowRecord {
    /// Which.
    pub key: WorkflowKey,
    /// When it was first published or drafted.
    pub created_at: Timestamp,
    /// When it was last published, drafted, or an alias moved.
    pub updated_at: Timestamp,
    /// Its newest version; `None`: only a draft.
    pub latest: Option<Version>,
    /// The endpoint that runs that one.
    pub endpoint: Option<EndpointName>,
    /// The endpoints of all its versions, by name.
    pub endpoints: Vec<EndpointName>,
    /// Its aliases, by name.
    pub aliases: Vec<AliasRecord>,
    /// When its draft was written, if it has one.
    pub draft_at: Option<Timestamp>,
    /// The endpoint that its draft is for; none is known of drafts from before it was noted.
    pub draft_endpoint: Option<EndpointName>,
}

/// A version without what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRecord {
    /// Its number.
    pub version: Version,
    /// The endpoint that runs it.
    pub endpoint: EndpointName,
    /// A line for people.
    pub note: String,
    /// When.
    pub published_at: Timestamp,
    /// The name of the publisher's key.
    pub published_by: String,
    /// How large what it holds is, in bytes.
    pub size: u64,
}

/// Which version a caller means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// This one.
    Version(Version),
    /// The one that an alias points at.
    Alias(AliasName),
}

/// What a caller's words lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// A version.
    Found(Version),
    /// There is no such workflow, or it has no version yet.
    NoWorkflow,
    /// It has no such version.
    NoVersion,
    /// It has no such alias.
    NoAlias,
}

/// Where an alias is to point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// At this version.
    Version(Version),
    /// Back to where it pointed before its last move that was not taken back yet: twice `Back` goes two moves back.
    Back,
}

/// What became of a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    /// It points there now, from a version on or newly.
    Done {
        /// Where it pointed.
        from: Option<Version>,
        /// Where it points.
        to: Version,
    },
    /// There is no such workflow.
    NoWorkflow,
    /// The workflow has no such version.
    NoVersion,
    /// There is no such alias to be moved back.
    NoAlias,
    /// Every move was taken back, or there was none.
    NothingBefore,
}

/// One move of an alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveRecord {
    /// Its number among all moves; later ones have higher numbers.
    pub nr: i64,
    /// The alias.
    pub alias: AliasName,
    /// Where it pointed; `None`: it was new.
    pub from: Option<Version>,
    /// Where it points since.
    pub to: Version,
    /// When.
    pub at: Timestamp,
    /// The name of the key that did it.
    pub by: String,
    /// It was moved back.
    pub rollback: bool,
}

/// Workflows, versions, aliases, drafts.
#[async_trait]
pub trait Workflows: Send + Sync {
    /// Publishes the next version; the first one gets the alias `main` as well. Refused below the disk reserve.
    async fn publish(&self, version: NewVersion) -> Result<NewlyPublished, Error>;

    /// Brings several versions in, after those that are there, all or none of them. An alias is taken over where the
    /// workflow has none of its name; a workflow that is new has `main` at its first version if nothing else is said.
    /// Refused below the disk reserve.
    async fn import(&self, new: NewWorkflow) -> Result<Imported, Error>;

    /// One workflow.
    async fn workflow(&self, key: &WorkflowKey) -> Result<Option<WorkflowRecord>, Error>;

    /// Workflows of a tenant whose ids come after `after`, by id.
    async fn workflows(
        &self,
        tenant: &TenantId,
        after: Option<&WorkflowId>,
        limit: u32,
    ) -> Result<Vec<WorkflowRecord>, Error>;

    /// Its versions before `before` (or all), newest first, at most `limit`.
    async fn versions(
        &self,
        key: &WorkflowKey,
        before: Option<Version>,
        limit: u32,
    ) -> Result<Vec<VersionRecord>, Error>;

    /// One version and what it holds.
    async fn version(
        &self,
        key: &WorkflowKey,
        version: Version,
    ) -> Result<Option<(VersionRecord, Payload)>, Error>;

    /// The version that is meant, as of now.
    async fn resolve(&self, key: &WorkflowKey, wanted: &Wanted) -> Result<Resolved, Error>;

    /// Points an alias at a version; it is made when it is not there. All later resolves see it, none sees half of it.
    async fn move_alias(
        &self,
        key: &WorkflowKey,
        alias: &AliasName,
        to: Target,
        by: &str,
    ) -> Result<Moved, Error>;

    /// The moves of a workflow's aliases, or of one, before the one numbered `before` (or all), newest first, at most
    /// `limit`.
    async fn alias_moves(
        &self,
        key: &WorkflowKey,
        alias: Option<&AliasName>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<MoveRecord>, Error>;

    /// Writes a workflow's draft, in place of an older one; the workflow is made when it is not there.
    async fn put_draft(
        &self,
        key: &WorkflowKey,
        endpoint: &EndpointName,
        draft: Payload,
    ) -> Result<(), Error>;

    /// The draft.
    async fn draft(&self, key: &WorkflowKey) -> Result<Option<(Timestamp, Payload)>, Error>;

    /// Throws the draft away, and the workflow with it if it has no version; `false` when there was none.
    async fn remove_draft(&self, key: &WorkflowKey) -> Result<bool, Error>;
}
