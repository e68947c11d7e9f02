//! `[endpoints.NAME]`: what can be called, and how it is run.

mod limits;
mod process;
mod queue;
mod scaling;

use std::collections::BTreeMap;

use darkroom_core::{
    Endpoint, EndpointName,
    endpoint::{Backend, Kind, ProcessSpec},
};
use toml::{Table, Value};
use url::Url;

use super::{net::is_host_name, problem::Problems, reader::Section};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BackendWord {
    Process,
    Remote,
    External,
    Container,
    Kubernetes,
}

const BACKENDS: &[(&str, BackendWord)] = &[
    ("process", BackendWord::Process),
    ("remote", BackendWord::Remote),
    ("external", BackendWord::External),
    ("container", BackendWord::Container),
    ("kubernetes", BackendWord::Kubernetes),
];

const KINDS: &[(&str, Kind)] = &[
    ("comfyui", Kind::Comfyui),
    ("worker", Kind::Worker),
    ("queue", Kind::Queue),
];

/// Reads every endpoint; no `[endpoints]` at all means one, `default`, on the embedded engine.
pub(super) fn read(section: Section<'_>) -> BTreeMap<EndpointName, Endpoint> {
    let problems = section.problems;
    let mut entries = section.into_entries();
    if entries.is_empty() {
        entries.insert("default".to_owned(), Value::Table(Table::new()));
    }
    let mut endpoints = BTreeMap::new();
    for (name, value) in entries {
        let path = format!("endpoints.{name}");
        let parsed = name.parse::<EndpointName>();
        if let Err(error) = &parsed {
            problems.add(&path, error.to_string());
        }
        let Value::Table(table) = value else {
            problems.add(&path, format!("expected a section [{path}]"));
            continue;
        };
        // Also under a bad name the rest is read, for its problems.
        let placeholder = || "default".parse().expect("'default' is a valid name");
        let read_as = parsed.as_ref().map_or_else(|_| placeholder(), Clone::clone);
        let endpoint = read_one(read_as, Section::new(path, table, problems));
        if let Ok(name) = parsed {
            endpoints.insert(name, endpoint);
        }
    }
    check_hosts(&endpoints, problems);
    endpoints
}

fn read_one(name: EndpointName, mut section: Section<'_>) -> Endpoint {
    let kind = section.choice("kind", KINDS).unwrap_or(Kind::Comfyui);
    let runs_a_process = section.has("command");
    let default_backend = match kind {
        Kind::Comfyui => BackendWord::Process,
        Kind::Worker | Kind::Queue if runs_a_process => BackendWord::Process,
        Kind::Worker | Kind::Queue => BackendWord::External,
    };
    let word = section.choice("backend", BACKENDS).unwrap_or(default_backend);
    if kind == Kind::Worker && word == BackendWord::Process {
        section.problem(
            "backend",
            "processes of workers are not supported by this version; use \"external\" and start the workers yourself",
        );
    }
    let process = read_process(&mut section, word, kind);
    let urls = read_urls(&mut section, word);
    let backend = match word {
        BackendWord::Process => Backend::Process(process),
        BackendWord::External if kind != Kind::Comfyui => Backend::External,
        BackendWord::Remote | BackendWord::External | BackendWord::Container | BackendWord::Kubernetes => {
            section.problem(
                "backend",
                "remote, external, container and kubernetes are not supported by this version; use \"process\"",
            );
            Backend::Remote { urls }
        }
    };
    let embedded = matches!(&backend, Backend::Process(spec) if spec.command.is_empty());
    for key in ["frontend", "warmup", "sink"] {
        section.not_yet(key);
    }
    let gpus = section.list("gpus").unwrap_or_default();
    if !gpus.is_empty() && word != BackendWord::Process {
        section.problem("gpus", "belongs to backend = \"process\"");
    }
    let hosts = section
        .parsed_list("hosts", "a host name without a port", |text| {
            let host = text.to_ascii_lowercase();
            is_host_name(&host).then_some(host)
        })
        .unwrap_or_default();
    let anonymous = section.flag("anonymous").unwrap_or(false);
    let anonymous_history = section.flag("anonymous_history").unwrap_or(false);
    if anonymous_history && !anonymous {
        section.problem("anonymous_history", "needs anonymous = true");
    }
    let most_instances = match &backend {
        Backend::Process(_) => (!gpus.is_empty()).then_some(gpus.len()),
        Backend::Remote { urls } => Some(urls.len().max(1)),
        Backend::External => None,
    };
    let scaling = scaling::read(section.section("scaling"), embedded, most_instances);
    let limits = limits::read(section.section("limits"));
    let queue = queue::read(section.section("queue"));
    section.finish();
    Endpoint {
        name,
        kind,
        backend,
        gpus,
        hosts,
        anonymous,
        anonymous_history,
        scaling,
        limits,
        queue,
    }
}

/// Keys of a process are wrong, not ignored, beside another backend.
fn read_process(section: &mut Section<'_>, backend: BackendWord, kind: Kind) -> ProcessSpec {
    if backend != BackendWord::Process {
        for key in process::KEYS {
            if section.has(key) {
                section.problem(key, "belongs to backend = \"process\"");
            }
        }
    }
    process::read(section, kind, backend == BackendWord::Process)
}

fn read_urls(section: &mut Section<'_>, backend: BackendWord) -> Vec<String> {
    let given = section.has("urls");
    let urls = match section.value("urls") {
        None => Vec::new(),
        Some(Value::Array(entries)) => entries,
        Some(other) => vec![other],
    };
    match (backend, given) {
        (BackendWord::Remote, false) => section.problem(
            "urls",
            "is missing: backend = \"remote\" needs the URLs of its servers",
        ),
        (BackendWord::Remote, true) if urls.is_empty() => section.problem("urls", "must not be empty"),
        (BackendWord::Remote, true) | (_, false) => {}
        (_, true) => section.problem("urls", "belongs to backend = \"remote\""),
    }
    let mut parsed = Vec::new();
    for (index, entry) in urls.into_iter().enumerate() {
        let key = format!("urls[{index}]");
        match entry {
            Value::String(text) => match Url::parse(&text) {
                Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
                    parsed.push(text.trim_end_matches('/').to_owned());
                }
                _ => section.problem(
                    &key,
                    format!("expected a URL like \"http://gpu-box:8188\", got \"{text}\""),
                ),
            },
            Value::Table(_) => section.problem(
                &key,
                "headers are not supported by this version; give the URL as a text",
            ),
            _ => section.problem(&key, "expected a URL like \"http://gpu-box:8188\""),
        }
    }
    parsed
}

/// A host name can select only one endpoint.
fn check_hosts(endpoints: &BTreeMap<EndpointName, Endpoint>, problems: &Problems) {
    let mut owners: BTreeMap<&str, &EndpointName> = BTreeMap::new();
    for (name, endpoint) in endpoints {
        for host in &endpoint.hosts {
            if let Some(owner) = owners.insert(host, name) {
                problems.add(
                    &format!("endpoints.{name}.hosts"),
                    format!("'{host}' already selects the endpoint '{owner}'"),
                );
            }
        }
    }
}
