//! `/`: endpoints, instances, and recent jobs, with a thumbnail of what each made and what each waits for.
//!
//! The service fills [`View`]; nothing here asks for anything.

use std::{sync::LazyLock, time::Duration};

use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use darkroom_core::{EndpointName, InstanceId, InstanceState, JobId, JobState, Timestamp, endpoint::Kind};
use http::header;
use sha2::{Digest, Sha256};

/// Everything on the page.
#[derive(Debug, Clone)]
pub struct View {
    /// When it was taken; ages are counted from here.
    pub now: Timestamp,
    /// The name of the viewer's key; `None` on a server without keys.
    pub key_name: Option<String>,
    /// All endpoints the viewer may use.
    pub endpoints: Vec<EndpointRow>,
    /// Their instances that are not gone, and those that failed lately.
    pub instances: Vec<InstanceRow>,
    /// The viewer's newest jobs, newest first.
    pub jobs: Vec<JobRow>,
}

/// One endpoint.
#[derive(Debug, Clone)]
pub struct EndpointRow {
    /// Its name.
    pub name: EndpointName,
    /// What it takes.
    pub kind: Kind,
    /// What it runs on, in a few words: `embedded engine`, `/opt/ComfyUI`, `2 remote servers`.
    pub runs_on: String,
    /// Jobs that wait.
    pub queued: u64,
    /// Jobs that run.
    pub running: u64,
    /// Instances that are starting or up.
    pub instances: u64,
    /// The most there may be.
    pub max_instances: u32,
}

/// One instance.
#[derive(Debug, Clone)]
pub struct InstanceRow {
    /// Its id.
    pub id: InstanceId,
    /// Its endpoint.
    pub endpoint: EndpointName,
    /// Where it is.
    pub state: InstanceState,
    /// Since when.
    pub since: Timestamp,
    /// Its device.
    pub gpu: Option<String>,
    /// Jobs it has run.
    pub jobs_done: u32,
    /// Why it was started, or why it is in its state.
    pub reason: String,
}

/// One job.
#[derive(Debug, Clone)]
pub struct JobRow {
    /// Its id.
    pub id: JobId,
    /// Its endpoint.
    pub endpoint: EndpointName,
    /// Where it is.
    pub state: JobState,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it began to run.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The (signed) URL of its first image.
    pub thumbnail: Option<String>,
    /// What it waits for, what it is doing, or why it failed.
    pub note: String,
    /// How far it is, 0 to 1.
    pub progress: Option<f32>,
}

/// The page as an answer.
pub fn render(view: &View) -> Response {
    let page = Home { view, script: SCRIPT };
    let html = page.render().expect("rendering into a text cannot fail");
    (
        [
            (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
            (header::CACHE_CONTROL, "no-store"),
        ],
        Html(html),
    )
        .into_response()
}

const SCRIPT: &str = include_str!("home.js");

/// Only this very script runs, and nothing comes from elsewhere but images: with an object store, thumbnails do.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(SCRIPT));
    format!(
        "default-src 'none'; script-src 'sha256-{hash}'; style-src 'unsafe-inline'; img-src 'self' https: data:; \
         connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
    )
});

#[derive(Template)]
#[template(path = "home.html")]
struct Home<'a> {
    view: &'a View,
    script: &'static str,
}

impl Home<'_> {
    fn ago(&self, at: &Timestamp) -> String {
        format!("{} ago", brief(self.view.now.since(*at)))
    }

    fn lasting(&self, since: &Timestamp) -> String {
        brief(self.view.now.since(*since))
    }

    fn kind(&self, kind: &Kind) -> &'static str {
        match kind {
            Kind::Comfyui => "ComfyUI",
            Kind::Worker => "worker",
            Kind::Queue => "queue",
        }
    }

    /// The colour of a state.
    fn job_mood(&self, state: &JobState) -> &'static str {
        match state {
            JobState::Queued => "",
            JobState::Running => "busy",
            JobState::Succeeded => "good",
            JobState::Failed | JobState::Expired => "bad",
            JobState::Cancelled => "",
        }
    }

    fn instance_mood(&self, state: &InstanceState) -> &'static str {
        match state {
            InstanceState::Ready => "good",
            InstanceState::Starting | InstanceState::Draining | InstanceState::Stopping => "busy",
            InstanceState::Stopped => "",
            InstanceState::Failed => "bad",
        }
    }

    /// How long it waited and ran, as far as that is known.
    fn took(&self, job: &JobRow) -> String {
        let waited_until = job.started_at.or(job.finished_at).unwrap_or(self.view.now);
        let waited = brief(waited_until.since(job.created_at));
        match job.started_at {
            None => format!("waited {waited}"),
            Some(started) => {
                let ran = job.finished_at.unwrap_or(self.view.now).since(started);
                format!("ran {} after {waited}", brief(ran))
            }
        }
    }

    fn percent(&self, progress: &f32) -> u8 {
        // Clamped first, so the conversion is exact enough for a bar.
        (progress.clamp(0.0, 1.0) * 100.0) as u8
    }
}

/// A duration for a glance: `40 ms`, `3.2 s`, `5 min`, `2 h`, `4 d`.
fn brief(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..=9 => format!("{:.1} s", duration.as_secs_f64()),
        10..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use darkroom_ambient::SystemIds;

    use super::*;

    fn view() -> View {
        let now = Timestamp::from_millis(1_000_000);
        let endpoint: EndpointName = "sdxl".parse().unwrap();
        View {
            now,
            key_name: Some("app".to_owned()),
            endpoints: vec![EndpointRow {
                name: endpoint.clone(),
                kind: Kind::Comfyui,
                runs_on: "embedded engine".to_owned(),
                queued: 3,
                running: 1,
                instances: 1,
                max_instances: 2,
            }],
            instances: vec![InstanceRow {
                id: InstanceId::new(&SystemIds),
                endpoint: endpoint.clone(),
                state: InstanceState::Ready,
                since: now.minus(Duration::from_secs(300)),
                gpu: Some("0".to_owned()),
                jobs_done: 7,
                reason: "3 jobs wait".to_owned(),
            }],
            jobs: vec![JobRow {
                id: JobId::new(&SystemIds),
                endpoint,
                state: JobState::Failed,
                created_at: now.minus(Duration::from_secs(60)),
                started_at: Some(now.minus(Duration::from_secs(50))),
                finished_at: Some(now.minus(Duration::from_secs(46))),
                thumbnail: Some("/darkroom/v1/blobs/a.png?expires=1&signature=x".to_owned()),
                note: "node 3: <script>alert(1)</script>".to_owned(),
                progress: Some(0.4),
            }],
        }
    }

    async fn html(view: &View) -> String {
        let response = render(view);
        assert!(
            response.headers()[header::CONTENT_SECURITY_POLICY]
                .to_str()
                .unwrap()
                .contains("script-src 'sha256-")
        );
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn the_page_shows_what_there_is_and_escapes_it() {
        let page = html(&view()).await;
        for text in [
            "sdxl",
            "embedded engine",
            "ran 4.0 s after 10 s",
            "3 jobs wait",
            "expires=1&#38;signature=x",
        ] {
            assert!(page.contains(text), "missing {text} in\n{page}");
        }
        assert!(!page.contains("<script>alert"), "{page}");
        assert!(
            page.contains(SCRIPT),
            "the policy's hash is of the script as it stands in the page"
        );
    }

    #[tokio::test]
    async fn an_empty_server_says_what_to_do() {
        let page = html(&View {
            jobs: Vec::new(),
            instances: Vec::new(),
            ..view()
        })
        .await;
        assert!(page.contains("darkroom run"), "{page}");
    }

    #[test]
    fn durations_are_brief() {
        for (millis, text) in [
            (40, "40 ms"),
            (3_210, "3.2 s"),
            (59_900, "59 s"),
            (300_000, "5 min"),
            (7_200_000, "2 h"),
            (400_000_000, "4 d"),
        ] {
            assert_eq!(brief(Duration::from_millis(millis)), text);
        }
    }
}
