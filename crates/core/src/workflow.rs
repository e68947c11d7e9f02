//! Names around published workflows: the workflow's id, its versions (`v1`, `v2`, …), and aliases that point at one.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::name::{name_type, shorten};

/// Longest name, in characters.
pub const MAX_NAME_CHARS: usize = 63;

/// Why a text is no such name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Breaks the rule for names.
    #[error(
        "'{0}' is not a valid {1}: use 1 to {MAX_NAME_CHARS} letters (of any script), digits, '_', '.', '-', beginning with a \
         letter or digit"
    )]
    BadName(String, &'static str),
    /// Not `v1`, `v2`, …
    #[error("'{0}' is not a version: they are v1, v2, …")]
    NotAVersion(String),
}

name_type!(
    /// What callers call a published workflow by; fixed for all its versions.
    WorkflowId,
    Error,
    |text| check_name(text, "workflow id")
);
name_type!(
    /// A name that points at a version (`main`, `v2.1`, `beta`).
    AliasName,
    Error,
    |text| check_name(text, "alias")
);

impl AliasName {
    /// The alias that the first publish creates, and that callers mean who name none.
    pub fn main() -> Self {
        AliasName("main".into())
    }
}

/// The number of a version, from 1; `v3` in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(u32);

impl Version {
    /// From its number; `None` for 0.
    pub fn new(number: u32) -> Option<Self> {
        (number > 0).then_some(Version(number))
    }

    /// The number.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl FromStr for Version {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let number = text
            .strip_prefix(['v', 'V'])
            .and_then(|digits| digits.parse().ok());
        number
            .and_then(Version::new)
            // One spelling: neither `v01` nor `v+1`.
            .filter(|version| version.0.to_string() == text[1..])
            .ok_or_else(|| Error::NotAVersion(shorten(text)))
    }
}

impl TryFrom<String> for Version {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.to_string()
    }
}

fn check_name(text: &str, what: &'static str) -> Result<(), Error> {
    let mut chars = text.chars();
    let is_name = chars.next().is_some_and(char::is_alphanumeric)
        && chars.all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-'))
        && text.chars().count() <= MAX_NAME_CHARS;
    match is_name {
        true => Ok(()),
        false => Err(Error::BadName(shorten(text), what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_be_of_any_script_and_never_part_of_a_path() {
        for good in ["poster", "海报-2", "v2.1", "A_b.c", "0"] {
            assert!(good.parse::<WorkflowId>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "a/b", "a b", "a@b", "a?b", "..", &"x".repeat(64)] {
            assert!(bad.parse::<AliasName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_version_has_one_spelling() {
        assert_eq!("v12".parse::<Version>().unwrap().number(), 12);
        assert_eq!(Version::new(3).unwrap().to_string(), "v3");
        for bad in ["v0", "v01", "v", "12", "v+1", "v2.1", "vv1", "v99999999999", "é1"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }
}
