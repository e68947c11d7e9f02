//! Virtual time, the queue of happenings, and what happens outside the server.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{
    Plant, Summary, Violation,
    invariants::Invariants,
    processes::Process,
    random::Random,
    scenario::{FAULTS_UNTIL, JobSpec, Scenario},
    store::{EndpointRow, Store},
};
use crate::{
    AttemptOutcome, EndpointName, InstanceId, Timestamp,
    scheduler::{Action, ClockGuard, Fairness},
};

pub(super) const LEASE: Duration = Duration::from_secs(10);
/// More happenings than any honest history has.
const MAX_STEPS: u64 = 100_000;
/// How many of them a violation shows.
const TRACE: usize = 60;

#[derive(Debug, Clone)]
pub(super) enum Happening {
    Submit(JobSpec),
    CancelSomething,
    RetrySomething,
    Plan,
    Execute {
        action: Action,
        last: bool,
    },
    Heartbeat,
    Booted(InstanceId),
    Exited(InstanceId),
    Result {
        attempt: usize,
        instance: InstanceId,
        outcome: AttemptOutcome,
        late: bool,
    },
    Collected(usize),
    Interrupt(usize),
    GraceOver(usize),
    WorkerComes(EndpointName),
    OperatorDrains,
    Paused(EndpointName, bool),
    // These need no server.
    Dies(InstanceId),
    SomethingDies,
    ServerStops(Duration),
    ServerCrashes {
        away: Duration,
        whole_tree: bool,
    },
    ServerReturns {
        crashed: bool,
    },
    WallJumps(i64),
}

impl Happening {
    fn needs_server(&self) -> bool {
        !matches!(
            self,
            Happening::Dies(_)
                | Happening::SomethingDies
                | Happening::ServerStops(_)
                | Happening::ServerCrashes { .. }
                | Happening::ServerReturns { .. }
                | Happening::WallJumps(_)
        )
    }

    /// It exists only in the server's memory.
    fn dies_with_server(&self) -> bool {
        matches!(
            self,
            Happening::Plan
                | Happening::Execute { .. }
                | Happening::Heartbeat
                | Happening::Interrupt(_)
                | Happening::GraceOver(_)
        )
    }
}

/// Where the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Here,
    /// Stopped: everything waits until it goes on.
    Stopped {
        until: Duration,
    },
    /// Crashed: what was in its memory is gone.
    Crashed {
        until: Duration,
    },
}

pub(super) struct World {
    seed: u64,
    pub(super) random: Random,
    pub(super) scenario: Scenario,
    /// Since the beginning; never jumps.
    pub(super) now: Duration,
    wall_offset_ms: i64,
    queue: BTreeMap<(Duration, u64), Happening>,
    sequence: u64,
    pub(super) store: Store,
    pub(super) specs: Vec<JobSpec>,
    pub(super) processes: BTreeMap<InstanceId, Process>,
    pub(super) presence: Presence,
    pub(super) guard: ClockGuard,
    pub(super) heartbeats: bool,
    /// A plan is being carried out.
    pub(super) executing: bool,
    pub(super) next_plan: Option<Duration>,
    pub(super) invariants: Invariants,
    pub(super) summary: Summary,
    /// The last happenings, if anybody wants to see them.
    trace: Option<VecDeque<String>>,
}

impl World {
    pub(super) fn new(seed: u64, plant: Plant, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let scenario = Scenario::new(&mut random);
        let mut world = World {
            seed,
            random,
            now: Duration::ZERO,
            wall_offset_ms: 1_700_000_000_000,
            queue: BTreeMap::new(),
            sequence: 0,
            store: Store::new(plant),
            specs: Vec::new(),
            processes: BTreeMap::new(),
            presence: Presence::Here,
            guard: ClockGuard::new(LEASE),
            heartbeats: false,
            executing: false,
            next_plan: None,
            invariants: Invariants::new(scenario.priorities),
            summary: Summary::default(),
            trace: traced.then(VecDeque::new),
            scenario,
        };
        world.set_the_scene();
        world
    }

    fn set_the_scene(&mut self) {
        for (name, limits) in self.scenario.limits.clone() {
            let row = EndpointRow {
                limits,
                fairness: Fairness::default(),
                paused: false,
                start_failures: 0,
                last_start_failure: None,
            };
            self.store.endpoints.insert(name.clone(), row);
            if !self.scenario.policy.endpoints[&name].managed {
                for _ in 0..self.random.small(1, 2) {
                    self.after(Duration::ZERO, Happening::WorkerComes(name.clone()));
                }
            }
        }
        for (at, spec) in std::mem::take(&mut self.scenario.jobs) {
            self.after(at, Happening::Submit(spec));
        }
        for _ in 0..self.scenario.cancels {
            let at = self.some_time();
            self.after(at, Happening::CancelSomething);
        }
        if self.scenario.cancels > 4 {
            self.after(FAULTS_UNTIL, Happening::RetrySomething);
        }
        for _ in 0..self.scenario.troubles {
            let at = self.some_time();
            let trouble = self.trouble();
            self.after(at, trouble);
        }
        self.plan_soon();
    }

    fn some_time(&mut self) -> Duration {
        self.random.millis(0, 250_000)
    }

    fn trouble(&mut self) -> Happening {
        match self.random.between(0, 7) {
            0 => Happening::ServerStops(self.random.millis(1, 90_000)),
            1 | 2 => Happening::ServerCrashes {
                away: self.random.millis(10, 30_000),
                whole_tree: self.random.percent(50),
            },
            3 => Happening::WallJumps(3_600_000),
            4 => Happening::WallJumps(-600_000),
            5 => Happening::OperatorDrains,
            6 => {
                let names: Vec<EndpointName> = self.scenario.policy.endpoints.keys().cloned().collect();
                let name = self.random.of(&names).clone();
                self.after(FAULTS_UNTIL, Happening::Paused(name.clone(), false));
                Happening::Paused(name, true)
            }
            _ => Happening::SomethingDies,
        }
    }

    pub(super) fn run(mut self) -> Result<Summary, Violation> {
        while let Some(((at, _), happening)) = self.queue.pop_first() {
            self.now = at;
            self.summary.steps += 1;
            self.note(|| format!("{happening:?}"));
            self.step(happening)
                .and_then(|()| self.invariants.check(&self.store, &self.scenario.policy))
                .map_err(|what| self.violation(what))?;
            if self.summary.steps > MAX_STEPS {
                return Err(self.violation("it does not come to rest".to_owned()));
            }
        }
        self.invariants
            .check_end(&self.store, &self.scenario.policy, &self.specs)
            .map_err(|what| self.violation(what))?;
        self.summary.jobs = self.store.jobs.len() as u64;
        self.summary.attempts = self.store.attempts.len() as u64;
        Ok(self.summary)
    }

    fn step(&mut self, happening: Happening) -> Result<(), String> {
        match self.presence {
            Presence::Stopped { until } if happening.needs_server() => {
                self.at(until, happening);
                return Ok(());
            }
            Presence::Crashed { until } if happening.needs_server() => {
                match happening {
                    // Refused, so never accepted: the client tries again.
                    Happening::Submit(_) => self.at(until, happening),
                    other if other.dies_with_server() => {}
                    other => self.at(until, other),
                }
                return Ok(());
            }
            Presence::Here | Presence::Stopped { .. } | Presence::Crashed { .. } => {}
        }
        match happening {
            Happening::Dies(instance) => self.process_dies(instance, false),
            Happening::SomethingDies => {
                let alive = self.processes.iter().filter(|(_, p)| p.alive).map(|(id, _)| *id);
                let alive: Vec<InstanceId> = alive.collect();
                if !alive.is_empty() {
                    let victim = *self.random.of(&alive);
                    self.process_dies(victim, false);
                }
            }
            Happening::ServerStops(away) if self.presence == Presence::Here => {
                self.presence = Presence::Stopped {
                    until: self.now + away,
                };
                self.summary.server_away += 1;
                self.after(away, Happening::ServerReturns { crashed: false });
            }
            Happening::ServerCrashes { away, whole_tree } if self.presence == Presence::Here => {
                self.presence = Presence::Crashed {
                    until: self.now + away,
                };
                self.summary.server_away += 1;
                self.forget();
                if whole_tree {
                    self.kill_own_processes();
                }
                self.after(away, Happening::ServerReturns { crashed: true });
            }
            Happening::ServerStops(_) | Happening::ServerCrashes { .. } => {} // It is away already.
            Happening::WallJumps(by_ms) => self.wall_offset_ms += by_ms,
            Happening::ServerReturns { crashed } => {
                self.presence = Presence::Here;
                if crashed {
                    self.adopt();
                }
                self.dispatch()?;
            }
            other => {
                let is_plan = matches!(other, Happening::Plan | Happening::Heartbeat);
                self.serve(other)?;
                self.dispatch()?;
                if !is_plan {
                    self.plan_soon();
                }
            }
        }
        Ok(())
    }

    fn kill_own_processes(&mut self) {
        for id in self.processes.keys().copied().collect::<Vec<_>>() {
            if self.is_managed(id) {
                self.process_dies(id, true);
            }
        }
    }

    pub(super) fn is_managed(&self, instance: InstanceId) -> bool {
        self.scenario.policy.endpoints[&self.store.instances[&instance].endpoint].managed
    }

    pub(super) fn faults_are_on(&self) -> bool {
        self.now < FAULTS_UNTIL
    }

    /// The wall clock.
    pub(super) fn wall(&self) -> Timestamp {
        Timestamp::from_millis(self.wall_offset_ms).plus(self.now)
    }

    pub(super) fn after(&mut self, delay: Duration, happening: Happening) {
        self.at(self.now + delay, happening);
    }

    pub(super) fn at(&mut self, at: Duration, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), happening);
    }

    /// A line in the trace.
    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE {
                trace.pop_front();
            }
            trace.push_back(format!("{:>12?} {}", self.now, line()));
        }
    }

    fn violation(&self, what: String) -> Violation {
        Violation {
            seed: self.seed,
            step: self.summary.steps,
            what,
            trace: self.trace.iter().flatten().cloned().collect(),
        }
    }
}
