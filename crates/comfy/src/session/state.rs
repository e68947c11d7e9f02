//! The session's state and how observations change it.

use darkroom_core::Timestamp;

use super::config::Config;
use super::event::{Action, Failure, SessionEvent};
use super::verdict::{Announced, LostReason, Verdict, from_history};
use crate::wire::{BinaryFrame, Body, HistoryEntry, Message, QueueSnapshot};

/// One prompt on one instance, from `POST /prompt` to its verdict.
#[derive(Debug)]
pub struct Session {
    prompt_id: String,
    config: Config,
    phase: Phase,
    socket: Socket,
    /// False from a reopening of the socket until the prompt is heard of: ComfyUI may have forgotten whose it is.
    heard: bool,
    /// The HTTP request that was asked for and not answered yet.
    asked: Option<(Action, Timestamp)>,
    next_queue: Timestamp,
    next_history: Option<Timestamp>,
    history_pause: std::time::Duration,
    /// The last sign of life of the prompt itself.
    last_sign: Timestamp,
    /// Since when it is pending although nothing runs.
    idle_since: Option<Timestamp>,
    /// True if the last look at the queue did not find the prompt, and the history was not asked since.
    not_queued: bool,
    /// Since when neither queue nor history know it.
    gone_since: Option<Timestamp>,
    refused_since: Option<Timestamp>,
    unanswered_since: Option<Timestamp>,
    garbage_since: Option<Timestamp>,
    current_node: Option<String>,
    announced: Option<Announced>,
    verdict: Option<Verdict>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Waiting,
    Running,
    /// The end was announced; the history has to confirm it.
    Ending,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Socket {
    Open,
    Opening { since: Timestamp },
    Closed { retry_at: Timestamp },
}

impl Session {
    /// A session about a prompt that an instance just accepted, its socket open since before.
    pub fn new(prompt_id: impl Into<String>, config: Config, now: Timestamp) -> Self {
        Self {
            prompt_id: prompt_id.into(),
            phase: Phase::Waiting,
            socket: Socket::Open,
            heard: true,
            asked: None,
            next_queue: now.plus(config.waiting_poll),
            next_history: None,
            history_pause: config.history_retry,
            last_sign: now,
            idle_since: None,
            not_queued: false,
            gone_since: None,
            refused_since: None,
            unanswered_since: None,
            garbage_since: None,
            current_node: None,
            announced: None,
            verdict: None,
            config,
        }
    }

    /// A session about a prompt that was sent earlier, perhaps by a process that died since: the socket has to
    /// be opened under the client id of that time, and the queue and history asked what happened meanwhile.
    pub fn resume(prompt_id: impl Into<String>, config: Config, now: Timestamp) -> Self {
        let mut session = Self::new(prompt_id, config, now);
        session.socket = Socket::Closed { retry_at: now };
        session.next_queue = now;
        session
    }

    /// The prompt this is about.
    pub fn prompt_id(&self) -> &str {
        &self.prompt_id
    }

    /// The node that runs right now, as far as the messages tell.
    pub fn current_node(&self) -> Option<&str> {
        self.current_node.as_deref()
    }

    /// True once the instance began to execute the prompt.
    pub fn has_started(&self) -> bool {
        self.phase != Phase::Waiting
    }

    /// How it ended; nothing changes any more then.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// The verdict, taken out.
    pub fn into_verdict(self) -> Option<Verdict> {
        self.verdict
    }

    /// A text message came over the socket.
    pub fn on_message(&mut self, message: Message, now: Timestamp) -> Vec<SessionEvent> {
        if self.verdict.is_some() {
            return Vec::new();
        }
        match message.prompt_id() {
            Some(prompt_id) if prompt_id != self.prompt_id => return Vec::new(),
            Some(_) => {
                self.heard = true;
                self.sign_of_life(now);
            }
            None => {}
        }
        let durable = match message.body() {
            Body::Status { queue_remaining, .. } => {
                // Nothing is left there: either the prompt is over, or this is from before it was accepted.
                if *queue_remaining == Some(0) && self.phase != Phase::Ending {
                    self.ask_history(now.plus(self.config.settle));
                }
                return Vec::new();
            }
            Body::FeatureFlags(_) => return Vec::new(),
            Body::Unknown { prompt_id: None } if self.phase == Phase::Waiting => return Vec::new(),
            Body::Unknown { .. } => false,
            Body::Progress { .. } | Body::ProgressState { .. } => {
                self.begin();
                false
            }
            Body::ExecutionStart { .. } | Body::ExecutionCached { .. } | Body::Executed { .. } => {
                self.begin();
                true
            }
            Body::Executing { node: Some(node), .. } => {
                self.current_node = Some(node.clone());
                // Also after an announced end: what looked like a failure was a blocked branch.
                self.phase = Phase::Running;
                self.sign_of_life(now);
                true
            }
            Body::Executing {
                node: None,
                prompt_id: None,
                ..
            } => return Vec::new(),
            Body::Executing { node: None, .. } => {
                self.end(self.announced.clone(), now, now);
                true
            }
            Body::ExecutionError(error) => {
                self.end(
                    Some(Announced::Error(error.clone())),
                    now.plus(self.config.settle),
                    now,
                );
                true
            }
            Body::ExecutionInterrupted { .. } => {
                self.end(Some(Announced::Interrupted), now.plus(self.config.settle), now);
                true
            }
            Body::ExecutionSuccess { .. } => {
                self.end(Some(Announced::Success), now.plus(self.config.settle), now);
                true
            }
        };
        vec![if durable {
            SessionEvent::Durable(message)
        } else {
            SessionEvent::Ephemeral(message)
        }]
    }

    /// A binary frame came over the socket. Event 1 and text name no prompt: they are of the running one.
    pub fn on_binary(&mut self, frame: BinaryFrame, now: Timestamp) -> Vec<SessionEvent> {
        let foreign = match &frame {
            BinaryFrame::PreviewWithMetadata { metadata, .. } => metadata
                .prompt_id
                .as_deref()
                .is_some_and(|id| id != self.prompt_id),
            BinaryFrame::Preview { .. } | BinaryFrame::Text { .. } => self.phase != Phase::Running,
            BinaryFrame::Unknown { .. } => true,
        };
        if foreign || self.verdict.is_some() {
            return Vec::new();
        }
        self.sign_of_life(now);
        vec![match frame {
            BinaryFrame::Text { node_id, text } => SessionEvent::Text { node: node_id, text },
            BinaryFrame::PreviewWithMetadata { ref metadata, .. } => SessionEvent::Image {
                node: metadata.node_id.clone(),
                frame,
            },
            BinaryFrame::Preview { .. } | BinaryFrame::Unknown { .. } => SessionEvent::Image {
                node: self.current_node.clone(),
                frame,
            },
        }]
    }

    /// The socket is open again, after `OpenSocket`.
    pub fn on_socket_opened(&mut self, now: Timestamp) -> Vec<SessionEvent> {
        let was_away = self.socket != Socket::Open;
        self.socket = Socket::Open;
        self.heard = !was_away;
        self.refused_since = None;
        self.next_queue = self.next_queue.min(now);
        if was_away && self.verdict.is_none() {
            vec![SessionEvent::Gap]
        } else {
            Vec::new()
        }
    }

    /// The socket broke or was closed.
    pub fn on_socket_closed(&mut self, now: Timestamp) {
        self.socket = Socket::Closed { retry_at: now };
        self.next_queue = self.next_queue.min(now);
    }

    /// The answer to `FetchQueue`.
    pub fn on_queue(&mut self, queue: &QueueSnapshot, now: Timestamp) {
        self.answered();
        self.not_queued = false;
        if queue.is_running(&self.prompt_id) {
            self.idle_since = None;
            self.gone_since = None;
            if self.phase == Phase::Waiting {
                self.begin();
                self.last_sign = now;
            }
        } else if queue.is_pending(&self.prompt_id) {
            self.gone_since = None;
            if queue.running.is_empty() {
                let since = *self.idle_since.get_or_insert(now);
                if now.since(since) >= self.config.worker_dead_after {
                    self.lose(LostReason::WorkerDead);
                }
            } else {
                // It waits behind somebody else's prompt; that is no stall.
                self.idle_since = None;
                self.last_sign = now;
            }
        } else {
            self.idle_since = None;
            self.not_queued = true;
            self.ask_history(now);
        }
        self.next_queue = now.plus(self.queue_pause());
    }

    /// The answer to `FetchHistory`: the entry, if there is one.
    pub fn on_history(&mut self, entry: Option<HistoryEntry>, now: Timestamp) {
        self.answered();
        self.next_history = None;
        if self.verdict.is_some() {
            return;
        }
        let not_queued = std::mem::take(&mut self.not_queued);
        if let Some(entry) = entry {
            // Without a status and without an announcement there is no telling; then it is as good as gone.
            match from_history(entry, self.announced.clone()) {
                Some(verdict) => self.verdict = Some(verdict),
                None => self.lose(LostReason::Gone),
            }
            return;
        }
        if not_queued {
            let since = *self.gone_since.get_or_insert(now);
            if now.since(since) >= self.config.gone_after {
                self.lose(LostReason::Gone);
            }
            self.next_queue = self.next_queue.min(now.plus(self.config.closing_poll));
        }
        if self.phase == Phase::Ending {
            self.ask_history(now.plus(self.history_pause));
            self.history_pause = (self.history_pause * 2).min(self.config.closing_poll);
        }
    }

    /// A request failed.
    pub fn on_failed(&mut self, action: Action, failure: Failure, now: Timestamp) {
        let retry_at = now.plus(self.config.failure_retry);
        match action {
            Action::OpenSocket => self.socket = Socket::Closed { retry_at },
            Action::FetchQueue => {
                self.asked = None;
                self.next_queue = retry_at;
            }
            Action::FetchHistory => {
                self.asked = None;
                self.next_history = Some(retry_at);
            }
        }
        match failure {
            Failure::Refused => {
                self.refused_since.get_or_insert(now);
            }
            Failure::NoAnswer => {
                self.refused_since = None;
                // The socket may stay shut for reasons of its own (a proxy) while requests are answered.
                if action != Action::OpenSocket {
                    self.unanswered_since.get_or_insert(now);
                }
            }
            Failure::Garbage => {
                self.refused_since = None;
                if action != Action::OpenSocket {
                    self.garbage_since.get_or_insert(now);
                }
            }
        }
    }

    /// The caller knows for certain: the process ended, or its output says that the worker died.
    pub fn give_up(&mut self, reason: LostReason) {
        self.lose(reason);
    }

    /// What to do now; call it until it says `None`. Also notices what did not happen in time.
    pub fn poll_action(&mut self, now: Timestamp) -> Option<Action> {
        self.check_deadlines(now);
        if self.verdict.is_some() {
            return None;
        }
        let forgotten = |since: Timestamp| now.since(since) >= self.config.request_timeout;
        match self.socket {
            Socket::Closed { retry_at } if retry_at <= now => {
                self.socket = Socket::Opening { since: now };
                return Some(Action::OpenSocket);
            }
            Socket::Opening { since } if forgotten(since) => {
                self.socket = Socket::Opening { since: now };
                return Some(Action::OpenSocket);
            }
            Socket::Open | Socket::Opening { .. } | Socket::Closed { .. } => {}
        }
        if self.asked.is_some_and(|(_, since)| !forgotten(since)) {
            return None;
        }
        let action = if self.next_history.is_some_and(|at| at <= now) {
            Action::FetchHistory
        } else if self.next_queue <= now {
            Action::FetchQueue
        } else {
            return None;
        };
        self.asked = Some((action, now));
        Some(action)
    }

    /// When to call [`Session::poll_action`] again if nothing else happens; `None` after the verdict.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        if self.verdict.is_some() {
            return None;
        }
        let config = &self.config;
        let socket = match self.socket {
            Socket::Open => None,
            Socket::Opening { since } => Some(since.plus(config.request_timeout)),
            Socket::Closed { retry_at } => Some(retry_at),
        };
        let request = match self.asked {
            Some((_, since)) => since.plus(config.request_timeout),
            None => self
                .next_history
                .map_or(self.next_queue, |at| at.min(self.next_queue)),
        };
        let refused = self
            .refused_since
            .map(|since| since.plus(config.unreachable_after));
        let unanswered = self
            .unanswered_since
            .filter(|_| self.phase != Phase::Running)
            .map(|since| since.plus(config.unanswered_after));
        let garbage = self.garbage_since.map(|since| since.plus(config.garbage_after));
        let stalled = self.last_sign.plus(config.stall_timeout);
        [socket, Some(request), refused, unanswered, garbage, Some(stalled)]
            .into_iter()
            .flatten()
            .min()
    }

    fn check_deadlines(&mut self, now: Timestamp) {
        let silent = now.since(self.last_sign);
        if let Some(since) = self.refused_since.map(|since| now.since(since))
            && since >= self.config.unreachable_after
        {
            self.lose(LostReason::Unreachable { since });
        } else if let Some(since) = self.garbage_since.map(|since| now.since(since))
            && since >= self.config.garbage_after
        {
            self.lose(LostReason::Garbage { since });
        } else if let Some(since) = self.unanswered_since.map(|since| now.since(since))
            && self.phase != Phase::Running
            && since >= self.config.unanswered_after
        {
            self.lose(LostReason::Unanswered { since });
        } else if silent >= self.config.stall_timeout {
            self.lose(LostReason::Stalled { silent });
        }
    }

    fn begin(&mut self) {
        if self.phase == Phase::Waiting {
            self.phase = Phase::Running;
        }
    }

    /// The messages say that it is over; the history decides.
    fn end(&mut self, announced: Option<Announced>, ask_at: Timestamp, now: Timestamp) {
        self.announced = announced;
        self.current_node = None;
        if self.phase != Phase::Ending {
            self.phase = Phase::Ending;
            self.history_pause = self.config.history_retry;
        }
        self.ask_history(ask_at);
        self.next_queue = self.next_queue.min(now.plus(self.config.closing_poll));
    }

    fn sign_of_life(&mut self, now: Timestamp) {
        self.last_sign = now;
        self.idle_since = None;
        self.gone_since = None;
        self.refused_since = None;
        self.unanswered_since = None;
        if self.phase == Phase::Running && self.socket == Socket::Open && self.heard {
            self.next_queue = now.plus(self.config.running_poll);
        }
    }

    fn answered(&mut self) {
        self.asked = None;
        self.refused_since = None;
        self.unanswered_since = None;
        self.garbage_since = None;
    }

    /// Asks for the history at this time, unless it is asked earlier anyway.
    fn ask_history(&mut self, at: Timestamp) {
        self.next_history = Some(self.next_history.map_or(at, |earlier| earlier.min(at)));
    }

    fn queue_pause(&self) -> std::time::Duration {
        match (self.phase, self.socket) {
            (Phase::Ending, _) | (_, Socket::Opening { .. } | Socket::Closed { .. }) => {
                self.config.closing_poll
            }
            (Phase::Running, Socket::Open) if self.heard => self.config.running_poll,
            (Phase::Waiting | Phase::Running, Socket::Open) => self.config.waiting_poll,
        }
    }

    fn lose(&mut self, reason: LostReason) {
        if self.verdict.is_none() {
            self.verdict = Some(Verdict::Lost { reason });
        }
    }
}
