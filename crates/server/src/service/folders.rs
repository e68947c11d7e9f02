//! The folders of ComfyUI that a file name can point into, and the rule that nothing a client names leaves its folder.
//!
//! Nothing here is a path on a disk: folders are owners of references in the store, and paths are the names in them.

use darkroom_core::{EndpointName, TenantId};

/// Longest path within a folder, in bytes.
const MAX_PATH_BYTES: usize = 400;

/// A folder, as the wire calls it (`comfyui/behaviour.md` §10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Folder {
    /// `input`: uploads, which graphs can name.
    Input,
    /// `output`: what jobs made.
    Output,
    /// `temp`: their previews.
    Temp,
}

impl Folder {
    /// The folder of this name.
    pub fn parse(name: &str) -> Option<Folder> {
        match name {
            "input" => Some(Folder::Input),
            "output" => Some(Folder::Output),
            "temp" => Some(Folder::Temp),
            _ => None,
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Folder::Input => "input",
            Folder::Output => "output",
            Folder::Temp => "temp",
        }
    }

    /// Who refers to the files that a tenant put there.
    pub(super) fn owner(self, tenant: &TenantId, endpoint: &EndpointName) -> String {
        format!("{}:{tenant}:{endpoint}", self.as_str())
    }
}

/// `name [output]` as name and folder.
pub fn split_annotation(name: &str) -> (&str, Option<Folder>) {
    for folder in [Folder::Output, Folder::Input, Folder::Temp] {
        let bare = name
            .strip_suffix(']')
            .and_then(|rest| rest.strip_suffix(folder.as_str()))
            .and_then(|rest| rest.strip_suffix('['));
        if let Some(bare) = bare {
            return (bare.strip_suffix(' ').unwrap_or(bare), Some(folder));
        }
    }
    (name, None)
}

/// `relative` within a folder of this name, with `.` and `..` resolved and `/` between its parts; empty for the folder
/// itself. `None` when it leaves the folder, also for a while above it, or is no path.
pub fn inside(folder: &str, relative: &str) -> Option<String> {
    if relative.starts_with('/')
        || relative.len() > MAX_PATH_BYTES
        || relative.contains('\\')
        || relative.chars().any(char::is_control)
    {
        return None;
    }
    let mut parts = vec![folder];
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    (parts.first() == Some(&folder)).then(|| parts[1..].join("/"))
}

/// A path and a name in it.
pub fn join(directory: &str, name: &str) -> String {
    match directory {
        "" => name.to_owned(),
        directory => format!("{directory}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn annotations_choose_the_folder() {
        assert_eq!(
            split_annotation("a b.png [output]"),
            ("a b.png", Some(Folder::Output))
        );
        assert_eq!(split_annotation("a.png[temp]"), ("a.png", Some(Folder::Temp)));
        assert_eq!(split_annotation("a.png [input]"), ("a.png", Some(Folder::Input)));
        assert_eq!(split_annotation("a.png [elsewhere]"), ("a.png [elsewhere]", None));
    }

    #[test]
    fn paths_that_leave_are_refused() {
        for bad in [
            "..",
            "../x",
            "a/../../x",
            "/etc/passwd",
            "a\0b",
            "a\\b",
            "../..",
            "../../input/x",
        ] {
            assert_eq!(inside("input", bad), None, "{bad}");
        }
        for (path, means) in [
            ("", ""),
            ("a/./b//../c.png", "a/c.png"),
            ("../input/sub", "sub"),
            ("图/1.png", "图/1.png"),
        ] {
            assert_eq!(inside("input", path).as_deref(), Some(means), "{path}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_named_stays_inside(path in "[./a\\\\ ]{0,24}") {
            if let Some(inner) = inside("input", &path) {
                prop_assert!(!inner.starts_with('/'));
                prop_assert!(inner.split('/').all(|part| part != ".." && part != "."));
                prop_assert_eq!(inside("input", &inner), Some(inner.clone()));
            }
        }
    }
}
