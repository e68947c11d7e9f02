//! `frontend`: where ComfyUI's own page lies.

use std::path::{Path, PathBuf};

use darkroom_core::endpoint::{Backend, Kind};

use crate::config::{reader::Section, server::absolute};

/// The package whose wheel holds the page, below an interpreter's `site-packages`.
const PACKAGE: &str = "comfyui_frontend_package";

/// What is configured, else what the installation that the endpoint runs has. It is opened when the page first is.
pub(super) fn read(section: &mut Section<'_>, kind: Kind, backend: &Backend) -> Option<PathBuf> {
    let Some(text) = section.text("frontend") else {
        return match backend {
            Backend::Process(spec) if kind == Kind::Comfyui => installed(Path::new(spec.command.first()?)),
            _ => None,
        };
    };
    if kind != Kind::Comfyui {
        section.problem("frontend", "belongs to kind = \"comfyui\"");
    }
    let path = absolute(text.into());
    if !path.exists() {
        section.problem(
            "frontend",
            format!("there is no directory and no wheel {}", path.display()),
        );
    }
    Some(path)
}

/// The page beside the interpreter of a virtual environment: `lib/python3.*/site-packages` next to its `bin`.
fn installed(python: &Path) -> Option<PathBuf> {
    let environment = python.parent().filter(|bin| bin.ends_with("bin"))?.parent()?;
    let libraries = std::fs::read_dir(environment.join("lib")).ok()?;
    let mut found: Vec<PathBuf> = libraries
        .filter_map(Result::ok)
        .map(|library| library.path().join("site-packages").join(PACKAGE))
        .filter(|package| package.join("static/index.html").is_file())
        .collect();
    found.sort();
    found.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environments_page_is_found_beside_its_interpreter() {
        let home = tempfile::tempdir().unwrap();
        let python = home.path().join("venv/bin/python");
        assert_eq!(installed(&python), None);
        let package = home
            .path()
            .join("venv/lib/python3.11/site-packages/comfyui_frontend_package");
        std::fs::create_dir_all(package.join("static")).unwrap();
        assert_eq!(installed(&python), None);
        std::fs::write(package.join("static/index.html"), "page").unwrap();
        assert_eq!(installed(&python), Some(package));
        assert_eq!(installed(Path::new("python3")), None);
    }
}
