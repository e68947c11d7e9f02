//! `darkroom keys revoke`

use clap::Args;
use serde_json::json;

use super::{Place, Where};
use crate::{
    args::Global,
    client::segment,
    exit::{Exit, Failure},
};

/// Options of `keys revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// Its name
    name: String,
    #[command(flatten)]
    place: Place,
}

/// Ends a key's life at once.
pub async fn revoke(args: RevokeArgs, global: &Global) -> Result<Exit, Failure> {
    match args.place.find(global).await? {
        Where::Server(client) => drop(client.delete(&format!("keys/{}", segment(&args.name))).await?),
        Where::Store(keys) => keys.revoke(&args.name).await?,
    }
    let text = format!("key '{}' is revoked", args.name);
    global
        .ui()
        .show_line(&json!({"name": args.name, "revoked": true}), &text);
    Ok(Exit::Ok)
}
