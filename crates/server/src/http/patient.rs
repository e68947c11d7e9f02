//! A connection whose other end takes nothing for too long is let go: what was made for it would be held for ever. And one
//! that says when all that was written to it has left us.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::{Instant, Sleep},
};

/// Tells when what a body gave to its connection has been written to the socket; without one (no socket) that is never
/// known. An extension of every request.
#[derive(Debug, Clone)]
pub struct Flushed(watch::Receiver<u64>);

impl Flushed {
    /// Waits until everything that the connection was given before this call is in the socket's buffer. To be called from
    /// within the body: the connection writes out what it has when the body has nothing more for the moment, and flushes
    /// when that is all gone.
    pub async fn all(&mut self) {
        self.0.mark_unchanged();
        // A closed channel: the connection is gone, and with it the body that waits.
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A stream that gives up a write which does not get on.
#[derive(Debug)]
pub struct Patient<S> {
    inner: S,
    patience: Duration,
    /// Set while a write waits.
    gives_up: Option<Pin<Box<Sleep>>>,
    flushes: watch::Sender<u64>,
}

impl<S> Patient<S> {
    /// One that waits so long for each piece to be taken.
    pub fn new(inner: S, patience: Duration) -> Self {
        Patient {
            inner,
            patience,
            gives_up: None,
            flushes: watch::Sender::new(0),
        }
    }

    /// Tells when what was written has been taken whole.
    pub fn flushed(&self) -> Flushed {
        Flushed(self.flushes.subscribe())
    }

    fn written<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.gives_up = None;
            return outcome;
        }
        let until = Instant::now() + self.patience;
        let gives_up = self
            .gives_up
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        match gives_up.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the other end takes nothing any more",
            ))),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.written(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(context, pieces);
        self.written(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(context);
        if let Poll::Ready(Ok(())) = outcome {
            self.flushes.send_modify(|n| *n = n.wrapping_add(1));
        }
        self.written(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_shutdown(context);
        self.written(context, outcome)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use axum::body::Body;
    use bytes::Bytes;
    use futures::stream;
    use hyper::{server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_let_go_and_who_takes_a_little_is_not() {
        let (ours, mut theirs) = tokio::io::duplex(10);
        let mut ours = Patient::new(ours, PATIENCE);
        let written = tokio::spawn(async move {
            let all = ours.write_all(&[7; 100]).await;
            (ours, all)
        });
        for _ in 0..9 {
            // Slower than anybody would be in earnest, but never too slow.
            tokio::time::sleep(PATIENCE - Duration::from_secs(1)).await;
            let mut some = [0; 10];
            theirs.read_exact(&mut some).await.unwrap();
        }
        let (mut ours, all) = written.await.unwrap();
        all.unwrap();
        let refused = ours.write_all(&[7; 100]).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
    }

    /// Gives one large chunk, and tells when that has left us.
    fn telling(flushed: Flushed, left: Arc<AtomicBool>) -> Body {
        let chunk = Some(Bytes::from(vec![7; 100_000]));
        let steps = stream::unfold((chunk, flushed), move |(chunk, mut flushed)| {
            let left = left.clone();
            async move {
                if let Some(chunk) = chunk {
                    return Some((Ok::<_, Infallible>(chunk), (None, flushed)));
                }
                flushed.all().await;
                left.store(true, Ordering::Relaxed);
                None
            }
        });
        Body::from_stream(steps)
    }

    #[tokio::test]
    async fn a_body_learns_when_what_it_gave_has_left_and_not_before() {
        let (ours, mut theirs) = tokio::io::duplex(1_000);
        let ours = Patient::new(ours, PATIENCE);
        let (flushed, left) = (ours.flushed(), Arc::new(AtomicBool::new(false)));
        let service = service_fn({
            let left = left.clone();
            move |_| {
                let body = telling(flushed.clone(), left.clone());
                async move { Ok::<_, Infallible>(http::Response::new(body)) }
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(ours), service));
        let request = b"GET / HTTP/1.1\r\nHost: us\r\n\r\n";
        theirs.write_all(request).await.unwrap();
        let mut some = vec![0; 50_000];
        theirs.read_exact(&mut some).await.unwrap();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!left.load(Ordering::Relaxed), "half of it is still here");
        while !left.load(Ordering::Relaxed) {
            assert!(theirs.read(&mut some).await.unwrap() > 0);
        }
    }
}
