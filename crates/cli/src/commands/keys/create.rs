//! `darkroom keys create`

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use darkroom_core::{EndpointName, TenantId, presence::PING_INTERVAL};
use darkroom_server::{
    auth::NewKey,
    service::{
        objects::Access,
        pull::environment::{Told, for_shell, variables},
    },
};
use darkroom_store::access::Scope as StoreScope;
use serde_json::{Value, json};

use super::{Place, Where, agent_line::agent_line};
use crate::{
    args::Global,
    client::segment,
    exit::{Exit, Failure},
};

/// Options of `keys create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// What to call it
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What it may do (repeat for more)
    #[arg(long = "scope", value_name = "SCOPE", default_value = "client")]
    scopes: Vec<Scope>,
    /// Which endpoints it may use (repeat for more)
    #[arg(long = "endpoint", value_name = "NAME", default_value = "*")]
    endpoints: Vec<String>,
    /// Whom it belongs to; tenants do not see each other's jobs
    #[arg(long, default_value = "default", value_name = "NAME")]
    tenant: TenantId,
    /// An app key and its secret, for protocols that sign their requests (SpeedPix)
    #[arg(long)]
    app: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scope {
    /// Submits, reads, cancels its own
    Client,
    /// Publishes workflows
    Publish,
    /// The worker side of an endpoint
    Worker,
    /// Everything
    Admin,
}

impl Scope {
    fn stored(self) -> StoreScope {
        match self {
            Scope::Client => StoreScope::Client,
            Scope::Publish => StoreScope::Publish,
            Scope::Worker => StoreScope::Worker,
            Scope::Admin => StoreScope::Admin,
        }
    }
}

/// Makes a key and prints its secret, alone on stdout, so that a script can catch it. The key of one endpoint's workers is
/// printed as the environment that they are started with.
pub async fn create(args: CreateArgs, global: &Global) -> Result<Exit, Failure> {
    if args.name.trim().is_empty() || args.name.chars().count() > 100 {
        return Err(Failure::usage("a key's name has 1 to 100 characters"));
    }
    let scopes: Vec<StoreScope> = args.scopes.iter().map(|scope| scope.stored()).collect();
    if args.app {
        return create_app(args, scopes, global).await;
    }
    let mut for_agents = one_endpoint(&scopes, &args.endpoints);
    let mut for_workers = None;
    let mut bucket = None;
    let secret = match args.place.find(global).await? {
        Where::Server(client) => {
            let body = json!({"name": args.name, "scopes": scopes, "endpoints": args.endpoints, "tenant": args.tenant});
            let answer = client.post("keys", Some(&body)).await?;
            if let Some(endpoint) = for_agents
                && let Ok(known) = client.get(&format!("endpoints/{}", segment(endpoint))).await
                && (known["kind"] != "comfyui" || known["backend"] != "external")
            {
                for_agents = None;
                for_workers = (known["kind"] == "worker").then_some(endpoint);
            }
            bucket = objects_of(&answer["bucket"]);
            answer["secret"].as_str().unwrap_or_default().to_owned()
        }
        Where::Store(keys) => {
            let key = NewKey {
                name: args.name.clone(),
                scopes: scopes.clone(),
                endpoints: args.endpoints.clone(),
                tenant: args.tenant.clone(),
            };
            keys.create(key).await?
        }
    };
    let for_workers = for_workers.and_then(|endpoint| endpoint.parse::<EndpointName>().ok());
    let ui = global.ui();
    ui.note(&format!(
        "key '{}' made; this is its secret, shown only now:",
        args.name
    ));
    let mut answer = json!({"name": args.name, "secret": secret, "scopes": scopes});
    if let Some(endpoint) = for_agents {
        let line = agent_line(global.server(), endpoint, &secret);
        ui.note(&format!(
            "beside a ComfyUI, with the address that this server has from there:\n  {line}"
        ));
        answer["agent"] = json!(line);
    }
    if let Some(endpoint) = for_workers {
        let told = worker_environment(global.server(), &endpoint, &args.name, &secret, bucket);
        ui.note("what a worker is started with, in a shell (both SDKs; with the address that this server has from there):");
        answer["environment"] = json!(told);
        ui.show_line(&answer, &for_shell(&told));
        return Ok(Exit::Ok);
    }
    ui.show_line(&answer, &secret);
    Ok(Exit::Ok)
}

/// Prints both halves, each with its name; with `--json` an object.
async fn create_app(args: CreateArgs, scopes: Vec<StoreScope>, global: &Global) -> Result<Exit, Failure> {
    let (app_key, app_secret) = match args.place.find(global).await? {
        Where::Server(client) => {
            let body = json!({"name": args.name, "scopes": scopes, "endpoints": args.endpoints, "tenant": args.tenant,
                "app": true});
            let answer = client.post("keys", Some(&body)).await?;
            let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
            (text("app_key"), text("app_secret"))
        }
        Where::Store(keys) => {
            let key = NewKey {
                name: args.name.clone(),
                scopes: scopes.clone(),
                endpoints: args.endpoints.clone(),
                tenant: args.tenant.clone(),
            };
            keys.create_app(key).await?
        }
    };
    let ui = global.ui();
    ui.note(&format!(
        "app key '{}' made; the secret is shown only now. For the SpeedPix SDK, with this server's address:\n  export \
         SPEEDPIX_ENDPOINT={} SPEEDPIX_APP_KEY={app_key} SPEEDPIX_APP_SECRET=...",
        args.name,
        global.server().trim_end_matches('/')
    ));
    let answer = json!({"name": args.name, "app_key": app_key, "app_secret": app_secret, "scopes": scopes});
    ui.show_line(&answer, &format!("app_key={app_key}\napp_secret={app_secret}"));
    Ok(Exit::Ok)
}

/// The endpoint whose agents or workers a key is for, as far as the key tells.
fn one_endpoint<'a>(scopes: &[StoreScope], endpoints: &'a [String]) -> Option<&'a str> {
    match (scopes, endpoints) {
        ([StoreScope::Worker], [endpoint]) if endpoint != "*" => Some(endpoint),
        _ => None,
    }
}

/// Where the server says that the key's workers keep their files.
fn objects_of(told: &Value) -> Option<Access> {
    let text = |field: &str| Some(told[field].as_str()?.to_owned());
    Some(Access {
        endpoint_url: text("endpoint_url")?,
        access_key: text("access_key_id")?,
        secret_key: text("secret_access_key")?,
    })
}

/// The variables of the workers that take an endpoint's jobs with this key.
fn worker_environment(
    server: &str,
    endpoint: &EndpointName,
    key_name: &str,
    secret: &str,
    objects: Option<Access>,
) -> BTreeMap<String, String> {
    // It becomes part of addresses, and of a line for a shell.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let worker: String = key_name.chars().map(|c| if plain(c) { c } else { '-' }).collect();
    variables(&Told {
        base_url: server.trim_end_matches('/'),
        endpoint,
        token: secret,
        worker: &worker,
        ping_interval: PING_INTERVAL,
        objects,
    })
}
