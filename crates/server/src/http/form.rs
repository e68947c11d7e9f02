//! Forms with a file: all but the file is bounded together, however many parts there are and whatever stands between them.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};

/// What a reader of forms may have taken and not handed on yet, in bytes: one piece of a body, with room.
const READ_AHEAD: u64 = 1 << 20;

/// What came of a form outside its file.
#[derive(Debug, Clone)]
pub struct Outside {
    bytes: Arc<AtomicU64>,
    most: u64,
}

impl Outside {
    /// No more than about `most` bytes.
    pub fn most(most: u64) -> Self {
        Outside {
            bytes: Arc::default(),
            most: most + READ_AHEAD,
        }
    }

    /// More came than may.
    pub fn is_too_much(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.most
    }

    /// A form's body, which fails where too much comes.
    pub fn body<S, E>(&self, bytes: S) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + use<S, E>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let outside = self.clone();
        Piecewise {
            inner: bytes,
            came: false,
        }
        .map(move |piece| {
            let piece = piece.map_err(std::io::Error::other)?;
            outside.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            match outside.is_too_much() {
                true => Err(std::io::Error::other("there is too much beside the file")),
                false => Ok(piece),
            }
        })
    }

    /// The file of that form, as its reader hands it on.
    pub fn file<'a, S, E>(&self, bytes: S) -> BoxStream<'a, Result<Bytes, std::io::Error>>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'a,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let outside = self.clone();
        let counted = bytes.map(move |piece| {
            let piece = piece.map_err(std::io::Error::other)?;
            outside.bytes.fetch_sub(piece.len() as u64, Ordering::Relaxed);
            Ok(piece)
        });
        counted.boxed()
    }
}

/// One piece at a time: readers of forms take all that is there before they hand anything on.
struct Piecewise<S> {
    inner: S,
    came: bool,
}

impl<S: Stream + Unpin> Stream for Piecewise<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        if std::mem::take(&mut self.came) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = self.inner.poll_next_unpin(cx);
        self.came = matches!(next, Poll::Ready(Some(_)));
        next
    }
}

#[cfg(test)]
mod tests {
    use multer::Multipart;

    use super::*;

    const PIECE: usize = 64 << 10;

    fn part(head: &str, pieces: usize) -> Vec<Bytes> {
        let head = format!("--x\r\ncontent-disposition: form-data; {head}\r\n\r\n");
        let body = std::iter::repeat_n(Bytes::from(vec![7; PIECE]), pieces);
        let ends = |text: String| std::iter::once(Bytes::from(text));
        ends(head).chain(body).chain(ends("\r\n".to_owned())).collect()
    }

    /// The lengths of the parts that are read, and whether the form was refused.
    async fn read(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> (Vec<usize>, bool) {
        let outside = Outside::most(PIECE as u64);
        let body = futures::stream::iter(pieces.map(Ok::<_, std::io::Error>));
        let mut form = Multipart::new(outside.body(body), "x");
        let mut lengths = Vec::new();
        while let Ok(Some(field)) = form.next_field().await {
            let mut bytes = match field.name() {
                Some("file") => outside.file(field),
                _ => field.map(|piece| piece.map_err(std::io::Error::other)).boxed(),
            };
            let mut length = 0;
            while let Some(Ok(piece)) = bytes.next().await {
                length += piece.len();
            }
            lengths.push(length);
        }
        (lengths, outside.is_too_much())
    }

    #[tokio::test]
    async fn a_file_may_be_long_and_all_else_together_may_not() {
        let end = || std::iter::once(Bytes::from("--x--\r\n"));
        let good = part("name=\"a\"", 1)
            .into_iter()
            .chain(part("name=\"file\"; filename=\"f\"", 500))
            .chain(end());
        assert_eq!(read(good).await, (vec![PIECE, 500 * PIECE], false));
        let preamble = std::iter::repeat_with(|| Bytes::from(vec![7; PIECE]));
        assert_eq!(read(preamble).await, (vec![], true));
        let heads = std::iter::once(Bytes::from("--x\r\n"));
        let heads = heads.chain(std::iter::repeat_with(|| Bytes::from(vec![b'h'; PIECE])));
        assert_eq!(read(heads).await, (vec![], true));
        let parts = std::iter::repeat_with(|| part("name=\"tags\"", 0)).flatten();
        let (lengths, refused) = read(parts).await;
        assert!(refused && lengths.iter().all(|length| *length == 0));
    }
}
