//! One suite for every implementation: what the traits promise, as functions over a [`World`].
//!
//! A world has one or more handles on the same state (SQLite opens one, Postgres two, as two servers would), a clock that
//! only the test moves, and seeded ids. Each test is named once, where it is written; [`run`] runs a room of them, each in
//! a fresh world.

pub(crate) mod access;
pub(crate) mod assets;
pub(crate) mod catalog;
pub(crate) mod claims;
pub(crate) mod endings;
pub(crate) mod events;
pub(crate) mod files;
pub(crate) mod history;
pub(crate) mod leases;
pub(crate) mod line;
pub(crate) mod lists;
pub(crate) mod queue_endings;
pub(crate) mod queues;
pub(crate) mod retention;
pub(crate) mod submits;
pub(crate) mod wakes;
pub(crate) mod workflows;
mod world;

use std::{future::Future, pin::Pin};

pub(crate) use world::{
    TestClock, TestIds, World, claim_for, done, endpoint, event, external, failed, file, job, lease, lost,
    released, tenant,
};

/// A test: its name and what it does.
pub(crate) type Test = (&'static str, fn(World) -> Pin<Box<dyn Future<Output = ()>>>);

/// Defines tests and lists them in `TESTS`.
macro_rules! tests {
    ($(async fn $name:ident($world:ident: World) $body:block)+) => {
        pub(crate) const TESTS: &[$crate::conformance::Test] = &[
            $((stringify!($name), |world| Box::pin($name(world)))),+
        ];
        $(async fn $name($world: World) $body)+
    };
}
pub(crate) use tests;

/// Runs the tests of a room, each in a world of its own.
pub(crate) async fn run<F>(tests: &[Test], mut open: impl FnMut() -> F)
where
    F: Future<Output = World>,
{
    for (name, test) in tests {
        println!("{name}");
        test(open().await).await;
    }
}
