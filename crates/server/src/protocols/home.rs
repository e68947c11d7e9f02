//! `GET /`: the operator's page, filled from the service. A browser without a session is sent to `/login`.

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use darkroom_core::{JobState, endpoint::Backend};
use serde_json::Value;

use crate::{
    auth::{Caller, Rejection, Scope},
    pages::home::{EndpointRow, InstanceRow, JobRow, View, render},
    service::{
        Error, Service,
        endpoints::EndpointView,
        instances::{InstanceRecord, reason_for_clients},
        jobs::{JobFilter, JobRecord, Page},
        outputs::file_of,
    },
    state::AppState,
};

/// Jobs on the page.
const JOBS: u32 = 30;

/// The route.
pub fn routes() -> Router<AppState> {
    Router::new().route("/", get(handler))
}

async fn handler(State(state): State<AppState>, caller: Result<Caller, Rejection>) -> Response {
    let caller = match caller {
        Ok(caller) if caller.may_anywhere(Scope::Client).is_ok() => caller,
        Ok(_) => return Redirect::to("/login?next=/").into_response(),
        Err(rejection) => return rejection.into_response(),
    };
    match view(&state.service, &caller).await {
        Ok(view) => render(&view),
        Err(error) => {
            tracing::error!(error = ?error, "the page could not be filled");
            (
                http::StatusCode::INTERNAL_SERVER_ERROR,
                "the page could not be filled\n",
            )
                .into_response()
        }
    }
}

async fn view(service: &Service, caller: &Caller) -> Result<View, Error> {
    let may_see = |name: &darkroom_core::EndpointName| caller.may(Scope::Client, name).is_ok();
    let instances = service.instances(caller.is_admin()).await?;
    let now = service.now();
    let lately = now.minus(std::time::Duration::from_secs(600));
    let endpoints = service.endpoint_views().await?;
    let filter = JobFilter {
        tenant: caller.visible_tenant().cloned(),
        endpoints: caller.visible_endpoints(),
        ..JobFilter::default()
    };
    let mut jobs = Vec::new();
    for job in service
        .jobs(
            filter,
            Page {
                limit: JOBS,
                after: None,
            },
        )
        .await?
    {
        jobs.push(job_row(service, caller, &job).await?);
    }
    Ok(View {
        now,
        key_name: caller.key_name.clone(),
        endpoints: endpoints
            .iter()
            .filter(|v| may_see(&v.endpoint.name))
            .map(|v| {
                let up = instances
                    .iter()
                    .filter(|i| i.endpoint == v.endpoint.name && !i.state.is_final());
                endpoint_row(caller, v, up.count() as u64)
            })
            .collect(),
        instances: instances
            .into_iter()
            .filter(|i| may_see(&i.endpoint))
            .filter(|i| !i.state.is_final() || i.state_since > lately)
            .map(|i| instance_row(caller, i))
            .collect(),
        jobs,
    })
}

fn instance_row(caller: &Caller, instance: InstanceRecord) -> InstanceRow {
    let state_reason = match caller.operates(&instance.endpoint) {
        true => instance.state_reason.as_str(),
        false => reason_for_clients(&instance),
    };
    InstanceRow {
        reason: match state_reason {
            "" => instance.start_reason.clone(),
            reason => reason.to_owned(),
        },
        id: instance.id,
        endpoint: instance.endpoint,
        state: instance.state,
        since: instance.state_since,
        gpu: instance.gpu,
        jobs_done: instance.jobs_done,
    }
}

fn endpoint_row(caller: &Caller, view: &EndpointView, instances: u64) -> EndpointRow {
    let endpoint = &view.endpoint;
    EndpointRow {
        name: endpoint.name.clone(),
        kind: endpoint.kind,
        runs_on: match &endpoint.backend {
            Backend::Process(_) if endpoint.runs_embedded_engine() => "embedded engine".to_owned(),
            Backend::Process(_) if !caller.operates(&endpoint.name) => "ComfyUI".to_owned(),
            Backend::Process(spec) => spec.command.iter().take(2).cloned().collect::<Vec<_>>().join(" "),
            Backend::Remote { servers } => format!("{} remote servers", servers.len()),
            Backend::External => "workers that connect".to_owned(),
        },
        queued: view.counters.queued,
        running: view.counters.running,
        instances,
        max_instances: endpoint.scaling.max_instances,
    }
}

async fn job_row(service: &Service, caller: &Caller, job: &JobRecord) -> Result<JobRow, Error> {
    let image = job
        .outputs
        .iter()
        .filter_map(file_of)
        .find(|(_, _, media)| media.starts_with("image/"));
    let note = match job.state {
        JobState::Queued => service
            .why_waiting(job)
            .await?
            .map(|w| {
                let reason = w
                    .reason
                    .for_users_of(|other| caller.may(Scope::Client, other).is_ok());
                match caller.operates(&job.endpoint) {
                    true => reason.to_string(),
                    false => reason.for_clients().to_string(),
                }
            })
            .unwrap_or_default(),
        JobState::Running if job.cancel_requested => "stopping".to_owned(),
        JobState::Failed | JobState::Expired => job
            .failure
            .as_ref()
            .map(|f| f.message.clone())
            .unwrap_or_default(),
        JobState::Running | JobState::Succeeded | JobState::Cancelled => job.meta.summary.clone(),
    };
    Ok(JobRow {
        id: job.id,
        endpoint: job.endpoint.clone(),
        state: job.state,
        created_at: job.created_at,
        started_at: job.started_at,
        finished_at: job.finished_at,
        thumbnail: image.map(|(key, _, _)| service.signed_path(key).path_and_query),
        note,
        progress: (job.state == JobState::Running)
            .then(|| progress(service, job))
            .flatten(),
    })
}

/// How far the running node is, from ComfyUI's last `progress`.
fn progress(service: &Service, job: &JobRecord) -> Option<f32> {
    let text = service.last_progress(job.id)?;
    let message: Value = serde_json::from_str(&text).ok()?;
    let number = |key: &str| {
        message
            .get("data")
            .and_then(|d| d.get(key))
            .and_then(Value::as_f64)
    };
    let (value, max) = (number("value")?, number("max")?);
    (max > 0.0).then_some((value / max) as f32)
}
