//! Looking at pictures before a job is accepted that loads them: a GPU is not started for one that cannot be decoded, nor does
//! one reach it that would take all of its machine's memory. What was found good is not looked at again.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use darkroom_runner::link::Media;
use darkroom_store::jobs::InputBlob;
use tokio::sync::Semaphore;

use super::media::{self, Checked, Picture};
use crate::{
    beside::beside,
    service::{Error, Service},
};

/// Decoded pictures that are in memory at a time, in MiB: two of the largest, or fifty of four million pixels.
const DECODED_MIB: u32 = 800;
/// Hashes of what was found good, at most: 2 MiB of them.
const MOST: usize = 65_536;
/// Larger files of pictures are left to the instance.
const MAX_FILE_BYTES: u64 = 128 << 20;

/// What was looked at.
#[derive(Debug)]
pub struct Looks {
    turns: Semaphore,
    good: Mutex<HashSet<[u8; 32]>>,
}

impl Default for Looks {
    fn default() -> Self {
        Looks {
            turns: Semaphore::new(DECODED_MIB as usize),
            good: Mutex::default(),
        }
    }
}

impl Looks {
    fn good(&self) -> MutexGuard<'_, HashSet<[u8; 32]>> {
        self.good.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_good(&self, hash: &blake3::Hash) -> bool {
        self.good().contains(hash.as_bytes())
    }

    fn found_good(&self, hash: blake3::Hash) {
        let mut good = self.good();
        if good.len() >= MOST {
            good.clear();
        }
        good.insert(*hash.as_bytes());
    }
}

impl Service {
    /// Looks at bytes, and decodes them where they are to be a picture.
    ///
    /// # Errors
    /// A text that says what is wrong with them.
    pub(super) async fn look_at(&self, bytes: Bytes, media: Media) -> Result<Checked, String> {
        let checked = beside(bytes.len(), move || media::check(bytes, media)).await?;
        if let Some(picture) = checked.picture
            && !self.looks.is_good(&checked.hash)
        {
            self.decode(checked.bytes.clone(), picture).await?;
            self.looks.found_good(checked.hash);
        }
        Ok(checked)
    }

    /// The same for a file that the caller brought before and names. What is no picture of a known kind is left to the
    /// instance, which may know more kinds.
    ///
    /// # Errors
    /// [`Error::InputUnavailable`], or the stores' own.
    pub(super) async fn look_at_kept(&self, file: &InputBlob, media: Media) -> Result<(), Error> {
        // Its bytes never change. What a job made came from a GPU.
        let name = blake3::hash(file.key.as_str().as_bytes());
        let made = file.key.output_job().is_some();
        if media != Media::Image || made || file.size > MAX_FILE_BYTES || self.looks.is_good(&name) {
            return Ok(());
        }
        let _held = self.memory.read(file.size).await?;
        let Some(bytes) = self.blobs.read(&file.key, file.size).await? else {
            let gone = format!("the file {} is gone", file.key.file_name());
            return Err(Error::input_unavailable(gone));
        };
        if let Some(picture) = media::picture(&bytes).map_err(Error::input_unavailable)? {
            let decoded = self.decode(bytes, picture).await;
            decoded.map_err(Error::input_unavailable)?;
        }
        self.looks.found_good(name);
        Ok(())
    }

    async fn decode(&self, bytes: Bytes, picture: Picture) -> Result<(), String> {
        let mib = u32::try_from(picture.decoded_bytes >> 20).unwrap_or(u32::MAX);
        let _turn = self.looks.turns.acquire_many((mib + 1).min(DECODED_MIB)).await;
        // However short the file is, what becomes of it is not.
        beside(usize::MAX, move || media::decode(&bytes, picture)).await
    }
}
