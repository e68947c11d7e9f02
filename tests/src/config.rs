//! Pieces of `darkroom.toml` that several tests need.

use crate::binary;

/// A `[[keys]]` entry whose secret is `sk_NAME`; `more` are further lines of it (`tenant = …`, `endpoints = …`).
pub fn key(name: &str, scopes: &[&str], more: &str) -> String {
    format!("[[keys]]\nname = \"{name}\"\nsecret = \"sk_{name}\"\nscopes = {scopes:?}\n{more}\n")
}

/// Client keys `alice` and `bob`, each with a tenant of that name.
pub fn alice_and_bob() -> String {
    ["alice", "bob"]
        .map(|name| key(name, &["client"], &format!("tenant = \"{name}\"")))
        .concat()
}

/// The command of an engine with the nodes for testing, with the placeholders that an endpoint's command may hold.
pub fn engine_command() -> Vec<String> {
    let arguments = [
        "engine",
        "--listen",
        "127.0.0.1:{port}",
        "--input-directory",
        "{input_dir}",
        "--output-directory",
        "{output_dir}",
        "--temp-directory",
        "{temp_dir}",
        "--user-directory",
        "{user_dir}",
        "--test-nodes",
    ];
    let program = binary::darkroom().display().to_string();
    [program]
        .into_iter()
        .chain(arguments.map(str::to_owned))
        .collect()
}

/// An endpoint whose instances are what a shell script makes of that command (`$@`); `zero` is the script's `$0`.
pub fn endpoint_of_script(name: &str, script: &str, zero: &str) -> String {
    let shell = ["sh", "-c", script, zero].map(str::to_owned);
    let command: Vec<String> = shell.into_iter().chain(engine_command()).collect();
    format!("[endpoints.{name}]\ncommand = {command:?}\n")
}
