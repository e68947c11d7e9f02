//! Where an instance is, and the bounds for talking to it.

use std::time::Duration;

use http::HeaderMap;
use url::Url;

/// How to reach one instance.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `http://127.0.0.1:8188`, or with a path where the instance lives under one.
    pub base: Url,
    /// Sent with every request and with the WebSocket handshake (access tokens of remote instances).
    pub headers: HeaderMap,
    pub limits: Limits,
    pub timeouts: Timeouts,
}

/// Upper bounds in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of one JSON answer. `/object_info` of a full house of custom nodes has tens of megabytes.
    pub json_bytes: usize,
    /// Of one WebSocket message. Previews have about 40 kB, but final images may come this way too.
    pub message_bytes: usize,
}

/// Upper bounds in time. A running node may hold Python's interpreter for many seconds, so answers are awaited
/// patiently; a refused connection is known at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    /// Of a whole small request.
    pub request: Duration,
    /// Of a submit: validation reads files and may import things.
    pub submit: Duration,
    /// Between two pieces of a body.
    pub silence: Duration,
    /// Between probes of idle connections, so that a dead host is noticed.
    pub keepalive: Duration,
    /// Between our pings on the WebSocket (ComfyUI sends none, and idle proxies cut it).
    pub ping: Duration,
}

impl ClientConfig {
    /// Default bounds, no extra headers.
    pub fn new(base: Url) -> Self {
        Self {
            base,
            headers: HeaderMap::new(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            json_bytes: 256 << 20,
            message_bytes: 64 << 20,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(30),
            submit: Duration::from_secs(120),
            silence: Duration::from_secs(60),
            keepalive: Duration::from_secs(15),
            ping: Duration::from_secs(20),
        }
    }
}
