//! Loader inputs: what a caller writes where ComfyUI wants a file name, told apart and taken in.
//!
//! A value may be the name of an uploaded file or of what a job made (`name [output]`), an http(s) address, a data URI, or
//! base64. Everything but a name becomes a
//! blob (or is fetched when the attempt starts), gets a content-addressed name on the instance, and that name is what
//! the graph then says, so that equal files hit ComfyUI's cache. Start with [`given`] (what was written) and
//! [`Service::take_in`] (what becomes of it).

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use darkroom_core::{BlobKey, EndpointName, TenantId};
use darkroom_runner::link::{Address, InputFile, InputSource, Media};
use darkroom_store::jobs::InputBlob;

use super::{
    Error, Service,
    assets::references::{Referred, staged},
    error::Unavailable,
    folders::{Folder, inside, split_annotation},
    preflight::Refusal,
    view::Seeker,
};
use crate::{memory::accounted, service::fetch::Fetched};

pub mod buckets;
mod cached;
mod fetching;
pub mod given;
mod looking;
mod media;

use self::{
    buckets::Object,
    cached::Asked,
    given::{Given, Loader},
    media::Checked,
};
pub use self::{
    cached::Cached,
    fetching::{Fetching, Refused},
    given::{MAX_NAME_BYTES, is_loader_input},
    looking::Looks,
};

/// Different addresses that one graph may name: a request is not a crawler.
const MAX_URLS: usize = 64;

/// What ComfyUI says of a name that is no file's, before the name.
pub const NO_SUCH_FILE: &str = "Invalid image file: ";

/// When addresses are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    /// Before the job is accepted: the caller waits anyway, and no GPU is held meanwhile.
    Now,
    /// When its attempt starts: the caller wants its answer at once.
    Later,
}

impl Service {
    /// Takes in what [`given::find`] found in a graph: says which file each loader names on the instance. The key of every
    /// blob is noted in `written` before it is written, also when this fails.
    ///
    /// # Errors
    /// [`Error::InputUnavailable`] when bytes cannot be had or are no image, [`Error::InvalidGraph`] for names that do
    /// not exist or escape, and for too many addresses.
    pub async fn take_in(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        loaders: Vec<Loader>,
        referred: &Referred,
        fetch: Fetch,
        written: &mut Vec<BlobKey>,
    ) -> Result<Vec<TakenFile>, Error> {
        count_urls(&loaders, |name| self.buckets.object(tenant, name).is_some())?;
        let mut intake = Intake {
            service: self,
            tenant,
            endpoint,
            referred,
            fetch,
            fetching: Fetching::begin(&self.fetcher),
            written,
            stored: HashMap::new(),
            fetched: HashMap::new(),
        };
        let mut files = Vec::new();
        for loader in loaders {
            let place = (loader.node_id.clone(), loader.input);
            if let Some(taken) = intake.take(loader).await? {
                files.push(TakenFile {
                    file: InputFile {
                        node_id: place.0,
                        input: place.1.to_owned(),
                        nested: None,
                        file_name: taken.name,
                        source: taken.source,
                    },
                    blob: taken.blob,
                });
            }
        }
        Ok(files)
    }
}

fn count_urls(loaders: &[Loader], is_object: impl Fn(&str) -> bool) -> Result<(), Error> {
    let urls: BTreeSet<&str> = loaders
        .iter()
        .filter_map(|loader| match &loader.given {
            Given::Url(url) => Some(url.as_str()),
            Given::Name(name) => Some(name.as_str()).filter(|name| is_object(name)),
            Given::Bytes { .. } => None,
        })
        .collect();
    if urls.len() <= MAX_URLS {
        return Ok(());
    }
    let details = format!(
        "{} different addresses; at most {MAX_URLS} are fetched",
        urls.len()
    );
    let refusal = Refusal::of_graph("the workflow names too many addresses", details);
    Err(Error::InvalidGraph(Box::new(refusal)))
}

/// One graph's files on their way in; what is named or sent several times is brought once.
struct Intake<'a> {
    service: &'a Service,
    tenant: &'a TenantId,
    endpoint: &'a EndpointName,
    referred: &'a Referred,
    fetch: Fetch,
    fetching: Fetching,
    written: &'a mut Vec<BlobKey>,
    stored: HashMap<String, Taken>,
    fetched: HashMap<(String, Media), Taken>,
}

impl Intake<'_> {
    /// The file of one loader; `None`: the instance has it already.
    async fn take(&mut self, loader: Loader) -> Result<Option<Taken>, Error> {
        let Loader {
            node_id,
            class,
            input,
            media,
            given,
        } = loader;
        let place = node_id.clone();
        let blamed = |error: Error| match error {
            Error::InputUnavailable(why) => Error::InputUnavailable(Box::new(Unavailable {
                text: format!("{class} failed: {}", why.text),
                place: Some((place, input)),
                ..*why
            })),
            other => other,
        };
        match given {
            Given::Url(url) => self.take_url(url, class, media).await.map(Some).map_err(blamed),
            Given::Bytes { bytes, name } => {
                let named = match name {
                    Some(name) => self.take_name(class, input, &name).await?,
                    None => Named::Missing(String::new()),
                };
                match named {
                    Named::Upload(taken) => self.looked_at(taken, media).await.map(Some).map_err(blamed),
                    Named::OnInstance => Ok(None),
                    Named::Missing(_) => {
                        let file = self.service.look_at(bytes, media).await;
                        let file = file.map_err(Error::input_unavailable).map_err(blamed)?;
                        self.store(file).await.map(Some)
                    }
                }
            }
            Given::Name(name) if let Some(object) = self.service.buckets.object(self.tenant, &name) => self
                .take_object(name, &object, media)
                .await
                .map(Some)
                .map_err(blamed),
            Given::Name(name) => match self.take_name(class, input, &name).await? {
                Named::Upload(taken) => self.looked_at(taken, media).await.map(Some).map_err(blamed),
                Named::OnInstance => Ok(None),
                Named::Missing(details) => {
                    let refusal = Refusal::of_input(&node_id, class, input, &details);
                    Err(Error::InvalidGraph(Box::new(refusal)))
                }
            },
        }
    }

    /// A file that was here already.
    async fn looked_at(&self, taken: Taken, media: Media) -> Result<Taken, Error> {
        if let Some(blob) = &taken.blob {
            self.service.look_at_kept(blob, media).await?;
        }
        Ok(taken)
    }

    async fn take_url(&mut self, url: String, class: &str, media: Media) -> Result<Taken, Error> {
        if let Some(known) = self.fetched.get(&(url.clone(), media)) {
            return Ok(known.clone());
        }
        let asked = Asked {
            tenant: self.tenant.clone(),
            url: url.clone(),
            media,
        };
        if let Some(file) = self.service.fetched.find(&asked, self.service.clock.now()) {
            return Ok(Taken::kept(file));
        }
        if let Some(own) = self.service.own_file(&url).await? {
            let taken = self.take_own(own, media).await?;
            self.fetched.insert((url, media), taken.clone());
            return Ok(taken);
        }
        let unavailable = |why: String| {
            Error::InputUnavailable(Box::new(Unavailable {
                text: not_fetched(&url, &why),
                plain: format!("{} cannot be fetched: {why}", super::fetch::shown(&url)),
                place: None,
                missing_assets: Vec::new(),
            }))
        };
        let taken = match self.fetch {
            Fetch::Now => {
                let fetched = self.fetching.get(&url).await.map_err(|refused| match refused {
                    Refused::Because(why) => unavailable(why),
                    Refused::Exhausted(exhausted) => exhausted.into(),
                });
                let fetched = fetched?;
                let checked = self.service.look_at(fetched.bytes, media).await;
                let file = checked.map_err(Error::input_unavailable)?;
                let kept = self
                    .service
                    .keep_fetched(&asked, &file, fetched.fresh_for)
                    .await?;
                match kept {
                    Some(kept) => Taken::kept(kept),
                    None => self.store(file).await?,
                }
            }
            Fetch::Later => {
                // What is plainly forbidden is refused at once; the rest is found out when the attempt starts.
                let checked = self.service.fetcher.check(&url);
                let url = checked.map_err(|e| unavailable(e.to_string()))?;
                let name = format!("{}.bin", &blake3::hash(url.as_str().as_bytes()).to_hex()[..32]);
                Taken {
                    name,
                    source: InputSource::Url(Address {
                        url: url.into(),
                        class: class.to_owned(),
                        media,
                    }),
                    blob: None,
                }
            }
        };
        self.fetched.insert((url, media), taken.clone());
        Ok(taken)
    }

    /// A file of this server that the caller was given the address of: no connection leaves the process for it.
    async fn take_own(&self, own: InputBlob, media: Media) -> Result<Taken, Error> {
        let _held = self.service.memory.read(own.size).await?;
        let gone = || Error::input_unavailable(format!("the file {} is gone", own.key.file_name()));
        let bytes = self
            .service
            .blobs
            .read(&own.key, own.size)
            .await?
            .ok_or_else(gone)?;
        let checked = self.service.look_at(bytes, media).await;
        let checked = checked.map_err(Error::input_unavailable)?;
        Ok(Taken {
            name: checked.name,
            source: InputSource::Blob(own.key.clone()),
            blob: Some(own),
        })
    }

    /// A file of a bucket that the operator opened.
    async fn take_object(&mut self, name: String, object: &Object, media: Media) -> Result<Taken, Error> {
        let place = (name, media);
        if let Some(known) = self.fetched.get(&place) {
            return Ok(known.clone());
        }
        let (bytes, _held) = self.service.read_object(object, &mut self.fetching).await?;
        let file = self.service.look_at(bytes, media).await;
        let taken = self.store(file.map_err(Error::input_unavailable)?).await?;
        self.fetched.insert(place, taken.clone());
        Ok(taken)
    }

    async fn store(&mut self, file: Checked) -> Result<Taken, Error> {
        let Checked {
            bytes,
            name,
            content_type,
            ..
        } = file;
        if let Some(known) = self.stored.get(&name) {
            return Ok(known.clone());
        }
        let size = bytes.len() as u64;
        let key = self.service.asset_key(self.tenant, &name)?;
        self.written.push(key.clone());
        self.service.put_intended(&key, bytes).await?;
        let taken = Taken {
            name: name.clone(),
            source: InputSource::Blob(key.clone()),
            blob: Some(InputBlob {
                key,
                size,
                content_type,
            }),
        };
        self.stored.insert(name, taken.clone());
        Ok(taken)
    }

    async fn take_name(&self, class: &str, input: &str, name: &str) -> Result<Named, Error> {
        if let Some(blob) = self.referred.file(name) {
            return Ok(Named::Upload(Taken::kept((name.to_owned(), blob.clone()))));
        }
        let (bare, folder) = split_annotation(name);
        match folder {
            Some(folder @ (Folder::Output | Folder::Temp)) => return self.take_made(folder, bare).await,
            Some(Folder::Input) | None => {}
        }
        if let Some((scheme @ ("oss" | "s3"), _)) = name.split_once("://") {
            return Ok(Named::Missing(format!(
                "{} is in no bucket that the operator opened ({scheme}://, see [fetch] buckets): give an http(s) address, base64, or \
                 the name of an uploaded file",
                brief(name)
            )));
        }
        let missing = || Named::Missing(format!("{NO_SUCH_FILE}{}", brief(name)));
        let plain = bare;
        let escapes =
            plain.starts_with('/') || plain.contains('\\') || plain.split('/').any(|part| part == "..");
        if plain.is_empty() || escapes {
            return Ok(missing());
        }
        if let Some(taken) = self.take_brought(plain).await? {
            return Ok(Named::Upload(taken));
        }
        let info = self.service.object_info(self.endpoint).await?;
        let spec = info
            .as_ref()
            .and_then(|i| i.get(class))
            .and_then(|c| c.input(input));
        let offered = spec
            .and_then(|s| s.choices())
            .is_some_and(|c| c.iter().any(|v| v.as_str() == Some(plain)));
        Ok(if offered { Named::OnInstance } else { missing() })
    }

    /// What the caller brought under a name last: an upload for this endpoint, or an asset.
    async fn take_brought(&self, name: &str) -> Result<Option<Taken>, Error> {
        let upload = self.service.uploaded(self.tenant, self.endpoint, name).await?;
        let asset = self.service.asset_named(self.tenant, name).await?;
        let uploaded_at = upload.as_ref().map(|(_, at)| *at);
        if let Some((asset, _)) = asset.filter(|(_, at)| uploaded_at.is_none_or(|uploaded| uploaded < *at)) {
            return Ok(staged(asset).map(Taken::kept));
        }
        // The file keeps its own name's ending; the content decides whether it is new to the instance.
        Ok(upload.map(|(upload, _)| Taken::kept((upload_name(&upload.key, name), upload))))
    }

    /// A file that a job of the caller made, by the name that `/history` and `/view` have for it.
    async fn take_made(&self, folder: Folder, name: &str) -> Result<Named, Error> {
        let seeker = Seeker {
            tenant: self.tenant,
            visible: Some(self.tenant),
            // Callers without a key share a tenant: they name what they were told.
            lists: !self.tenant.is_anonymous(),
        };
        let found = match inside(folder.as_str(), name) {
            Some(path) if !path.is_empty() => {
                self.service
                    .find_file(seeker, self.endpoint, folder, &path)
                    .await?
            }
            Some(_) | None => None,
        };
        Ok(match found {
            Some(found) => Named::Upload(Taken {
                name: upload_name(&found.key, &found.name),
                source: InputSource::Blob(found.key.clone()),
                blob: Some(InputBlob {
                    key: found.key,
                    size: found.size,
                    content_type: found.content_type,
                }),
            }),
            None => Named::Missing(format!(
                "none of your jobs here made {} in the {} folder, or it is gone: use a name from /history, or the file itself: \
                 its URL, a data URI, base64, or the name of an upload",
                brief(name),
                folder.as_str()
            )),
        })
    }
}

/// What is said of an address that nothing could be fetched from (`protocols/comfyui-serverless-fc.md` §3).
fn not_fetched(url: &str, why: &str) -> String {
    format!(
        "can not get image {} from http url, {why}",
        super::fetch::shown(url)
    )
}

/// Fetches an address when its attempt has started.
///
/// # Errors
/// With the text that a submit would have been refused with.
pub async fn fetch_for_attempt(
    service: &Service,
    fetching: &mut Fetching,
    address: &Address,
) -> Result<Bytes, Refused> {
    let blamed = |text: String| match address.class.as_str() {
        "" => text,
        class => format!("{class} failed: {text}"),
    };
    let fetched = fetching.get(&address.url).await;
    let Fetched { bytes, held, .. } = fetched.map_err(|refused| match refused {
        Refused::Because(why) => Refused::Because(blamed(not_fetched(&address.url, &why))),
        exhausted @ Refused::Exhausted(_) => exhausted,
    })?;
    let checked = service.look_at(bytes, address.media).await;
    let checked = checked.map_err(|why| Refused::Because(blamed(why)))?;
    Ok(accounted(checked.bytes, held))
}

/// The file name on the instance, where the bytes are, and what keeps them there.
#[derive(Debug, Clone)]
struct Taken {
    name: String,
    source: InputSource,
    blob: Option<InputBlob>,
}

impl Taken {
    /// A file that is kept, by its name on instances.
    fn kept((name, blob): (String, InputBlob)) -> Self {
        Taken {
            name,
            source: InputSource::Blob(blob.key.clone()),
            blob: Some(blob),
        }
    }
}

/// A loader input that was taken in.
#[derive(Debug)]
pub struct TakenFile {
    /// What the runner brings.
    pub file: InputFile,
    /// Its blob, which the job refers to; `None` for an address that is fetched later.
    pub blob: Option<InputBlob>,
}

enum Named {
    Upload(Taken),
    OnInstance,
    Missing(String),
}

fn upload_name(key: &BlobKey, plain: &str) -> String {
    let hash = &blake3::hash(key.as_str().as_bytes()).to_hex()[..12];
    let file = darkroom_core::blob_key::safe_segment(plain.rsplit('/').next().unwrap_or(plain));
    format!("{hash}-{file}")
}

fn brief(text: &str) -> String {
    text.split(['?', '#'])
        .next()
        .unwrap_or("")
        .chars()
        .take(120)
        .collect()
}

#[cfg(test)]
mod tests;
