//! A disk for tests that loses power: everything that was not synced is gone, as a strict file system may have it.
//!
//! It acts on a real directory, and beside that remembers what a power loss would leave: the bytes of a file as of its
//! last sync, the entries of a directory as of its last sync. It can also be full, and it can be told to lie about
//! syncs, which shows that a test would notice if the store forgot one.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::disk::{Disk, DiskFile, RealDisk};

/// A disk over one directory tree. Cheap to clone; all clones are the same disk.
#[derive(Clone)]
pub struct PowerLossDisk {
    state: Arc<Mutex<State>>,
}

/// Which syncs do nothing, although they say they did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// None: an honest disk.
    None,
    /// Those of files.
    Files,
    /// Those of directories.
    Directories,
}

struct State {
    root: PathBuf,
    lie: Lie,
    full: bool,
    power: bool,
    /// Effects until the power goes; `None`: it stays.
    effects_left: Option<u64>,
    nodes: Vec<Node>,
}

type NodeId = usize;
const ROOT: NodeId = 0;

enum Node {
    File {
        live: Vec<u8>,
        synced: Vec<u8>,
    },
    Dir {
        live: BTreeMap<String, NodeId>,
        synced: BTreeMap<String, NodeId>,
    },
}

impl PowerLossDisk {
    /// The disk of an existing directory; what is in it counts as synced.
    ///
    /// # Errors
    /// Those of reading the directory.
    pub fn new(root: &Path, lie: Lie) -> io::Result<Self> {
        let mut nodes = vec![Node::Dir {
            live: BTreeMap::new(),
            synced: BTreeMap::new(),
        }];
        adopt(root, ROOT, &mut nodes)?;
        Ok(PowerLossDisk {
            state: Arc::new(Mutex::new(State {
                root: root.to_owned(),
                lie,
                full: false,
                power: true,
                effects_left: None,
                nodes,
            })),
        })
    }

    /// Cuts the power: every later effect fails, and the directory holds only what was synced. Make a new disk (and a
    /// new store) to go on.
    ///
    /// # Errors
    /// Those of rewriting the directory.
    pub fn power_loss(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.power = false;
        for entry in fs::read_dir(&state.root)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        state.restore(&state.root, ROOT)
    }

    /// Lets the power go (effects fail from then on) after this many more effects. [`PowerLossDisk::power_loss`] is
    /// still to be called for the directory to lose what was not synced.
    pub fn cut_after(&self, effects: u64) {
        self.lock().effects_left = Some(effects);
    }

    /// From now on writes and new files fail for want of space, or no longer do.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for PowerLossDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.lock();
        state.effect()?;
        state.space()?;
        let real = RealDisk.create(path)?;
        let id = state.add(Node::File {
            live: Vec::new(),
            synced: Vec::new(),
        });
        state.link(path, id)?;
        Ok(Box::new(OpenFile {
            disk: self.clone(),
            real,
            id,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.effect()?;
        RealDisk.rename(from, to)?;
        let id = state.unlink(from)?;
        state.link(to, id)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.effect()?;
        // No real sync: what survives is only what this disk remembers.
        let id = state.find(path)?;
        if state.lie == Lie::Directories {
            return Ok(());
        }
        if let Node::Dir { live, synced } = &mut state.nodes[id] {
            synced.clone_from(live);
        }
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.effect()?;
        RealDisk.unlink(path)?;
        state.unlink(path).map(drop)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.effect()?;
        state.space()?;
        RealDisk.create_dir(path)?;
        let id = state.add(Node::Dir {
            live: BTreeMap::new(),
            synced: BTreeMap::new(),
        });
        state.link(path, id)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.effect()?;
        RealDisk.remove_dir(path)?;
        state.unlink(path).map(drop)
    }
}

struct OpenFile {
    disk: PowerLossDisk,
    real: Box<dyn DiskFile>,
    id: NodeId,
}

impl DiskFile for OpenFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.effect()?;
        state.space()?;
        self.real.write_all(bytes)?;
        if let Node::File { live, .. } = &mut state.nodes[self.id] {
            live.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.effect()?;
        if state.lie == Lie::Files {
            return Ok(());
        }
        if let Node::File { live, synced } = &mut state.nodes[self.id] {
            synced.clone_from(live);
        }
        Ok(())
    }
}

impl State {
    fn effect(&mut self) -> io::Result<()> {
        match &mut self.effects_left {
            Some(0) => self.power = false,
            Some(left) => *left -= 1,
            None => {}
        }
        if self.power {
            Ok(())
        } else {
            Err(io::Error::other("the power is off"))
        }
    }

    fn space(&self) -> io::Result<()> {
        if self.full {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn find(&self, path: &Path) -> io::Result<NodeId> {
        let below = path.strip_prefix(&self.root).map_err(io::Error::other)?;
        below.iter().try_fold(ROOT, |id, name| match &self.nodes[id] {
            Node::Dir { live, .. } => live
                .get(&*name.to_string_lossy())
                .copied()
                .ok_or_else(|| io::ErrorKind::NotFound.into()),
            Node::File { .. } => Err(io::ErrorKind::NotADirectory.into()),
        })
    }

    fn entries(&mut self, folder: Option<&Path>) -> io::Result<&mut BTreeMap<String, NodeId>> {
        let id = self.find(folder.unwrap_or(Path::new("")))?;
        match &mut self.nodes[id] {
            Node::Dir { live, .. } => Ok(live),
            Node::File { .. } => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn link(&mut self, path: &Path, id: NodeId) -> io::Result<()> {
        let name = file_name(path);
        self.entries(path.parent())?.insert(name, id);
        Ok(())
    }

    fn unlink(&mut self, path: &Path) -> io::Result<NodeId> {
        let name = file_name(path);
        self.entries(path.parent())?
            .remove(&name)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn restore(&self, path: &Path, id: NodeId) -> io::Result<()> {
        match &self.nodes[id] {
            Node::File { synced, .. } => fs::write(path, synced),
            Node::Dir { synced, .. } => {
                if id != ROOT {
                    fs::create_dir(path)?;
                }
                synced
                    .iter()
                    .try_for_each(|(name, id)| self.restore(&path.join(name), *id))
            }
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Takes what a real directory holds as synced.
fn adopt(path: &Path, id: NodeId, nodes: &mut Vec<Node>) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let is_dir = entry.file_type()?.is_dir();
        let child = nodes.len();
        nodes.push(if is_dir {
            Node::Dir {
                live: BTreeMap::new(),
                synced: BTreeMap::new(),
            }
        } else {
            let bytes = fs::read(entry.path())?;
            Node::File {
                live: bytes.clone(),
                synced: bytes,
            }
        });
        if is_dir {
            adopt(&entry.path(), child, nodes)?;
        }
        if let Node::Dir { live, synced } = &mut nodes[id] {
            let name = file_name(&entry.path());
            live.insert(name.clone(), child);
            synced.insert(name, child);
        }
    }
    Ok(())
}
