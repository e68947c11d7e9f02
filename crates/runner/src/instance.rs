//! One ComfyUI as a slot sees it: its client, the name of its one socket, its directories.

use bytes::Bytes;
use darkroom_comfy::{
    client::{self, Client, ClientConfig, Socket, SocketOptions, Timeouts, Upload},
    wire::{HistoryEntry, PromptReply, PromptRequest, QueueSnapshot},
};
use darkroom_core::InstanceId;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::config::{Dirs, InstanceAccess};

/// Why an instance cannot be spoken to at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a URL.
    #[error("the address of the instance is not a URL")]
    Address,
    /// A header cannot be sent.
    #[error("the header '{0}' for the instance cannot be sent")]
    Header(String),
    /// The client refuses.
    #[error("no client for the instance")]
    Client(#[from] client::Error),
}

/// See the module.
#[derive(Debug)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Its HTTP client.
    pub client: Client,
    socket: SocketOptions,
    dirs: Option<Dirs>,
}

/// A prompt to post, but for the ids.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// The graph, input names in place.
    pub graph: Value,
    /// `extra_data`.
    pub extra_data: Map<String, Value>,
    /// Only these outputs.
    pub targets: Option<Vec<String>>,
}

impl Instance {
    /// Prepares to speak to it; nothing is sent yet.
    ///
    /// # Errors
    /// The address or a header is unusable.
    pub fn new(access: InstanceAccess, timeouts: Timeouts) -> Result<Self, Error> {
        let mut config = ClientConfig::new(access.base_url.parse().map_err(|_| Error::Address)?);
        config.timeouts = timeouts;
        config.headers = headers(&access.headers)?;
        Ok(Instance {
            id: access.instance,
            client: Client::new(config)?,
            socket: SocketOptions {
                client_id: access.client_id,
                preview_metadata: true,
            },
            dirs: access.dirs,
        })
    }

    /// Under which its socket is open.
    pub fn client_id(&self) -> &str {
        &self.socket.client_id
    }

    /// Its directories on this machine.
    pub fn dirs(&self) -> Option<&Dirs> {
        self.dirs.as_ref()
    }

    /// Opens the socket.
    pub async fn connect(&self) -> Result<Socket, client::Error> {
        self.client.open_socket(&self.socket).await
    }

    /// Posts a prompt under that id.
    pub async fn submit(&self, prompt: &Prompt, prompt_id: &str) -> Result<PromptReply, client::Error> {
        let targets: Option<Vec<_>> = prompt
            .targets
            .as_ref()
            .map(|ids| ids.iter().map(|id| id.as_str().into()).collect());
        let request = PromptRequest {
            prompt: &prompt.graph,
            prompt_id,
            client_id: self.client_id(),
            extra_data: prompt.extra_data.clone(),
            partial_execution_targets: targets.as_deref(),
        };
        self.client.submit(&request).await
    }

    /// Puts an input file there; the answer is the value for the node's input.
    pub async fn upload(&self, name: &str, bytes: Bytes) -> Result<String, client::Error> {
        let reply = self.client.upload_image(Upload::bytes(name, bytes)).await?;
        Ok(reply.input_value())
    }

    /// What runs and waits.
    pub async fn queue(&self) -> Result<QueueSnapshot, client::Error> {
        self.client.queue().await
    }

    /// What became of a prompt.
    pub async fn history(&self, prompt_id: &str) -> Result<Option<HistoryEntry>, client::Error> {
        self.client.history(prompt_id).await
    }

    /// Interrupts the prompt if it runs.
    pub async fn interrupt(&self, prompt_id: &str) -> Result<(), client::Error> {
        self.client.interrupt(prompt_id).await
    }

    /// Takes the prompt out of the queue if it waits.
    pub async fn delete(&self, prompt_id: &str) -> Result<(), client::Error> {
        self.client.delete_queued(&[prompt_id]).await
    }
}

fn headers(pairs: &[(String, String)]) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let bad = || Error::Header(name.clone());
        let header = HeaderName::try_from(name.as_str()).map_err(|_| bad())?;
        let mut value = HeaderValue::try_from(value.as_str()).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.append(header, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_header_is_named_and_its_value_is_not() {
        let error = headers(&[("x-token".into(), "secret\n".into())]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the header 'x-token' for the instance cannot be sent"
        );
    }
}
