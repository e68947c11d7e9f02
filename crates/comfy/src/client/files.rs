//! Files into and out of an instance.

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStream, TryStreamExt};
use http::StatusCode;
use reqwest::multipart::{Form, Part};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{Client, Error};
use crate::wire::{FileRef, UploadReply};

/// A file to upload.
pub struct Upload {
    /// The name asked for. The instance may choose another: see the reply.
    pub name: String,
    /// Below the input directory; empty for none.
    pub subfolder: String,
    /// True: an existing file of that name is replaced. False: equal bytes are shared, others get a new name.
    pub overwrite: bool,
    /// Bytes that `body` will yield.
    pub length: u64,
    pub body: BoxStream<'static, std::io::Result<Bytes>>,
}

impl Upload {
    /// A file that is in memory.
    pub fn bytes(name: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let length = bytes.len() as u64;
        Self::stream(name, length, futures::stream::iter([Ok(bytes)]))
    }

    /// A file of known length that is read while it is sent.
    pub fn stream<S>(name: impl Into<String>, length: u64, body: S) -> Self
    where
        S: futures::Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    {
        Self {
            name: name.into(),
            subfolder: String::new(),
            overwrite: false,
            length,
            body: body.boxed(),
        }
    }
}

impl Client {
    /// Puts a file into the input directory.
    pub async fn upload_image(&self, upload: Upload) -> Result<UploadReply, Error> {
        const ROUTE: &str = "POST /upload/image";
        // The name goes raw into a header of the part: that is the only form ComfyUI stores unchanged.
        let unsafe_char = |c: char| c.is_control() || matches!(c, '"' | '\\' | '/');
        if upload.name.is_empty() || upload.name.contains(unsafe_char) || upload.name.starts_with("..") {
            return Err(Error::BadName { name: upload.name });
        }
        let body = reqwest::Body::wrap_stream(upload.body);
        let mut form = Form::new()
            .percent_encode_noop()
            .part(
                "image",
                Part::stream_with_length(body, upload.length).file_name(upload.name),
            )
            .text("type", "input");
        if !upload.subfolder.is_empty() {
            form = form.text("subfolder", upload.subfolder);
        }
        if upload.overwrite {
            form = form.text("overwrite", "true");
        }
        match self
            .answer(ROUTE, self.post_parts(&["upload", "image"]).multipart(form))
            .await?
        {
            (status, body) if status.is_success() => self.read(ROUTE, &body),
            (status, body) => Err(Error::status(ROUTE, status, &body)),
        }
    }

    /// Opens a file of the instance; `None` if it is not there.
    pub async fn view(&self, file: &FileRef) -> Result<Option<Download>, Error> {
        const ROUTE: &str = "GET /view";
        let query = [
            ("filename", &file.filename),
            ("type", &file.kind),
            ("subfolder", &file.subfolder),
        ];
        let request = self.get(&["view"]).query(&query);
        let mut response = request
            .send()
            .await
            .map_err(|error| Error::transport(ROUTE, error))?;
        match response.status() {
            status if status.is_success() => Ok(Some(Download { response })),
            StatusCode::NOT_FOUND => Ok(None),
            status => {
                let head = response.chunk().await.ok().flatten().unwrap_or_default();
                Err(Error::status(ROUTE, status, &head))
            }
        }
    }
}

/// A file that is being read from the instance.
#[derive(Debug)]
pub struct Download {
    response: reqwest::Response,
}

impl Download {
    const ROUTE: &'static str = "GET /view";

    /// Bytes to come, if the instance says.
    pub fn length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// The media type that the instance names.
    pub fn media_type(&self) -> Option<&str> {
        self.response
            .headers()
            .get(http::header::CONTENT_TYPE)?
            .to_str()
            .ok()
    }

    /// Seconds-precise time of the last change as the instance's HTTP header has it, for telling a file from a
    /// later one of the same name.
    pub fn last_modified(&self) -> Option<&str> {
        self.response
            .headers()
            .get(http::header::LAST_MODIFIED)?
            .to_str()
            .ok()
    }

    /// The entity tag: changes with the file's time and size.
    pub fn etag(&self) -> Option<&str> {
        self.response.headers().get(http::header::ETAG)?.to_str().ok()
    }

    /// The next piece; `None` at the end. A body that ends early is an error, not an end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        self.response
            .chunk()
            .await
            .map_err(|error| Error::transport(Self::ROUTE, error))
    }

    /// All pieces as a stream.
    pub fn into_stream(self) -> impl TryStream<Ok = Bytes, Error = Error> + Send + 'static {
        self.response
            .bytes_stream()
            .map_err(|error| Error::transport(Self::ROUTE, error))
    }

    /// Copies all of it, and returns how many bytes that were; more than `limit` is an error.
    pub async fn copy_to<W: AsyncWrite + Unpin>(mut self, target: &mut W, limit: u64) -> Result<u64, Error> {
        let mut copied = 0u64;
        while let Some(chunk) = self.chunk().await? {
            copied += chunk.len() as u64;
            if copied > limit {
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                return Err(Error::TooLarge {
                    route: Self::ROUTE,
                    limit,
                });
            }
            target.write_all(&chunk).await?;
        }
        target.flush().await?;
        Ok(copied)
    }
}
