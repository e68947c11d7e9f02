//! Logs of a server or an engine: text for people on a terminal, one JSON object per line otherwise.
//!
//! What is logged is the libraries' business; prompts and keys never are.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt};

use crate::args::LogFormat;

/// Sets up logging for this process, once. `filter` is in `tracing`'s syntax (`info`, `darkroom_server=debug`).
pub fn set_up(filter: Option<&str>, format: Option<LogFormat>) {
    let terminal = io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal {
        LogFormat::Text
    } else {
        LogFormat::Json
    });
    let filter = EnvFilter::try_new(filter.unwrap_or("info")).unwrap_or_else(|_| EnvFilter::new("info"));
    // These two write signed addresses into what they say; what they refuse or miss is said by us.
    let filter = ["s3s=off", "object_store=off"]
        .into_iter()
        .fold(filter, |filter, quiet| {
            filter.add_directive(quiet.parse().expect("a directive"))
        });
    let builder = fmt().with_env_filter(filter).with_writer(io::stderr);
    // Failing means that a subscriber is set up already, and then that one is used.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(terminal).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
