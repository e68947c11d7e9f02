//! The `darkroom` binary: server, engine, and the commands that talk to a server.
//!
//! It knows the command line, the server's HTTP API, and how to print. It decides nothing about jobs. Start with
//! [`args`] (the table of commands) and `commands/` (one file each); `exit.rs` says how a command ends.

mod args;
mod client;
mod commands;
mod data_dir;
mod exit;
mod failpoint;
mod follow;
mod local;
mod logging;
mod parent;
mod save;
mod stopwatch;
mod submit;
mod ui;
mod workflow;

use std::process::ExitCode;

use clap::Parser;
use darkroom_ambient::SystemClock;
use darkroom_core::Clock;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let ui = cli.global.ui();
    match commands::dispatch(cli.command, &cli.global) {
        Ok(exit) => exit,
        Err(failure) => {
            ui.failure(&failure);
            failure.exit.into()
        }
    }
}

/// The wall clock, for printing ages.
fn now() -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(SystemClock::new().now().as_micros())
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}
