//! What was collected from this instance before: a cached rerun reports the old files and writes nothing.

use std::collections::VecDeque;

use darkroom_comfy::wire::FileRef;
use darkroom_core::output::OutputBody;
use indexmap::IndexMap;

use super::places::Stamp;

/// Files remembered per instance. An entry is about 300 bytes, so this is about 2.5 MB at worst.
const MAX_REMEMBERED: usize = 8_192;

/// (type, subfolder, name) to the stored blob, for as long as the instance lives. The oldest are forgotten first.
#[derive(Debug, Default)]
pub struct OutputMemory {
    known: IndexMap<FileRef, Remembered>,
    order: VecDeque<FileRef>,
}

/// A file as it was when it was stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Remembered {
    /// Its version; none when the file was fetched over HTTP.
    pub stamp: Option<Stamp>,
    /// Where its bytes are.
    pub body: OutputBody,
}

impl OutputMemory {
    /// Notes that this version of the file is stored as `body`.
    pub fn remember(&mut self, file: FileRef, stamp: Option<Stamp>, body: OutputBody) {
        if self
            .known
            .insert(file.clone(), Remembered { stamp, body })
            .is_none()
        {
            self.order.push_back(file);
        }
        while self.known.len() > MAX_REMEMBERED {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            self.known.swap_remove(&oldest);
        }
    }

    /// What is known of that name, whatever version.
    pub fn recall(&self, file: &FileRef) -> Option<&Remembered> {
        self.known.get(file)
    }

    /// What is known of exactly this version.
    pub fn recall_version(&self, file: &FileRef, stamp: Stamp) -> Option<&Remembered> {
        self.known.get(file).filter(|known| known.stamp == Some(stamp))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn name(n: usize) -> FileRef {
        FileRef {
            filename: n.to_string(),
            subfolder: String::new(),
            kind: "output".into(),
        }
    }

    fn stamp(size: u64) -> Stamp {
        Stamp {
            modified: Duration::from_secs(5),
            size,
        }
    }

    fn text(t: &str) -> OutputBody {
        OutputBody::Text { text: t.into() }
    }

    #[test]
    fn an_overwritten_file_is_not_taken_for_the_old_one() {
        let mut memory = OutputMemory::default();
        memory.remember(name(1), Some(stamp(10)), text("old"));
        assert!(memory.recall_version(&name(1), stamp(10)).is_some());
        assert!(memory.recall_version(&name(1), stamp(11)).is_none());
        memory.remember(name(1), Some(stamp(11)), text("new"));
        assert_eq!(memory.recall(&name(1)).unwrap().body, text("new"));
    }

    #[test]
    fn the_oldest_are_forgotten_and_the_bound_holds() {
        let mut memory = OutputMemory::default();
        for n in 0..MAX_REMEMBERED + 3 {
            memory.remember(name(n), None, text("x"));
        }
        assert_eq!(memory.known.len(), MAX_REMEMBERED);
        assert_eq!(memory.order.len(), MAX_REMEMBERED);
        assert!(memory.recall(&name(2)).is_none());
        assert!(memory.recall(&name(3)).is_some());
    }
}
