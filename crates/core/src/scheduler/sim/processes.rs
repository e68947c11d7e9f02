//! The instances as they really are, which is not always what the store believes.

use std::{collections::BTreeMap, time::Duration};

use super::{
    scenario::Nature,
    world::{Happening, LEASE, World},
};
use crate::{AttemptOutcome, Failure, InstanceId, failure::FailureCode};

#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) alive: bool,
    pub(super) ready: bool,
    /// It was ended by us: what it ran is given back, not lost.
    pub(super) our_doing: bool,
    /// What it works on, by attempt.
    pub(super) prompts: BTreeMap<usize, Prompt>,
}

#[derive(Debug, Default)]
pub(super) struct Prompt {
    /// Nothing is heard of it any more.
    pub(super) silent: bool,
    /// It does not react to an interrupt.
    pub(super) deaf: bool,
}

impl World {
    /// A process that was asked for: it comes up, late or never, or dies on the way.
    pub(super) fn spawn(&mut self, instance: InstanceId) {
        let process = Process {
            alive: true,
            ..Process::default()
        };
        self.processes.insert(instance, process);
        let fault = self.fault();
        match self.random.between(0, 2) {
            0 if fault => {}
            1 if fault => {
                let after = self.random.millis(0, 10_000);
                self.after(after, Happening::Dies(instance));
            }
            2 if fault => {
                let after = self.random.millis(10_000, 80_000);
                self.after(after, Happening::Booted(instance));
            }
            _ => {
                let after = self.random.millis(50, 10_000);
                self.after(after, Happening::Booted(instance));
            }
        }
    }

    /// The process begins to work on an attempt.
    pub(super) fn begin_prompt(
        &mut self,
        instance: InstanceId,
        attempt: usize,
        nature: Nature,
    ) -> Result<(), String> {
        let fault = self.fault();
        let slots = self.store.instances[&instance].slots as usize;
        let took = self.random.millis(100, 20_000);
        let process = self
            .processes
            .get_mut(&instance)
            .expect("claims come from processes");
        if !process.alive {
            return Ok(()); // Posting fails; that it died will be noticed.
        }
        if process.prompts.len() >= slots {
            return Err(format!(
                "attempt {attempt} was given to a process with full hands"
            ));
        }
        let deaf = self.random.percent(20);
        process.prompts.insert(attempt, Prompt { silent: false, deaf });
        let result = |outcome, late| Happening::Result {
            attempt,
            instance,
            outcome,
            late,
        };
        let failure = || Failure::new(FailureCode::ExecutionError, "raised");
        match (nature, self.random.between(0, 3)) {
            (Nature::Kills, _) => self.after(took, Happening::Dies(instance)),
            (Nature::Succeeds, 0) if fault => self.after(took, Happening::Dies(instance)),
            (Nature::Succeeds, 1 | 2) if fault => {
                // It stalls, is given up, and then claims to be finished after all.
                let process = self.processes.get_mut(&instance).expect("it was there above");
                process.prompts.get_mut(&attempt).expect("just begun").silent = true;
                let late = LEASE + self.random.millis(0, 60_000);
                self.after(late, result(AttemptOutcome::Done, true));
            }
            (Nature::Succeeds, _) => {
                self.after(took, result(AttemptOutcome::Done, false));
                if fault {
                    // It says so twice.
                    let again = took + self.random.millis(0, 5_000);
                    self.after(again, result(AttemptOutcome::Done, true));
                }
            }
            (Nature::Fails, _) => self.after(took, result(AttemptOutcome::Failed(failure()), false)),
        }
        Ok(())
    }

    /// Whether this is the moment for something to go wrong.
    fn fault(&mut self) -> bool {
        self.faults_are_on() && self.random.percent(self.scenario.faults)
    }

    /// It is gone, now; whoever watches it notices a little later.
    pub(super) fn process_dies(&mut self, instance: InstanceId, our_doing: bool) {
        let Some(process) = self.processes.get_mut(&instance) else {
            return;
        };
        if !process.alive {
            return;
        }
        *process = Process {
            our_doing,
            ..Process::default()
        };
        let noticed = self.random.millis(0, 500);
        self.after(noticed, Happening::Exited(instance));
    }

    /// Whether anybody would still hear of an attempt: if so, it must not be taken for lost.
    pub(super) fn is_heard(&self, instance: InstanceId, attempt: usize) -> bool {
        let process = &self.processes[&instance];
        process.alive && process.prompts.get(&attempt).is_some_and(|p| !p.silent)
    }

    pub(super) fn can_take(&self, instance: InstanceId) -> bool {
        let process = &self.processes[&instance];
        let slots = self.store.instances[&instance].slots as usize;
        // A dead process whose end was not noticed yet still has a runner that claims for it.
        !process.alive || (process.ready && process.prompts.len() < slots)
    }
}

/// How long an interrupt takes.
pub(super) const INTERRUPT: Duration = Duration::from_millis(300);
/// `cancel_grace` of the simulated endpoints.
pub(super) const CANCEL_GRACE: Duration = Duration::from_secs(10);
