//! An attached endpoint as the store has it, and the endpoint that it is: read by the configuration's own rules.

use darkroom_core::{
    Endpoint, EndpointName,
    endpoint::{Backend, RemoteServer},
};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::{config, service::Error};

/// What was attached to one endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Servers, or one installation.
    pub boxes: Vec<AttachedBox>,
}

/// One box as it was attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedBox {
    /// The operator's name for it.
    #[serde(default)]
    pub name: Option<String>,
    /// A URL, or the directory of an installation on this machine.
    pub target: String,
    /// The installation's interpreter; found beside it otherwise.
    #[serde(default)]
    pub python: Option<String>,
    /// More of its arguments.
    #[serde(default)]
    pub args: Vec<String>,
}

impl AttachedBox {
    /// Whether it is a server somebody else runs, and no installation.
    pub fn is_server(&self) -> bool {
        let begins = |scheme: &str| {
            let start = self.target.get(..scheme.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        };
        begins("http://") || begins("https://")
    }

    /// Which ComfyUI a server is, however its address is spelt.
    pub fn address(&self) -> Option<String> {
        address(&self.target).filter(|_| self.is_server())
    }

    /// The name of its box on the endpoint as it was read.
    pub fn name_on(&self, endpoint: &Endpoint) -> String {
        match &endpoint.backend {
            Backend::Process(spec) => spec.box_name(),
            Backend::Remote { .. } | Backend::External => self.server_name(),
        }
    }

    /// Whether somebody means it by this.
    pub fn is_called(&self, what: &str) -> bool {
        let plain = |text: &str| text.trim_end_matches('/').to_owned();
        self.name.as_deref() == Some(what)
            || plain(&self.target) == plain(what)
            || self.is_server() && self.server_name() == what
    }

    /// For lists.
    pub fn shown(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.target)
    }

    fn server_name(&self) -> String {
        let named = self.name.clone();
        named.unwrap_or_else(|| RemoteServer::new(self.target.as_str()).name)
    }
}

/// An address in one spelling: `localhost` and its numbers are the same host.
pub fn address(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    let host = match url.host()? {
        url::Host::Domain(name) => name.trim_end_matches('.').to_owned(),
        url::Host::Ipv4(ip) => ip.to_string(),
        url::Host::Ipv6(ip) => ip.to_string(),
    };
    let host = match host.as_str() {
        "127.0.0.1" | "::1" | "0.0.0.0" => "localhost",
        other => other,
    };
    let path = url.path().trim_end_matches('/');
    Some(format!("{host}:{}{path}", url.port_or_known_default()?))
}

impl Stored {
    /// Reads what the store has.
    pub fn parse(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// The same with one box more.
    ///
    /// # Errors
    /// When its name or address is taken, or it does not go with the others.
    pub fn with(&self, endpoint: &EndpointName, more: AttachedBox) -> Result<Stored, Error> {
        let refused = |text: String| Err(Error::Invalid(text));
        for there in &self.boxes {
            if there.is_called(&more.target) {
                return refused(format!("{} is attached to '{endpoint}' already", more.target));
            }
            if there.is_called(more.shown()) || more.is_server() && there.is_called(&more.server_name()) {
                return refused(format!(
                    "the name '{}' is taken on endpoint '{endpoint}' ({}); choose another with --name",
                    more.shown(),
                    there.target
                ));
            }
            if !there.is_server() || !more.is_server() {
                return refused(format!(
                    "endpoint '{endpoint}' runs {} already, and an installation is an endpoint of its own; name another with \
                     --endpoint",
                    there.target
                ));
            }
        }
        let mut boxes = self.boxes.clone();
        boxes.push(more);
        Ok(Stored { boxes })
    }

    /// The endpoint that this is, with the defaults of everything.
    ///
    /// # Errors
    /// What the configuration would say of it.
    pub fn endpoint(&self, name: &EndpointName) -> Result<Endpoint, Error> {
        let mut table = Table::new();
        match self.boxes.as_slice() {
            [one] if !one.is_server() => {
                table.insert("comfyui".to_owned(), one.target.as_str().into());
                if let Some(python) = &one.python {
                    table.insert("python".to_owned(), python.as_str().into());
                }
                if !one.args.is_empty() {
                    table.insert("args".to_owned(), one.args.clone().into());
                }
            }
            servers => {
                table.insert("backend".to_owned(), "remote".into());
                let servers = servers.iter().map(|one| {
                    let mut server = Table::new();
                    server.insert("url".to_owned(), one.target.as_str().into());
                    server.insert("name".to_owned(), one.server_name().into());
                    Value::Table(server)
                });
                table.insert("urls".to_owned(), Value::Array(servers.collect()));
            }
        }
        let mut endpoint = config::read_endpoint(name, table).map_err(Error::Invalid)?;
        if let (Backend::Process(spec), [one]) = (&mut endpoint.backend, self.boxes.as_slice()) {
            spec.name.clone_from(&one.name);
        }
        Ok(endpoint)
    }
}
