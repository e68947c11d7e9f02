//! A job in a slot's hands: its lease is renewed, wishes that it stop are heard, until it is let go.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use darkroom_core::{JobId, attempt::Lease};
use darkroom_runner::link::{Address, InputSource, StopCause};
use serde_json::{Map, Value};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::LEASE;
use crate::service::{
    Error, Service,
    credentials::Hidden,
    intake::{self, Fetching, Refused},
};

/// What a slot knows of one attempt it works on.
#[derive(Debug)]
pub(super) struct Held {
    job: JobId,
    models: Vec<String>,
    prompt_id: Mutex<Option<String>>,
    hidden: OnceLock<Hidden>,
    last_event: AtomicU64,
    collecting: AtomicBool,
    stop: watch::Sender<Option<StopCause>>,
    ended: CancellationToken,
    /// The files that its request names, once somebody asked for one from afar.
    named: tokio::sync::OnceCell<Vec<InputSource>>,
    /// Until when its run may take, on the monotonic clock.
    ends_at: Duration,
    /// What is left of the attempt's bounds on fetching, from its first address on.
    fetching: tokio::sync::Mutex<Option<Fetching>>,
}

impl Held {
    /// Begins to hold a job: from now on its lease is renewed, beside the slot, so that a busy slot never loses its job
    /// by being busy.
    pub(super) fn begin(
        service: &Service,
        lease: Lease,
        models: Vec<String>,
        prompt_id: Option<String>,
        may_take: Duration,
    ) -> Arc<Held> {
        let wished = service.hub.attempt_began(lease);
        let held = Arc::new(Held {
            job: lease.job,
            models,
            prompt_id: Mutex::new(prompt_id),
            hidden: OnceLock::new(),
            last_event: AtomicU64::new(0),
            collecting: AtomicBool::new(false),
            stop: watch::Sender::new(None),
            ended: CancellationToken::new(),
            named: tokio::sync::OnceCell::new(),
            ends_at: service.clock.monotonic().saturating_add(may_take),
            fetching: tokio::sync::Mutex::default(),
        });
        tokio::spawn(keep(service.clone(), lease, held.clone(), wished));
        held
    }

    /// The files that its request names; it is read once.
    pub(super) async fn named_files<F>(&self, read: impl FnOnce() -> F) -> Result<&[InputSource], Error>
    where
        F: Future<Output = Result<Vec<InputSource>, Error>>,
    {
        Ok(self.named.get_or_try_init(read).await?)
    }

    /// Whether it runs, and has for longer than it may; `now` is monotonic.
    pub(super) fn is_overdue(&self, now: Duration) -> bool {
        now >= self.ends_at && !self.is_collecting()
    }

    /// Ends the keeping; says whether the attempt was collecting.
    pub(super) fn end(&self) -> bool {
        self.ended.cancel();
        self.is_collecting()
    }

    #[cfg(test)]
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// The models that its graph loads.
    pub(super) fn models(&self) -> &[String] {
        &self.models
    }

    pub(super) fn runs_as(&self, prompt_id: String) {
        *self.prompt_id.lock().unwrap_or_else(PoisonError::into_inner) = Some(prompt_id);
    }

    /// From now on these are not shown, whatever the instance says.
    pub(super) fn hide(&self, credentials: &Map<String, Value>) {
        let _ = self.hidden.set(Hidden::of(credentials));
    }

    /// What an instance says about its own prompt, as the job's followers see it: under the job's id, and without the
    /// job's credentials.
    pub(super) fn as_job(&self, text: &str) -> String {
        let hidden = self.hidden.get().and_then(|hidden| hidden.hide(text));
        let text = hidden.as_deref().unwrap_or(text);
        match &*self.prompt_id.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(prompt_id) if text.contains(prompt_id.as_str()) => {
                text.replace(prompt_id, &self.job.to_string())
            }
            _ => text.to_owned(),
        }
    }

    /// The number of the last durable event that was stored.
    pub(super) fn last_event(&self) -> u64 {
        self.last_event.load(Ordering::Acquire)
    }

    pub(super) fn stored_event(&self, seq: u64) {
        self.last_event.store(seq, Ordering::Release);
    }

    /// Fetches an address of the job's inputs. All addresses of an attempt share one bound of time and one of bytes, so
    /// that they hold its slot no longer than a waiting caller would have waited for them.
    pub(super) async fn fetch(&self, service: &Service, address: &Address) -> Result<Bytes, Refused> {
        let mut fetching = self.fetching.lock().await;
        let fetching = fetching.get_or_insert_with(|| Fetching::begin(&service.fetcher));
        intake::fetch_for_attempt(service, fetching, address).await
    }

    /// Marks it as collecting; `false` when it was already.
    pub(super) fn collects(&self) -> bool {
        !self.collecting.swap(true, Ordering::AcqRel)
    }

    pub(super) fn is_collecting(&self) -> bool {
        self.collecting.load(Ordering::Acquire)
    }

    /// Resolves when the attempt should stop; never, when it ends before anybody wishes that.
    pub(super) async fn stopped(&self) -> StopCause {
        let mut stop = self.stop.subscribe();
        let wished = stop.wait_for(Option::is_some).await.map(|cause| *cause);
        match wished {
            Ok(Some(cause)) => cause,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

/// Renews a lease until the attempt ends, and finds out when it should stop.
async fn keep(service: Service, lease: Lease, held: Arc<Held>, wished: Arc<Notify>) {
    loop {
        tokio::select! {
            () = held.ended.cancelled() => return,
            () = wished.notified() => {}
            () = tokio::time::sleep(LEASE / 3) => {}
        }
        match service.store.renew(lease, LEASE).await {
            Ok(Ok(renewed)) if renewed.cancel_requested => {
                held.stop.send_replace(Some(StopCause::Cancelled));
            }
            Ok(Ok(_)) => {}
            Ok(Err(_)) => {
                held.stop.send_replace(Some(StopCause::Stale));
                return;
            }
            Err(error) => tracing::warn!(job.id = %lease.job, error = ?error, "renewing a lease failed"),
        }
    }
}
