//! `warmup`: a workflow that each new instance runs before its first job.

use std::path::PathBuf;

use darkroom_core::endpoint::{Backend, Kind};
use serde_json::Value;

use crate::config::{reader::Section, server::absolute};

/// It is read again at each start, so that it can be changed without a restart; here it must be a workflow.
pub(super) fn read(section: &mut Section<'_>, kind: Kind, backend: &Backend) -> Option<PathBuf> {
    let path = absolute(section.text("warmup")?.into());
    if kind != Kind::Comfyui || !matches!(backend, Backend::Process(_)) {
        section.problem(
            "warmup",
            "belongs to kind = \"comfyui\" with backend = \"process\"",
        );
        return None;
    }
    let shown = path.display();
    match std::fs::read(&path) {
        Ok(text) if serde_json::from_slice::<Value>(&text).is_ok_and(|json| json.is_object()) => Some(path),
        Ok(_) => {
            section.problem(
                "warmup",
                format!("{shown} is no workflow: expected a JSON object"),
            );
            None
        }
        Err(error) => {
            section.problem("warmup", format!("cannot read {shown}: {error}"));
            None
        }
    }
}
