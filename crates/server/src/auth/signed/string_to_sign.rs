//! The text that is signed: the gateway's general rule, of which the SDK's requests are a case.

use super::Signed;

/// What the Java SDK signs, also where it sends another type (`protocols/speedpix.md` §2).
const SDK_CONTENT_TYPE: &str = "application/json; charset=utf-8";
/// Headers that have lines of their own, or none.
const NOT_AMONG_SIGNED: [&str; 7] = [
    "x-ca-signature",
    "x-ca-signature-headers",
    "accept",
    "content-md5",
    "content-type",
    "date",
    "",
];

/// Methods that sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Sha256,
    Sha1,
}

impl Algorithm {
    /// `None`: another one than the gateway has.
    pub(super) fn of(header: Option<&str>) -> Option<Self> {
        match header {
            None | Some("HmacSHA256") => Some(Algorithm::Sha256),
            Some("HmacSHA1") => Some(Algorithm::Sha1),
            Some(_) => None,
        }
    }
}

/// The texts that a right signature may be of, the most likely first: clients differ in whether they sign the path with
/// what stands before it, the query in its own order or sorted, and the type that they send.
pub(super) fn candidates(request: &Signed<'_>, names: &SignedNames, prefix: &str) -> Vec<String> {
    let mut paths = vec![own_path(request.path, prefix)];
    push_new(&mut paths, request.path);
    let mut targets = Vec::new();
    for path in paths {
        match request.query.filter(|query| !query.is_empty()) {
            None => targets.push(path.to_owned()),
            Some(query) => {
                targets.push(format!("{path}?{query}"));
                let sorted = format!("{path}?{}", sorted(query));
                if !targets.contains(&sorted) {
                    targets.push(sorted);
                }
            }
        }
    }
    let mut types = vec![request.header("content-type").unwrap_or_default()];
    push_new(&mut types, SDK_CONTENT_TYPE);
    let headers = names.lines(request);
    let mut texts = Vec::new();
    for content_type in types {
        for target in &targets {
            texts.push(format!(
                "{}\n{}\n{}\n{content_type}\n{}\n{headers}{target}",
                request.method,
                request.header("accept").unwrap_or_default(),
                request.header("content-md5").unwrap_or_default(),
                request.header("date").unwrap_or_default(),
            ));
        }
    }
    texts
}

fn push_new<'a>(list: &mut Vec<&'a str>, one: &'a str) {
    if !list.contains(&one) {
        list.push(one);
    }
}

/// The path without a configured prefix, and with one slash at its beginning: an endpoint that ends in one makes two.
fn own_path<'a>(path: &'a str, prefix: &str) -> &'a str {
    let path = match path.strip_prefix(prefix) {
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    };
    match path.trim_start_matches('/') {
        rest if path.starts_with('/') => &path[path.len() - rest.len() - 1..],
        _ => path,
    }
}

/// The headers that a client says it signed, in lower case, sorted.
pub(super) struct SignedNames(Vec<String>);

impl SignedNames {
    /// As the request says it.
    pub(super) fn of(request: &Signed<'_>) -> Self {
        let names = request.header("x-ca-signature-headers").unwrap_or_default();
        let mut names: Vec<String> = names
            .split(',')
            .map(|name| name.trim().to_ascii_lowercase())
            .collect();
        names.sort();
        names.dedup();
        SignedNames(names)
    }

    /// Whether all of these are among them.
    pub(super) fn hold(&self, wanted: &[&str]) -> bool {
        wanted
            .iter()
            .all(|wanted| self.0.iter().any(|name| name == wanted))
    }

    /// `name:value` lines.
    fn lines(&self, request: &Signed<'_>) -> String {
        let names = self
            .0
            .iter()
            .filter(|name| !NOT_AMONG_SIGNED.contains(&name.as_str()));
        names
            .map(|name| format!("{name}:{}\n", request.header(name).unwrap_or_default()))
            .collect()
    }
}

/// By key, the first value of each, a key alone where the value is empty.
fn sorted(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if !pairs.iter().any(|(known, _)| *known == key) {
            pairs.push((key.into_owned(), value.into_owned()));
        }
    }
    pairs.sort();
    let shown = pairs.into_iter().map(|(key, value)| match value.is_empty() {
        true => key,
        false => format!("{key}={value}"),
    });
    shown.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_signed_without_what_stands_before_it() {
        assert_eq!(own_path("/scc/x", ""), "/scc/x");
        assert_eq!(own_path("//scc/x", ""), "/scc/x");
        assert_eq!(own_path("/gpu/scc/x", "/gpu"), "/scc/x");
        assert_eq!(own_path("/gpuscc/x", "/gpu"), "/gpuscc/x");
        assert_eq!(own_path("/", ""), "/");
    }

    #[test]
    fn a_query_is_sorted_by_the_gateways_rule() {
        assert_eq!(sorted("b=2&a=1&b=3&c"), "a=1&b=2&c");
        assert_eq!(sorted("k=%20x"), "k= x");
    }
}
