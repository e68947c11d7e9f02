//! `darkroom keys webhook-secret`

use clap::Args;

use crate::{
    args::Global,
    exit::{Exit, Failure},
};

/// Options of `keys webhook-secret`.
#[derive(Debug, Args)]
pub struct WebhookSecretArgs {
    /// Of this tenant (operators only) [default: the key's own]
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
}

/// Prints what receivers check the signatures of webhooks with.
pub async fn webhook_secret(args: WebhookSecretArgs, global: &Global) -> Result<Exit, Failure> {
    let mut path = "webhooks/secret".to_owned();
    if let Some(tenant) = &args.tenant {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("tenant", tenant);
        path = format!("{path}?{}", query.finish());
    }
    let answer = global.client()?.get(&path).await?;
    global.ui().show(&answer, |answer| {
        answer["secret"].as_str().unwrap_or_default().to_owned()
    });
    Ok(Exit::Ok)
}
