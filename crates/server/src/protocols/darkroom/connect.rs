//! `GET /endpoints/{endpoint}/connect`: how to call it over each protocol, with lines to paste. One entry in [`ways`] per
//! protocol; a test runs what is printed.

use axum::{
    Json,
    extract::{Path, State},
};
use darkroom_core::{Endpoint, EndpointName, endpoint::Kind};
use serde_json::{Value, json};

use super::{call::Call, error::ApiError};
use crate::{
    auth::Scope,
    state::{AppState, BaseUrl},
};

/// The handler.
///
/// # Errors
/// 404, also for an endpoint that the caller may not use.
pub async fn show(
    State(state): State<AppState>,
    call: Call,
    BaseUrl(base): BaseUrl,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let name = call.endpoint(&name)?;
    call.needs(Scope::Client, &name)?;
    let endpoint = state.service.endpoint(&name).map_err(|e| call.fail(e))?;
    let keyring = state.auth.keyring();
    let needs_key = !state.auth.is_open(&keyring) && !endpoint.anonymous;
    let place = Place {
        base,
        name,
        needs_key,
    };
    let protocols: Vec<Value> = ways(&place, &endpoint)
        .into_iter()
        .map(|way| json!({ "protocol": way.protocol, "url": way.url, "snippet": way.snippet }))
        .collect();
    Ok(Json(json!({
        "endpoint": place.name,
        "key": { "needed": needs_key, "note": place.key_note() },
        "protocols": protocols,
    })))
}

/// Where the endpoint is, for one caller.
struct Place {
    base: String,
    name: EndpointName,
    needs_key: bool,
}

/// One protocol.
struct Way {
    protocol: &'static str,
    url: String,
    snippet: String,
}

fn ways(place: &Place, endpoint: &Endpoint) -> Vec<Way> {
    match endpoint.kind {
        Kind::Comfyui => {
            let mut ways = vec![
                darkroom(place),
                command_line(place),
                native(place),
                comfy_v2(place),
                serverless(place),
                kubeai(place),
                eas_prompt(place),
                dedicated(place),
            ];
            let input = r#"{\"workflow\": $(cat workflow.json)}"#;
            ways.extend(asynchronous(place, input));
            ways.extend(endpoint.frontend.is_some().then(|| page(place)));
            ways
        }
        Kind::Queue => vec![eas_queue(place)],
        Kind::Worker if endpoint.is_http_worker() => vec![eas_path(place)],
        Kind::Worker => asynchronous(place, r#"{\"prompt\": \"a cat\"}"#).into(),
    }
}

fn darkroom(place: &Place) -> Way {
    let url = format!("{}/darkroom/v1/endpoints/{}/jobs", place.base, place.name);
    let body = r#"-d "{\"graph\": $(cat workflow.json)}""#;
    Way {
        protocol: "Darkroom's own API",
        snippet: place.post(&url, "Bearer ", body),
        url,
    }
}

fn command_line(place: &Place) -> Way {
    let key = if place.needs_key {
        " --key \"$DARKROOM_KEY\""
    } else {
        ""
    };
    Way {
        protocol: "command line",
        url: place.base.clone(),
        snippet: format!(
            "darkroom run workflow.json --endpoint {} --server {}{key}",
            place.name, place.base
        ),
    }
}

fn native(place: &Place) -> Way {
    let url = format!("{}/prompt", place.root());
    let body = r#"-d "{\"prompt\": $(cat workflow.json)}""#;
    Way {
        protocol: "ComfyUI's own API",
        snippet: place.post(&url, "Bearer ", body),
        url,
    }
}

/// What Comfy's own SDKs take is the address without `/api/v2/jobs`, in `COMFY_BASE_URL`.
fn comfy_v2(place: &Place) -> Way {
    let url = format!("{}/api/v2/jobs", place.root());
    let body = r#"-d "{\"workflow\": $(cat workflow.json)}""#;
    Way {
        protocol: "Comfy API v2",
        snippet: place.post(&url, "Bearer ", body),
        url,
    }
}

fn kubeai(place: &Place) -> Way {
    let url = format!("{}/openai/api/prompt", place.base);
    let body = format!(
        r#"-d "{{\"model\": \"{}\", \"prompt\": $(cat workflow.json)}}""#,
        place.name
    );
    Way {
        protocol: "KubeAI-style proxy",
        snippet: place.post(&url, "Bearer ", &body),
        url,
    }
}

fn serverless(place: &Place) -> Way {
    let url = format!("{}/api/serverless/run", place.root());
    Way {
        protocol: "Function Compute Serverless API",
        snippet: place.post(&url, "Bearer ", "-d @workflow.json"),
        url,
    }
}

fn eas_prompt(place: &Place) -> Way {
    let url = format!("{}/api/predict/{}/api_prompt", place.base, place.name);
    Way {
        protocol: "PAI-EAS asynchronous queue",
        snippet: place.post(&url, "", "-d @workflow.json"),
        url,
    }
}

/// Any path of the program; this one is its root.
fn eas_path(place: &Place) -> Way {
    let url = format!("{}/api/predict/{}/", place.base, place.name);
    Way {
        protocol: "PAI-EAS asynchronous queue",
        snippet: place.post(&url, "", "-d '{}'"),
        url,
    }
}

/// The program of PAI's dedicated edition: the same call, with the raw token.
fn dedicated(place: &Place) -> Way {
    let url = format!("{}/prompt", place.root());
    let body = r#"-d "{\"prompt\": $(cat workflow.json)}""#;
    Way {
        protocol: "PAI dedicated edition",
        snippet: place.post(&url, "", body),
        url,
    }
}

/// RunPod's and PPIO's asynchronous endpoints; `input` as it stands inside the shell's double quotes.
fn asynchronous(place: &Place, input: &str) -> [Way; 2] {
    let families = [
        ("RunPod's asynchronous endpoint", "v2"),
        ("PPIO's asynchronous endpoint", "v1"),
    ];
    families.map(|(protocol, version)| {
        let url = format!("{}/{version}/{}/run", place.base, place.name);
        let body = format!(r#"-d "{{\"input\": {input}}}""#);
        Way {
            protocol,
            snippet: place.post(&url, "Bearer ", &body),
            url,
        }
    })
}

fn page(place: &Place) -> Way {
    let key = if place.needs_key {
        " --key \"$DARKROOM_KEY\""
    } else {
        ""
    };
    Way {
        protocol: "ComfyUI's web page",
        url: format!("{}/e/{}/", place.base, place.name),
        snippet: format!("darkroom open {} --server {}{key}", place.name, place.base),
    }
}

fn eas_queue(place: &Place) -> Way {
    let url = format!("{}/api/predict/{}", place.base, place.name);
    Way {
        protocol: "PAI-EAS queue service",
        snippet: place.post(&url, "", "-d 'an item'"),
        url,
    }
}

impl Place {
    /// Where protocols live whose paths do not name the endpoint.
    fn root(&self) -> String {
        match self.name.as_str() {
            "default" => self.base.clone(),
            name => format!("{}/e/{name}", self.base),
        }
    }

    /// A call with curl; `scheme` stands before the key.
    fn post(&self, url: &str, scheme: &str, body: &str) -> String {
        let key = if self.needs_key {
            format!(" \\\n  -H \"Authorization: {scheme}$DARKROOM_KEY\"")
        } else {
            String::new()
        };
        format!("curl -fsS {url}{key} \\\n  -H 'Content-Type: application/json' \\\n  {body}")
    }

    fn key_note(&self) -> String {
        if self.needs_key {
            format!(
                "put one with scope client into DARKROOM_KEY; `darkroom keys create --name app --endpoint {}` makes one",
                self.name
            )
        } else {
            "none is needed".to_owned()
        }
    }
}
