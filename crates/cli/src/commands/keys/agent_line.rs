//! What to paste on a machine whose ComfyUI becomes an instance.

/// The line that starts an agent with a key, for a shell.
pub(super) fn agent_line(server: &str, endpoint: &str, secret: &str) -> String {
    format!(
        "DARKROOM_SERVER={} DARKROOM_KEY={} darkroom agent --endpoint {} --comfyui http://127.0.0.1:8188",
        quoted(server.trim_end_matches('/')),
        quoted(secret),
        quoted(endpoint),
    )
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@%+=,".contains(c);
    match word.chars().all(plain) && !word.is_empty() {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_words() {
        let line = agent_line("http://gpu.example:8288/", "sdxl", "dk_1");
        assert_eq!(
            line,
            "DARKROOM_SERVER=http://gpu.example:8288 DARKROOM_KEY=dk_1 darkroom agent --endpoint sdxl --comfyui http://127.0.0.1:8188"
        );
        assert_eq!(quoted("a'b c"), r"'a'\''b c'");
        assert_eq!(quoted(""), "''");
    }
}
