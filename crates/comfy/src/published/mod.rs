//! A published workflow: a graph, the inputs that callers may set by name, and the outputs that they get by name.
//!
//! What it does: declares inputs from what the node classes say of them ([`declare`]), checks values and puts them into the
//! graph ([`bind`](Published::bind)), describes a call as JSON Schema ([`Published::schema`]), and tells two versions apart
//! ([`Diff`]). All of it is pure.
//!
//! What it does not know: versions, aliases, where anything is stored, and how files come to an instance.

mod bind;
mod declare;
mod diff;
mod finding;
mod input;
mod number;
mod output;
mod schema;
mod value;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::{
    bind::{Problem, ProblemKind, Seeds},
    declare::{Declared, declare},
    diff::{Changed, Diff, FieldChange, NodeChange},
    finding::{Finding, Level},
    input::{Input, InputWish, Kind, SeedField},
    output::{OutputField, OutputWish, Shape},
};

/// One version's graph and what callers see of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// In API format.
    pub graph: Value,
    /// What callers may set, in the publisher's order.
    #[serde(default)]
    pub inputs: Vec<Input>,
    /// What they get; empty: everything that the graph makes.
    #[serde(default)]
    pub outputs: Vec<OutputField>,
    /// Every input of the graph that holds a seed, published or not.
    #[serde(default)]
    pub seeds: Vec<SeedField>,
}

impl Published {
    /// The input of that name.
    pub fn input(&self, name: &str) -> Option<&Input> {
        self.inputs.iter().find(|input| input.name == name)
    }
}
