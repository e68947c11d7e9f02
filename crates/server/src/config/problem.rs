//! What is wrong with a configuration: every problem at once, each with the path of its key.

use std::{cell::RefCell, collections::BTreeMap, fmt, path::PathBuf};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `endpoints.sdxl.limits.max_queued`.
    pub path: String,
    /// Where the value came from when not from the file: an environment variable or a flag.
    pub origin: Option<String>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{} (from {origin}): {}", self.path, self.message),
            None => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML; the message names line and column.
    #[error("{} is not valid TOML: {message}", path.display())]
    NotToml {
        /// Which file.
        path: PathBuf,
        /// The parser's own words.
        message: String,
    },
    /// The values are wrong.
    #[error("{}", render(file.as_ref(), problems))]
    Invalid {
        /// The file they were read from, if there was one.
        file: Option<PathBuf>,
        /// Everything that is wrong, in the order of the file's sections.
        problems: Vec<Problem>,
    },
}

fn render(file: Option<&PathBuf>, problems: &[Problem]) -> String {
    let count = match problems.len() {
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    };
    let mut text = match file {
        Some(file) => format!("{count} in the configuration ({})", file.display()),
        None => format!("{count} in the configuration"),
    };
    for problem in problems {
        text.push_str("\n  ");
        text.push_str(&problem.to_string());
    }
    text
}

/// Collects problems while the sections are read.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: RefCell<Vec<Problem>>,
    origins: BTreeMap<String, String>,
}

impl Problems {
    /// `origins`: which paths were set by the environment or by flags, and by which.
    pub(super) fn new(origins: BTreeMap<String, String>) -> Self {
        Problems {
            found: RefCell::default(),
            origins,
        }
    }

    pub(super) fn add(&self, path: &str, message: impl Into<String>) {
        self.found.borrow_mut().push(Problem {
            path: path.to_owned(),
            origin: self.origins.get(path).cloned(),
            message: message.into(),
        });
    }

    /// The value at `path` is a plain text from the environment or a flag.
    pub(super) fn is_overridden(&self, path: &str) -> bool {
        self.origins.contains_key(path)
    }

    pub(super) fn into_vec(self) -> Vec<Problem> {
        self.found.into_inner()
    }
}

/// `; did you mean 'x'?` when a known name is near enough, else nothing.
pub fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let near = known
        .into_iter()
        .map(|name| {
            (
                strsim::damerau_levenshtein(&given.to_lowercase(), &name.to_lowercase()),
                name,
            )
        })
        .min();
    match near {
        // A third of the letters may be wrong, at least two: `max_instance`, `lisen`, `idle_timout`.
        Some((distance, name)) if distance <= (name.len() / 3).max(2) && distance < name.len() => {
            format!("; did you mean '{name}'?")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_only_when_it_is_near() {
        let known = ["listen", "data_dir", "public_url"];
        assert_eq!(did_you_mean("lisen", known), "; did you mean 'listen'?");
        assert_eq!(did_you_mean("datadir", known), "; did you mean 'data_dir'?");
        assert_eq!(did_you_mean("colour", known), "");
    }
}
