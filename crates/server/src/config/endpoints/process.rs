//! The command of an endpoint that runs processes: written out, or the preset for a ComfyUI checkout, or nothing
//! (the embedded engine).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use darkroom_core::endpoint::{Kind, ProcessSpec};
use toml::Value;

use crate::config::{reader::Section, server::absolute};

/// Keys that only mean something for a process.
pub(super) const KEYS: &[&str] = &[
    "comfyui",
    "python",
    "args",
    "command",
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
    let working_dir = section.text("working_dir").map(|path| absolute(path.into()));
    let variables = read_env(section);
    if !used {
        return ProcessSpec::default();
    }
    if let (Some(_), true) = (&comfyui, has_command) {
        section.problem("command", "give either comfyui or command, not both");
    }
    if comfyui.is_none() {
        for (given, key) in [(has_python, "python"), (has_args, "args")] {
            if given {
                section.problem(key, "belongs beside comfyui; with a command, write it there");
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
        if !directory.join("main.py").is_file() {
            section.problem(
                "comfyui",
                format!("there is no main.py in {}", directory.display()),
            );
        }
        let command = comfyui_command(&directory, python, args.unwrap_or_default());
        (command, Some(working_dir.unwrap_or(directory)))
    } else {
        (check_command(section, kind, has_command, command), working_dir)
    };
    ProcessSpec {
        command,
        working_dir,
        env: variables,
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
                "is missing: only kind = \"comfyui\" has an embedded engine; give a command",
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
    if kind == Kind::Comfyui && !command.iter().any(|word| word.contains("{port}")) {
        section.problem(
            "command",
            "must hold {port}: Darkroom chooses the port that ComfyUI listens on",
        );
    }
    command
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
