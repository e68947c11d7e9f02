//! Where each thing that history mentions can be had.

use std::collections::BTreeSet;

use darkroom_comfy::wire::FileRef;
use darkroom_core::{
    Failure,
    failure::FailureCode,
    output::{Output, OutputBody},
};
use serde_json::json;

use super::{
    memory::OutputMemory,
    mentioned::{Mentioned, What},
    places::{self, Dirs, Found, Stamp, is_safe, shown},
    unmentioned::NewFile,
};

/// One output on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// What history says; the node is empty and the kind is `files` for a file it does not mention.
    pub item: Mentioned,
    /// Its bytes as stored for an earlier attempt, if they are the same.
    pub known: Option<OutputBody>,
    /// Where its bytes are now.
    pub source: Source,
}

/// Where the bytes of a piece are.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// In the history entry.
    Text(String),
    /// A file on this machine: the instance's own, or a spooled copy. Without a stamp it came over HTTP.
    Local {
        /// Where.
        path: std::path::PathBuf,
        /// The version of the instance's file.
        stamp: Option<Stamp>,
    },
    /// In memory: it came over the instance's socket.
    Held(bytes::Bytes),
    /// At the instance, to be had over HTTP.
    Remote(FileRef),
    /// Nowhere any more, but for what is known of it.
    Gone,
}

/// Finds every mentioned thing. `cached` are the nodes that ComfyUI did not run this time. Blocks.
///
/// # Errors
/// `output_missing` for a file whose name is not acceptable.
pub fn locate(
    items: Vec<Mentioned>,
    dirs: Option<&Dirs>,
    memory: &OutputMemory,
    cached: &BTreeSet<String>,
) -> Result<Vec<Piece>, Box<Failure>> {
    let locate_one = |item: Mentioned| {
        let file = match &item.what {
            What::Text(text) => {
                let source = Source::Text(text.clone());
                return Ok(Piece {
                    item,
                    known: None,
                    source,
                });
            }
            What::File(file) => file,
        };
        let (known, source) = locate_file(file, dirs, memory, cached.contains(&item.node_id))
            .map_err(|error| missing(&item, error.to_string()))?;
        Ok(Piece { item, known, source })
    };
    items.into_iter().map(locate_one).collect()
}

/// Files that history does not mention, as further pieces.
pub fn further(files: Vec<NewFile>, mentioned: &[Piece]) -> Vec<Piece> {
    let taken: BTreeSet<_> = mentioned
        .iter()
        .filter_map(|piece| match &piece.source {
            Source::Local { path, .. } => Some(path.clone()),
            Source::Text(_) | Source::Held(_) | Source::Remote(_) | Source::Gone => None,
        })
        .collect();
    let not_taken = files.into_iter().filter(|file| {
        let real = file.found.path.canonicalize();
        !real.is_ok_and(|path| taken.contains(&path))
    });
    // A name that is not UTF-8 cannot be told to anyone; such files stay where they are.
    let named = not_taken.filter_map(|file| {
        let name = file.relative.file_name()?.to_str()?.to_owned();
        let subfolder = file.relative.parent()?.to_str()?.to_owned();
        Some((name, subfolder, file.found))
    });
    let pieces = named
        .enumerate()
        .map(|(index, (filename, subfolder, found))| Piece {
            item: Mentioned {
                node_id: String::new(),
                kind: "files".to_owned(),
                index: u32::try_from(index).unwrap_or(u32::MAX),
                raw: json!({"filename": filename, "subfolder": subfolder, "type": "output"}),
                what: What::File(FileRef {
                    filename,
                    subfolder,
                    kind: "output".to_owned(),
                }),
            },
            known: None,
            source: local(found),
        });
    pieces.collect()
}

/// The failure of a job whose instance named a file that cannot be had.
pub fn missing(item: &Mentioned, why: String) -> Box<Failure> {
    Box::new(Failure {
        node_id: Some(item.node_id.clone()).filter(|id| !id.is_empty()),
        ..Failure::new(FailureCode::OutputMissing, why)
    })
}

impl Piece {
    /// The output this piece becomes, with those bytes.
    pub fn output(&self, body: OutputBody) -> Output {
        Output {
            node_id: self.item.node_id.clone(),
            kind: self.item.kind.clone(),
            index: self.item.index,
            body,
            raw: self.item.raw.clone(),
        }
    }

    /// Whether its file is not on this machine any more.
    pub async fn has_vanished(&self) -> bool {
        match &self.source {
            Source::Local { path, .. } => matches!(tokio::fs::try_exists(path).await, Ok(false)),
            Source::Text(_) | Source::Held(_) | Source::Remote(_) | Source::Gone => false,
        }
    }

    /// The file it is, unless it is a text.
    pub fn file(&self) -> Option<&FileRef> {
        match &self.item.what {
            What::File(file) => Some(file),
            What::Text(_) => None,
        }
    }
}

fn locate_file(
    file: &FileRef,
    dirs: Option<&Dirs>,
    memory: &OutputMemory,
    cached: bool,
) -> Result<(Option<OutputBody>, Source), places::Error> {
    if !is_safe(file) {
        return Err(places::Error::Unsafe(shown(file)));
    }
    let known = |version: Option<Stamp>| {
        let known = match version {
            Some(stamp) => memory.recall_version(file, stamp),
            // Without its version a name alone proves nothing, unless its node did not run.
            None => memory.recall(file).filter(|_| cached),
        };
        known.map(|known| known.body.clone())
    };
    let Some(dirs) = dirs else {
        return Ok((known(None), Source::Remote(file.clone())));
    };
    match dirs.find(file) {
        Ok(found) => Ok((known(Some(found.stamp)), local(found))),
        // What a link means is decided by the instance, in its own container and under its own user; and it may have
        // been told other directories than we believe.
        Err(places::Error::Missing(_) | places::Error::Elsewhere(_)) => {
            Ok((known(None), Source::Remote(file.clone())))
        }
        Err(error @ (places::Error::Unsafe(_) | places::Error::Io { .. })) => Err(error),
    }
}

fn local(found: Found) -> Source {
    Source::Local {
        path: found.path,
        stamp: Some(found.stamp),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use serde_json::Value;

    use super::*;
    use crate::collect::{
        mentioned::mentioned,
        unmentioned::{OutputWatch, Since},
    };

    fn dirs(root: &Path) -> Dirs {
        let dirs = Dirs {
            input: root.join("input"),
            output: root.join("output"),
            temp: root.join("temp"),
        };
        for dir in [&dirs.input, &dirs.output, &dirs.temp] {
            fs::create_dir_all(dir).unwrap();
        }
        dirs
    }

    fn items(outputs: Value) -> Vec<Mentioned> {
        mentioned(&serde_json::from_value(outputs).unwrap())
    }

    fn body(text: &str) -> OutputBody {
        OutputBody::Text { text: text.into() }
    }

    #[test]
    fn a_stored_file_stands_for_a_cached_node_only() {
        let root = tempfile::tempdir().unwrap();
        let dirs = dirs(root.path());
        let outputs =
            items(json!({"9": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}}));
        let mut memory = OutputMemory::default();
        let What::File(file) = outputs[0].what.clone() else {
            panic!()
        };
        memory.remember(file.clone(), None, body("stored"));
        let cached = BTreeSet::from(["9".to_owned()]);
        let known = |cached: &BTreeSet<String>| {
            let pieces = locate(outputs.clone(), Some(&dirs), &memory, cached).unwrap();
            assert_eq!(
                pieces[0].source,
                Source::Remote(file.clone()),
                "not here: the instance is asked"
            );
            pieces[0].known.clone()
        };
        assert_eq!(known(&cached), Some(body("stored")));
        // A node that ran and whose file is not there did not write it, whatever stood there before.
        assert_eq!(known(&BTreeSet::new()), None);
    }

    #[test]
    fn files_that_history_does_not_mention_are_further_pieces() {
        let root = tempfile::tempdir().unwrap();
        let dirs = dirs(root.path());
        let mut watch = OutputWatch::begin(&dirs.output).unwrap();
        fs::create_dir(dirs.output.join("sub")).unwrap();
        for name in ["a.png", "sub/b.json", "c.txt"] {
            fs::write(dirs.output.join(name), b"x").unwrap();
        }
        let outputs = items(json!({"9": {"images": [{"filename": "a.png", "type": "output"}]}}));
        let pieces = locate(outputs, Some(&dirs), &OutputMemory::default(), &BTreeSet::new()).unwrap();
        let new = watch.look(Since::LastLook(std::time::Duration::ZERO)).unwrap();
        let further: Vec<_> = further(new, &pieces)
            .into_iter()
            .map(|p| {
                (
                    p.item.node_id.clone(),
                    p.item.kind.clone(),
                    p.item.index,
                    p.item.raw["filename"].clone(),
                )
            })
            .collect();
        let expected = [("c.txt", 0), ("b.json", 1)]
            .map(|(name, index)| (String::new(), "files".to_owned(), index, json!(name)));
        assert_eq!(further, expected);
    }

    #[test]
    fn an_unsafe_name_is_refused_with_or_without_directories() {
        let root = tempfile::tempdir().unwrap();
        let dirs = dirs(root.path());
        for dirs in [None, Some(&dirs)] {
            let outputs =
                items(json!({"9": {"images": [{"filename": "../../etc/passwd", "type": "output"}]}}));
            let failure = locate(outputs, dirs, &OutputMemory::default(), &BTreeSet::new()).unwrap_err();
            assert_eq!(failure.code, FailureCode::OutputMissing);
        }
    }
}
