//! All that a job made as one zip, made while it is sent: no thread, no file and no more memory than a piece of a file.

use std::{
    collections::{BTreeSet, VecDeque},
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use darkroom_blobs::Blobs;
use darkroom_core::{
    BlobKey,
    blob_key::safe_segment,
    output::{Output, OutputBody},
};
use darkroom_store::jobs::JobRecord;
use futures::{StreamExt, stream, stream::BoxStream};
use zip::{
    CompressionMethod, ZipWriter,
    write::{SimpleFileOptions, StreamWriter},
};

use super::{Service, folders::inside};

impl Service {
    /// The files and texts of a job, stored as they are (pictures and videos do not get smaller). It breaks off where a file is
    /// gone.
    pub fn zip_outputs(&self, job: &JobRecord) -> BoxStream<'static, Result<Bytes, io::Error>> {
        let sink = Sink::default();
        let zipping = Zipping {
            blobs: self.blobs.clone(),
            left: entries(&job.outputs).into(),
            open: None,
            writer: Some(ZipWriter::new_stream(sink.clone())),
            sink,
        };
        stream::try_unfold(zipping, |mut zipping| async move {
            let piece = zipping.next_piece().await?;
            Ok(piece.map(|piece| (piece, zipping)))
        })
        .boxed()
    }
}

/// A file of the zip.
struct Entry {
    name: String,
    size: u64,
    body: Body,
}

enum Body {
    Blob(BlobKey),
    Text(Bytes),
}

/// Every output under a name of its own: its folder and name on the instance, what is not of `output` in a folder of its kind.
fn entries(outputs: &[Output]) -> Vec<Entry> {
    let mut taken = BTreeSet::new();
    let entries = outputs.iter().enumerate().map(|(position, output)| {
        let said = |key: &str| {
            output
                .raw
                .get(key)
                .and_then(|value| value.as_str())
                .unwrap_or_default()
        };
        let (name, size, body) = match &output.body {
            OutputBody::File { key, size, .. } => {
                let name = match said("filename") {
                    "" => key.file_name(),
                    name => name,
                };
                (name.to_owned(), *size, Body::Blob(key.clone()))
            }
            OutputBody::Text { text } => {
                let bytes = Bytes::copy_from_slice(text.as_bytes());
                (
                    format!("text_{position}.txt"),
                    bytes.len() as u64,
                    Body::Text(bytes),
                )
            }
        };
        let kind = match said("type") {
            "" | "output" => None,
            other => Some(safe_segment(other)),
        };
        let folder = inside("here", said("subfolder")).filter(|folder| !folder.is_empty());
        let parts = kind.into_iter().chain(folder).chain([safe_segment(&name)]);
        let path = parts.collect::<Vec<_>>().join("/");
        let name = (0..)
            .map(|number| super::uploads::twin(&path, number))
            .find(|name| taken.insert(name.clone()))
            .expect("one of endless names is free");
        Entry { name, size, body }
    });
    entries.collect()
}

/// What the zip's writer has written and nobody has taken yet.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Zipping {
    blobs: Arc<dyn Blobs>,
    left: VecDeque<Entry>,
    open: Option<BoxStream<'static, Result<Bytes, io::Error>>>,
    /// `None`: its end is written.
    writer: Option<ZipWriter<StreamWriter<Sink>>>,
    sink: Sink,
}

impl Zipping {
    /// `None`: that was all.
    async fn next_piece(&mut self) -> Result<Option<Bytes>, io::Error> {
        loop {
            let written = self.sink.take();
            if !written.is_empty() {
                return Ok(Some(written.into()));
            }
            let Some(writer) = &mut self.writer else {
                return Ok(None);
            };
            if let Some(open) = &mut self.open {
                match open.next().await.transpose()? {
                    Some(piece) => writer.write_all(&piece)?,
                    None => self.open = None,
                }
                continue;
            }
            match self.left.pop_front() {
                Some(entry) => self.begin(entry).await?,
                None => {
                    if let Some(writer) = self.writer.take() {
                        writer.finish().map_err(io::Error::other)?;
                    }
                }
            }
        }
    }

    async fn begin(&mut self, entry: Entry) -> Result<(), io::Error> {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(entry.size >= u64::from(u32::MAX));
        writer.start_file(entry.name, options).map_err(io::Error::other)?;
        self.open = Some(match entry.body {
            Body::Text(text) => stream::iter([Ok(text)]).boxed(),
            Body::Blob(key) => match self.blobs.open(&key, None).await {
                Ok(Some(reader)) => reader.stream,
                Ok(None) => return Err(io::ErrorKind::NotFound.into()),
                Err(error) => return Err(io::Error::other(error)),
            },
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read};

    use futures::TryStreamExt;
    use serde_json::{Value, json};

    use super::*;
    use crate::service::testing::Bench;

    fn file(key: &str, raw: Value) -> Output {
        Output {
            node_id: "9".to_owned(),
            kind: "images".to_owned(),
            index: 0,
            body: OutputBody::File {
                key: key.parse().unwrap(),
                size: 5,
                content_type: "image/png".to_owned(),
                blake3: String::new(),
            },
            raw,
        }
    }

    async fn job_that_made(bench: &Bench, outputs: Vec<Output>) -> JobRecord {
        let job = bench.job("{}").await;
        JobRecord {
            outputs,
            ..bench.record(job).await
        }
    }

    #[tokio::test]
    async fn everything_is_in_it_under_names_that_stay_inside() {
        let bench = Bench::new();
        for key in ["outputs/a", "outputs/b"] {
            bench.put_blob(key).await;
        }
        let text = Output {
            body: OutputBody::Text {
                text: "words 图".to_owned(),
            },
            ..file("x", Value::Null)
        };
        let outputs = vec![
            file(
                "outputs/a",
                json!({"filename": "a.png", "subfolder": "s/图", "type": "output"}),
            ),
            file(
                "outputs/b",
                json!({"filename": "a.png", "subfolder": "s/图", "type": "output"}),
            ),
            file(
                "outputs/a",
                json!({"filename": "../../a.png", "subfolder": "../..", "type": "temp"}),
            ),
            file("outputs/b", Value::Null),
            text,
        ];
        let job = job_that_made(&bench, outputs).await;
        let pieces: Vec<Bytes> = bench.service.zip_outputs(&job).try_collect().await.unwrap();
        let mut zip = zip::ZipArchive::new(Cursor::new(pieces.concat())).unwrap();
        let mut found = Vec::new();
        for n in 0..zip.len() {
            let mut entry = zip.by_index(n).unwrap();
            let mut body = String::new();
            entry.read_to_string(&mut body).unwrap();
            found.push((entry.name().unwrap().into_owned(), body));
        }
        let found: Vec<(&str, &str)> = found.iter().map(|(name, body)| (&**name, &**body)).collect();
        assert_eq!(
            found,
            [
                ("s/图/a.png", "bytes"),
                ("s/图/a (1).png", "bytes"),
                ("temp/.._.._a.png", "bytes"),
                ("b", "bytes"),
                ("text_4.txt", "words 图"),
            ]
        );
    }

    #[tokio::test]
    async fn one_that_is_gone_breaks_it_off() {
        let bench = Bench::new();
        bench.put_blob("outputs/a").await;
        let outputs = vec![file("outputs/a", Value::Null), file("outputs/gone", Value::Null)];
        let job = job_that_made(&bench, outputs).await;
        let broken: Result<Vec<Bytes>, _> = bench.service.zip_outputs(&job).try_collect().await;
        assert_eq!(broken.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
