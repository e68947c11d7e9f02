//! Files that were fetched and may be used again: by address, for each tenant, as long as their server says, within a bound of
//! bytes beyond which the one that was longest not used goes. What the addresses are of is gone with the process.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use darkroom_core::{TenantId, Timestamp};
use darkroom_runner::link::Media;
use darkroom_store::{assets::IfTaken, files::FileRef, jobs::InputBlob};
use futures::{StreamExt, stream};

use super::media::Checked;
use crate::service::{Error, Service};

/// Who refers to them.
const OWNER: &str = "fetched";
/// Addresses that are known at most.
const MOST: usize = 4_096;
/// One file takes no more than this part of all.
const SHARE: u64 = 4;
/// Dropped at a time, so that other writers get between.
const DROPPED_AT_ONCE: u32 = 200;

/// What was fetched.
pub struct Cached {
    limit_bytes: u64,
    known: Mutex<Known>,
    /// Held while a reference is made, noted, and those are dropped that go for it: what is known always has its reference.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    files: HashMap<Asked, File>,
    bytes: u64,
    uses: u64,
}

/// What somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    pub(super) tenant: TenantId,
    pub(super) url: String,
    pub(super) media: Media,
}

impl Asked {
    /// The name of its reference.
    fn name(&self) -> String {
        let text = format!("{}\0{:?}\0{}", self.tenant, self.media, self.url);
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }
}

struct File {
    name: String,
    blob: InputBlob,
    fresh_until: Timestamp,
    used: u64,
}

impl Cached {
    /// Nothing yet; no more than `limit_bytes`, and nothing at all for 0.
    pub fn new(limit_bytes: u64) -> Self {
        Cached {
            limit_bytes,
            known: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file's name on instances, and its blob.
    pub(super) fn find(&self, asked: &Asked, now: Timestamp) -> Option<(String, InputBlob)> {
        let known = &mut *self.known();
        let file = known.files.get_mut(asked).filter(|file| now < file.fresh_until)?;
        known.uses += 1;
        file.used = known.uses;
        Some((file.name.clone(), file.blob.clone()))
    }

    /// Notes a file; returns the names of the references that are to be dropped.
    fn note(&self, asked: Asked, mut file: File) -> Vec<String> {
        let known = &mut *self.known();
        known.uses += 1;
        file.used = known.uses;
        known.bytes += file.blob.size;
        if let Some(before) = known.files.insert(asked, file) {
            known.bytes -= before.blob.size;
        }
        let mut gone = Vec::new();
        while known.bytes > self.limit_bytes || known.files.len() > MOST {
            let oldest = known.files.iter().min_by_key(|(_, file)| file.used);
            let Some(asked) = oldest.map(|(asked, _)| asked.clone()) else {
                break;
            };
            if let Some(file) = known.files.remove(&asked) {
                known.bytes -= file.blob.size;
            }
            gone.push(asked.name());
        }
        gone
    }
}

impl Service {
    /// Keeps what was fetched, if it may be used again; `None`: it may not.
    pub(super) async fn keep_fetched(
        &self,
        asked: &Asked,
        file: &Checked,
        fresh_for: Duration,
    ) -> Result<Option<(String, InputBlob)>, Error> {
        let size = file.bytes.len() as u64;
        if fresh_for.is_zero() || size > self.fetched.limit_bytes / SHARE {
            return Ok(None);
        }
        let now = self.clock.now();
        let bytes = stream::iter([Ok::<Bytes, std::io::Error>(file.bytes.clone())]).boxed();
        let incoming = self.receive(&asked.tenant, &file.name, bytes, size).await?;
        let reference = FileRef {
            owner: OWNER.to_owned(),
            name: asked.name(),
            tenant: asked.tenant.clone(),
            blob: incoming.key().clone(),
            size,
            content_type: file.content_type.clone(),
            created_at: now,
        };
        let _turn = self.fetched.turn.lock().await;
        self.keep_incoming(reference, incoming, IfTaken::Replace).await?;
        let Some(kept) = self.store.file_ref(OWNER, &asked.name()).await? else {
            return Ok(None);
        };
        let blob = InputBlob {
            key: kept.blob,
            size,
            content_type: file.content_type.clone(),
        };
        let noted = File {
            name: file.name.clone(),
            blob: blob.clone(),
            fresh_until: now.plus(fresh_for),
            used: 0,
        };
        for name in self.fetched.note(asked.clone(), noted) {
            self.store.drop_ref(OWNER, &name).await?;
        }
        Ok(Some((file.name.clone(), blob)))
    }

    /// Drops what an earlier process fetched.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn forget_fetched(&self) -> Result<(), Error> {
        let _turn = self.fetched.turn.lock().await;
        let now = self.clock.now();
        while self.store.drop_refs_before(OWNER, now, DROPPED_AT_ONCE).await? > 0 {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(url: &str) -> Asked {
        Asked {
            tenant: "t".parse().unwrap(),
            url: url.to_owned(),
            media: Media::Image,
        }
    }

    fn file(size: u64, fresh_until: i64) -> File {
        File {
            name: "a.png".to_owned(),
            blob: InputBlob {
                key: "inputs/a".parse().unwrap(),
                size,
                content_type: String::new(),
            },
            fresh_until: Timestamp::from_millis(fresh_until),
            used: 0,
        }
    }

    #[test]
    fn the_one_that_was_longest_not_used_goes() {
        let cached = Cached::new(100);
        let at = Timestamp::from_millis;
        assert!(cached.note(asked("a"), file(40, 9)).is_empty());
        assert!(cached.note(asked("b"), file(40, 9)).is_empty());
        assert!(cached.find(&asked("a"), at(8)).is_some());
        assert!(cached.find(&asked("a"), at(9)).is_none(), "its time is over");
        assert_eq!(cached.note(asked("c"), file(40, 9)), [asked("b").name()]);
        assert!(cached.find(&asked("b"), at(1)).is_none() && cached.find(&asked("c"), at(1)).is_some());
        let foreign = Asked {
            tenant: "u".parse().unwrap(),
            ..asked("a")
        };
        assert!(cached.find(&foreign, at(1)).is_none());
        assert!(
            cached.note(asked("a"), file(60, 9)).is_empty(),
            "in place of the one before"
        );
        assert_eq!(cached.note(asked("d"), file(100, 9)).len(), 2);
        assert_eq!(cached.known().bytes, 100);
    }
}
