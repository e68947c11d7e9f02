//! The room rules of ARCHITECTURE.md, checked over manifests and source lines: who may use whom.
//!
//! Cargo already refuses a cycle between crates; it cannot refuse a dependency that only the design forbids, nor one
//! module of the server reaching into another. A violation names the rule, the file, and the line.

mod paths;

use std::{
    fs,
    path::{Path, PathBuf},
};

use self::paths::{Mention, mentions};

/// Which of our crates each crate may depend on (not counting dev-dependencies). `ambient`, the reader of clock and
/// randomness, belongs at the edges; `core` uses nothing of ours.
const CRATES: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("ambient", &["core"]),
    ("comfy", &["core"]),
    ("store", &["core", "ambient"]),
    ("store-powerloss", &[]),
    ("blobs", &["core", "ambient"]),
    ("instances", &["core", "ambient"]),
    ("engine", &["core", "ambient", "comfy"]),
    ("runner", &["core", "ambient", "comfy"]),
    (
        "server",
        &[
            "core",
            "ambient",
            "comfy",
            "store",
            "blobs",
            "instances",
            "runner",
        ],
    ),
    ("agent", &["core", "ambient", "comfy", "instances", "runner"]),
    (
        "cli",
        &[
            "core", "ambient", "comfy", "engine", "runner", "server", "store", "agent",
        ],
    ),
];

/// What `core` must not depend on: it is pure.
const NOT_IN_CORE: &[&str] = &[
    "tokio",
    "rusqlite",
    "reqwest",
    "axum",
    "getrandom",
    "rand",
    "async-trait",
    "futures",
    "rustix",
    "tracing",
];

/// One rule inside the server: files under `inside` (relative to `crates/server/src`), but not under `except`, must
/// not mention any of `words`.
struct Rule {
    name: &'static str,
    inside: &'static str,
    except: &'static [&'static str],
    words: &'static [&'static str],
}

const SERVER_RULES: &[Rule] = &[
    Rule {
        name: "protocols never use store, instances or control: they call service",
        inside: "protocols/",
        except: &[],
        words: &[
            "darkroom_store",
            "darkroom_instances",
            "darkroom_blobs",
            "crate::control",
        ],
    },
    Rule {
        name: "service never sees axum: it is called by every protocol and by tests without HTTP",
        inside: "service/",
        except: &[],
        words: &["axum", "crate::protocols", "crate::http", "crate::control"],
    },
    Rule {
        name: "control alone calls instances (app.rs builds the backends and hands them over)",
        inside: "",
        except: &["control/", "app.rs"],
        words: &["darkroom_instances"],
    },
    Rule {
        name: "control never sees axum or a protocol",
        inside: "control/",
        except: &[],
        words: &["axum", "crate::protocols"],
    },
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the workspace")
        .to_owned()
}

/// Names under `[dependencies]` of a manifest (not dev- or build-dependencies).
fn dependencies(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside =
                line == "[dependencies]" || line.starts_with("[target.") && line.ends_with(".dependencies]");
            if let Some(name) = line.strip_prefix("[dependencies.") {
                names.push(name.trim_end_matches(']').to_owned());
            }
        } else if inside && let Some(end) = line.find(['.', '=', ' ']) {
            names.push(line[..end].to_owned());
        }
    }
    names
}

fn manifest_violations(name: &str, manifest: &str) -> Vec<String> {
    let Some((_, allowed)) = CRATES.iter().find(|(known, _)| *known == name) else {
        return vec![format!(
            "crates/{name}: a crate without a rule; say in rooms.rs whom it may use"
        )];
    };
    let mut found = Vec::new();
    for dependency in dependencies(manifest) {
        if let Some(ours) = dependency.strip_prefix("darkroom-")
            && !allowed.contains(&ours)
        {
            found.push(format!(
                "crates/{name}/Cargo.toml uses {dependency}; rule: {name} may use only {allowed:?} of ours"
            ));
        }
        if name == "core" && NOT_IN_CORE.contains(&dependency.as_str()) {
            found.push(format!(
                "crates/core/Cargo.toml uses {dependency}; rule: core is pure, without IO, clock and randomness"
            ));
        }
    }
    found
}

/// `file` is relative to `crates/server/src`, with `/`.
fn server_violations(file: &str, source: &str) -> Vec<String> {
    let mut found = Vec::new();
    for mention in mentions(file, source) {
        for rule in SERVER_RULES {
            if file.starts_with(rule.inside)
                && !rule.except.iter().any(|except| file.starts_with(except))
                && rule.words.iter().any(|word| is_within(&mention.path, word))
            {
                found.push(violation(file, &mention, rule.name));
            }
        }
        if let Some(own) = protocol_of(file)
            && is_within(&mention.path, "crate::protocols")
            && !is_within(&mention.path, &format!("crate::protocols::{own}"))
        {
            let rule = "protocols never use each other: what two need is an operation of service";
            found.push(violation(file, &mention, rule));
        }
        // Under another name for the root, every door is open.
        if ["crate", "crate::*"].contains(&mention.path.as_str()) {
            found.push(violation(
                file,
                &mention,
                "paths begin at a room, never at the crate as a whole",
            ));
        }
    }
    found
}

fn violation(file: &str, mention: &Mention, rule: &str) -> String {
    format!(
        "crates/server/src/{file}:{} mentions {}; rule: {rule}",
        mention.line, mention.path
    )
}

/// Whether a path is this place or something in it; `axum_like` is not in `axum`.
fn is_within(path: &str, place: &str) -> bool {
    path.strip_prefix(place)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// `protocols/fc.rs` and `protocols/fc/run.rs` both belong to `fc`; `protocols/mod.rs` is the table of contents.
fn protocol_of(file: &str) -> Option<&str> {
    let name = file.strip_prefix("protocols/")?.split('/').next()?;
    let name = name.strip_suffix(".rs").unwrap_or(name);
    (name != "mod").then_some(name)
}

fn rust_files(dir: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn every_crate_uses_only_whom_it_may() {
    let mut found = Vec::new();
    let mut seen = 0;
    for entry in fs::read_dir(root().join("crates"))
        .expect("crates/ is there")
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(manifest) = fs::read_to_string(entry.path().join("Cargo.toml")) else {
            continue;
        };
        seen += 1;
        found.extend(manifest_violations(&name, &manifest));
    }
    assert_eq!(seen, CRATES.len(), "a crate of the list is gone");
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_rooms_of_the_server_keep_their_doors() {
    let base = root().join("crates/server/src");
    let mut files = Vec::new();
    rust_files(&base, &mut files);
    assert!(!files.is_empty());
    let mut found = Vec::new();
    for path in files {
        let file = path
            .strip_prefix(&base)
            .expect("listed under base")
            .to_string_lossy()
            .replace('\\', "/");
        found.extend(server_violations(
            &file,
            &fs::read_to_string(&path).expect("source files are text"),
        ));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn a_planted_violation_is_found_and_names_its_rule() {
    let bad = [
        (
            "protocols/fc/run.rs",
            "use darkroom_store::Jobs;",
            "they call service",
        ),
        (
            "protocols/fc.rs",
            "use crate::protocols::native::Prompt;",
            "never use each other",
        ),
        (
            "protocols/fc.rs",
            "    crate::control::wake();",
            "they call service",
        ),
        ("service/jobs.rs", "use axum::Json;", "never sees axum"),
        ("service/jobs.rs", "use crate::http::Request;", "never sees axum"),
        (
            "auth/caller.rs",
            "use darkroom_instances::process;",
            "control alone",
        ),
        ("control/tick.rs", "use axum::Router;", "never sees axum"),
        (
            "protocols/home.rs",
            "use super::darkroom::call::visible_tenant;",
            "never use each other",
        ),
        (
            "protocols/fc/mod.rs",
            "use super::{home, darkroom};",
            "never use each other",
        ),
        (
            "protocols/fc/run.rs",
            "use super::{error, super::darkroom::views};",
            "never use each other",
        ),
        (
            "protocols/fc/run.rs",
            "use crate::{\n    auth::Caller,\n    protocols::darkroom,\n};",
            "never use each other",
        ),
        ("protocols/home.rs", "use super::*;", "never use each other"),
        ("protocols/home.rs", "use super as all;", "never use each other"),
        (
            "protocols/home.rs",
            "mod tests {\n    use super::super::fc;\n}",
            "never use each other",
        ),
        (
            "protocols/fc/run.rs",
            "super::super::super::control::wake();",
            "they call service",
        ),
        (
            "service/jobs.rs",
            "use super::super::http::Request;",
            "never sees axum",
        ),
        ("service/jobs.rs", "use axum;", "never sees axum"),
        ("service/jobs.rs", "use crate as root;", "begin at a room"),
        ("protocols/home.rs", "use super::super::*;", "begin at a room"),
    ];
    for (file, line, rule) in bad {
        let found = server_violations(file, line);
        assert!(
            found.iter().any(|text| text.contains(rule)),
            "{file}: {line}: {found:?}"
        );
    }
    let good = [
        ("protocols/fc/run.rs", "use crate::protocols::fc::dto::Body;"),
        ("protocols/mod.rs", "use crate::protocols::fc;"),
        ("protocols/fc/run.rs", "use super::{error, super::fc::result};"),
        ("protocols/home.rs", "mod tests {\n    use super::*;\n}"),
        ("protocols/home.rs", "pub(crate) use self::inner::A;"),
        ("control/execute.rs", "use darkroom_instances::InstanceBackend;"),
        ("service/jobs.rs", "// axum is not seen here"),
        ("service/jobs.rs", "let axum_like = 1;"),
        ("metrics.rs", r#"let line = "a\" darkroom_instances{} 2";"#),
    ];
    for (file, line) in good {
        assert!(server_violations(file, line).is_empty(), "{file}: {line}");
    }
    assert!(!manifest_violations("core", "[dependencies]\ntokio.workspace = true\n").is_empty());
    assert!(!manifest_violations("server", "[dependencies]\ndarkroom-engine = { path = \"\" }\n").is_empty());
    assert!(!manifest_violations("shed", "").is_empty());
    assert!(manifest_violations("comfy", "[dependencies]\ndarkroom-core.workspace = true\n[dev-dependencies]\ndarkroom-ambient.workspace = true\n").is_empty());
}
