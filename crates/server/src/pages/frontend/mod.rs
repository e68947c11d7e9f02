//! ComfyUI's own page, from the operator's copy of it: a directory, or the wheel as it is downloaded. Darkroom brings none.

mod unpack;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OnceCell;

use crate::beside::beside;

/// Where the page lies in a directory or an archive, relative to it: a wheel's content, a checkout's, the page itself.
const PLACES: [&str; 3] = ["comfyui_frontend_package/static/", "static/", ""];

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{} is no wheel and no zip archive, or a broken one", path.display())]
    Broken {
        path: PathBuf,
        source: zip::result::ZipError,
    },
    #[error("there is no index.html in {}, nor in a folder 'static' or 'comfyui_frontend_package/static' of it", path.display())]
    NoPage { path: PathBuf },
    #[error("{} is too large for a page", path.display())]
    TooLarge { path: PathBuf },
    #[error("cannot unpack into {}", path.display())]
    Unwritable { path: PathBuf, source: std::io::Error },
}

/// The pages of all endpoints; each archive is unpacked once, when its page is first opened after a start.
#[derive(Debug, Clone)]
pub struct Frontends(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    known: Mutex<HashMap<PathBuf, Arc<OnceCell<PathBuf>>>>,
    /// One is unpacked at a time: two files with the same content become the same directory.
    unpacking: tokio::sync::Mutex<()>,
}

impl Frontends {
    /// Archives are unpacked below `root`.
    pub fn new(root: PathBuf) -> Self {
        Frontends(Arc::new(Inner {
            root,
            known: Mutex::default(),
            unpacking: tokio::sync::Mutex::default(),
        }))
    }

    /// The directory that holds the page of `source`.
    ///
    /// # Errors
    /// When there is none, or it cannot be unpacked; the next call tries again.
    pub async fn directory(&self, source: &Path) -> Result<PathBuf, Error> {
        let cell = {
            let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.entry(source.to_owned()).or_default().clone()
        };
        let find = || async {
            let _unpacking = self.0.unpacking.lock().await;
            let (source, root) = (source.to_owned(), self.0.root.clone());
            // Unpacking takes a second or two of a processor.
            beside(usize::MAX, move || locate(&source, &root)).await
        };
        cell.get_or_try_init(find).await.cloned()
    }
}

fn locate(source: &Path, root: &Path) -> Result<PathBuf, Error> {
    if !source.is_dir() {
        return unpack::unpack(source, root);
    }
    let holds_page = |place: &&&str| source.join(place).join("index.html").is_file();
    match PLACES.iter().find(holds_page) {
        Some(place) => Ok(source.join(place)),
        None => Err(Error::NoPage {
            path: source.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_is_served_where_it_lies() {
        let home = tempfile::tempdir().unwrap();
        let frontends = Frontends::new(home.path().join("unpacked"));
        let checkout = home.path().join("checkout");
        assert!(matches!(
            frontends.directory(&checkout).await,
            Err(Error::Unreadable { .. })
        ));
        let page = checkout.join("static");
        std::fs::create_dir_all(&page).unwrap();
        assert!(matches!(
            frontends.directory(&checkout).await,
            Err(Error::NoPage { .. })
        ));
        std::fs::write(page.join("index.html"), "page").unwrap();
        assert_eq!(frontends.directory(&checkout).await.unwrap(), page.join(""));
        assert!(!home.path().join("unpacked").exists());
    }
}
