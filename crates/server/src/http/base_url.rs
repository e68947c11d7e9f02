//! The base of the URLs that a caller is given.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, header};
use url::Url;

use crate::config::{Cidr, ServerConfig};

/// Finds the base URL for a caller: `public_url`, else what the caller itself used.
#[derive(Debug, Clone)]
pub struct BaseUrl {
    public: Option<String>,
    trusted_proxies: Vec<Cidr>,
    listens_on: SocketAddr,
}

impl BaseUrl {
    /// `listens_on`: the address that is really listened on.
    pub fn new(config: &ServerConfig, listens_on: SocketAddr) -> Self {
        BaseUrl {
            public: config.public_url.as_ref().map(without_slash),
            trusted_proxies: config.trusted_proxies.clone(),
            listens_on,
        }
    }

    /// For one request, without a slash at its end. `X-Forwarded-Proto` and `-Host` count only from trusted proxies.
    pub fn of(&self, headers: &HeaderMap, peer: Option<SocketAddr>) -> String {
        if let Some(public) = &self.public {
            return public.clone();
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let by_proxy = peer.is_some_and(|peer| self.trusts(peer.ip()));
        let forwarded = |name: &str| {
            // A chain of proxies appends; the first one is what the caller used.
            text(name)
                .filter(|_| by_proxy)
                .and_then(|list| list.split(',').next())
                .map(str::trim)
        };
        let scheme = match forwarded("x-forwarded-proto") {
            Some("https") => "https",
            _ => "http",
        };
        let host = forwarded("x-forwarded-host").or_else(|| text(header::HOST.as_str()));
        match host.and_then(|host| Url::parse(&format!("{scheme}://{host}")).ok()) {
            Some(url) if url.path() == "/" && url.query().is_none() && url.username().is_empty() => {
                without_slash(&url)
            }
            _ => self.local(),
        }
    }

    /// Where a request comes from: its peer, or behind trusted proxies the last one of `X-Forwarded-For` that is none.
    pub fn client(&self, headers: &HeaderMap, peer: Option<SocketAddr>) -> Option<IpAddr> {
        let peer = peer?.ip();
        let lists = headers.get_all("x-forwarded-for").into_iter();
        let lists: Vec<&str> = lists.filter_map(|list| list.to_str().ok()).collect();
        let mut client = peer;
        for before in lists.iter().rev().flat_map(|list| list.rsplit(',')) {
            if !self.trusts(client) {
                break;
            }
            match before.trim().parse() {
                Ok(address) => client = address,
                Err(_) => break,
            }
        }
        Some(client)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(address))
    }

    /// For what is written down before anybody calls: `public_url`, else the address that is listened on.
    pub fn fixed(&self) -> String {
        self.public.clone().unwrap_or_else(|| self.local())
    }

    /// For instances and workers on this machine.
    pub fn local(&self) -> String {
        let mut address = self.listens_on;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        format!("http://{address}")
    }
}

fn without_slash(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(public: Option<&str>) -> BaseUrl {
        BaseUrl {
            public: public.map(|url| without_slash(&url.parse().unwrap())),
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
            listens_on: "0.0.0.0:8288".parse().unwrap(),
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn the_callers_own_address_unless_there_is_a_public_one() {
        let request = headers(&[("host", "gpu-box:8288")]);
        assert_eq!(base(None).of(&request, None), "http://gpu-box:8288");
        assert_eq!(
            base(Some("https://gpu.example/")).of(&request, None),
            "https://gpu.example"
        );
        assert_eq!(base(None).of(&HeaderMap::new(), None), "http://127.0.0.1:8288");
        assert_eq!(
            base(None).of(&headers(&[("host", "a/b?c")]), None),
            "http://127.0.0.1:8288"
        );
    }

    #[test]
    fn only_trusted_proxies_forward() {
        let request = headers(&[
            ("host", "inner:1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "gpu.example"),
        ]);
        let from = |peer: &str| base(None).of(&request, Some(peer.parse().unwrap()));
        assert_eq!(from("10.1.2.3:4"), "https://gpu.example");
        assert_eq!(from("11.1.2.3:4"), "http://inner:1");
    }

    #[test]
    fn a_client_is_the_peer_or_the_last_before_the_trusted_proxies() {
        let client = |peer: &str, forwarded: &str| {
            let request = headers(&[("x-forwarded-for", forwarded)]);
            let client = base(None).client(&request, Some(peer.parse().unwrap()));
            client.unwrap().to_string()
        };
        assert_eq!(client("11.1.2.3:4", "1.1.1.1"), "11.1.2.3", "anybody can say so");
        assert_eq!(client("10.1.2.3:4", "1.1.1.1, 2.2.2.2, 10.0.0.9"), "2.2.2.2");
        assert_eq!(client("10.1.2.3:4", "1.1.1.1, unknown"), "10.1.2.3");
        assert_eq!(base(None).client(&HeaderMap::new(), None), None);
    }
}
