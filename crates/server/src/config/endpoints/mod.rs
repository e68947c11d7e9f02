//! `[endpoints.NAME]`: what can be called, and how it is run.

mod frontend;
mod limits;
mod process;
mod queue;
mod remote;
mod scaling;
mod warmup;

use std::collections::BTreeMap;

use darkroom_core::{
    Endpoint, EndpointName,
    endpoint::{Backend, Kind, OnExit, ProcessSpec},
};
use toml::{Table, Value};

pub use self::process::comfyui_process;
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
    let runs_a_process = section.has("command") || section.has("handler");
    let default_backend = match kind {
        Kind::Comfyui => BackendWord::Process,
        Kind::Worker | Kind::Queue if runs_a_process => BackendWord::Process,
        Kind::Worker | Kind::Queue => BackendWord::External,
    };
    let word = section.choice("backend", BACKENDS).unwrap_or(default_backend);
    let process = read_process(&mut section, word, kind);
    let servers = remote::read(&mut section, word == BackendWord::Remote);
    let backend = match word {
        BackendWord::Process => Backend::Process(process),
        BackendWord::Remote => {
            if kind == Kind::Queue {
                section.problem(
                    "backend",
                    "remote servers are ComfyUIs or programs that answer HTTP: kind must be \"comfyui\" or \"worker\"",
                );
            }
            Backend::Remote { servers }
        }
        BackendWord::External => Backend::External,
        BackendWord::Container | BackendWord::Kubernetes => {
            section.problem(
                "backend",
                "container and kubernetes are not supported by this version; use \"process\", \"remote\", or \"external\" with `darkroom agent`",
            );
            Backend::External
        }
    };
    let embedded = matches!(&backend, Backend::Process(spec) if spec.command.is_empty());
    let frontend = frontend::read(&mut section, kind, &backend);
    let warmup = warmup::read(&mut section, kind, &backend);
    section.not_yet("sink");
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
        Backend::Remote { servers } => Some(servers.len().max(1)),
        Backend::External => None,
    };
    let on_exit = match &backend {
        // What somebody else runs goes on without us; the next server takes its jobs up again.
        Backend::Remote { .. } => OnExit::Keep,
        Backend::Process(_) | Backend::External => OnExit::Stop,
    };
    let scaling = scaling::read(section.section("scaling"), embedded, most_instances, on_exit);
    let limits = limits::read(section.section("limits"));
    let queue = queue::read(section.section("queue"));
    section.finish();
    Endpoint {
        name,
        kind,
        backend,
        gpus,
        frontend,
        warmup,
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
