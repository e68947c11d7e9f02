//! `darkroom keys create`

use clap::{Args, ValueEnum};
use darkroom_core::TenantId;
use darkroom_server::auth::NewKey;
use darkroom_store::access::Scope as StoreScope;
use serde_json::json;

use super::{Place, Where};
use crate::{
    args::Global,
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

/// Makes a key and prints its secret, alone on stdout, so that a script can catch it.
pub async fn create(args: CreateArgs, global: &Global) -> Result<Exit, Failure> {
    if args.name.trim().is_empty() || args.name.chars().count() > 100 {
        return Err(Failure::usage("a key's name has 1 to 100 characters"));
    }
    let scopes: Vec<StoreScope> = args.scopes.iter().map(|scope| scope.stored()).collect();
    let secret = match args.place.find(global).await? {
        Where::Server(client) => {
            let body = json!({"name": args.name, "scopes": scopes, "endpoints": args.endpoints, "tenant": args.tenant});
            let answer = client.post("keys", Some(&body)).await?;
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
    let ui = global.ui();
    ui.note(&format!(
        "key '{}' made; this is its secret, shown only now:",
        args.name
    ));
    ui.show_line(
        &json!({"name": args.name, "secret": secret, "scopes": scopes}),
        &secret,
    );
    Ok(Exit::Ok)
}
