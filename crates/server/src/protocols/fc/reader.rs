//! Reading a job's messages one by one, to its end: what server-sent events and the WebSocket share.

use darkroom_core::JobId;

use super::{error::FcError, messages::Transcript};
use crate::{
    service::{
        Error,
        follow::{Follower, Step},
    },
    state::AppState,
};

/// Reads a job's messages one by one, to its end; shared by server-sent events and the WebSocket.
pub struct Reader {
    state: AppState,
    follower: Follower,
    transcript: Transcript,
    waiting: std::collections::VecDeque<String>,
    /// Taken from the follower, not yet made into messages: kept here while outputs are read, so that a caller that
    /// gives up waiting and asks again loses nothing.
    pending: Option<Step>,
    ended: bool,
}

impl Reader {
    /// A reader from the start of the job.
    pub fn new(state: AppState, job: JobId, transcript: Transcript) -> Self {
        let sid = state.service.new_session_id();
        let waiting = [transcript.opening(&sid, 1)].into();
        let follower = state.service.follow(job, 0);
        Reader {
            state,
            follower,
            transcript,
            waiting,
            pending: None,
            ended: false,
        }
    }

    /// The next message; `None` after the last. An error of ours is a last message too: a stream never just stops.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(text) = self.waiting.pop_front() {
                return Some(text);
            }
            if self.ended {
                return None;
            }
            let messages = match self.fetch_step().await {
                Ok(()) => match &self.pending {
                    Some(step) => self.transcript.of_step(step).await,
                    None => {
                        self.ended = true;
                        return Some(FcError::stopping().message().to_string());
                    }
                },
                Err(error) => Err(error),
            };
            let last = matches!(self.pending.take(), Some(Step::End(_)));
            self.ended = last || messages.is_err();
            match messages {
                Ok(messages) => self.waiting.extend(messages),
                Err(error) => return Some(FcError::from(error).message().to_string()),
            }
        }
    }

    /// Waits for the step to show next; there is none when the server stops.
    async fn fetch_step(&mut self) -> Result<(), Error> {
        if self.pending.is_none() {
            self.pending = tokio::select! {
                step = self.follower.next() => Some(step?),
                () = self.state.closing.cancelled() => None,
            };
        }
        Ok(())
    }
}
