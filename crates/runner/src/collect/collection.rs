//! The outputs of one attempt on their way to the blob store.

use std::{io, path::Path};

use darkroom_core::{Failure, Ids, attempt::Lease, output::Output};
use futures::{FutureExt, StreamExt, stream};

use super::{
    memory::OutputMemory,
    piece::{self, Piece, Source},
    spool::{self, Spool},
};
use crate::link::{AttemptLink, LinkError, ProducedBody, ProducedFile};

/// Files stored at the same time; more only divide the same disk or line.
const AT_ONCE: usize = 4;

/// Pieces, and what has become of each. Storing can be interrupted and taken up again.
#[derive(Debug)]
pub struct Collection {
    lease: Lease,
    pieces: Vec<Piece>,
    stored: Vec<Option<Output>>,
    spool: Option<Spool>,
}

/// Why outputs are not stored.
#[derive(Debug)]
pub enum StoreError {
    /// The attempt lost its job.
    Stale,
    /// Not just now; what was stored stays stored.
    Away(String),
    /// Never.
    Failed(Box<Failure>),
}

impl Collection {
    /// A collection of these pieces.
    pub fn new(lease: Lease, pieces: Vec<Piece>) -> Self {
        Collection {
            lease,
            stored: pieces.iter().map(|_| None).collect(),
            pieces,
            spool: None,
        }
    }

    /// Stores what is not stored yet. May be dropped at any time; what is done is kept.
    ///
    /// # Errors
    /// See [`StoreError`]; after `Away` it may be called again.
    pub async fn store(&mut self, link: &dyn AttemptLink) -> Result<(), StoreError> {
        let lease = self.lease;
        let mut storing = Vec::new();
        for (index, piece) in self.pieces.iter().enumerate() {
            if self.stored[index].is_none() {
                let store = async move { (index, store_piece(link, lease, piece).await) };
                storing.push(store.boxed());
            }
        }
        let mut storing = stream::iter(storing).buffered(AT_ONCE);
        while let Some((index, output)) = storing.next().await {
            self.stored[index] = Some(output?);
        }
        Ok(())
    }

    /// Copies every file that still waits, so that it no longer depends on the instance.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub async fn capture(&mut self, spool_dir: &Path, ids: &dyn Ids) -> io::Result<()> {
        let waiting = self
            .stored
            .iter()
            .zip(&mut self.pieces)
            .filter(|(stored, _)| stored.is_none());
        for (_, piece) in waiting {
            match &mut piece.source {
                Source::Local { path, stamp: Some(_) } => {
                    let copy = next_path(&mut self.spool, spool_dir, self.lease, ids)?;
                    spool::copy(path, &copy).await?;
                    *path = copy;
                }
                // The wait may be long, and memory is dear.
                Source::Held(bytes) => {
                    let path = next_path(&mut self.spool, spool_dir, self.lease, ids)?;
                    tokio::fs::write(&path, bytes).await?;
                    piece.source = Source::Local { path, stamp: None };
                }
                Source::Text(_) | Source::Local { .. } | Source::Remote(_) | Source::Gone => {}
            }
        }
        Ok(())
    }

    /// The pieces that must be fetched from the instance, each with a path to put it at.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn fetch_list(
        &mut self,
        spool_dir: &Path,
        ids: &dyn Ids,
    ) -> io::Result<Vec<(&mut Piece, std::path::PathBuf)>> {
        let mut remote = Vec::new();
        for piece in &mut self.pieces {
            if matches!(piece.source, Source::Remote(_)) {
                let path = next_path(&mut self.spool, spool_dir, self.lease, ids)?;
                remote.push((piece, path));
            }
        }
        Ok(remote)
    }

    /// Notes what is stored, for cached reruns.
    pub fn remember_in(&self, memory: &mut OutputMemory) {
        for (piece, stored) in self.pieces.iter().zip(&self.stored) {
            let (Some(file), Some(output)) = (piece.file(), stored) else {
                continue;
            };
            let stamp = match piece.source {
                Source::Local { stamp, .. } => stamp,
                Source::Text(_) | Source::Held(_) | Source::Remote(_) | Source::Gone => continue,
            };
            memory.remember(file.clone(), stamp, output.body.clone());
        }
    }

    /// The outputs in the order of history; those not stored are left out.
    pub fn into_outputs(self) -> Vec<Output> {
        self.stored.into_iter().flatten().collect()
    }
}

fn next_path(
    spool: &mut Option<Spool>,
    spool_dir: &Path,
    lease: Lease,
    ids: &dyn Ids,
) -> io::Result<std::path::PathBuf> {
    if spool.is_none() {
        *spool = Some(Spool::create(spool_dir, lease, ids)?);
    }
    Ok(spool.as_mut().expect("was just made").next_path())
}

async fn store_piece(link: &dyn AttemptLink, lease: Lease, piece: &Piece) -> Result<Output, StoreError> {
    if let Some(body) = &piece.known {
        let reused = link.reuse_output(lease, piece.output(body.clone())).await;
        if let Some(output) = reused.map_err(|error| judge(error, piece))? {
            return Ok(output);
        }
    }
    let body = match &piece.source {
        Source::Text(text) => {
            let text = text.clone();
            return Ok(piece.output(darkroom_core::output::OutputBody::Text { text }));
        }
        Source::Local { path, .. } => ProducedBody::Path(path.clone()),
        Source::Held(bytes) => {
            let whole = std::future::ready(Ok(bytes.clone()));
            ProducedBody::Stream(stream::once(whole).boxed())
        }
        Source::Remote(file) => {
            let why = format!("the file '{}' was not fetched", file.filename);
            return Err(StoreError::Failed(piece::missing(&piece.item, why)));
        }
        Source::Gone => {
            let why = "the file of a cached node is gone, and so is what was stored of it".to_owned();
            return Err(StoreError::Failed(piece::missing(&piece.item, why)));
        }
    };
    let file_name = piece
        .file()
        .map_or_else(String::new, |file| file.filename.clone());
    let produced = ProducedFile {
        node_id: piece.item.node_id.clone(),
        kind: piece.item.kind.clone(),
        index: piece.item.index,
        raw: piece.item.raw.clone(),
        file_name,
        body,
    };
    match link.put_output(lease, produced).await {
        Ok(output) => Ok(output),
        // A file that vanished looks to the link like a store that fails: it would be tried for an hour.
        Err(LinkError::Unavailable(_)) if piece.has_vanished().await => {
            let why = "the file vanished while it was stored".to_owned();
            Err(StoreError::Failed(piece::missing(&piece.item, why)))
        }
        Err(error) => Err(judge(error, piece)),
    }
}

fn judge(error: LinkError, piece: &Piece) -> StoreError {
    match error {
        LinkError::Stale => StoreError::Stale,
        LinkError::Unavailable(why) => StoreError::Away(why),
        LinkError::Rejected(why) | LinkError::InputUnavailable(why) => {
            let why = format!("an output could not be stored: {why}");
            StoreError::Failed(Box::new(Failure {
                code: darkroom_core::failure::FailureCode::Internal,
                ..*piece::missing(&piece.item, why)
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use darkroom_ambient::SystemIds;
    use darkroom_comfy::wire::FileRef;
    use serde_json::json;

    use super::*;
    use crate::{
        collect::mentioned::{Mentioned, What},
        testing::{MemoryLink, lease},
    };

    fn piece(path: &Path, index: u32) -> Piece {
        let filename = path.file_name().unwrap().to_str().unwrap().to_owned();
        Piece {
            item: Mentioned {
                node_id: "9".into(),
                kind: "images".into(),
                index,
                raw: json!({ "filename": filename }),
                what: What::File(FileRef {
                    filename,
                    subfolder: String::new(),
                    kind: "output".into(),
                }),
            },
            known: None,
            source: Source::Local {
                path: path.to_owned(),
                stamp: Some(super::super::places::Stamp::of(&fs::metadata(path).unwrap())),
            },
        }
    }

    #[tokio::test]
    async fn captured_files_are_stored_as_they_were_when_the_store_comes_back() {
        let root = tempfile::tempdir().unwrap();
        let pieces: Vec<_> = (0..6)
            .map(|n| {
                let path = root.path().join(format!("{n}.png"));
                fs::write(&path, format!("first {n}")).unwrap();
                piece(&path, n)
            })
            .collect();
        let link = MemoryLink::new();
        link.set_blobs_away(true);
        let mut collection = Collection::new(lease(1), pieces);
        assert!(matches!(collection.store(&*link).await, Err(StoreError::Away(_))));
        collection
            .capture(&root.path().join("spool"), &SystemIds)
            .await
            .unwrap();
        for n in 0..6 {
            fs::write(root.path().join(format!("{n}.png")), b"overwritten").unwrap();
        }
        link.set_blobs_away(false);
        collection.store(&*link).await.unwrap();
        let outputs = collection.into_outputs();
        let bytes: Vec<_> = outputs.iter().map(|o| link.bytes_of(o).unwrap()).collect();
        assert_eq!(
            bytes,
            (0..6)
                .map(|n| format!("first {n}").into_bytes())
                .collect::<Vec<_>>()
        );
        assert_eq!(fs::read_dir(root.path().join("spool")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_file_that_vanished_is_missing_and_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.png");
        fs::write(&path, b"a").unwrap();
        let mut collection = Collection::new(lease(1), vec![piece(&path, 0)]);
        fs::remove_file(&path).unwrap();
        let link = MemoryLink::new();
        assert!(matches!(
            collection.store(&*link).await,
            Err(StoreError::Failed(_))
        ));
    }
}
