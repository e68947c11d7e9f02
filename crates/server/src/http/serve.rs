//! Serving a router on a socket that somebody else bound, and stopping without dropping anybody.
//!
//! A stop has two steps. *Stopping*: handlers that wait for new work (long polls) see the token and answer; every answer
//! says `Connection: close`; connections and the socket stay open for a grace, so that a client that sends its next request
//! or result meets no refusal, and who follows a job that ends in time sees its end. *Closing*: what follows a job (streams,
//! WebSockets) ends as its protocol says, idle connections are closed, running requests may finish until the deadline.

use std::{io, net::SocketAddr, pin::pin, time::Duration};

use axum::{Router, body::Body};
use http::{HeaderValue, Request, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use tower::ServiceExt;

use super::patient::Patient;

/// Who is at the other end of the connection; an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Held by whatever goes on over a connection after its request was answered with an upgrade: a stop waits for it as for
/// a request. An extension of every request.
#[derive(Debug, Clone)]
pub struct Ongoing {
    _counted: TaskTrackerToken,
}

/// How a stop goes.
#[derive(Debug, Clone)]
pub struct Stop {
    /// Cancelled to begin it. Handlers that wait for new work watch this too.
    pub stopping: CancellationToken,
    /// Cancelled by [`serve`] when the grace is over: streams and WebSockets end.
    pub closing: CancellationToken,
    /// Connections stay readable for this long after.
    pub grace: Duration,
    /// Running requests may finish for this long after the grace.
    pub deadline: Duration,
}

/// A client that takes longer to send its request's head, or sends nothing on a kept connection, is let go.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);

/// A client that takes nothing of its answer for so long is gone, and what was made for it is let go.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);

/// A connection on which nothing comes is asked after this long whether anybody is there, this often, and given up when nobody
/// answered so many times: a box that lost its power, or whose way here was forgotten by a router between, closes nothing.
const ASKED_AFTER: Duration = Duration::from_secs(60);
const ASKED_EVERY: Duration = Duration::from_secs(15);
const ASKED_TIMES: u32 = 4;

/// Serves until the stop is complete.
///
/// # Errors
/// When the socket cannot be used at all. Errors of single connections end only them.
pub async fn serve(listener: std::net::TcpListener, router: Router, stop: Stop) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let closing = stop.closing.clone();
    let connections = TaskTracker::new();
    let mut grace = pin!(wait_for_grace(&stop, &connections));
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut grace => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = Connection {
                    stream,
                    peer,
                    router: router.clone(),
                    stopping: stop.stopping.clone(),
                    closing: closing.clone(),
                    connections: connections.clone(),
                };
                connections.spawn(connection.serve());
            }
            Err(error) => {
                // A connection that died in the queue is nothing; out of file descriptors passes.
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "cannot accept a connection"
                );
                if !is_about_one_connection(&error) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
    drop(listener);
    closing.cancel();
    if tokio::time::timeout(stop.deadline, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = connections.len(),
            "requests were cut off by the deadline of the stop"
        );
    }
    Ok(())
}

/// Ends when the grace is over, or earlier when no connection is open any more.
async fn wait_for_grace(stop: &Stop, connections: &TaskTracker) {
    stop.stopping.cancelled().await;
    // A closed tracker still takes new connections; it only lets itself be waited for.
    connections.close();
    let _ = tokio::time::timeout(stop.grace, connections.wait()).await;
}

fn find_out_who_is_gone(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, ASKED_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, ASKED_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, ASKED_TIMES)?;
    Ok(())
}

fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    stopping: CancellationToken,
    closing: CancellationToken,
    connections: TaskTracker,
}

impl Connection {
    async fn serve(self) {
        let Connection {
            stream,
            peer,
            router,
            stopping,
            closing,
            connections,
        } = self;
        // Small events must not wait for more to come.
        let _ = stream.set_nodelay(true);
        if let Err(error) = find_out_who_is_gone(&stream) {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "a connection is not watched"
            );
        }
        let stream = Patient::new(stream, WRITE_TIMEOUT);
        let flushed = stream.flushed();
        let service = service_fn(move |request: Request<Incoming>| {
            let router = router.clone();
            let stopping = stopping.clone();
            let flushed = flushed.clone();
            let ongoing = Ongoing {
                _counted: connections.token(),
            };
            async move {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(Peer(peer));
                request.extensions_mut().insert(ongoing);
                request.extensions_mut().insert(flushed);
                let mut response = router.oneshot(request).await?;
                let upgrades = response.status() == http::StatusCode::SWITCHING_PROTOCOLS;
                if stopping.is_cancelled() && !upgrades {
                    let headers = response.headers_mut();
                    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = &error as &dyn std::error::Error, "a connection broke");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_connects_is_asked_whether_he_is_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (stream, _) = accepted.unwrap();
        assert!(!rustix::net::sockopt::socket_keepalive(&stream).unwrap());
        find_out_who_is_gone(&stream).unwrap();
        assert!(rustix::net::sockopt::socket_keepalive(&stream).unwrap());
        let given_up = ASKED_AFTER + ASKED_EVERY * ASKED_TIMES;
        assert!(given_up <= HEAD_TIMEOUT, "no later than who sends nothing");
        assert_eq!(rustix::net::sockopt::tcp_keepidle(&stream).unwrap(), ASKED_AFTER);
    }
}
