//! Host and Origin: names of this server, and pages that may call it.

use std::net::IpAddr;

use http::{HeaderMap, Uri, header};
use url::Url;

use super::Error;

/// For a server without keys: only this machine's own names, so that a foreign page cannot reach it by a name that
/// it makes point here, nor post to it from its own origin.
pub(super) fn check_loopback(headers: &HeaderMap, uri: &Uri, cors_origins: &[String]) -> Result<(), Error> {
    let host = header_text(headers, header::HOST).unwrap_or_default();
    if !is_loopback_authority(host) {
        return Err(Error::ForeignHost {
            host: host.to_owned(),
        });
    }
    if let Some(authority) = uri.authority()
        && !is_loopback_authority(authority.as_str())
    {
        return Err(Error::ForeignHost {
            host: authority.to_string(),
        });
    }
    match origin_of(headers) {
        Some(origin) if !is_loopback_origin(&origin) && !cors_origins.contains(&origin) => {
            Err(Error::ForeignOrigin { origin })
        }
        _ => Ok(()),
    }
}

/// Where the browser attaches a credential by itself (a cookie), or none is needed: only our own pages, and listed
/// ones.
pub(super) fn check_same_origin(
    headers: &HeaderMap,
    public_url: Option<&Url>,
    cors_origins: &[String],
) -> Result<(), Error> {
    let Some(origin) = origin_of(headers) else {
        return Ok(());
    };
    let host = header_text(headers, header::HOST).unwrap_or_default();
    let ours = authority_of(&origin).is_some_and(|authority| same_authority(authority, host))
        || public_url.is_some_and(|url| url.origin().ascii_serialization() == origin)
        || cors_origins.contains(&origin);
    if ours {
        Ok(())
    } else {
        Err(Error::ForeignOrigin { origin })
    }
}

/// The Origin header, lower case; one that is not text counts as foreign.
fn origin_of(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::ORIGIN)?;
    Some(value.to_str().unwrap_or("?").to_ascii_lowercase())
}

fn is_loopback_origin(origin: &str) -> bool {
    authority_of(origin).is_some_and(is_loopback_authority)
}

fn authority_of(origin: &str) -> Option<&str> {
    origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))
}

/// `localhost:8288`, `127.0.0.1`, `[::1]:80`, `comfy.localhost`. Anything else, also nothing, is not.
pub fn is_loopback_authority(authority: &str) -> bool {
    let Some(host) = host_part(authority) else {
        return false;
    };
    let host = host.to_ascii_lowercase();
    let name = host.strip_suffix('.').unwrap_or(&host);
    if name == "localhost" || name.ends_with(".localhost") {
        return true;
    }
    let address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(&host);
    address
        .parse::<IpAddr>()
        .is_ok_and(|address| address.to_canonical().is_loopback())
}

/// The host without its port; `None` when the port is none or there is more than host and port.
fn host_part(authority: &str) -> Option<&str> {
    if authority.contains(['@', '/', '?', '#']) {
        return None;
    }
    let port_at = match authority.rfind(']') {
        Some(end) => authority[end..].find(':').map(|i| end + i),
        None => authority.find(':'),
    };
    match port_at {
        None => Some(authority),
        Some(at) => authority[at + 1..].parse::<u16>().ok().map(|_| &authority[..at]),
    }
}

/// Whether two authorities name the same place, when default ports are left away.
fn same_authority(a: &str, b: &str) -> bool {
    let strip = |text: &str| {
        let text = text.to_ascii_lowercase();
        [":80", ":443"]
            .iter()
            .find_map(|port| text.strip_suffix(port).map(str::to_owned))
            .unwrap_or(text)
    };
    strip(a) == strip(b)
}

fn header_text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: &str, origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        headers
    }

    #[test]
    fn loopback_names() {
        for good in [
            "localhost",
            "LOCALHOST:8288",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:80",
            "[::1]",
            "a.localhost:3",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_loopback_authority(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "10.0.0.1",
            "notlocalhost",
            "localhost:80:80",
            "localhost:x",
            "[::2]",
            "0.0.0.0",
            "127.1",
        ] {
            assert!(!is_loopback_authority(bad), "{bad}");
        }
    }

    #[test]
    fn without_keys_only_pages_of_this_machine_may_call() {
        let uri = Uri::from_static("/x");
        let check =
            |host, origin| check_loopback(&headers(host, origin), &uri, &["https://app.example".to_owned()]);
        assert_eq!(check("127.0.0.1:8288", None), Ok(()));
        assert_eq!(check("localhost:8288", Some("http://localhost:3000")), Ok(()));
        assert_eq!(check("localhost:8288", Some("https://app.example")), Ok(()));
        assert!(matches!(
            check("evil.example:8288", None),
            Err(Error::ForeignHost { .. })
        ));
        for origin in [
            "https://evil.example",
            "null",
            "http://localhost.evil.example",
            "file://",
            "localhost",
        ] {
            assert!(
                matches!(
                    check("localhost:8288", Some(origin)),
                    Err(Error::ForeignOrigin { .. })
                ),
                "{origin}"
            );
        }
        let absolute = Uri::from_static("http://evil.example/x");
        assert!(check_loopback(&headers("localhost", None), &absolute, &[]).is_err());
        assert!(check_loopback(&HeaderMap::new(), &uri, &[]).is_err());
    }

    #[test]
    fn a_cookie_counts_only_for_our_own_pages() {
        let public: Url = "https://gpu.example".parse().unwrap();
        let check = |host, origin| check_same_origin(&headers(host, origin), Some(&public), &[]);
        assert_eq!(check("10.0.0.5:8288", None), Ok(()));
        assert_eq!(check("10.0.0.5:8288", Some("http://10.0.0.5:8288")), Ok(()));
        assert_eq!(check("10.0.0.5:8288", Some("https://gpu.example")), Ok(()));
        assert_eq!(check("box", Some("http://BOX")), Ok(()));
        assert!(check("10.0.0.5:8288", Some("http://10.0.0.5:3000")).is_err());
        assert!(check("10.0.0.5:8288", Some("null")).is_err());
    }
}
