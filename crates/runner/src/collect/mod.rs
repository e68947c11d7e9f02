//! From a history entry to stored outputs: what is mentioned ([`mentioned`]), where it is ([`piece`], [`places`]), what
//! else appeared ([`unmentioned`]), and the way to the blob store ([`collection`], [`spool`], [`memory`]).

pub mod collection;
pub mod frames;
pub mod memory;
pub mod mentioned;
pub mod piece;
pub mod places;
pub mod spool;
pub mod unmentioned;
