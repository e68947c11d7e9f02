//! The pure heart of Darkroom: ids, jobs, attempts, instances, endpoints, and the decisions about them.
//!
//! Nothing here knows a runtime, a database, a clock, or a random source: time and ids are arguments,
//! a decision is a return value, and the reason for it is part of that value. Start with [`job`] and
//! [`attempt`] (what may happen to them), then [`scheduler`] (who runs what, and how many instances).

pub mod asset;
pub mod attempt;
pub mod backoff;
pub mod blob_key;
pub mod delivery;
pub mod endpoint;
mod environment;
pub mod event;
pub mod failure;
pub mod id;
pub mod instance;
pub mod job;
pub mod keep;
pub mod limits;
mod name;
pub mod output;
pub mod payload;
pub mod presence;
pub mod public_name;
pub mod retry;
pub mod scheduler;
pub mod time;
pub mod worker;
pub mod workflow;

pub use asset::{AssetRef, ContentHash, Digest};
pub use attempt::{AttemptOutcome, AttemptState, Fence};
pub use blob_key::BlobKey;
pub use endpoint::Endpoint;
pub use environment::Environment;
pub use failure::Failure;
pub use id::{AssetId, EndpointName, Ids, InstanceId, JobId, NodeName, TenantId};
pub use instance::InstanceState;
pub use job::JobState;
pub use keep::Keep;
pub use payload::Payload;
pub use public_name::PublicName;
pub use time::{Clock, Timestamp};
