//! Fetching what a caller names, and telling whom a caller names: the only ways a request makes this server open a
//! connection.
//!
//! A fetch reaches only the public internet and what `[fetch] allow` opens. Names are resolved through a resolver that
//! drops every other address, and the connection uses that very answer, so a name cannot change its mind in between.
//! Redirects are followed by hand and checked again.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use reqwest::{
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use url::{Host, Url};

pub mod address;
mod freshness;
mod post;

use address::is_public;
use freshness::fresh_for;

use crate::{
    config::HostOrCidr,
    memory::{BodyMemory, Budget, Exhausted, Held, next_step},
};

/// Redirects followed before it is called a loop.
const MAX_REDIRECTS: usize = 5;

/// The operator's rules.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Host names and ranges that may be private.
    pub allow: Vec<HostOrCidr>,
    /// Host names and ranges that are never reached, also where `allow` opens them.
    pub deny: Vec<HostOrCidr>,
    /// Largest body, in bytes.
    pub max_bytes: u64,
    /// Bound on the whole fetch.
    pub timeout: Duration,
}

impl Rules {
    fn host_is_open(&self, host: &str) -> bool {
        names(&self.allow, host)
    }

    /// A denied name denies what lies below it, too.
    fn host_is_denied(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        let mut at_dots = host.match_indices('.').map(|(at, _)| &host[at + 1..]);
        names(&self.deny, host) || at_dots.any(|above| names(&self.deny, above))
    }

    fn address_is_open(&self, address: IpAddr) -> bool {
        is_public(address) || holds(&self.allow, address)
    }

    fn address_is_denied(&self, address: IpAddr) -> bool {
        holds(&self.deny, address)
    }
}

fn names(list: &[HostOrCidr], host: &str) -> bool {
    list.iter()
        .any(|one| matches!(one, HostOrCidr::Host(name) if name.eq_ignore_ascii_case(host)))
}

fn holds(list: &[HostOrCidr], address: IpAddr) -> bool {
    list.iter()
        .any(|one| matches!(one, HostOrCidr::Net(net) if net.contains(address)))
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not an address we fetch from.
    #[error("'{0}' is not an http or https address")]
    BadUrl(String),
    /// The rules forbid it.
    #[error("{0} is not a public address (see [fetch] allow)")]
    Forbidden(String),
    /// The operator denies it.
    #[error("{0} may not be reached (see [fetch] deny)")]
    Denied(String),
    /// It answered something else than success.
    #[error("got status code {status}")]
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// Nothing came.
    #[error("the body is empty")]
    Empty,
    /// More came than is allowed.
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
    /// It redirects to where we do not go.
    #[error("it redirects to '{0}', which is not followed")]
    BadRedirect(String),
    /// Redirected too often.
    #[error("redirected more than {MAX_REDIRECTS} times")]
    RedirectLoop,
    /// Too many bytes are being fetched for others.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// It took too long.
    #[error("not answered within {0:?}")]
    Timeout(Duration),
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Connection(String),
}

/// What came.
#[derive(Debug)]
pub struct Fetched {
    /// The body.
    pub bytes: Bytes,
    /// The memory for it.
    pub held: Held,
    /// How long it may be used without asking again.
    pub fresh_for: Duration,
}

/// Fetches under rules.
#[derive(Debug, Clone)]
pub struct Fetcher {
    client: reqwest::Client,
    rules: Arc<Rules>,
    /// Of `[fetch] max_bytes`: one of the largest files at a time, or many small ones.
    memory: Budget,
}

impl Fetcher {
    /// A fetcher.
    ///
    /// # Errors
    /// When no TLS client can be made.
    pub fn new(rules: Rules) -> Result<Self, reqwest::Error> {
        Fetcher::resolving(rules, Arc::new(SystemNames))
    }

    /// As [`Fetcher::new`], asking somebody else for addresses.
    fn resolving(rules: Rules, names: Arc<dyn Names>) -> Result<Self, reqwest::Error> {
        let rules = Arc::new(rules);
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(rules.timeout.min(Duration::from_secs(10)))
            .timeout(rules.timeout)
            .dns_resolver(Arc::new(GuardedResolver {
                rules: rules.clone(),
                names,
            }))
            .user_agent(concat!("darkroom/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let memory = Budget::new(rules.max_bytes);
        Ok(Fetcher {
            client,
            rules,
            memory,
        })
    }

    /// The memory for what is fetched.
    #[cfg(test)]
    pub fn memory(&self) -> &Budget {
        &self.memory
    }

    /// The largest body it takes, in bytes.
    pub fn max_bytes(&self) -> u64 {
        self.rules.max_bytes
    }

    /// Bound on one fetch.
    pub fn timeout(&self) -> Duration {
        self.rules.timeout
    }

    /// Checks what can be checked without the network: scheme, credentials, literal addresses.
    ///
    /// # Errors
    /// [`Error::BadUrl`] or [`Error::Forbidden`].
    pub fn check(&self, url: &str) -> Result<Url, Error> {
        let bad = || Error::BadUrl(shown(url));
        let url = Url::parse(url).map_err(|_| bad())?;
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some()
        {
            return Err(bad());
        }
        if let Some(host) = url.host_str().filter(|host| self.rules.host_is_denied(host)) {
            return Err(Error::Denied(host.to_owned()));
        }
        let address = match url.host().ok_or_else(bad)? {
            Host::Ipv4(v4) => IpAddr::V4(v4),
            Host::Ipv6(v6) => IpAddr::V6(v6),
            Host::Domain(_) => return Ok(url),
        };
        if self.rules.address_is_denied(address) {
            return Err(Error::Denied(address.to_string()));
        }
        let open =
            self.rules.address_is_open(address) || url.host_str().is_some_and(|h| self.rules.host_is_open(h));
        if open {
            Ok(url)
        } else {
            Err(Error::Forbidden(address.to_string()))
        }
    }

    #[cfg(test)]
    async fn get(&self, url: &str) -> Result<Bytes, Error> {
        self.get_within(url, self.rules.max_bytes)
            .await
            .map(|fetched| fetched.bytes)
    }

    /// Fetches the whole body, of at most `limit` bytes.
    ///
    /// # Errors
    /// See [`Error`]; texts name hosts and statuses, never headers or bodies.
    pub async fn get_within(&self, url: &str, limit: u64) -> Result<Fetched, Error> {
        // The client's timeout bounds one hop; this bounds the chain of redirects.
        tokio::time::timeout(self.rules.timeout, self.follow(url, limit))
            .await
            .map_err(|_| Error::Timeout(self.rules.timeout))?
    }

    async fn follow(&self, url: &str, limit: u64) -> Result<Fetched, Error> {
        let mut url = self.check(url)?;
        // Where a redirect may lead elsewhere tomorrow, how long the file lasts says nothing.
        let mut for_good = true;
        for _ in 0..=MAX_REDIRECTS {
            let response = self
                .client
                .get(url.clone())
                .send()
                .await
                .map_err(|e| self.connection(&e))?;
            let status = response.status();
            if status.is_redirection() {
                let location = response.headers().get("location").and_then(|l| l.to_str().ok());
                let next = location.and_then(|l| url.join(l).ok());
                let next = next.ok_or(Error::Status {
                    status: status.as_u16(),
                })?;
                for_good &= matches!(status.as_u16(), 301 | 308);
                url = self.check(next.as_str())?;
                continue;
            }
            if !status.is_success() {
                return Err(Error::Status {
                    status: status.as_u16(),
                });
            }
            let fresh_for = match for_good {
                true => fresh_for(response.headers()),
                false => Duration::ZERO,
            };
            let (bytes, held) = self.body(response, limit).await?;
            return Ok(Fetched {
                bytes,
                held,
                fresh_for,
            });
        }
        Err(Error::RedirectLoop)
    }

    async fn body(&self, mut response: reqwest::Response, limit: u64) -> Result<(Bytes, Held), Error> {
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(Error::TooLarge(limit));
        }
        let most = response.content_length().unwrap_or(limit);
        let mut covered = BodyMemory::small_bytes().min(most);
        let mut held = self.memory.hold(covered).await?;
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.connection(&e))? {
            if (body.len() + chunk.len()) as u64 > limit {
                return Err(Error::TooLarge(limit));
            }
            if (body.len() + chunk.len()) as u64 > covered {
                covered = next_step(covered, (body.len() + chunk.len()) as u64, most);
                held = self.memory.grow(held, covered).await?;
            }
            body.extend_from_slice(&chunk);
        }
        if body.is_empty() {
            Err(Error::Empty)
        } else {
            Ok((body.freeze(), held))
        }
    }

    fn connection(&self, error: &reqwest::Error) -> Error {
        if error.is_timeout() {
            return Error::Timeout(self.rules.timeout);
        }
        // The refusal of the guarded resolver is somewhere in the chain of causes.
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        let mut innermost = String::new();
        while let Some(error) = cause {
            if let Some(refused) = error.downcast_ref::<NoPublicAddress>() {
                return Error::Forbidden(refused.0.clone());
            }
            innermost = error.to_string();
            cause = error.source();
        }
        Error::Connection(innermost)
    }
}

/// A name that resolves to nothing we may reach.
#[derive(Debug, thiserror::Error)]
#[error("{0} has no public address")]
struct NoPublicAddress(String);

/// Who knows the addresses of names.
trait Names: Send + Sync {
    fn addresses(&self, host: String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>>;
}

/// The system's resolver.
struct SystemNames;

impl Names for SystemNames {
    fn addresses(&self, host: String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.collect()) })
    }
}

struct GuardedResolver {
    rules: Arc<Rules>,
    names: Arc<dyn Names>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let rules = self.rules.clone();
        let host = name.as_str().to_owned();
        let answers = self.names.addresses(host.clone());
        Box::pin(async move {
            let any = rules.host_is_open(&host);
            let may = |address: IpAddr| {
                (any || rules.address_is_open(address)) && !rules.address_is_denied(address)
            };
            let answers = answers.await?.into_iter();
            let open: Vec<SocketAddr> = answers.filter(|answer| may(answer.ip())).collect();
            if open.is_empty() {
                return Err(NoPublicAddress(host).into());
            }
            Ok(Box::new(open.into_iter()) as Addrs)
        })
    }
}

/// What an error text may quote of an address: never its query, which may hold a signature, nor a user's password.
pub fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or("");
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let end = rest.find('/').unwrap_or(rest.len());
    let host_at = rest[..end].rfind('@').map_or(0, |at| at + 1);
    let separator = if scheme.is_empty() { "" } else { "://" };
    let shown = format!("{scheme}{separator}{}", &rest[host_at..]);
    shown.chars().take(120).collect()
}

/// Scheme and host of an address: what a log may hold of one whose path may be a secret.
pub fn host_shown(url: &str) -> String {
    let shown = shown(url);
    let host_at = shown.find("://").map_or(0, |at| at + 3);
    let end = shown[host_at..].find('/').map_or(shown.len(), |at| host_at + at);
    shown[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    fn rules(allow: &[&str], deny: &[&str]) -> Rules {
        let parsed = |list: &[&str]| list.iter().map(|one| one.parse().unwrap()).collect();
        Rules {
            allow: parsed(allow),
            deny: parsed(deny),
            max_bytes: 1000,
            timeout: Duration::from_secs(60),
        }
    }

    fn fetcher(allow: &[&str]) -> Fetcher {
        Fetcher::new(rules(allow, &[])).unwrap()
    }

    /// A resolver that changes its mind with every question, and counts them.
    struct Rebinding {
        answers: Vec<Vec<IpAddr>>,
        asked: AtomicUsize,
    }

    impl Rebinding {
        fn new(answers: &[&[&str]]) -> Arc<Self> {
            let parsed = |one: &&[&str]| one.iter().map(|a| a.parse().unwrap()).collect();
            Arc::new(Rebinding {
                answers: answers.iter().map(parsed).collect(),
                asked: AtomicUsize::new(0),
            })
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    impl Names for Rebinding {
        fn addresses(&self, _: String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> {
            let asked = self.asked.fetch_add(1, Ordering::SeqCst);
            let answer = &self.answers[asked.min(self.answers.len() - 1)];
            let answer = answer.iter().map(|ip| SocketAddr::new(*ip, 0)).collect();
            Box::pin(std::future::ready(Ok(answer)))
        }
    }

    #[tokio::test]
    async fn a_name_cannot_change_its_mind_between_the_check_and_the_connection() {
        // The harmless server is one that the operator opened; the secret one listens at the same port of another address.
        let again =
            "HTTP/1.1 302 Found\r\nlocation: /again\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let secret = answers(ok("secret")).await;
        answers_at(&format!("127.0.0.2:{}", secret.port()), again.to_owned()).await;
        let url = format!("http://rebind.example:{}/", secret.port());
        let open = rules(&["127.0.0.2/32"], &[]);
        // At first the one, for the redirect's connection the other.
        let names = Rebinding::new(&[&["127.0.0.2"], &["127.0.0.1"]]);
        let fetcher = Fetcher::resolving(open.clone(), names.clone()).unwrap();
        let result = fetcher.get(&url).await;
        assert!(matches!(result, Err(Error::Forbidden(_))), "{result:?}");
        assert_eq!(
            names.asked(),
            2,
            "once for each connection, which uses the very answer"
        );
        // Both in one answer: the forbidden one is not even tried.
        let names = Rebinding::new(&[&["127.0.0.1", "::1", "169.254.169.254", "127.0.0.2"]]);
        let fetcher = Fetcher::resolving(open, names).unwrap();
        let result = fetcher.get(&url).await;
        assert!(matches!(result, Err(Error::RedirectLoop)), "{result:?}");
        for private in [
            "127.0.0.1",
            "10.0.0.7",
            "::ffff:127.0.0.1",
            "fd00::1",
            "169.254.169.254",
        ] {
            let names = Rebinding::new(&[&[private]]);
            let fetcher = Fetcher::resolving(rules(&[], &[]), names).unwrap();
            let result = fetcher.get(&url).await;
            assert!(
                matches!(result, Err(Error::Forbidden(_))),
                "{private}: {result:?}"
            );
        }
    }

    #[tokio::test]
    async fn what_is_denied_is_not_reached_under_any_name() {
        let plain = answers(ok("hello")).await;
        let deny = ["evil.example", "127.0.0.1/32", "192.0.2.0/24"];
        let names = Rebinding::new(&[&["127.0.0.1"]]);
        let allow = ["127.0.0.0/8", "good.example"];
        let fetcher = Fetcher::resolving(rules(&allow, &deny), names.clone()).unwrap();
        for host in [
            "evil.example",
            "a.b.evil.example",
            "EVIL.example.",
            "127.0.0.1",
            "[::ffff:127.0.0.1]",
        ] {
            let url = format!("http://{host}:{}/", plain.port());
            let result = fetcher.get(&url).await;
            assert!(matches!(result, Err(Error::Denied(_))), "{host}: {result:?}");
        }
        assert_eq!(names.asked(), 0);
        let url = format!("http://good.example:{}/", plain.port());
        let result = fetcher.get(&url).await;
        assert!(
            matches!(result, Err(Error::Forbidden(_))),
            "by its address: {result:?}"
        );
        assert!(fetcher.check("http://notevil.example/").is_ok());
    }

    /// Answers every connection with these bytes.
    async fn answers(bytes: String) -> SocketAddr {
        answers_at("127.0.0.1:0", bytes).await
    }

    async fn answers_at(address: &str, bytes: String) -> SocketAddr {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = socket.read(&mut request).await;
                let _ = socket.write_all(bytes.as_bytes()).await;
            }
        });
        address
    }

    fn ok(body: &str) -> String {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    }

    #[test]
    fn texts_quote_neither_queries_nor_passwords() {
        assert_eq!(shown("http://u:p@host:1/a.png?sig=x#y"), "http://host:1/a.png");
        assert_eq!(shown("https://u:p@w@host"), "https://host");
        assert_eq!(shown("http://host/a@b.png"), "http://host/a@b.png");
        assert_eq!(shown("nonsense"), "nonsense");
        assert_eq!(shown(&"x".repeat(500)).len(), 120);
        assert_eq!(
            host_shown("https://u:p@hooks.example:8/T0/secret?x=y"),
            "https://hooks.example:8"
        );
        assert_eq!(host_shown("https://hooks.example"), "https://hooks.example");
    }

    #[tokio::test]
    async fn private_addresses_are_refused_in_every_spelling() {
        let fetcher = fetcher(&[]);
        for url in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://[::ffff:127.0.0.1]/",
            "http://169.254.169.254/latest/meta-data/",
            "http://localhost/",
            "http://[::1]/",
        ] {
            assert!(
                matches!(fetcher.get(url).await, Err(Error::Forbidden(_))),
                "{url}"
            );
        }
        for url in [
            "file:///etc/passwd",
            "ftp://example.com/",
            "http://user:pw@8.8.8.8/",
            "nonsense",
            "gopher://x",
        ] {
            assert!(matches!(fetcher.get(url).await, Err(Error::BadUrl(_))), "{url}");
        }
    }

    #[tokio::test]
    async fn an_opened_host_is_fetched_and_a_redirect_elsewhere_is_not() {
        let plain = answers(ok("hello")).await;
        assert_eq!(
            &fetcher(&["127.0.0.1/32"])
                .get(&format!("http://{plain}/x"))
                .await
                .unwrap()[..],
            b"hello"
        );
        assert_eq!(
            &fetcher(&["localhost"])
                .get(&format!("http://localhost:{}/", plain.port()))
                .await
                .unwrap()[..],
            b"hello"
        );

        let to = "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n";
        let hop = answers(to.to_owned()).await;
        let result = fetcher(&["127.0.0.1/32"]).get(&format!("http://{hop}/")).await;
        assert!(matches!(result, Err(Error::Forbidden(_))), "{result:?}");
    }

    #[tokio::test]
    async fn bodies_are_bounded_with_and_without_a_length() {
        let long = "x".repeat(2000);
        let told = answers(ok(&long)).await;
        let untold = answers(format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{long}")).await;
        for address in [told, untold] {
            let result = fetcher(&["127.0.0.1"]).get(&format!("http://{address}/")).await;
            assert!(matches!(result, Err(Error::TooLarge(1000))), "{result:?}");
        }
    }

    /// Answers one connection in chunks of an unknown number: these bytes, and as many again once the gate opens.
    async fn slowly(bytes: usize, gate: tokio::sync::oneshot::Receiver<()>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = socket.read(&mut request).await;
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
            socket.write_all(head.as_bytes()).await.unwrap();
            socket.write_all(&vec![b'x'; bytes]).await.unwrap();
            let _ = gate.await;
            socket.write_all(&vec![b'x'; bytes]).await.unwrap();
        });
        address
    }

    #[tokio::test]
    async fn a_slow_body_holds_about_what_came_of_it_and_not_all_it_may_become() {
        let rules = Rules {
            allow: vec!["127.0.0.1".parse().unwrap()],
            deny: Vec::new(),
            max_bytes: 2 << 20,
            timeout: Duration::from_secs(60),
        };
        let fetcher = Fetcher::new(rules).unwrap();
        let get = async |address: SocketAddr| {
            let url = format!("http://{address}/");
            fetcher.get(&url).await
        };
        let (open, gate) = tokio::sync::oneshot::channel();
        let slow = slowly(300 << 10, gate).await;
        let mut first = std::pin::pin!(get(slow));
        // Until it has outgrown what it began with.
        while fetcher.memory.available() > (2 << 20) - (300 << 10) {
            tokio::select! {
                early = &mut first => panic!("{early:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
        let (open_second, gate) = tokio::sync::oneshot::channel();
        open_second.send(()).unwrap();
        let second = slowly(300 << 10, gate).await;
        let second = tokio::select! {
            second = get(second) => second,
            first = &mut first => panic!("{first:?}"),
        };
        assert_eq!(second.unwrap().len(), 600 << 10);
        open.send(()).unwrap();
        assert_eq!(first.await.unwrap().len(), 600 << 10);
        assert_eq!(fetcher.memory.available(), 2 << 20, "all is given back");
    }

    #[tokio::test]
    async fn other_statuses_empty_bodies_and_loops_are_errors() {
        let missing = answers("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".into()).await;
        let empty = answers(ok("")).await;
        let fetcher = fetcher(&["127.0.0.1"]);
        assert!(matches!(
            fetcher.get(&format!("http://{missing}/")).await,
            Err(Error::Status { status: 404 })
        ));
        assert!(matches!(
            fetcher.get(&format!("http://{empty}/")).await,
            Err(Error::Empty)
        ));
        let turn = answers(
            "HTTP/1.1 302 Found\r\nlocation: /again\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".into(),
        );
        let turn = turn.await;
        assert!(matches!(
            fetcher.get(&format!("http://{turn}/")).await,
            Err(Error::RedirectLoop)
        ));
    }
}
