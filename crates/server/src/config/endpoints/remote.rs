//! `urls`: ComfyUI servers (or workers that answer HTTP) that somebody else runs, each a URL or `{ url, name, header = { NAME = "value" } }`.

use std::collections::{BTreeMap, BTreeSet};

use darkroom_core::endpoint::RemoteServer;
use http::{HeaderName, HeaderValue};
use toml::{Table, Value};
use url::Url;

use crate::config::reader::Section;

/// Reads `urls`; `wanted`: the backend is `remote`, so that it must be there.
pub(super) fn read(section: &mut Section<'_>, wanted: bool) -> Vec<RemoteServer> {
    let given = section.has("urls");
    let entries = match section.value("urls") {
        None => Vec::new(),
        Some(Value::Array(entries)) => entries,
        Some(other) => vec![other],
    };
    match (wanted, given) {
        (true, false) => section.problem(
            "urls",
            "is missing: backend = \"remote\" needs the URLs of its servers",
        ),
        (true, true) if entries.is_empty() => section.problem("urls", "must not be empty"),
        (true, true) | (false, false) => {}
        (false, true) => section.problem("urls", "belongs to backend = \"remote\""),
    }
    let mut servers: Vec<RemoteServer> = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let key = format!("urls[{index}]");
        let server = match entry {
            Value::String(text) => url(&text).map(RemoteServer::new),
            Value::Table(table) => from_table(section, &key, table),
            _ => {
                Err("expected a URL like \"http://gpu-box:8188\", or { url = …, header = { … } }".to_owned())
            }
        };
        match server {
            Ok(server) => servers.push(server),
            Err(problem) => section.problem(&key, problem),
        }
    }
    check_unique(section, &servers);
    servers
}

/// A URL of a ComfyUI.
///
/// # Errors
/// What is wrong with it.
pub fn url(text: &str) -> Result<String, String> {
    match Url::parse(text) {
        Ok(url) if !url.username().is_empty() || url.password().is_some() => Err(
            "must not hold a name or password; give them as header = { authorization = \"Basic …\" }"
                .to_owned(),
        ),
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none() => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err(format!(
            "expected a URL like \"http://gpu-box:8188\", got \"{text}\""
        )),
    }
}

fn from_table(section: &Section<'_>, key: &str, mut table: Table) -> Result<RemoteServer, String> {
    let address = match table.remove("url") {
        Some(Value::String(text)) => url(&text)?,
        _ => return Err("needs url = \"http://gpu-box:8188\"".to_owned()),
    };
    let mut server = RemoteServer::new(address);
    match table.remove("name") {
        None => {}
        Some(Value::String(name)) if is_box_name(&name) => server.name = name,
        Some(_) => return Err("name: expected a text of at most 63 characters".to_owned()),
    }
    server.headers = match table.remove("header") {
        None => BTreeMap::new(),
        Some(Value::Table(pairs)) => headers(pairs)?,
        Some(_) => return Err("header: expected { NAME = \"value\" }".to_owned()),
    };
    for unknown in table.keys() {
        section.problem(
            &format!("{key}.{unknown}"),
            "unknown key; there are url, name, header",
        );
    }
    Ok(server)
}

/// Whether a text may name a box: something to print on one line.
pub fn is_box_name(name: &str) -> bool {
    !name.is_empty() && name.chars().count() <= 63 && !name.chars().any(char::is_control)
}

/// Values are secrets, so that messages name only the header.
fn headers(pairs: Table) -> Result<BTreeMap<String, String>, String> {
    let mut all = BTreeMap::new();
    for (name, value) in pairs {
        let Value::String(value) = value else {
            return Err(format!("header.{name}: expected a text"));
        };
        check_header(&name, &value)?;
        all.insert(name, value);
    }
    Ok(all)
}

/// Whether a header can be sent.
///
/// # Errors
/// Which cannot; never its value.
pub fn check_header(name: &str, value: &str) -> Result<(), String> {
    HeaderName::try_from(name).map_err(|_| format!("header.{name}: is no name of a header"))?;
    HeaderValue::try_from(value).map_err(|_| format!("header.{name}: its value cannot be sent"))?;
    Ok(())
}

/// Two instances on one server would take each other's place in its queue.
fn check_unique(section: &Section<'_>, servers: &[RemoteServer]) {
    let (mut names, mut urls) = (BTreeSet::new(), BTreeSet::new());
    for (index, server) in servers.iter().enumerate() {
        let key = format!("urls[{index}]");
        if !urls.insert(&server.url) {
            section.problem(&key, format!("{} is listed twice", server.url));
        } else if !names.insert(&server.name) {
            section.problem(
                &key,
                format!("another server has the name '{}' already", server.name),
            );
        }
    }
}
