//! Files among a call's values, in the forms of our own API: `{"url"}`, `{"data"}`, `{"upload"}`, `{"asset"}`.

use darkroom_comfy::published::{Problem, ProblemKind, Published};
use darkroom_core::{AssetRef, BlobKey, TenantId};
use serde_json::{Map, Value};

use crate::service::Service;

/// The values with every file as one text, which the intake of graphs understands.
pub(super) fn resolved(
    service: &Service,
    tenant: &TenantId,
    published: &Published,
    mut given: Map<String, Value>,
) -> Result<Map<String, Value>, Vec<Problem>> {
    let mut problems = Vec::new();
    for input in published.inputs.iter().filter(|input| input.kind.is_file()) {
        let Some(value) = given.get_mut(&input.name) else {
            continue;
        };
        let Value::Object(object) = value else { continue };
        match text_of(service, tenant, object) {
            Ok(text) => *value = Value::String(text),
            Err(message) => problems.push(Problem {
                kind: ProblemKind::BadFile,
                input: input.name.clone(),
                message: message.to_owned(),
            }),
        }
    }
    match problems.is_empty() {
        true => Ok(given),
        false => Err(problems),
    }
}

fn text_of(
    service: &Service,
    tenant: &TenantId,
    object: &Map<String, Value>,
) -> Result<String, &'static str> {
    let mut fields = object.iter();
    let (Some((form, Value::String(text))), None) = (fields.next(), fields.next()) else {
        return Err("a file is a text, or an object with one of url, data, upload, asset");
    };
    match form.as_str() {
        "url" if text.starts_with("http://") || text.starts_with("https://") => Ok(text.clone()),
        "url" => Err("its url does not begin with http:// or https://"),
        "data" | "upload" => Ok(text.clone()),
        "asset" if text.parse::<AssetRef>().is_ok() => Ok(format!("asset:{text}")),
        "asset" => {
            let key: BlobKey = text.parse().map_err(|_| "there is no such asset")?;
            match service.owns_asset(tenant, &key) {
                true => Ok(service.own_address(&key)),
                false => Err("there is no such asset"),
            }
        }
        _ => Err("a file is a text, or an object with one of url, data, upload, asset"),
    }
}
