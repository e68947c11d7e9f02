//! The command of an instance, with its placeholders filled in.

use crate::{Dirs, StartError};

/// The words to run: those of the endpoint, or of the embedded engine when it names none.
pub(super) fn words(
    command: &[String],
    engine: &[String],
    port: u16,
    dirs: &Dirs,
) -> Result<Vec<String>, StartError> {
    let command = if command.is_empty() { engine } else { command };
    if command.first().is_none_or(String::is_empty) {
        return Err(StartError::Command("names no program".to_owned()));
    }
    let port = port.to_string();
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let values = [
        ("{port}", port),
        ("{input_dir}", text(&dirs.input)),
        ("{output_dir}", text(&dirs.output)),
        ("{temp_dir}", text(&dirs.temp)),
        ("{user_dir}", text(&dirs.user)),
    ];
    Ok(command.iter().map(|word| fill(word, &values)).collect())
}

/// Replaces every placeholder once: what a value holds is never looked at again. Other braces stay, since arguments
/// may be JSON.
fn fill(word: &str, values: &[(&str, String)]) -> String {
    let mut filled = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('{') {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        match values.iter().find(|(name, _)| rest.starts_with(name)) {
            Some((name, value)) => {
                filled.push_str(value);
                rest = &rest[name.len()..];
            }
            None => {
                filled.push('{');
                rest = &rest[1..];
            }
        }
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs() -> Dirs {
        Dirs {
            input: "/d/in {port}".into(),
            output: "/d/out".into(),
            temp: "/d/temp".into(),
            user: "/d/user".into(),
            work: "/d/work".into(),
        }
    }

    fn filled(command: &[&str]) -> Vec<String> {
        let command: Vec<String> = command.iter().map(|w| (*w).to_owned()).collect();
        words(&command, &["engine".to_owned()], 8188, &dirs()).unwrap()
    }

    #[test]
    fn placeholders_are_filled_anywhere_and_only_once() {
        assert_eq!(
            filled(&[
                "py",
                "--listen=127.0.0.1:{port}",
                "{input_dir}",
                "{output_dir}{temp_dir}",
                "{user_dir}"
            ]),
            [
                "py",
                "--listen=127.0.0.1:8188",
                "/d/in {port}",
                "/d/out/d/temp",
                "/d/user"
            ]
        );
    }

    #[test]
    fn other_braces_stay() {
        assert_eq!(
            filled(&["p", r#"{"a": {"port": {port}}}"#, "{ports}", "{", "图{port}"]),
            ["p", r#"{"a": {"port": 8188}}"#, "{ports}", "{", "图8188"]
        );
    }

    #[test]
    fn no_command_means_the_engine() {
        assert_eq!(filled(&[]), ["engine"]);
        for nothing in [vec![], vec![String::new()]] {
            let error = words(&nothing, &[], 1, &dirs()).unwrap_err();
            assert!(matches!(error, StartError::Command(_)), "{error}");
        }
    }
}
