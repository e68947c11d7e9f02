//! How a command ends: one exit code per kind of ending, and the one error type of the CLI.
//!
//! The codes are a contract (docs/cli.md); scripts branch on them.

use std::{fmt, process::ExitCode};

use serde_json::{Value, json};

/// What the process's exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// The job ended `failed` or `expired`.
    JobFailed = 1,
    /// The command line, a file named on it, or the workflow is wrong; nothing ran. Clap uses the same code.
    Usage = 2,
    /// No server answers at the address.
    Unreachable = 3,
    /// The server refused the key, or the key may not do this.
    Refused = 4,
    /// The job was cancelled, by Ctrl-C or by someone else.
    Cancelled = 5,
    /// `--timeout` passed.
    Timeout = 6,
    /// No job, instance, endpoint, or key of that name.
    NotFound = 7,
    /// The server answered with an error of its own, or with something that is no answer.
    Server = 8,
    /// Something on this machine failed: a file cannot be written, a check of `doctor` failed.
    Local = 9,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// A stable word for scripts; the server's own code where it gave one.
    pub code: String,
    /// One line for a person.
    pub message: String,
    /// What to type next, when that is known.
    pub hint: Option<String>,
    /// What the server added (ComfyUI's `node_errors`).
    pub details: Option<Box<Value>>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(exit: Exit, code: &str, message: impl Into<String>) -> Self {
        Failure {
            exit,
            code: code.to_owned(),
            message: message.into(),
            hint: None,
            details: None,
        }
    }

    /// The command line or a file named on it is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Failure::new(Exit::Usage, "usage", message)
    }

    /// Something on this machine failed.
    pub fn local(message: impl Into<String>) -> Self {
        Failure::new(Exit::Local, "local", message)
    }

    /// Adds what to type next.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// `{code, message, hint?, details?}`.
    pub fn to_json(&self) -> Value {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(hint) = &self.hint {
            error["hint"] = json!(hint);
        }
        if let Some(details) = &self.details {
            error["details"] = Value::clone(details);
        }
        error
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The message and its causes on one line; a cause that the message already tells is not told again.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.contains(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = error.source();
    }
    text
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Failure>() {
            Ok(failure) => failure,
            Err(error) => Failure::local(chain(error.as_ref())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let inner = std::io::Error::other("disk on fire");
        let outer = anyhow::Error::from(inner).context("cannot write a.png");
        assert_eq!(chain(outer.as_ref()), "cannot write a.png: disk on fire");
        let repeated = anyhow::anyhow!("disk on fire").context("cannot write: disk on fire");
        assert_eq!(chain(repeated.as_ref()), "cannot write: disk on fire");
    }
}
