//! A text that must not be shown.

use std::fmt;

/// A key, password, or signing secret. `Debug` shows dots, there is no `Display`, and no serialisation.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself; every use of this is a place to look at twice.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_show_it() {
        let shown = format!("{:?}", Some(Secret::new("sk_live_1234")));
        assert!(!shown.contains("sk_live"), "{shown}");
    }
}
