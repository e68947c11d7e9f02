//! A slot on the scripted ComfyUI.

use std::{path::Path, sync::Arc, time::Duration};

use darkroom_ambient::{SystemClock, SystemIds};
use darkroom_core::{AttemptOutcome, InstanceId, failure::FailureCode};
use darkroom_runner::{
    Dirs, InstanceAccess, Slot, SlotConfig, SlotEnd,
    testing::{MemoryLink, assignment, lease},
};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::fake::Fake;

/// A slot on a scripted instance, that is soon out of patience.
pub struct Bench {
    pub fake: Fake,
    pub link: Arc<MemoryLink>,
    pub root: tempfile::TempDir,
    pub shutdown: CancellationToken,
    pub evidence: watch::Sender<Option<String>>,
    pub slot: Option<JoinHandle<SlotEnd>>,
}

impl Bench {
    pub fn with_dirs() -> Self {
        Self::start(true, |_| {})
    }

    pub fn over_http() -> Self {
        Self::start(false, |_| {})
    }

    pub fn start(with_dirs: bool, adjust: impl FnOnce(&mut SlotConfig)) -> Self {
        let mut bench = Self::unstarted();
        bench.open_slot(with_dirs, adjust);
        bench
    }

    /// Without a slot yet.
    pub fn unstarted() -> Self {
        let root = tempfile::tempdir().unwrap();
        Bench {
            fake: Fake::start(),
            link: MemoryLink::new(),
            shutdown: CancellationToken::new(),
            evidence: watch::channel(None).0,
            slot: None,
            root,
        }
    }

    pub fn open_slot(&mut self, with_dirs: bool, adjust: impl FnOnce(&mut SlotConfig)) {
        let dirs = Dirs {
            input: self.path("input"),
            output: self.path("output"),
            temp: self.path("temp"),
        };
        for dir in [&dirs.input, &dirs.output, &dirs.temp] {
            std::fs::create_dir_all(dir).unwrap();
        }
        let mut config = SlotConfig::new(self.path("spool"));
        config.unreachable_after = Duration::from_secs(2);
        config.worker_dead_after = Duration::from_millis(500);
        config.slot_hold = Duration::from_millis(500);
        config.free_pause = Duration::from_millis(1);
        adjust(&mut config);
        let access = InstanceAccess {
            instance: instance(),
            base_url: self.fake.base_url(),
            headers: vec![("x-token".into(), "secret".into())],
            client_id: "client-1".into(),
            dirs: with_dirs.then_some(dirs),
        };
        let clock = Arc::new(SystemClock::new());
        let slot = Slot::new(access, self.link.clone(), clock, Arc::new(SystemIds), config).unwrap();
        let slot = slot.with_evidence(self.evidence.subscribe());
        self.slot = Some(tokio::spawn(slot.run(self.shutdown.clone())));
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join(name)
    }

    pub fn write_output(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path("output").join(name), bytes).unwrap();
    }

    pub async fn slot_end(&mut self) -> SlotEnd {
        let slot = self.slot.take().expect("the slot was not waited for yet");
        let ended = tokio::time::timeout(Duration::from_secs(120), slot).await;
        ended.expect("the slot ends").unwrap()
    }

    /// The slot is still of use: it runs another attempt to its end.
    pub async fn is_still_of_use(&self) {
        self.fake.on_prompts([]);
        let posts = self.fake.prompts_posted();
        self.link.give(assignment(999, graph()));
        let prompt = self.fake.posted(posts + 1).await;
        self.fake.succeed(&prompt, json!({"1": {"text": ["ok"]}}));
        assert_eq!(self.link.end_of(lease(999)).await.outcome, AttemptOutcome::Done);
    }
}

/// For instances that say nothing, or nonsense.
pub fn impatient(config: &mut SlotConfig) {
    config.timeouts.request = Duration::from_millis(100);
    config.timeouts.submit = Duration::from_millis(200);
    config.unreachable_after = Duration::from_millis(300);
    config.unanswered_after = Duration::from_millis(300);
    config.garbage_after = Duration::from_millis(300);
}

pub fn instance() -> InstanceId {
    InstanceId::from_uuid(uuid::Uuid::from_u128(7))
}

pub fn graph() -> Value {
    json!({"1": {"class_type": "X", "inputs": {}}})
}

pub fn image(name: &str) -> Value {
    json!({"1": {"images": [{"filename": name, "subfolder": "", "type": "output"}]}})
}

pub fn code(outcome: &AttemptOutcome) -> FailureCode {
    match outcome {
        AttemptOutcome::Failed(failure) => failure.code,
        other => panic!("not a failure: {other:?}"),
    }
}

pub fn lost(outcome: &AttemptOutcome) -> &str {
    match outcome {
        AttemptOutcome::Lost { reason } => reason,
        other => panic!("not lost: {other:?}"),
    }
}

pub fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}
