//! Reading a job's messages one by one, to its end: what server-sent events and the WebSocket share.

use darkroom_core::JobId;

use super::{error::FcError, messages::Transcript};
use crate::{
    service::follow::{Follower, Step},
    state::AppState,
};

/// Reads a job's messages one by one, to its end; shared by server-sent events and the WebSocket.
pub struct Reader {
    state: AppState,
    follower: Follower,
    transcript: Transcript,
    waiting: std::collections::VecDeque<String>,
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
            ended: false,
        }
    }

    /// The next message; `None` after the last. An error of ours is a last message too: a stream never just stops.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(text) = self.waiting.pop_front() {
                return Some(text);
            }
            if self.ended {
                return None;
            }
            let step = tokio::select! {
                step = self.follower.next() => step,
                () = self.state.stopping.cancelled() => {
                    self.ended = true;
                    return Some(FcError::stopping().message().to_string());
                }
            };
            let messages = match step {
                Ok(step) => {
                    self.ended = matches!(step, Step::End(_));
                    self.transcript.of_step(step).await
                }
                Err(error) => Err(error),
            };
            match messages {
                Ok(messages) => self.waiting.extend(messages),
                Err(error) => {
                    self.ended = true;
                    return Some(FcError::from(error).message().to_string());
                }
            }
        }
    }
}
