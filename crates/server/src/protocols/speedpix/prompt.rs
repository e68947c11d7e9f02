//! `POST /scc/comfy_prompt`: a call of a published workflow (`protocols/speedpix.md` §4).

use axum::{
    Json,
    extract::{Request, State},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    DIALECT,
    call::SpeedpixCall,
    envelope::{OK, envelope},
    error::Failed,
};
use crate::{
    auth::Scope,
    service::{
        Error,
        intake::Fetch,
        jobs::JobMeta,
        published::{CallError, Unknown, WorkflowCall},
    },
    state::AppState,
};

/// The body; what is unset is null.
#[derive(Debug, Deserialize)]
pub struct Prompt {
    #[serde(default, alias = "workflowId")]
    workflow_id: Option<String>,
    #[serde(default, alias = "versionId")]
    version_id: Option<String>,
    #[serde(default, alias = "aliasId")]
    alias_id: Option<String>,
    #[serde(default)]
    inputs: Option<Map<String, Value>>,
    #[serde(default, alias = "randomiseSeeds")]
    randomise_seeds: Option<bool>,
    #[serde(default, alias = "returnTempFiles")]
    return_temp_files: Option<bool>,
}

/// The handler. The answer is `waiting` whatever the task is by now: after any other word than that and `running` the SDK
/// never asks for the result.
///
/// # Errors
/// An envelope with what is wrong; an HTTP error for a signature that is.
pub async fn handler(State(state): State<AppState>, request: Request) -> Result<Json<Value>, Failed> {
    let mut call = SpeedpixCall::read(&state, request).await?;
    let prompt: Prompt = call.json().await?;
    let held = std::mem::take(&mut call.held);
    let id = prompt.workflow_id.filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| call.refuse(Error::Invalid("workflow_id is missing".into())))?;
    let workflow = id
        .parse()
        .map_err(|_| call.refuse(unknown(Unknown::Workflow(id.chars().take(80).collect()))))?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let version = given(prompt.version_id).map(|version| {
        version.parse().map_err(|_| {
            call.refuse(unknown(Unknown::Version {
                workflow: id.clone(),
                version: version.chars().take(80).collect(),
            }))
        })
    });
    let version = version.transpose()?;
    let alias = given(prompt.alias_id).map(|alias| {
        alias.parse().map_err(|_| {
            call.refuse(unknown(Unknown::Alias {
                workflow: id.clone(),
                alias: alias.chars().take(80).collect(),
                others: Vec::new(),
            }))
        })
    });
    let alias = alias.transpose()?;
    let caller = call.caller.clone();
    let may = |endpoint: &darkroom_core::EndpointName| caller.may(Scope::Client, endpoint).is_ok();
    let called = state
        .service
        .call_workflow(WorkflowCall {
            tenant: call.caller.tenant.clone(),
            workflow,
            version,
            alias,
            inputs: prompt.inputs.unwrap_or_default(),
            randomise_seeds: prompt.randomise_seeds.unwrap_or(false),
            return_temp_files: prompt.return_temp_files.unwrap_or(false),
            resources: call.resources.clone(),
            may: &may,
            fetch: Fetch::Later,
            priority: 0,
            external_id: None,
            meta: JobMeta {
                dialect: DIALECT.to_owned(),
                request_id: call.caller.request_id.to_string(),
                ..JobMeta::default()
            },
            size_bytes: call.body.len(),
            memory: held,
        })
        .await
        .map_err(|e| call.refuse(e))?;
    let mut data = json!({ "taskId": called.job, "status": "waiting" });
    let usual = state.service.usual_run(&called.endpoint).await;
    if let Ok(Some(usual)) = usual {
        data["estimatedDurationInSeconds"] = Value::from(usual.as_secs_f64());
    }
    Ok(Json(envelope(OK, None, data, &call.caller.request_id)))
}

fn unknown(what: Unknown) -> CallError {
    CallError::Unknown(what)
}
