//! Runs attempts on one ComfyUI: brings the inputs, posts the prompt, follows its session, collects every output.
//!
//! It knows one instance and one [`link::AttemptLink`]; it does not know the store, the endpoints, or why it got this
//! job. Start with [`link`] (the port), then [`Slot`] (one attempt after the other), then `attempt` (one of them).

mod account;
mod attempt;
mod backoff;
mod collect;
mod config;
#[cfg(feature = "testing")]
pub mod conformance;
mod ending;
mod even_time;
mod feed;
mod follow;
mod gather;
mod history;
mod inputs;
mod instance;
mod line;
pub mod link;
mod slot;
mod stop;
mod tail;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod wire;

pub use self::collect::spool::clear as clear_spool;
pub use self::config::{Dirs, InstanceAccess, SlotConfig, SlotEnd};
pub use self::instance::Error as AccessError;
pub use self::slot::Slot;
