//! Who runs what, and how many instances: pure decisions that carry their own reasons.
//!
//! Two questions, asked by different callers. A free slot asks [`pick`](mod@pick): which job do I take? The control loop
//! asks [`plan`](mod@plan): which instances should exist? Neither knows the other's answer; they meet in the store.

pub mod autoscale;
pub mod decision;
pub mod estimate;
pub mod expiry;
pub mod fairness;
mod gpus;
pub mod needs;
pub mod pick;
pub mod plan;
pub mod waiting;

#[cfg(any(test, feature = "sim"))]
pub mod sim;

pub use decision::{Decision, Signal, Verdict};
pub use estimate::Outlook;
pub use expiry::{ClockGuard, LeaseCorrection};
pub use fairness::{Fairness, Share, VirtualTime};
pub use needs::{Need, Needs, Offers};
pub use pick::{Candidate, Choice, PickReason, SlotView, pick};
pub use plan::{Action, Counters, EndpointCounters, EndpointPolicy, InstanceView, Plan, Policy, plan};
pub use waiting::{HeldBack, WaitReason, why_waiting};
