//! A disk for SQLite whose power can be cut, for tests: what was written but not synced is gone afterwards.
//!
//! It is a VFS that wraps SQLite's default one. Writes go through to real files, as they go to the page cache of a real
//! system, so every connection sees them; what each file held at its last `xSync` is kept as a log of undone changes.
//! [`Disk::cut`] puts the files back (or lets some unsynced writes survive, as real disks do, in any combination) and
//! refuses everything until [`Disk::power_on`].
//!
//! It knows nothing of the store, and only tests depend on it. This is the one crate with `unsafe` code: a VFS is a table
//! of C functions. `disk` holds the logic without any, `vfs` only translates.

mod disk;
mod vfs;

pub use disk::{Disk, Survivors};
