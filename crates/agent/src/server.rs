//! The server as an agent sees it: a session that is made anew whenever the server does not know it any more.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use darkroom_comfy::client::facts::Facts;
use darkroom_core::{EndpointName, InstanceId, attempt::Lease};
use darkroom_runner::{
    link::LinkError,
    wire::{Hello, Leave, PROTOCOL, Welcome},
};
use reqwest::{Method, RequestBuilder, Response};
use tokio::sync::watch;
use url::Url;
use uuid::Uuid;

use crate::{
    Error,
    pace::Pace,
    refusal::{Refusal, answered},
};

/// A request is given up when nothing moves for this long. The server holds polls for 25 s, and may read a large input for
/// two minutes before it hands a job out.
const SILENCE: Duration = Duration::from_secs(180);
const CONNECT: Duration = Duration::from_secs(10);
/// How long the end of an agent waits for a server that does not answer.
const GOOD_BYE: Duration = Duration::from_secs(10);

/// Where the server is, and who the agent is.
#[derive(Debug, Clone)]
pub struct Access {
    /// Its address.
    pub server: Url,
    /// The key to show.
    pub key: Option<String>,
    /// Whose jobs the agent runs.
    pub endpoint: EndpointName,
    /// How it calls itself.
    pub name: String,
}

/// See the module.
pub struct Server {
    http: reqwest::Client,
    base: String,
    access: Access,
    instance: InstanceId,
    client_id: String,
    session: Mutex<Uuid>,
    connecting: tokio::sync::Mutex<()>,
    holding: Mutex<HashSet<Lease>>,
    over: watch::Sender<Option<Over>>,
}

/// Why the server has nothing more to do with an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Over {
    /// Somebody else has its name.
    Superseded,
    /// Its key does not count any more, or its endpoint takes no agents.
    Refused(String),
}

/// Why a call did not do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// The server cannot be reached, or cannot do it now.
    Away(String),
    /// The attempt is not ours any more.
    Stale,
    /// An input cannot be had.
    InputUnavailable(String),
    /// It will never work.
    Rejected(String),
    /// Somebody else has our name.
    Superseded,
    /// The key does not count.
    Refused(String),
    /// The instance ended; the server may know a new one.
    Gone,
    /// There is no more work.
    Closed,
}

impl From<Failed> for LinkError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Away(why) => LinkError::Unavailable(why),
            // Nothing is to be ended then: whoever has our name goes on with it.
            Failed::Superseded => LinkError::Unavailable("another agent has this name".to_owned()),
            Failed::Refused(why) => LinkError::Unavailable(why),
            Failed::InputUnavailable(why) => LinkError::InputUnavailable(why),
            Failed::Rejected(why) => LinkError::Rejected(why),
            Failed::Stale | Failed::Gone | Failed::Closed => LinkError::Stale,
        }
    }
}

impl Server {
    /// Connects under the agent's name; a server that is away is waited for.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Http`].
    pub async fn connect(access: Access) -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .tcp_keepalive(Duration::from_secs(20))
            .user_agent(concat!("darkroom-agent/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let base = access.server.as_str().trim_end_matches('/');
        let base = format!("{base}/darkroom/v1/agent");
        let mut pace = Pace::new();
        let welcome = loop {
            match hello(&http, &base, &access, None, vec![]).await {
                Ok(welcome) => break welcome,
                Err(Failed::Away(why)) => {
                    if pace.is_first() {
                        tracing::warn!(server = base, why, "the server does not answer; trying again");
                    }
                    pace.wait().await;
                }
                Err(Failed::Rejected(why) | Failed::Refused(why)) => return Err(Error::Refused(why)),
                Err(other) => return Err(Error::Refused(format!("{other:?}"))),
            }
        };
        Ok(Server {
            http,
            base,
            access,
            instance: welcome.instance,
            client_id: welcome.client_id,
            session: Mutex::new(welcome.session),
            connecting: tokio::sync::Mutex::default(),
            holding: Mutex::default(),
            over: watch::Sender::new(None),
        })
    }

    /// The agent's instance.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Under which ComfyUI's socket is opened.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Resolves when the server has nothing more to do with this agent.
    pub async fn over(&self) -> Over {
        let mut told = self.over.subscribe();
        let over = told
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|over| over.clone());
        match over {
            Some(over) => over,
            // The sender lives as long as this.
            None => std::future::pending().await,
        }
    }

    fn end(&self, over: Over) {
        self.over.send_if_modified(|told| {
            let is_first = told.is_none();
            told.get_or_insert(over);
            is_first
        });
    }

    /// From now on the agent works on this attempt.
    pub fn hold(&self, lease: Lease) {
        self.holding().insert(lease);
    }

    /// It does not any more.
    pub fn let_go(&self, lease: Lease) {
        self.holding().remove(&lease);
    }

    /// Whether it works on nothing.
    pub fn is_idle(&self) -> bool {
        self.holding().is_empty()
    }

    /// Tells what ComfyUI can do.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn tell_object_info(&self, json: Bytes) -> Result<(), Failed> {
        let told = self.call(Method::PUT, "object_info", |request| request.body(json.clone()));
        told.await.map(drop)
    }

    /// Tells what else there is to know of ComfyUI.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn tell_facts(&self, facts: &Facts) -> Result<(), Failed> {
        let told = self.call(Method::PUT, "facts", |request| request.json(facts));
        told.await.map(drop)
    }

    /// Says good-bye; a server that does not hear it finds out by itself.
    pub async fn leave(&self, reason: &str, broken: bool) {
        let leave = Leave {
            reason: reason.to_owned(),
            broken,
        };
        let telling = self.call(Method::POST, "leave", |request| request.json(&leave));
        match tokio::time::timeout(GOOD_BYE, telling).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(?error, "the server was not told that the agent leaves"),
            Err(_) => tracing::warn!("the server does not answer, and was not told that the agent leaves"),
        }
    }

    /// A call about an attempt.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn about(
        &self,
        lease: Lease,
        method: Method,
        what: &str,
        with: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Failed> {
        let path = format!("{}/{}/{what}", lease.job, lease.fence);
        self.call(method, &path, with).await
    }

    /// A call of the session; made again under a new one, if the server does not know it any more.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        with: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Failed> {
        loop {
            if let Some(answer) = self.try_call(method.clone(), path, &with).await {
                return answer;
            }
        }
    }

    /// The same for a body that can be sent only once.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn call_once(
        &self,
        method: Method,
        path: &str,
        with: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Failed> {
        let answer = self.try_call(method, path, with).await;
        answer.unwrap_or_else(|| Err(Failed::Away("the session was renewed".to_owned())))
    }

    /// `None`: there is another session now.
    async fn try_call(
        &self,
        method: Method,
        path: &str,
        with: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Option<Result<Response, Failed>> {
        let session = *self.session();
        let url = format!("{}/{}/{session}/{path}", self.base, self.instance);
        let request = with(keyed(self.http.request(method, url), &self.access));
        match answered(request).await {
            Err(Refusal::NoSession) => self.connect_again(session).await.err().map(Err),
            // Of a session that we had before.
            Err(Refusal::Failed(Failed::Superseded)) if *self.session() != session => None,
            Err(Refusal::Failed(failed)) => {
                match &failed {
                    Failed::Superseded => self.end(Over::Superseded),
                    Failed::Refused(why) => self.end(Over::Refused(why.clone())),
                    Failed::Away(_)
                    | Failed::Stale
                    | Failed::InputUnavailable(_)
                    | Failed::Rejected(_)
                    | Failed::Gone
                    | Failed::Closed => {}
                }
                Some(Err(failed))
            }
            Ok(response) => Some(Ok(response)),
        }
    }

    /// One session for all who found the old one gone.
    async fn connect_again(&self, old: Uuid) -> Result<(), Failed> {
        let _alone = self.connecting.lock().await;
        if *self.session() != old {
            return Ok(());
        }
        let holding = self.holding().iter().copied().collect();
        let welcome = hello(&self.http, &self.base, &self.access, Some(self.instance), holding).await;
        if let Err(Failed::Rejected(why) | Failed::Refused(why)) = &welcome {
            self.end(Over::Refused(why.clone()));
        }
        let welcome = welcome?;
        tracing::info!(instance.id = %self.instance, "connected again");
        *self.session() = welcome.session;
        Ok(())
    }

    fn session(&self) -> MutexGuard<'_, Uuid> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holding(&self) -> MutexGuard<'_, HashSet<Lease>> {
        self.holding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn hello(
    http: &reqwest::Client,
    base: &str,
    access: &Access,
    instance: Option<InstanceId>,
    holding: Vec<Lease>,
) -> Result<Welcome, Failed> {
    let hello = Hello {
        protocol: PROTOCOL,
        endpoint: access.endpoint.clone(),
        name: access.name.clone(),
        instance,
        holding,
    };
    let request = keyed(http.post(format!("{base}/connect")), access).json(&hello);
    match answered(request).await {
        Ok(response) => read(response).await,
        Err(Refusal::Failed(failed)) => Err(failed),
        Err(Refusal::NoSession) => Err(Failed::Rejected(
            "the server knows no agents: it is too old".to_owned(),
        )),
    }
}

/// The JSON of an answer.
///
/// # Errors
/// [`Failed::Away`]: half an answer is none.
pub async fn read<T: serde::de::DeserializeOwned>(response: Response) -> Result<T, Failed> {
    response.json().await.map_err(|error| Failed::Away(shown(&error)))
}

fn keyed(request: RequestBuilder, access: &Access) -> RequestBuilder {
    match &access.key {
        Some(key) => request.bearer_auth(key),
        None => request,
    }
}

/// What went wrong, without the address.
pub(crate) fn shown(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
