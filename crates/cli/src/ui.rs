//! Everything the CLI prints goes through here: JSON or text, tables, times, and the progress bar.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::exit::Failure;

/// How to print.
#[derive(Debug, Clone, Copy)]
pub struct Ui {
    /// `--json`: machine-readable only.
    pub json: bool,
}

impl Ui {
    /// Prints `value` as JSON on one line, so that the last line of every command is a document, or what `human` says of it.
    pub fn show(&self, value: &Value, human: impl FnOnce(&Value) -> String) {
        if self.json {
            self.line(&value.to_string());
        } else {
            self.line(human(value).trim_end());
        }
    }

    /// The same on one line each way.
    pub fn show_line(&self, value: &Value, human: &str) {
        if self.json {
            self.line(&value.to_string());
        } else {
            self.line(human);
        }
    }

    /// One line of text on stdout. A reader that went away (`| head`) ends the process quietly.
    pub fn line(&self, text: &str) {
        let mut out = io::stdout().lock();
        let written = writeln!(out, "{text}").and_then(|()| out.flush());
        if let Err(error) = written
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            std::process::exit(0);
        }
    }

    /// A remark for a person; on stderr, and not at all with `--json`.
    pub fn note(&self, text: &str) {
        if !self.json {
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// How a command failed: on stderr for a person, as one document on stdout with `--json`.
    pub fn failure(&self, failure: &Failure) {
        if self.json {
            self.line(&serde_json::json!({"error": failure.to_json()}).to_string());
            return;
        }
        let mut err = io::stderr().lock();
        let _ = writeln!(err, "error: {}", failure.message);
        for line in node_errors(failure.details.as_deref()) {
            let _ = writeln!(err, "  {line}");
        }
        if let Some(hint) = &failure.hint {
            let _ = writeln!(err, "{hint}");
        }
    }

    /// A bar on a terminal; hidden with `--json` or when stderr goes to a file.
    pub fn progress(&self) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(1000);
        let style = ProgressStyle::with_template("{spinner} {bar:32} {percent:>3}%  {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("█▓░"));
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }
}

/// One line per fault that a refused graph has, from ComfyUI's `node_errors`.
fn node_errors(details: Option<&Value>) -> Vec<String> {
    let Some(nodes) = details
        .and_then(|d| d.get("node_errors"))
        .and_then(Value::as_object)
    else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    for (id, node) in nodes {
        let class = node["class_type"].as_str().unwrap_or("?");
        for error in node["errors"].as_array().into_iter().flatten() {
            let message = error["message"].as_str().unwrap_or("error");
            let detail = error["details"].as_str().unwrap_or("");
            lines.push(format!("node {id} ({class}): {message}: {detail}"));
        }
    }
    lines
}

/// Columns as wide as their widest cell, separated by two blanks; the last one is not padded.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (i, cell) in cells.enumerate() {
            text.push_str(cell);
            if i + 1 < widths.len() {
                text.extend(std::iter::repeat_n(
                    ' ',
                    widths[i].saturating_sub(cell.chars().count()) + 2,
                ));
            }
        }
        text.trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut header.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// `42 ms`, `3.1 s`, `4 min 05 s`, `2 h 03 min`.
pub fn duration(d: Duration) -> String {
    let secs = d.as_secs();
    if d < Duration::from_secs(1) {
        format!("{} ms", d.as_millis())
    } else if secs < 60 {
        format!("{:.1} s", d.as_secs_f64())
    } else if secs < 3600 {
        format!("{} min {:02} s", secs / 60, secs % 60)
    } else {
        format!("{} h {:02} min", secs / 3600, secs % 3600 / 60)
    }
}

/// How long ago an RFC 3339 time was; the text itself when it is none.
pub fn ago(rfc3339: &str, now: jiff::Timestamp) -> String {
    match rfc3339.parse::<jiff::Timestamp>() {
        Ok(then) => {
            let elapsed = now.duration_since(then);
            let elapsed = Duration::try_from(elapsed).unwrap_or(Duration::ZERO);
            format!("{} ago", duration(elapsed))
        }
        Err(_) => rfc3339.to_owned(),
    }
}

/// `1.5 KB`, `12 MB`: powers of 1024.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 10.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let text = table(
            &["ID", "STATE"],
            &[
                vec!["a".into(), "queued".into()],
                vec!["长长".into(), "done".into()],
            ],
        );
        assert_eq!(text, "ID  STATE\na   queued\n长长  done\n");
        assert_eq!(
            table(&["A", "B"], &[vec!["x".into(), String::new()]]),
            "A  B\nx\n"
        );
    }

    #[test]
    fn durations_and_sizes_read_well() {
        assert_eq!(duration(Duration::from_millis(42)), "42 ms");
        assert_eq!(duration(Duration::from_millis(3_140)), "3.1 s");
        assert_eq!(duration(Duration::from_secs(245)), "4 min 05 s");
        assert_eq!(duration(Duration::from_secs(7_380)), "2 h 03 min");
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KB");
        assert_eq!(size(12 * 1024 * 1024), "12 MB");
    }

    #[test]
    fn a_refused_graph_says_which_node_and_why() {
        let details = serde_json::json!({"node_errors": {"7": {"class_type": "SaveImage",
            "errors": [{"message": "Required input is missing", "details": "images"}]}}});
        assert_eq!(
            node_errors(Some(&details)),
            ["node 7 (SaveImage): Required input is missing: images"]
        );
        assert!(node_errors(None).is_empty());
    }
}
