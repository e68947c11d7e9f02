//! What the disk itself does with what one commit writes.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path, time::Duration};

use super::scene::Scene;
use crate::stopwatch::Stopwatch;

/// About what a commit of a few operations writes.
const WRITE: usize = 16 << 10;
/// Where the store's log begins anew too.
const SIZE: u64 = 4 << 20;

/// A file that grows as the store's log does.
#[derive(Debug)]
pub struct Disk {
    file: File,
    at: u64,
}

impl Disk {
    /// In a directory on the disk in question.
    pub fn create(dir: &Path) -> io::Result<Self> {
        Ok(Disk {
            file: tempfile::tempfile_in(dir)?,
            at: 0,
        })
    }

    /// Writes as much as a commit does, waits until the disk has it, says how long that took. Blocks.
    pub fn commit(&mut self) -> io::Result<Duration> {
        let watch = Stopwatch::start();
        self.file.write_all_at(&[0x5a; WRITE], self.at)?;
        self.file.sync_data()?;
        self.at = (self.at + WRITE as u64) % SIZE;
        Ok(watch.elapsed())
    }

    /// How many of those one after the other the disk does per second. Blocks for about `lasting`.
    pub fn rate(&mut self, lasting: Duration) -> io::Result<f64> {
        let watch = Stopwatch::start();
        let mut done = 0_u32;
        while watch.elapsed() < lasting {
            self.commit()?;
            done += 1;
        }
        Ok(f64::from(done) / watch.elapsed().as_secs_f64())
    }
}

/// The rate on the bench's disk, off the runtime.
pub async fn rate(scene: &Scene, lasting: Duration) -> anyhow::Result<f64> {
    let dir = scene.dir.clone();
    let rate = tokio::task::spawn_blocking(move || Disk::create(&dir)?.rate(lasting)).await?;
    Ok(rate?)
}
