//! From a history entry to stored outputs.

pub mod memory;
pub mod mentioned;
pub mod places;
pub mod unmentioned;
