//! Configuration: defaults, then the file, then `DARKROOM__SECTION__KEY`, then flags; checked as a whole, so that
//! every problem is reported at once with its path.
//!
//! One file per section. Start with [`Config::load`]; `reader.rs` is how a section takes its keys.

mod blobs;
mod endpoints;
mod fetch;
mod keys;
pub mod layout;
mod net;
mod overrides;
mod problem;
mod reader;
mod resources;
mod secret;
mod server;
mod store;
mod units;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use darkroom_core::{Endpoint, EndpointName};
use toml::Table;

pub use self::{
    blobs::{BlobLocation, BlobsConfig},
    endpoints::comfyui_process,
    fetch::FetchConfig,
    keys::{Credential, KeyConfig},
    net::{Cidr, HostOrCidr},
    overrides::Overrides,
    problem::{Error, Problem, did_you_mean},
    secret::Secret,
    server::{DEFAULT_LISTEN, LogFormat, ServerConfig},
    store::{Database, StoreConfig},
    units::{parse_duration, parse_size},
};
use self::{problem::Problems, reader::Section};
use crate::service::published::Pool;

/// A checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file it came from; `None`: defaults.
    pub file: Option<PathBuf>,
    /// `[server]`.
    pub server: ServerConfig,
    /// `[store]`.
    pub store: StoreConfig,
    /// `[blobs]`.
    pub blobs: BlobsConfig,
    /// `[fetch]`.
    pub fetch: FetchConfig,
    /// `[[keys]]`.
    pub keys: Vec<KeyConfig>,
    /// `[endpoints.*]`; never empty.
    pub endpoints: BTreeMap<EndpointName, Endpoint>,
    /// `[resources.*]`: resource configs of published workflows.
    pub resources: BTreeMap<String, Pool>,
    /// Nobody wrote an endpoint: `default` is there because nothing else is.
    pub default_is_implied: bool,
}

/// Looked for when no file is named, in this order.
const DEFAULT_FILES: &[&str] = &["darkroom.toml", "/etc/darkroom/darkroom.toml"];

impl Config {
    /// Reads the file that the flags name (else the first default one that exists), the process's environment, and
    /// the flags.
    pub fn load(overrides: &Overrides) -> Result<Config, Error> {
        let file = match &overrides.config {
            Some(path) => Some(path.clone()),
            None => DEFAULT_FILES
                .iter()
                .map(PathBuf::from)
                .find(|path| path.is_file()),
        };
        let text = match &file {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path).map_err(|source| Error::Unreadable {
                path: path.clone(),
                source,
            })?,
        };
        // A variable that is not Unicode cannot be one of ours.
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Config::from_text(file.as_deref(), &text, &env, overrides)
    }

    /// The same from given texts.
    pub fn from_text(
        file: Option<&Path>,
        text: &str,
        env: &BTreeMap<String, String>,
        overrides: &Overrides,
    ) -> Result<Config, Error> {
        let mut root: Table = text.parse().map_err(|error: toml::de::Error| Error::NotToml {
            path: file.unwrap_or(Path::new("the configuration")).to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        let mut origins = BTreeMap::new();
        let misnamed = overrides::apply_env(&mut root, env, &mut origins);
        overrides::apply_flags(&mut root, overrides, &mut origins);

        let endpoints = root.get("endpoints").and_then(toml::Value::as_table);
        let default_is_implied = endpoints.is_none_or(Table::is_empty);
        let problems = Problems::new(origins);
        for (path, variable) in misnamed {
            problems.add(
                &path,
                format!("{variable} names no setting: DARKROOM__SECTION__KEY with section server, store, blobs or fetch"),
            );
        }
        let mut root = Section::new("", root, &problems);
        let mut server = server::read(root.section("server"));
        server.insecure_no_auth = overrides.insecure_no_auth;
        let store = store::read(root.section("store"));
        let blobs = blobs::read(root.section("blobs"), env);
        let fetch = fetch::read(root.section("fetch"), blobs.bucket().is_some());
        let keys = keys::read(root.sections("keys"), env);
        let endpoints = endpoints::read(root.section("endpoints"));
        check_key_endpoints(&keys, &endpoints);
        let resources = resources::read(root.section("resources"));
        for (name, pool) in resources
            .iter()
            .filter(|(_, pool)| !endpoints.contains_key(&pool.endpoint))
        {
            tracing::warn!(resource = %name, endpoint = %pool.endpoint, "a resource names an endpoint that the configuration does not have");
        }
        root.finish();

        let problems = problems.into_vec();
        if !problems.is_empty() {
            return Err(Error::Invalid {
                file: file.map(Path::to_owned),
                problems,
            });
        }
        Ok(Config {
            file: file.map(Path::to_owned),
            server,
            store,
            blobs,
            fetch,
            keys,
            endpoints,
            resources,
            default_is_implied,
        })
    }

    /// A commented file with every key and its default.
    pub fn example() -> &'static str {
        include_str!("example.toml")
    }
}

/// One endpoint, from a section of its own.
///
/// # Errors
/// All that is wrong with it.
pub fn read_endpoint(name: &EndpointName, section: Table) -> Result<Endpoint, String> {
    let problems = Problems::default();
    let all = Table::from_iter([(name.to_string(), toml::Value::Table(section))]);
    let mut endpoints = endpoints::read(Section::new("endpoints", all, &problems));
    let found: Vec<String> = problems
        .into_vec()
        .into_iter()
        .map(|problem| problem.message)
        .collect();
    match endpoints.remove(name) {
        Some(endpoint) if found.is_empty() => Ok(endpoint),
        Some(_) | None => Err(found.join("; ")),
    }
}

/// A key may name an endpoint that is made later through the API, so an unknown one is a warning, not a problem.
fn check_key_endpoints(keys: &[KeyConfig], endpoints: &BTreeMap<EndpointName, Endpoint>) {
    for key in keys {
        for name in key.endpoints.iter().filter(|name| *name != "*") {
            if !endpoints.keys().any(|known| known.as_str() == name) {
                tracing::warn!(key = key.name, endpoint = %name, "a key names an endpoint that the configuration does not have");
            }
        }
    }
}
