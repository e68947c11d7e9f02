//! `[server]`: where it listens, where its state is, whom it trusts.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use url::Url;

use super::{net::Cidr, reader::Section};
use crate::memory::{DEFAULT_BODY_MEMORY, LEAST_BODY_MEMORY};

/// `[server]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Base of the URLs that are handed out, without a slash at its end; `None`: from the request's Host.
    pub public_url: Option<Url>,
    /// Where the state is; absolute.
    pub data_dir: PathBuf,
    /// The file of the server's own secret; `None`: `data_dir/server.key`, made when missing.
    pub secret_file: Option<PathBuf>,
    /// Origins whose pages may call the API with a key; may hold `*` (then only on anonymous endpoints).
    pub cors_origins: Vec<String>,
    /// Proxies whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<Cidr>,
    /// Serve without keys on any address. Only settable by flag: it should be seen in the command.
    pub insecure_no_auth: bool,
    /// How log lines look.
    pub log_format: LogFormat,
    /// After a graceful stop, idle keep-alive connections stay readable for this long.
    pub stop_grace: Duration,
    /// Refuse signed requests whose body was rewritten after its digest was taken, as clients on httpx < 0.28 do.
    pub strict_content_md5: bool,
    /// Memory that bodies of requests may take while they are read and worked on, in bytes.
    pub body_memory: u64,
    /// Streams of events (Comfy API v2) that one key may have open at once.
    pub max_event_streams: u64,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// More than a page or a batch has open, and far fewer than there are file descriptors.
const DEFAULT_EVENT_STREAMS: u64 = 512;

/// The port of the contract.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8288";

pub(super) fn read(mut section: Section<'_>) -> ServerConfig {
    let listen = section
        .parsed(
            "listen",
            "an address and port like \"127.0.0.1:8288\" or \"0.0.0.0:8288\"",
            parse_listen,
        )
        .unwrap_or_else(|| DEFAULT_LISTEN.parse().expect("the default is an address"));
    let public_url = section.parsed(
        "public_url",
        "a URL like \"https://gpu.example\"",
        parse_public_url,
    );
    let data_dir = section
        .text("data_dir")
        .unwrap_or_else(|| "darkroom-data".to_owned());
    if data_dir.is_empty() {
        section.problem("data_dir", "must not be empty");
    }
    let cors_origins = section
        .parsed_list(
            "cors_origins",
            "an origin like \"https://app.example\", or \"*\"",
            parse_origin,
        )
        .unwrap_or_default();
    let trusted_proxies = section
        .parsed_list(
            "trusted_proxies",
            "an address or network like \"10.0.0.0/8\"",
            |text| text.parse().ok(),
        )
        .unwrap_or_default();
    let config = ServerConfig {
        listen,
        public_url,
        data_dir: absolute(data_dir.into()),
        secret_file: section.text("secret_file").map(|path| absolute(path.into())),
        cors_origins,
        trusted_proxies,
        insecure_no_auth: false,
        log_format: section
            .choice(
                "log_format",
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            )
            .unwrap_or(LogFormat::Text),
        stop_grace: section.duration("stop_grace").unwrap_or(Duration::from_secs(20)),
        strict_content_md5: section.flag("strict_content_md5").unwrap_or(false),
        body_memory: section.size("body_memory").unwrap_or(DEFAULT_BODY_MEMORY),
        max_event_streams: section
            .number("max_event_streams", 1, 100_000)
            .unwrap_or(DEFAULT_EVENT_STREAMS),
    };
    if config.body_memory < LEAST_BODY_MEMORY {
        section.problem("body_memory", "must be at least 8MiB");
    }
    section.finish();
    config
}

/// A path made absolute against the working directory, so that a later change of directory cannot move it.
pub(super) fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

fn parse_listen(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}").parse().ok(),
        None => text.parse().ok(),
    }
}

fn parse_public_url(text: &str) -> Option<Url> {
    let url = Url::parse(text.trim_end_matches('/')).ok()?;
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && plain).then_some(url)
}

/// An origin in the spelling that browsers send: scheme and host in lower case, no path, no default port.
fn parse_origin(text: &str) -> Option<String> {
    if text == "*" {
        return Some(text.to_owned());
    }
    let url = parse_public_url(text)?;
    (url.path() == "/").then(|| url.origin().ascii_serialization())
}
