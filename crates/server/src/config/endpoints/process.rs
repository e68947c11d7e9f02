//! The command of an endpoint that runs processes: written out, or the preset for a ComfyUI checkout, or nothing
//! (the embedded engine).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use darkroom_core::Environment;
use darkroom_core::endpoint::{Kind, ProcessSpec};
use toml::Value;

use crate::config::{reader::Section, server::absolute};

/// Keys that only mean something for a process.
pub(super) const KEYS: &[&str] = &[
    "comfyui",
    "python",
    "args",
    "command",
    "handler",
    "bucket",
    "working_dir",
    "env",
    "env_file",
];

/// Placeholders that the backend fills in.
const PLACEHOLDERS: &[&str] = &[
    "{port}",
    "{input_dir}",
    "{output_dir}",
    "{temp_dir}",
    "{user_dir}",
];

/// Reads the keys of a process; `used`: the backend is `process`, so that they must also make sense together.
pub(super) fn read(section: &mut Section<'_>, kind: Kind, used: bool) -> ProcessSpec {
    let comfyui = section.text("comfyui").map(|path| absolute(path.into()));
    let has_python = section.has("python");
    let python = section.text("python");
    let has_args = section.has("args");
    let args = section.list("args");
    let has_command = section.has("command");
    let command = section.list("command");
    let handler = section.text("handler").map(|path| absolute(path.into()));
    let bucket = section
        .has("bucket")
        .then(|| read_bucket(section.section("bucket")));
    let working_dir = section.text("working_dir").map(|path| absolute(path.into()));
    let mut variables = read_env(section);
    // What `env` says counts.
    for (name, value) in bucket.into_iter().flatten() {
        variables.entry(name).or_insert(value);
    }
    if !used {
        return ProcessSpec::default();
    }
    if let (Some(_), true) = (&comfyui, has_command) {
        section.problem("command", "give either comfyui or command, not both");
    }
    let takes_a_port = command.iter().flatten().any(|word| word.contains("{port}"));
    if kind == Kind::Worker && working_dir.is_some() && !takes_a_port {
        section.problem(
            "working_dir",
            "a worker that takes jobs by polls runs in an empty directory of its own: name its files by absolute paths, or its script as handler",
        );
    }
    if let Some(handler) = handler {
        if kind != Kind::Worker {
            section.problem("handler", "belongs to kind = \"worker\"");
        }
        if has_command {
            section.problem("handler", "give either handler or command, not both");
        }
        if !handler.is_file() {
            section.problem("handler", format!("there is no file {}", handler.display()));
        }
        let python = python.unwrap_or_else(|| "python3".to_owned());
        let mut command = vec![python, handler.to_string_lossy().into_owned()];
        command.extend(args.unwrap_or_default());
        return ProcessSpec {
            name: None,
            command,
            working_dir: None,
            env: variables.into(),
        };
    }
    if comfyui.is_none() {
        for (given, key) in [(has_python, "python"), (has_args, "args")] {
            if given {
                section.problem(
                    key,
                    "belongs beside comfyui or handler; with a command, write it there",
                );
            }
        }
    }
    if let Some(directory) = &working_dir
        && !directory.is_dir()
    {
        section.problem(
            "working_dir",
            format!("there is no directory {}", directory.display()),
        );
    }
    let (command, working_dir) = if let Some(directory) = comfyui {
        if kind != Kind::Comfyui {
            section.problem("comfyui", "belongs to kind = \"comfyui\"");
        }
        if let Err(problem) = check_checkout(&directory) {
            section.problem("comfyui", problem);
        }
        let command = comfyui_command(&directory, python, args.unwrap_or_default());
        (command, Some(working_dir.unwrap_or(directory)))
    } else {
        (check_command(section, kind, has_command, command), working_dir)
    };
    ProcessSpec {
        name: None,
        command,
        working_dir,
        env: variables.into(),
    }
}

/// The bucket for a worker's files, as the SDKs' variables.
fn read_bucket(mut section: Section<'_>) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for (key, variable, needed) in [
        ("endpoint_url", "BUCKET_ENDPOINT_URL", true),
        ("access_key_id", "BUCKET_ACCESS_KEY_ID", true),
        ("secret_access_key", "BUCKET_SECRET_ACCESS_KEY", true),
        ("name", "BUCKET_NAME", false),
        ("region", "BUCKET_REGION", false),
    ] {
        let given = section.has(key);
        let value = section.secret(key);
        if needed && !given {
            section.problem(key, "is missing");
        }
        variables.extend(value.map(|value| (variable.to_owned(), value.expose().to_owned())));
    }
    section.finish();
    variables
}

/// How a checkout of ComfyUI is run as a process of this machine.
///
/// # Errors
/// Says why, when there is none.
pub fn comfyui_process(
    directory: &Path,
    python: Option<String>,
    args: Vec<String>,
) -> Result<ProcessSpec, String> {
    let directory = absolute(directory.to_owned());
    check_checkout(&directory)?;
    Ok(ProcessSpec {
        name: None,
        command: comfyui_command(&directory, python, args),
        working_dir: Some(directory),
        env: Environment::default(),
    })
}

fn check_checkout(directory: &Path) -> Result<(), String> {
    match directory.join("main.py").is_file() {
        true => Ok(()),
        false => Err(format!("there is no main.py in {}", directory.display())),
    }
}

fn check_command(
    section: &Section<'_>,
    kind: Kind,
    given: bool,
    command: Option<Vec<String>>,
) -> Vec<String> {
    if !given {
        if kind != Kind::Comfyui {
            section.problem(
                "command",
                "is missing: only kind = \"comfyui\" has an embedded engine; give a command, or a worker's handler",
            );
        }
        return Vec::new();
    }
    let command = command.unwrap_or_default();
    if command.first().is_none_or(String::is_empty) {
        section.problem(
            "command",
            "must name a program; leave the key out for the embedded engine",
        );
    }
    for (index, word) in command.iter().enumerate() {
        if let Some(unknown) = unknown_placeholder(word) {
            section.problem(
                &format!("command[{index}]"),
                format!(
                    "unknown placeholder {unknown}; there are {}",
                    PLACEHOLDERS.join(", ")
                ),
            );
        }
    }
    let command: Vec<String> = match kind {
        // It is started in a directory of its own, where no relative path of ours leads anywhere.
        Kind::Worker => command.into_iter().map(from_here).collect(),
        Kind::Comfyui | Kind::Queue => command,
    };
    if kind == Kind::Comfyui && !command.iter().any(|word| word.contains("{port}")) {
        section.problem(
            "command",
            "must hold {port}: Darkroom chooses the port that ComfyUI listens on",
        );
    }
    command
}

/// A relative path to a file that is there, made absolute; any other word as it is.
fn from_here(word: String) -> String {
    let path = Path::new(&word);
    let names_a_file = word.contains('/') || path.extension().is_some_and(|ext| ext == "py");
    match names_a_file && path.is_relative() && path.is_file() {
        true => absolute(path.to_owned()).to_string_lossy().into_owned(),
        false => word,
    }
}

/// A `{word}` that is none of ours. Braces around anything but a plain word (JSON in an argument) are the program's own.
fn unknown_placeholder(text: &str) -> Option<&str> {
    text.match_indices('{').find_map(|(start, _)| {
        let end = start + text[start..].find('}')?;
        let whole = &text[start..=end];
        let inner = &whole[1..whole.len() - 1];
        let is_word = !inner.is_empty() && inner.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        (is_word && !PLACEHOLDERS.contains(&whole)).then_some(whole)
    })
}

/// How a ComfyUI checkout is started (flags of its `comfy/cli_args.py`).
fn comfyui_command(directory: &Path, python: Option<String>, args: Vec<String>) -> Vec<String> {
    let python = python.unwrap_or_else(|| find_python(directory));
    let main = directory.join("main.py").to_string_lossy().into_owned();
    let mut command = vec![python, main];
    command.extend(
        [
            "--listen",
            "127.0.0.1",
            "--port",
            "{port}",
            "--input-directory",
            "{input_dir}",
            "--output-directory",
            "{output_dir}",
            "--temp-directory",
            "{temp_dir}",
            "--user-directory",
            "{user_dir}",
            "--disable-auto-launch",
        ]
        .map(str::to_owned),
    );
    command.extend(args);
    command
}

/// The checkout's own virtual environment, else the embedded interpreter of a portable build, else the system's.
fn find_python(directory: &Path) -> String {
    let candidates = [
        "venv/bin/python",
        ".venv/bin/python",
        "../venv/bin/python",
        "../.venv/bin/python",
        "../python_embeded/python.exe",
    ];
    candidates
        .iter()
        .map(|candidate| directory.join(candidate))
        .find(|path| path.exists())
        .map_or_else(
            || "python3".to_owned(),
            |path| path.to_string_lossy().into_owned(),
        )
}

/// `env_file` first, then `env` over it. Values may name nothing: what is written is what is set.
fn read_env(section: &mut Section<'_>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    if let Some(path) = section.text("env_file") {
        let path = PathBuf::from(path);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                for (number, line) in text.lines().enumerate() {
                    match parse_env_line(line) {
                        Ok(Some((name, value))) => {
                            variables.insert(name, value);
                        }
                        Ok(None) => {}
                        Err(()) => section.problem(
                            "env_file",
                            format!("{}:{}: expected NAME=value", path.display(), number + 1),
                        ),
                    }
                }
            }
            Err(error) => section.problem("env_file", format!("cannot read '{}': {error}", path.display())),
        }
    }
    match section.value("env") {
        None => {}
        Some(Value::Table(table)) => {
            for (name, value) in table {
                let text = match value {
                    Value::String(text) => text,
                    Value::Integer(number) => number.to_string(),
                    Value::Boolean(flag) => flag.to_string(),
                    _ => {
                        section.problem(&format!("env.{name}"), "expected a text");
                        continue;
                    }
                };
                if is_variable_name(&name) && !text.contains('\0') {
                    variables.insert(name, text);
                } else {
                    section.problem(&format!("env.{name}"), "is not a valid environment variable");
                }
            }
        }
        Some(_) => section.problem("env", "expected a table like { NAME = \"value\" }"),
    }
    variables
}

fn parse_env_line(line: &str) -> Result<Option<(String, String)>, ()> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, value) = line
        .strip_prefix("export ")
        .unwrap_or(line)
        .split_once('=')
        .ok_or(())?;
    let (name, value) = (name.trim(), value.trim());
    if !is_variable_name(name) {
        return Err(());
    }
    let unquoted = ['"', '\'']
        .iter()
        .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote))
        .unwrap_or(value);
    Ok(Some((name.to_owned(), unquoted.to_owned())))
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_an_env_file() {
        assert_eq!(parse_env_line("A=1"), Ok(Some(("A".into(), "1".into()))));
        assert_eq!(
            parse_env_line("export A = \"x y\""),
            Ok(Some(("A".into(), "x y".into())))
        );
        assert_eq!(parse_env_line("# A=1"), Ok(None));
        assert_eq!(parse_env_line("nothing"), Err(()));
        assert_eq!(parse_env_line("A=\""), Ok(Some(("A".into(), "\"".into()))));
    }

    #[test]
    fn json_in_an_argument_is_no_placeholder() {
        assert_eq!(unknown_placeholder("{\"a\": 1}"), None);
        assert_eq!(unknown_placeholder("--port={port}"), None);
        assert_eq!(unknown_placeholder("{prot}"), Some("{prot}"));
    }
}
