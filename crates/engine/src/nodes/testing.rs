//! Classes for testing clients and servers; they exist only with `--test-nodes`.

use crate::registry::NodeKind;

/// The test classes.
pub const TABLE: &[NodeKind] = &[];

/// Their `/object_info` entries.
pub const SCHEMA: &str = "{}";
