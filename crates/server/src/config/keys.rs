//! `[[keys]]`: who may call, and what they may do. Keys made with `darkroom keys create` live in the store instead.

use std::collections::{BTreeMap, BTreeSet};

use darkroom_core::{EndpointName, TenantId};
use darkroom_store::access::Scope;

use super::{problem::did_you_mean, reader::Section, secret::Secret};

/// One `[[keys]]` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyConfig {
    /// Its name, unique in the file; shown in logs in place of the secret.
    pub name: String,
    /// What the caller presents.
    pub credential: Credential,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Endpoint names it may use; `*` is all.
    pub endpoints: Vec<String>,
    /// Whom it belongs to.
    pub tenant: TenantId,
}

/// What a caller presents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// The key itself.
    Key(Secret),
    /// A signature made with `app_secret`, for protocols that sign.
    App {
        /// The public half.
        app_key: String,
        /// The half that is never sent.
        app_secret: Secret,
    },
}

const SCOPES: &[(&str, Scope)] = &[
    ("client", Scope::Client),
    ("publish", Scope::Publish),
    ("worker", Scope::Worker),
    ("admin", Scope::Admin),
];

pub(super) fn read(sections: Vec<Section<'_>>, env: &BTreeMap<String, String>) -> Vec<KeyConfig> {
    let mut keys: Vec<KeyConfig> = Vec::new();
    let mut names = BTreeSet::new();
    for mut section in sections {
        if let Some(key) = read_one(&mut section, env) {
            if !names.insert(key.name.clone()) {
                section.problem("name", format!("another key is already named '{}'", key.name));
            }
            if keys.iter().any(|other| other.credential == key.credential) {
                section.problem("secret", "another key has the same secret");
            }
            keys.push(key);
        }
        section.finish();
    }
    keys
}

fn read_one(section: &mut Section<'_>, env: &BTreeMap<String, String>) -> Option<KeyConfig> {
    let had_name = section.has("name");
    let name = section.text("name");
    if !had_name || name.as_deref() == Some("") {
        section.problem("name", "is missing: give the key a name to recognise it by");
    }
    let credential = read_credential(section, env);
    let scopes = section
        .list("scopes")
        .map_or_else(|| vec![Scope::Client], |words| parse_scopes(section, &words));
    let endpoints = section.list("endpoints").unwrap_or_else(|| vec!["*".to_owned()]);
    for (index, endpoint) in endpoints.iter().enumerate() {
        if endpoint != "*"
            && let Err(error) = endpoint.parse::<EndpointName>()
        {
            section.problem(&format!("endpoints[{index}]"), error.to_string());
        }
    }
    let tenant = match section
        .text("tenant")
        .as_deref()
        .unwrap_or("default")
        .parse::<TenantId>()
    {
        Ok(tenant) if tenant.is_anonymous() => {
            section.problem("tenant", "'anonymous' is the tenant of callers without a key");
            None
        }
        Ok(tenant) => Some(tenant),
        Err(error) => {
            section.problem("tenant", error.to_string());
            None
        }
    };
    Some(KeyConfig {
        name: name?,
        credential: credential?,
        scopes,
        endpoints,
        tenant: tenant?,
    })
}

fn parse_scopes(section: &Section<'_>, words: &[String]) -> Vec<Scope> {
    let mut scopes = Vec::new();
    for (index, word) in words.iter().enumerate() {
        match SCOPES.iter().find(|(name, _)| name == word) {
            Some((_, scope)) => scopes.push(*scope),
            None => section.problem(
                &format!("scopes[{index}]"),
                format!(
                    "'{word}' is not one of client, publish, worker, admin{}",
                    did_you_mean(word, SCOPES.iter().map(|(name, _)| *name))
                ),
            ),
        }
    }
    if words.is_empty() {
        section.problem("scopes", "must not be empty");
    }
    scopes
}

fn read_credential(section: &mut Section<'_>, env: &BTreeMap<String, String>) -> Option<Credential> {
    let secret = read_secret(section, env, ["secret", "secret_file", "secret_env"]);
    let app_key = section.text("app_key");
    let app_secret = read_secret(section, env, ["app_secret", "app_secret_file", "app_secret_env"]);
    match (secret, app_key, app_secret) {
        (Found::Yes(secret), None, Found::No) => Some(Credential::Key(secret)),
        (Found::No, Some(app_key), Found::Yes(app_secret)) => Some(Credential::App { app_key, app_secret }),
        (Found::Wrong, _, _) | (_, _, Found::Wrong) => None,
        (Found::No, None, Found::No) => {
            section.problem(
                "secret",
                "is missing: give secret, secret_file or secret_env, or app_key and app_secret",
            );
            None
        }
        (Found::No, Some(_), Found::No) => {
            section.problem("app_secret", "is missing beside app_key");
            None
        }
        (Found::No, None, Found::Yes(_)) => {
            section.problem("app_key", "is missing beside app_secret");
            None
        }
        (Found::Yes(_), _, _) => {
            section.problem(
                "secret",
                "give either a secret, or app_key and app_secret, not both",
            );
            None
        }
    }
}

/// Whether a secret was given.
pub(super) enum Found {
    /// No.
    No,
    /// Not as it should be, which was said.
    Wrong,
    /// This one.
    Yes(Secret),
}

/// A secret written down, in a file, or in an environment variable.
pub(super) fn read_secret(
    section: &mut Section<'_>,
    env: &BTreeMap<String, String>,
    keys: [&'static str; 3],
) -> Found {
    let [plain, file, variable] = keys;
    let given = keys.iter().filter(|key| section.has(key)).count();
    let from_plain = section.secret(plain);
    let from_file = section.text(file);
    let from_env = section.text(variable);
    if given > 1 {
        section.problem(plain, format!("give only one of {plain}, {file}, {variable}"));
        return Found::Wrong;
    }
    let (key, secret) = if let Some(secret) = from_plain {
        (plain, secret)
    } else if let Some(path) = from_file {
        match std::fs::read_to_string(&path) {
            Ok(text) => (file, Secret::new(text.trim_end_matches(['\n', '\r']))),
            Err(error) => {
                section.problem(file, format!("cannot read '{path}': {error}"));
                return Found::Wrong;
            }
        }
    } else if let Some(name) = from_env {
        match env.get(&name) {
            Some(text) => (variable, Secret::new(text.as_str())),
            None => {
                section.problem(variable, format!("the environment variable '{name}' is not set"));
                return Found::Wrong;
            }
        }
    } else {
        return if given == 0 { Found::No } else { Found::Wrong };
    };
    if secret.expose().is_empty()
        || secret
            .expose()
            .chars()
            .any(|c| c.is_whitespace() || c.is_control())
    {
        section.problem(key, "a secret must not be empty and must not hold white space");
        return Found::Wrong;
    }
    Found::Yes(secret)
}
