//! After a prompt's end: finds all it made, and fetches what is not on this machine.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use darkroom_comfy::{
    client,
    wire::{FileRef, HistoryEntry},
};
use darkroom_core::{Failure, Ids, attempt::Lease, failure::FailureCode, output::Output};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use crate::{
    collect::{
        collection::{Collection, StoreError},
        memory::OutputMemory,
        mentioned::mentioned,
        piece::{self, Piece, Source},
        places::shown,
        spool,
        unmentioned::{OutputWatch, Since},
    },
    history,
    instance::Instance,
    slot::Desk,
};

/// Files fetched at the same time.
const AT_ONCE: usize = 4;
const FETCH_TRIES: u32 = 3;

/// Why not all that a prompt made can be had.
#[derive(Debug)]
pub enum Error {
    /// The instance named a file that it does not have.
    Failed(Box<Failure>),
    /// The instance does not hand it out any more.
    Lost(String),
    /// This machine's own fault.
    Released(String),
}

/// Everything about one instance's files that outlives an attempt.
#[derive(Clone)]
pub struct Shelf {
    /// What was collected before.
    pub memory: Arc<Mutex<OutputMemory>>,
    /// What the output directory held; none without directories.
    pub watch: Option<Arc<Mutex<OutputWatch>>>,
}

/// What is made by whom.
pub struct Made<'a> {
    /// The attempt.
    pub lease: Lease,
    /// What history says.
    pub history: &'a HistoryEntry,
    /// What came over the socket; last among the outputs.
    pub sent: Vec<Piece>,
    /// Since when files are its own; none when no node ran, so that it wrote none.
    pub files_since: Option<Since>,
}

impl Shelf {
    /// Takes all files in the output directory for old.
    pub async fn look_away(&self, since: Since) {
        if let Some(watch) = self.watch.clone() {
            let looked = tokio::task::spawn_blocking(move || look(&watch, since)).await;
            if let Ok(Err(error)) = looked {
                tracing::debug!(%error, "the output directory of an instance cannot be read");
            }
        }
    }
}

/// Finds and fetches.
///
/// # Errors
/// See [`Error`]; no file that history names is ever left out silently.
pub async fn gather(
    made: Made<'_>,
    instance: &Instance,
    shelf: &Shelf,
    spool_dir: &Path,
    patience: Duration,
    ids: &dyn Ids,
) -> Result<Collection, Error> {
    let items = mentioned(&made.history.outputs);
    let cached = history::cached_nodes(made.history);
    let (dirs, shelf, since) = (instance.dirs().cloned(), shelf.clone(), made.files_since);
    let located = tokio::task::spawn_blocking(move || {
        let memory = shelf.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pieces = piece::locate(items, dirs.as_ref(), &memory, &cached)?;
        drop(memory);
        if let (Some(watch), Some(since)) = (&shelf.watch, since) {
            match look(watch, since) {
                Ok(new) => pieces.extend(piece::further(new, &pieces)),
                Err(error) => tracing::warn!(%error, "the output directory of an instance cannot be read"),
            }
        }
        Ok(pieces)
    });
    let pieces = located
        .await
        .map_err(|error| Error::Released(format!("looking for outputs failed: {error}")))?
        .map_err(Error::Failed)?;
    let pieces = pieces.into_iter().chain(made.sent).collect();
    let mut collection = Collection::new(made.lease, pieces);
    fetch(&mut collection, instance, spool_dir, patience, ids).await?;
    Ok(collection)
}

/// What a prompt that did not succeed had made: stored file by file and added to `saved`, so that a caller whose patience
/// ends keeps what is there by then. What cannot be had is left out, for the prompt has failed already.
pub async fn salvage(desk: &Desk, lease: Lease, history: &HistoryEntry, saved: &mut Vec<Output>) {
    let cached = Arc::new(history::cached_nodes(history));
    for item in mentioned(&history.outputs) {
        let (dirs, memory) = (desk.instance.dirs().cloned(), desk.shelf.memory.clone());
        let cached = cached.clone();
        let located = tokio::task::spawn_blocking(move || {
            let memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
            piece::locate(vec![item], dirs.as_ref(), &memory, &cached)
        });
        let Ok(Ok(pieces)) = located.await else { continue };
        let mut one = Collection::new(lease, pieces);
        let (spool_dir, patience) = (&desk.config.spool_dir, desk.config.download_patience);
        if fetch(&mut one, &desk.instance, spool_dir, patience, &*desk.ids)
            .await
            .is_err()
        {
            continue;
        }
        match one.store(&*desk.link).await {
            Ok(()) => saved.extend(one.into_outputs()),
            Err(StoreError::Stale) => return,
            Err(StoreError::Away(_) | StoreError::Failed(_)) => {}
        }
    }
}

fn look(watch: &Mutex<OutputWatch>, since: Since) -> io::Result<Vec<crate::collect::unmentioned::NewFile>> {
    watch.lock().unwrap_or_else(PoisonError::into_inner).look(since)
}

async fn fetch(
    collection: &mut Collection,
    instance: &Instance,
    spool_dir: &Path,
    patience: Duration,
    ids: &dyn Ids,
) -> Result<(), Error> {
    let spool_failed = |error: io::Error| Error::Released(format!("the spool cannot be written: {error}"));
    let wanted = collection.fetch_list(spool_dir, ids).map_err(spool_failed)?;
    let mut fetching = Vec::new();
    for (piece, path) in wanted {
        fetching.push(fetch_piece(instance, piece, path, patience).boxed());
    }
    let mut fetching = stream::iter(fetching).buffer_unordered(AT_ONCE);
    while let Some(fetched) = fetching.next().await {
        fetched?;
    }
    Ok(())
}

async fn fetch_piece(
    instance: &Instance,
    piece: &mut Piece,
    path: PathBuf,
    patience: Duration,
) -> Result<(), Error> {
    let Source::Remote(file) = &piece.source else {
        return Ok(());
    };
    match fetch_one(instance, file, &path, patience).await? {
        Fetched::Here => piece.source = Source::Local { path, stamp: None },
        Fetched::NotThere if piece.known.is_some() => piece.source = Source::Gone,
        Fetched::NotThere => {
            let why = format!("the file '{}' is not there", shown(file));
            return Err(Error::Failed(piece::missing(&piece.item, why)));
        }
    }
    Ok(())
}

enum Fetched {
    Here,
    NotThere,
}

async fn fetch_one(
    instance: &Instance,
    file: &FileRef,
    path: &Path,
    patience: Duration,
) -> Result<Fetched, Error> {
    let mut last = String::new();
    for attempt in 0..FETCH_TRIES {
        if attempt > 0 {
            tokio::time::sleep(Duration::from_millis(300) * attempt).await;
        }
        let download = match instance.client.view(file).await {
            Ok(Some(download)) => download,
            Ok(None) => return Ok(Fetched::NotThere),
            Err(error @ client::Error::Status { status, .. }) if status.is_client_error() => {
                let why = format!("the file '{}' cannot be had: {error}", shown(file));
                return Err(Error::Failed(
                    Failure::new(FailureCode::OutputMissing, why).into(),
                ));
            }
            Err(error) => {
                last = error.to_string();
                continue;
            }
        };
        let body = download.into_stream().into_stream().boxed();
        match spool::download(body, path, patience).await {
            Ok(_) => return Ok(Fetched::Here),
            Err(error) => last = error.to_string(),
        }
    }
    Err(Error::Lost(format!(
        "an output could not be fetched from the instance: {last}"
    )))
}
