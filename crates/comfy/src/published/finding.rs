//! What is said of a workflow that is being published.

use serde::{Deserialize, Serialize};

/// How grave it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It cannot be published so.
    Error,
    /// It can, and somebody should know.
    Warning,
}

/// One thing to know, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How grave.
    pub level: Level,
    /// A stable word.
    pub code: String,
    /// For people.
    pub message: String,
    /// The node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The node's input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The nearest known names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nearest: Vec<String>,
}

impl Finding {
    /// What keeps it from being published.
    pub fn error(code: &str, message: impl Into<String>) -> Self {
        Finding {
            level: Level::Error,
            code: code.to_owned(),
            message: message.into(),
            node: None,
            field: None,
            nearest: Vec::new(),
        }
    }

    /// What does not.
    pub fn warning(code: &str, message: impl Into<String>) -> Self {
        Finding {
            level: Level::Warning,
            ..Finding::error(code, message)
        }
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, node: &str, field: Option<&str>) -> Self {
        self.node = Some(node.to_owned());
        self.field = field.map(str::to_owned);
        self
    }

    /// Adds names that were perhaps meant.
    #[must_use]
    pub fn near(mut self, names: Vec<String>) -> Self {
        if !names.is_empty() {
            self.message = format!("{} (did you mean {}?)", self.message, names.join(", "));
            self.nearest = names;
        }
        self
    }

    /// Whether it keeps the workflow from being published.
    pub fn is_error(&self) -> bool {
        self.level == Level::Error
    }
}
