//! The engine's directories, and the rule that nothing a client names leaves them.

pub mod safetensors;
pub mod save_name;

use std::{
    io,
    path::{Component, Path, PathBuf},
};

/// The four directories of an instance. All exist once [`Directories::prepare`] has run.
#[derive(Debug, Clone)]
pub struct Directories {
    /// Uploads; what `LoadImage` reads.
    pub input: PathBuf,
    /// What `SaveImage` writes.
    pub output: PathBuf,
    /// Previews; emptied at every start.
    pub temp: PathBuf,
    /// Settings and user data of the web page.
    pub user: PathBuf,
}

/// One of the directories a file name can point into, as the wire calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folder {
    /// `input`
    Input,
    /// `output`
    Output,
    /// `temp`
    Temp,
}

impl Folder {
    /// The folder named on the wire.
    pub fn parse(name: &str) -> Option<Folder> {
        match name {
            "input" => Some(Folder::Input),
            "output" => Some(Folder::Output),
            "temp" => Some(Folder::Temp),
            _ => None,
        }
    }

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Folder::Input => "input",
            Folder::Output => "output",
            Folder::Temp => "temp",
        }
    }
}

impl Directories {
    /// Makes the directories and empties the temporary one, as ComfyUI does at start.
    pub fn prepare(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.temp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        [&self.input, &self.output, &self.temp, &self.user]
            .into_iter()
            .try_for_each(std::fs::create_dir_all)
    }

    /// The path of a folder.
    pub fn path(&self, folder: Folder) -> &Path {
        match folder {
            Folder::Input => &self.input,
            Folder::Output => &self.output,
            Folder::Temp => &self.temp,
        }
    }

    /// The path of a name such as `a.png`, `sub/a.png` or `a.png [output]`; `None` when it would leave its folder.
    ///
    /// ComfyUI reads any path here; we do not.
    pub fn annotated(&self, name: &str) -> Option<PathBuf> {
        let (name, folder) = split_annotation(name);
        inside(self.path(folder.unwrap_or(Folder::Input)), Path::new(name))
    }

    /// The names of the files directly in the input directory, sorted, as file pickers list them.
    pub fn input_files(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.input) else {
            return Vec::new();
        };
        let files = entries.flatten().filter(|entry| entry.path().is_file());
        let mut names: Vec<String> = files
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }
}

/// `name [output]` as name and folder.
pub fn split_annotation(name: &str) -> (&str, Option<Folder>) {
    for folder in [Folder::Output, Folder::Input, Folder::Temp] {
        let bare = name
            .strip_suffix(']')
            .and_then(|rest| rest.strip_suffix(folder.name()));
        if let Some(bare) = bare.and_then(|rest| rest.strip_suffix('[')) {
            return (bare.strip_suffix(' ').unwrap_or(bare), Some(folder));
        }
    }
    (name, None)
}

/// `base` joined with `relative`, with `.` and `..` resolved on the text; `None` when that is not below `base`.
pub fn inside(base: &Path, relative: &Path) -> Option<PathBuf> {
    if relative.as_os_str().as_encoded_bytes().contains(&0) {
        return None;
    }
    let base = normalize(base);
    let joined = normalize(&base.join(relative));
    joined.starts_with(&base).then_some(joined)
}

/// Resolves `.` and `..` without asking the file system; `..` at the root stays there.
pub fn normalize(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => match out.components().next_back() {
                Some(Component::Normal(_)) => {
                    out.pop();
                }
                Some(Component::RootDir | Component::Prefix(_)) => {}
                Some(Component::ParentDir | Component::CurDir) | None => out.push(".."),
            },
            other => out.push(other),
        }
    }
    out
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
        assert_eq!(split_annotation("a.png [temp]"), ("a.png", Some(Folder::Temp)));
        assert_eq!(split_annotation("a.png [elsewhere]"), ("a.png [elsewhere]", None));
    }

    #[test]
    fn paths_that_leave_are_refused() {
        let base = Path::new("/data/input");
        for bad in ["../x", "a/../../x", "/etc/passwd", "..", "a\0b"] {
            assert_eq!(inside(base, Path::new(bad)), None, "{bad}");
        }
        assert_eq!(
            inside(base, Path::new("../input/a.png")),
            Some("/data/input/a.png".into())
        );
        assert_eq!(
            inside(base, Path::new("a/./b/../c.png")),
            Some("/data/input/a/c.png".into())
        );
    }

    proptest! {
        #[test]
        fn whatever_is_named_stays_inside(name in "[./a\\\\ ]{0,24}") {
            let base = Path::new("/data/input");
            if let Some(path) = inside(base, Path::new(&name)) {
                prop_assert!(path.starts_with(base));
                prop_assert!(!path.components().any(|c| c == Component::ParentDir));
            }
        }
    }
}
