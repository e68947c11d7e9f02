//! Agents: instances on other machines that come by themselves. An agent runs the runner's slot beside its ComfyUI and speaks
//! the port of the attempts over HTTP; here is the other end of it.
//!
//! An agent's name is its instance: who connects under it again goes on there, and whoever had connected before is told that
//! it was superseded. A [`Seat`] is one session: a [`SlotLink`] as every slot has it. What an agent does not work on any more
//! is handed to it again if its prompt was posted, because it may run on its ComfyUI still, and goes back to the queue if not.
//! [`seat`] is what a session may ask for, [`keeper`] finds out that an agent is away for good.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use darkroom_core::{
    AttemptOutcome, EndpointName, InstanceId, InstanceState,
    attempt::Lease,
    endpoint::{Backend, Endpoint, Kind},
};
use darkroom_runner::wire::{Hello, PROTOCOL, Welcome};
use darkroom_store::{
    catalog::{InstanceChange, InstanceRecord},
    jobs::{AttemptRecord, Finish},
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{
    Error, Service,
    attempts::{Adopted, LEASE, SlotActivity, SlotLink},
};

mod boxes;
mod keeper;
pub mod seat;
mod tell;
#[cfg(test)]
mod tests;

use seat::Seat;

/// Agents of one endpoint.
const MOST: usize = 1000;
/// An agent that was heard of within this is connected: between two polls it is silent for milliseconds.
const LATELY: Duration = Duration::from_secs(5);
/// The longest name of an agent, in characters.
const NAME_CHARS: usize = 128;

/// The agents of this server.
#[derive(Default)]
pub struct Agents {
    agents: Mutex<BTreeMap<InstanceId, Arc<Agent>>>,
    /// One at a time takes its seat.
    arrivals: tokio::sync::Mutex<()>,
    /// Those from before a restart are known.
    are_back: AtomicBool,
}

/// One agent, whether it is connected or not.
pub struct Agent {
    endpoint: EndpointName,
    instance: InstanceId,
    who: Who,
    activity: Arc<SlotActivity>,
    draining: CancellationToken,
    seat: Mutex<Option<Arc<Seat>>>,
    heard: Mutex<Heard>,
}

/// What is remembered of an agent in its instance's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Who {
    /// How it calls itself.
    agent: String,
    /// The key it first came with; no other may speak for it.
    key: Option<String>,
}

/// An agent's last sign of life.
#[derive(Debug)]
struct Heard {
    /// Monotonic.
    at: Duration,
    /// Requests of it that are open.
    open: u32,
}

/// Why an agent was not served.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It has to connect (again).
    #[error("the session is not known: connect again")]
    NoSession,
    /// Another session has its place.
    #[error("another agent connected under this name; give each its own with --name")]
    Superseded,
    /// Its instance ended.
    #[error("the instance has ended")]
    Gone,
    /// Another key's agent.
    #[error("an agent with another key has this name")]
    NotYours,
    /// The service cannot, or refuses.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<darkroom_store::Error> for Refused {
    fn from(error: darkroom_store::Error) -> Self {
        Refused::Failed(error.into())
    }
}

impl Agents {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Arc<Agent>>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<Agent>> {
        self.lock().values().cloned().collect()
    }

    fn on(&self, instance: InstanceId) -> Option<Arc<Agent>> {
        self.lock().get(&instance).cloned()
    }

    fn named(&self, endpoint: &EndpointName, name: &str) -> Option<Arc<Agent>> {
        let agents = self.lock();
        let found = agents
            .values()
            .find(|agent| agent.endpoint == *endpoint && agent.who.agent == name);
        found.cloned()
    }
}

impl Agent {
    fn new(endpoint: EndpointName, instance: InstanceId, who: Who, now: Duration) -> Arc<Self> {
        Arc::new(Agent {
            endpoint,
            instance,
            who,
            activity: Arc::default(),
            draining: CancellationToken::new(),
            seat: Mutex::default(),
            heard: Mutex::new(Heard { at: now, open: 0 }),
        })
    }

    /// Whose jobs it runs.
    pub fn endpoint(&self) -> &EndpointName {
        &self.endpoint
    }

    /// How it calls itself.
    pub fn name(&self) -> &str {
        &self.who.agent
    }

    /// Whether it was heard of a moment ago; `now` is monotonic.
    pub fn is_connected(&self, now: Duration) -> bool {
        let heard = self.heard();
        let lately = heard.open > 0 || now.saturating_sub(heard.at) < LATELY;
        drop(heard);
        lately && self.seat().is_some()
    }

    /// Whether a caller with this key is its own.
    pub fn is_of(&self, key: Option<&str>) -> bool {
        self.who.key.as_deref() == key
    }

    fn seat(&self) -> Option<Arc<Seat>> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives it another seat, or none; who sits on the old one is told.
    fn take_seat(&self, seat: Option<Arc<Seat>>) {
        let mut place = self.seat.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = std::mem::replace(&mut *place, seat) {
            old.close();
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    /// The agent on an instance, if it is one's.
    pub fn agent(&self, instance: InstanceId) -> Option<Arc<Agent>> {
        self.agents.on(instance)
    }

    /// How many agents of an endpoint are connected.
    fn agents_connected(&self, endpoint: &EndpointName) -> u64 {
        let now = self.clock.monotonic();
        let all = self.agents.all();
        all.iter()
            .filter(|agent| agent.endpoint == *endpoint && agent.is_connected(now))
            .count() as u64
    }

    /// Whether an endpoint's instances are agents.
    fn takes_agents(endpoint: &Endpoint) -> bool {
        endpoint.kind == Kind::Comfyui && endpoint.backend == Backend::External
    }

    /// How busy the agent on an instance is.
    pub(crate) fn agent_activity(&self, instance: InstanceId) -> Option<Arc<SlotActivity>> {
        self.agents.on(instance).map(|agent| agent.activity.clone())
    }

    /// An agent connects, for the first time or again. `key` names the credential it comes with.
    ///
    /// # Errors
    /// [`Refused::Gone`] when only an instance will do that has ended; [`Refused::NotYours`]; [`Error::Invalid`] for a name
    /// that is none, an endpoint that takes no agents, and an agent of another age.
    pub async fn agent_connects(&self, hello: Hello, key: Option<&str>) -> Result<Welcome, Refused> {
        self.check_hello(&hello)?;
        // One that comes while the server starts must not be told that its instance has ended.
        if !self.agents.are_back.load(Ordering::Acquire) {
            return Err(Refused::Failed(Error::Unavailable {
                reason: "the server is starting".to_owned(),
                retry_after: Duration::from_secs(1),
            }));
        }
        let _alone = self.agents.arrivals.lock().await;
        let found = match hello.instance {
            Some(instance) => Some(self.agents.on(instance).ok_or(Refused::Gone)?),
            None => self.agents.named(&hello.endpoint, &hello.name),
        };
        let agent = match found {
            Some(agent) => agent,
            None => self.agent_arrives(&hello, key).await?,
        };
        if agent.endpoint != hello.endpoint || agent.who.agent != hello.name || !agent.is_of(key) {
            return Err(Refused::NotYours);
        }
        // Whoever sat there lets go first: two links that hold one attempt would each end it for the other.
        agent.take_seat(None);
        let seat = Arc::new(self.new_seat(&agent));
        let open = self.store.open_attempts(Some(&self.node)).await?;
        for attempt in open.iter().filter(|a| a.instance == agent.instance) {
            self.seat_attempt(&seat, attempt, &hello.holding).await?;
        }
        agent.heard().at = self.clock.monotonic();
        let session = seat.session;
        agent.take_seat(Some(seat));
        tracing::info!(instance.id = %agent.instance, endpoint.name = %agent.endpoint, agent.name = agent.who.agent, "an agent connected");
        Ok(Welcome {
            instance: agent.instance,
            session,
            client_id: format!("darkroom-{}", agent.instance),
        })
    }

    fn check_hello(&self, hello: &Hello) -> Result<(), Error> {
        let refuse = |why: String| Err(Error::Invalid(why));
        if hello.protocol != PROTOCOL {
            return refuse(format!(
                "the agent speaks version {} of its protocol, this server {PROTOCOL}: run the same darkroom on both",
                hello.protocol
            ));
        }
        let name = &hello.name;
        if name.is_empty() || name.chars().count() > NAME_CHARS || name.chars().any(char::is_control) {
            return refuse(format!("an agent's name has 1 to {NAME_CHARS} characters"));
        }
        let endpoint = self.endpoint(&hello.endpoint)?;
        if !Self::takes_agents(&endpoint) {
            return refuse(format!(
                "endpoint '{}' takes no agents: it needs kind = \"comfyui\" and backend = \"external\"",
                hello.endpoint
            ));
        }
        Ok(())
    }

    async fn agent_arrives(&self, hello: &Hello, key: Option<&str>) -> Result<Arc<Agent>, Error> {
        let here = self.agents.all();
        if here.iter().filter(|a| a.endpoint == hello.endpoint).count() >= MOST {
            return Err(Error::Invalid(format!("there are {MOST} agents already")));
        }
        let who = Who {
            agent: hello.name.clone(),
            key: key.map(str::to_owned),
        };
        let now = self.clock.now();
        let record = InstanceRecord {
            id: InstanceId::new(&*self.ids),
            endpoint: hello.endpoint.clone(),
            home: self.node.clone(),
            state: InstanceState::Ready,
            state_since: now,
            created_at: now,
            gpu: None,
            box_name: hello.name.clone(),
            handle: serde_json::to_string(&who).ok(),
            start_reason: format!("the agent '{}' connected", hello.name),
            state_reason: String::new(),
            jobs_done: 0,
            phases: vec![],
        };
        let agent = Agent::new(hello.endpoint.clone(), record.id, who, self.clock.monotonic());
        self.store.add_instance(record).await?;
        self.agents.lock().insert(agent.instance, agent.clone());
        Ok(agent)
    }

    fn new_seat(&self, agent: &Arc<Agent>) -> Seat {
        let closed = agent.draining.child_token();
        let limits = self
            .endpoint(&agent.endpoint)
            .map(|e| e.limits.clone())
            .unwrap_or_default();
        let link = SlotLink::new(
            self.clone(),
            agent.endpoint.clone(),
            limits,
            agent.instance,
            closed.clone(),
            agent.activity.clone(),
        )
        .on_box(&agent.who.agent);
        Seat::new(self.ids.uuid_v4(), Arc::new(link), closed)
    }

    /// An attempt that is open on the agent's instance: it goes on with it, is handed it again, or loses it.
    async fn seat_attempt(
        &self,
        seat: &Seat,
        attempt: &AttemptRecord,
        holding: &[Lease],
    ) -> Result<(), Error> {
        let lease = Lease {
            job: attempt.job,
            fence: attempt.fence,
        };
        let is_ours = self.store.adopt(lease, self.node.clone(), LEASE).await?.is_ok();
        let Some(job) = self.store.job(None, attempt.job).await?.filter(|_| is_ours) else {
            return Ok(());
        };
        if holding.contains(&lease) {
            let prompt_id = attempt.running_on.as_ref().map(|on| on.prompt_id.clone());
            return seat.link.keep(lease, &job, prompt_id).await;
        }
        match attempt.running_on.clone() {
            Some(on) => {
                tracing::info!(job.id = %attempt.job, instance.id = %attempt.instance, "an agent goes on with an attempt");
                seat.link.adopt(Adopted {
                    job,
                    attempt: attempt.number,
                    lease,
                    on,
                });
            }
            None => {
                let reason = "its agent was gone before its prompt was posted";
                self.give_back(lease, reason).await?;
            }
        }
        Ok(())
    }

    async fn give_back(&self, lease: Lease, reason: &str) -> Result<(), Error> {
        let released = AttemptOutcome::Released {
            reason: reason.to_owned(),
        };
        // A stale lease means that somebody else gave it back already.
        let _ = self.store.finish(lease, Finish::empty(released)).await?;
        Ok(())
    }

    /// An agent from before a restart of the server; `false` when the row is no agent's. It has the time of every absence to
    /// come back; until then its leases run.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn agent_returns(
        &self,
        record: &InstanceRecord,
        attempts: &[AttemptRecord],
    ) -> Result<bool, Error> {
        let handle = record.handle.as_deref();
        let Some(who) = handle.and_then(|handle| serde_json::from_str::<Who>(handle).ok()) else {
            return Ok(false);
        };
        let now = self.clock.monotonic();
        let agent = Agent::new(record.endpoint.clone(), record.id, who, now);
        if record.state != InstanceState::Ready {
            agent.draining.cancel();
        }
        for attempt in attempts {
            let lease = Lease {
                job: attempt.job,
                fence: attempt.fence,
            };
            let _ = self.store.adopt(lease, self.node.clone(), LEASE).await?;
        }
        self.agents.lock().insert(record.id, agent);
        Ok(true)
    }

    /// All agents from before a restart are known: from now on they may connect, and others.
    pub(crate) fn agents_may_connect(&self) {
        self.agents.are_back.store(true, Ordering::Release);
    }

    /// The planner wants nothing more claimed on an instance, which may be an agent's.
    pub(crate) fn agent_drains(&self, instance: InstanceId) {
        if let Some(agent) = self.agents.on(instance) {
            agent.draining.cancel();
        }
    }

    /// The planner ends an instance, which may be an agent's.
    pub(crate) async fn agent_dismissed(&self, instance: InstanceId) {
        self.dismiss_agents(self.agents.on(instance), "it was stopped")
            .await;
    }

    /// Agents whose key may not do what it did: `may` is asked for a key's name and an endpoint.
    pub(crate) fn agents_without(&self, may: impl Fn(&str, &EndpointName) -> bool) -> Vec<Arc<Agent>> {
        let of_no_key = |agent: &Arc<Agent>| match &agent.who.key {
            Some(key) => !may(key, &agent.endpoint),
            None => false,
        };
        self.agents.all().into_iter().filter(of_no_key).collect()
    }

    /// These agents are served no more; their jobs run elsewhere, at no cost to them.
    pub(crate) async fn dismiss_agents(&self, agents: impl IntoIterator<Item = Arc<Agent>>, reason: &str) {
        for agent in agents {
            let released = AttemptOutcome::Released {
                reason: reason.to_owned(),
            };
            self.agent_gone(&agent, &released, InstanceState::Stopped, reason)
                .await;
        }
    }

    /// An agent is no more: what is open on its instance ends so, and its row says why.
    async fn agent_gone(&self, agent: &Agent, outcome: &AttemptOutcome, to: InstanceState, reason: &str) {
        let _alone = self.agents.arrivals.lock().await;
        if self.agents.lock().remove(&agent.instance).is_none() {
            return;
        }
        agent.draining.cancel();
        agent.take_seat(None);
        tracing::info!(instance.id = %agent.instance, endpoint.name = %agent.endpoint, agent.name = agent.who.agent, reason, "an agent is gone");
        if let Err(error) = self.end_open_attempts(agent.instance, outcome).await {
            tracing::error!(instance.id = %agent.instance, error = ?error, "its attempts end when their leases do");
        }
        if let Err(error) = self.end_instance(agent.instance, to, reason).await {
            tracing::error!(instance.id = %agent.instance, error = ?error, "an agent's end could not be recorded");
        }
    }

    async fn end_open_attempts(&self, instance: InstanceId, outcome: &AttemptOutcome) -> Result<(), Error> {
        for attempt in self.store.open_attempts(Some(&self.node)).await? {
            if attempt.instance != instance {
                continue;
            }
            let lease = Lease {
                job: attempt.job,
                fence: attempt.fence,
            };
            match &attempt.running_on {
                Some(_) => {
                    let _ = self.store.finish(lease, Finish::empty(outcome.clone())).await?;
                }
                None => {
                    self.give_back(lease, "its agent was gone before its prompt was posted")
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// Enters a final state from whatever state the row is in: the table knows `stopping -> stopped`, `anything -> failed`.
    async fn end_instance(&self, instance: InstanceId, to: InstanceState, reason: &str) -> Result<(), Error> {
        for _ in 0..3 {
            let Some(record) = self.store.instance(instance).await? else {
                break;
            };
            let step = match (to, record.state) {
                (_, state) if state.is_final() => break,
                (_, InstanceState::Stopping) => InstanceState::Stopped,
                (InstanceState::Failed, _) => InstanceState::Failed,
                _ => InstanceState::Stopping,
            };
            let change = InstanceChange {
                state: Some(step),
                reason: Some(reason.to_owned()),
                ..InstanceChange::default()
            };
            self.store.change_instance(instance, record.state, change).await?;
        }
        Ok(())
    }
}
