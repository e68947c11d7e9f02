//! Finding the file that a caller names as ComfyUI does: an upload, or what a job made.

use darkroom_core::{BlobKey, EndpointName, PublicName, TenantId, output::Output};
use darkroom_store::jobs::{JobFilter, JobRecord, Page};
use serde_json::Value;

use super::{
    Error, Service,
    folders::{Folder, join},
    outputs::file_of,
};

/// Among so many of the newest jobs a file is looked for by the plain name its instance gave it.
const PLAIN_NAMES_OF: u32 = 100;

/// Who looks for a file.
#[derive(Debug, Clone, Copy)]
pub struct Seeker<'a> {
    /// Whose uploads are looked through.
    pub tenant: &'a TenantId,
    /// Whose jobs; `None`: an operator's look at everyone's.
    pub visible: Option<&'a TenantId>,
    /// May find files by names that can be guessed.
    pub lists: bool,
}

/// A file that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile {
    /// Where its bytes are.
    pub key: BlobKey,
    /// Their length.
    pub size: u64,
    /// What it is, as a media type.
    pub content_type: String,
    /// The name to save it under.
    pub name: String,
}

impl Service {
    /// The file at a path of a folder; the newest of that name where several jobs made one and the name does not say
    /// which.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn find_file(
        &self,
        seeker: Seeker<'_>,
        endpoint: &EndpointName,
        folder: Folder,
        path: &str,
    ) -> Result<Option<FoundFile>, Error> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let public = PublicName::parse(name);
        if let Some(public) = &public
            && let Some(job) = self.store.job(seeker.visible, public.job).await?
            && job.endpoint == *endpoint
            && let Some(found) = made_by(&job, folder, directory, &public.file_name)
        {
            return Ok(Some(FoundFile {
                name: name.to_owned(),
                ..found
            }));
        }
        if seeker.lists || public.is_some() {
            let owner = folder.owner(seeker.tenant, endpoint);
            if let Some(upload) = self.store.file_ref(&owner, path).await? {
                return Ok(Some(FoundFile {
                    key: upload.blob,
                    size: upload.size,
                    content_type: upload.content_type,
                    name: name.to_owned(),
                }));
            }
        }
        match seeker.lists && folder != Folder::Input {
            true => {
                self.newest_of_name(seeker, endpoint, folder, directory, name)
                    .await
            }
            false => Ok(None),
        }
    }

    /// Clients that know how ComfyUI counts ask for a name they were never told.
    async fn newest_of_name(
        &self,
        seeker: Seeker<'_>,
        endpoint: &EndpointName,
        folder: Folder,
        directory: &str,
        name: &str,
    ) -> Result<Option<FoundFile>, Error> {
        let filter = JobFilter {
            tenant: seeker.visible.cloned(),
            endpoint: Some(endpoint.clone()),
            ..JobFilter::default()
        };
        let page = Page {
            limit: PLAIN_NAMES_OF,
            after: None,
        };
        let jobs = self.store.jobs(filter, page).await?;
        Ok(jobs.iter().find_map(|job| made_by(job, folder, directory, name)))
    }

    /// The names of what the newest jobs made, newest first, as history tells them.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn newest_outputs(
        &self,
        visible: Option<&TenantId>,
        endpoint: &EndpointName,
    ) -> Result<Vec<String>, Error> {
        let filter = JobFilter {
            tenant: visible.cloned(),
            endpoint: Some(endpoint.clone()),
            ..JobFilter::default()
        };
        let page = Page {
            limit: PLAIN_NAMES_OF,
            after: None,
        };
        let jobs = self.store.jobs(filter, page).await?;
        let names = jobs.iter().flat_map(|job| {
            let made = job.outputs.iter().filter(|output| file_of(output).is_some());
            made.filter_map(|output| {
                let raw = Raw::of(output)?;
                let name = PublicName::new(job.id, raw.file_name).to_string();
                (raw.folder == Folder::Output.as_str()).then(|| join(raw.directory, &name))
            })
        });
        Ok(names.collect())
    }
}

/// A file of a job by the name its instance gave it. Without a directory, one that lies in any.
fn made_by(job: &JobRecord, folder: Folder, directory: &str, name: &str) -> Option<FoundFile> {
    let of_name = |output: &&Output| {
        Raw::of(output).is_some_and(|raw| raw.folder == folder.as_str() && raw.file_name == name)
    };
    let in_directory = |output: &&Output| {
        Raw::of(output).is_some_and(|raw| raw.directory.trim_matches('/') == directory.trim_matches('/'))
    };
    let exact = job.outputs.iter().filter(of_name).find(in_directory);
    let output = exact.or_else(|| match directory {
        "" => job.outputs.iter().find(of_name),
        _ => None,
    })?;
    let (key, size, content_type) = file_of(output)?;
    Some(FoundFile {
        key: key.clone(),
        size,
        content_type: content_type.to_owned(),
        name: name.to_owned(),
    })
}

/// What an instance said of a file.
struct Raw<'a> {
    file_name: &'a str,
    directory: &'a str,
    folder: &'a str,
}

impl<'a> Raw<'a> {
    fn of(output: &'a Output) -> Option<Self> {
        let text = |key: &str| output.raw.get(key).and_then(Value::as_str);
        let folder = text("type").filter(|folder| !folder.is_empty());
        Some(Raw {
            file_name: text("filename")?,
            directory: text("subfolder").unwrap_or_default(),
            folder: folder.unwrap_or(Folder::Output.as_str()),
        })
    }
}
