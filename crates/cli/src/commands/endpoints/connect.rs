//! `darkroom endpoints show NAME --connect`: how to call it.

use std::fmt::Write;

use serde_json::Value;

/// Each protocol with its address, its key, and lines to paste.
pub(super) fn human(answer: &Value) -> String {
    let mut out = String::new();
    if let Some(key) = answer["key"]["note"].as_str() {
        let _ = writeln!(out, "key: {key}\n");
    }
    for way in answer["protocols"].as_array().into_iter().flatten() {
        let text = |field: &str| way[field].as_str().unwrap_or_default();
        let _ = writeln!(out, "{}\n  {}", text("protocol"), text("url"));
        for line in text("snippet").lines() {
            let _ = writeln!(out, "    {line}");
        }
        out.push('\n');
    }
    out.trim_end().to_owned()
}
