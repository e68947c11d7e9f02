//! Brings the files that a graph needs to the instance, and puts their names there into the graph.

use std::collections::HashMap;

use darkroom_comfy::client;
use darkroom_core::{Failure, attempt::Lease, failure::FailureCode};
use serde_json::Value;

use crate::{
    backoff::Backoff,
    collect::places::{Dirs, Stamp},
    instance::Instance,
    link::{AttemptLink, ComfyWork, InputFile, InputSource, LinkError},
};

/// Why inputs are not there.
#[derive(Debug)]
pub enum Error {
    /// The job lost its owner.
    Stale,
    /// The job's own fault.
    Failed(Box<Failure>),
    /// The instance does not take files.
    Instance(client::Error),
    /// The link is away for longer than we wait.
    Away(String),
}

/// Files that are on the instance already: blob key and name to what the instance calls it and the version seen there.
#[derive(Debug, Default)]
pub struct UploadMemory(HashMap<(String, String), (String, Stamp)>);

/// More than this and the memory starts afresh.
const MAX_UPLOADS: usize = 4_096;
const LINK_TRIES: u32 = 6;

/// Brings every file of the work; afterwards the graph names them as the instance does.
///
/// # Errors
/// See [`Error`].
pub async fn bring(
    work: &mut ComfyWork,
    lease: Lease,
    link: &dyn AttemptLink,
    instance: &Instance,
    memory: &mut UploadMemory,
) -> Result<(), Error> {
    // What several nodes name is read and sent once.
    let mut brought: HashMap<(&InputSource, &str), String> = HashMap::new();
    for file in &work.files {
        let same = (&file.source, file.file_name.as_str());
        let known = brought
            .get(&same)
            .cloned()
            .or_else(|| memory.recall(file, instance.dirs()));
        let name = match known {
            Some(name) => name,
            None => {
                let bytes = read(lease, link, file).await?;
                let name = instance
                    .upload(&file.file_name, bytes)
                    .await
                    .map_err(|error| refused(error, file))?;
                memory.remember(file, &name, instance.dirs());
                name
            }
        };
        brought.insert(same, name.clone());
        put_name(&mut work.graph, file, name)?;
    }
    Ok(())
}

async fn read(lease: Lease, link: &dyn AttemptLink, file: &InputFile) -> Result<bytes::Bytes, Error> {
    let mut backoff = Backoff::new(
        std::time::Duration::from_millis(200),
        std::time::Duration::from_secs(5),
    );
    for attempt in 1.. {
        match link.input(lease, &file.source).await {
            Ok(bytes) => return Ok(bytes),
            Err(LinkError::Stale) => return Err(Error::Stale),
            Err(LinkError::InputUnavailable(why) | LinkError::Rejected(why)) => {
                return Err(of_node(file, why));
            }
            Err(LinkError::Unavailable(why)) if attempt == LINK_TRIES => return Err(Error::Away(why)),
            Err(LinkError::Unavailable(_)) => tokio::time::sleep(backoff.next()).await,
        }
    }
    unreachable!("the last try returns")
}

/// The job's own fault, at the node that names the file.
fn of_node(file: &InputFile, why: String) -> Error {
    Error::Failed(Box::new(Failure {
        node_id: Some(file.node_id.clone()),
        ..Failure::new(FailureCode::InputUnavailable, why)
    }))
}

fn refused(error: client::Error, file: &InputFile) -> Error {
    let failed = |why: String| of_node(file, why);
    match error {
        client::Error::Status { status, .. } if matches!(status.as_u16(), 400 | 413 | 415) => {
            failed(format!(
                "the instance refused the input file '{}' ({status})",
                file.file_name
            ))
        }
        client::Error::BadName { name } => failed(format!("'{name}' cannot be the name of an input file")),
        other => Error::Instance(other),
    }
}

fn put_name(graph: &mut Value, file: &InputFile, name: String) -> Result<(), Error> {
    let inputs = graph
        .get_mut(&file.node_id)
        .and_then(|node| node.get_mut("inputs"))
        .and_then(Value::as_object_mut);
    let Some(inputs) = inputs else {
        let why = format!("there is no node '{}' to give an input file to", file.node_id);
        return Err(Error::Failed(
            Failure::new(FailureCode::InputUnavailable, why).into(),
        ));
    };
    match &file.nested {
        None => {
            inputs.insert(file.input.clone(), Value::String(name));
        }
        Some(pointer) => {
            if let Some(place) = inputs
                .get_mut(&file.input)
                .and_then(|input| input.pointer_mut(pointer))
            {
                *place = Value::String(name);
            }
        }
    }
    Ok(())
}

impl UploadMemory {
    /// Only blobs are remembered (their bytes never change), and only where the file can be looked at.
    fn recall(&self, file: &InputFile, dirs: Option<&Dirs>) -> Option<String> {
        let (name, stamp) = self.0.get(&key(file)?)?;
        let found = dirs?.find(&input_file(name)).ok()?;
        (found.stamp == *stamp).then(|| name.clone())
    }

    fn remember(&mut self, file: &InputFile, name: &str, dirs: Option<&Dirs>) {
        let found = dirs.and_then(|dirs| dirs.find(&input_file(name)).ok());
        if let (Some(key), Some(found)) = (key(file), found) {
            if self.0.len() >= MAX_UPLOADS {
                self.0.clear();
            }
            self.0.insert(key, (name.to_owned(), found.stamp));
        }
    }
}

fn key(file: &InputFile) -> Option<(String, String)> {
    match &file.source {
        InputSource::Blob(key) => Some((key.as_str().to_owned(), file.file_name.clone())),
        InputSource::Url(_) => None,
    }
}

/// The file that an input value names (`sub/a.png`).
fn input_file(value: &str) -> darkroom_comfy::wire::FileRef {
    let (subfolder, filename) = value.rsplit_once('/').unwrap_or(("", value));
    darkroom_comfy::wire::FileRef {
        filename: filename.to_owned(),
        subfolder: subfolder.to_owned(),
        kind: "input".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::link::{Address, Media};

    fn file(node: &str) -> InputFile {
        InputFile {
            node_id: node.into(),
            input: "image".into(),
            nested: None,
            file_name: "abc.png".into(),
            source: InputSource::Url(Address {
                url: "https://x.example/a.png".into(),
                class: "LoadImage".into(),
                media: Media::Image,
            }),
        }
    }

    #[test]
    fn the_instances_name_goes_into_the_graph() {
        let mut graph =
            json!({"3": {"class_type": "LoadImage", "inputs": {"image": "mine.png", "other": 1}}});
        put_name(&mut graph, &file("3"), "abc (1).png".into()).unwrap();
        assert_eq!(graph["3"]["inputs"], json!({"image": "abc (1).png", "other": 1}));
        let within = InputFile {
            nested: Some("/0/file".into()),
            ..file("3")
        };
        graph["3"]["inputs"]["image"] = json!([{"file": "mine.png"}, 2]);
        put_name(&mut graph, &within, "abc.png".into()).unwrap();
        assert_eq!(graph["3"]["inputs"]["image"], json!([{"file": "abc.png"}, 2]));
        assert!(matches!(
            put_name(&mut graph, &file("4"), "x".into()),
            Err(Error::Failed(_))
        ));
    }
}
