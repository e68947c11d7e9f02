//! The disk fills up: submits are refused in words, what runs still finishes, and space that returns is enough.
//!
//! The data directory is a small file system of its own, which takes the right to mount one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use darkroom_tests::{Api, Ledger, Options, Server, eventually, graphs};
use serde_json::json;
use tempfile::TempDir;

use super::{LIMIT, attempt_states, conclude, executing, square};

const DISK_MB: u64 = 48;
const RESERVE_MB: u64 = 16;

/// A small file system; gone with this.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, with a word about it, where mounting is not allowed.
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).expect("the mount point");
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={DISK_MB}m,mode=0700"),
                "tmpfs",
            ])
            .arg(at)
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(SmallDisk(at.to_owned()));
        }
        // Not through the macros, whose output the test harness keeps to itself when a test passes.
        use std::io::Write;
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: a small file system cannot be mounted here (not root?), so a full disk was not tried"
        );
        None
    }

    /// Takes space until so many megabytes are left.
    fn leave(&self, mb: u64) {
        self.free();
        let free = free_mb(&self.0);
        let ballast = fs::File::create(self.ballast()).expect("ballast");
        let taken = free.saturating_sub(mb) * 1024 * 1024;
        rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, taken.max(1))
            .expect("space is taken");
    }

    /// Takes all of it.
    fn fill(&self) {
        use std::io::Write;
        self.leave(1);
        let mut ballast = fs::File::options()
            .append(true)
            .open(self.ballast())
            .expect("ballast");
        let page = [0; 4096];
        while ballast.write_all(&page).is_ok() {}
    }

    fn free(&self) {
        let _ = fs::remove_file(self.ballast());
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.free();
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
        if let Some(home) = self.0.parent() {
            let _ = fs::remove_dir_all(home);
        }
    }
}

fn free_mb(path: &Path) -> u64 {
    let stat = rustix::fs::statvfs(path).expect("the file system answers");
    stat.f_bavail * stat.f_frsize / 1024 / 1024
}

async fn start() -> Option<(SmallDisk, Server)> {
    let home = TempDir::with_prefix("darkroom-test-").expect("a temporary directory");
    let disk = SmallDisk::mount(&home.path().join("data"))?;
    let options = Options::test_nodes().with_config(&format!("[store]\ndisk_reserve = \"{RESERVE_MB}MB\"\n"));
    let server = Server::start_in(home, options).await;
    Some((disk, server))
}

/// Both protocols say clearly that it is not the caller's fault and when to come back.
async fn assert_refused(api: &Api) {
    let own = api
        .post(
            "/darkroom/v1/endpoints/default/jobs",
            &json!({"graph": graphs::plain(1, 8, 8)}),
        )
        .await
        .expect(503);
    assert!(own.header("retry-after").is_some());
    let text = own.json()["error"]["message"]
        .as_str()
        .expect("a message")
        .to_owned();
    assert!(text.contains("disk"), "{text}");
    for asynchronous in [true, false] {
        let mut request = api
            .request(reqwest::Method::POST, "/api/serverless/run")
            .json(&graphs::plain(2, 8, 8));
        if asynchronous {
            request = request.header("X-Fc-Invocation-Type", "Async");
        }
        let vendor = api.send(request).await.expect(503);
        assert!(vendor.header("retry-after").is_some());
        let body = vendor.json();
        assert_eq!(body["type"], "error", "{body}");
        assert_eq!(body["error_code"], "ResourceThrottled", "{body}");
        assert!(
            body["error_message"].as_str().is_some_and(|m| m.contains("disk")),
            "{body}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_reserve_submits_are_refused_and_running_jobs_finish() {
    let Some((disk, mut server)) = start().await else {
        return;
    };
    let (api, ledger) = (server.api(), Ledger::default());
    let id = api.submit(&graphs::sleep(2.0, "a", 0x12_34_56)).await;
    ledger.enter(&id, square(0x12_34_56));
    let queued = ledger.submit(&api).await.expect("there is space");
    executing(&api, &id).await;
    disk.leave(RESERVE_MB - 4);
    assert_refused(&api).await;
    let job = api.finished_within(&id, LIMIT).await;
    assert_eq!(attempt_states(&job), ["done"], "{job}, and {queued}");
    ledger.settle(&api).await;
    assert_refused(&api).await;
    disk.free();
    assert!(ledger.submit(&api).await.is_some(), "space came back");
    conclude(&mut server, &ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_wait_for_space() {
    let Some((disk, mut server)) = start().await else {
        return;
    };
    let (api, ledger) = (server.api(), Ledger::default());
    // The picture is on the instance's disk already while the prompt goes on: only storing it needs space.
    let mut graph = graphs::plain(0x65_43_21, 16, 16);
    graph["99"] =
        json!({"class_type": "TestSleepOutput", "inputs": {"image": ["1", 0], "seconds": 6.0, "steps": 10}});
    let id = api.submit(&graph).await;
    ledger.enter(&id, square(0x65_43_21));
    eventually("the picture is saved", LIMIT, async || {
        let path = format!("/api/serverless/status?task_id={id}");
        let events = api.get(&path).await.json();
        let saved = |event: &serde_json::Value| event["type"] == "executed" && event["data"]["node"] == "9";
        events.as_array()?.iter().any(saved).then_some(())
    })
    .await;
    disk.fill();
    // The prompt ends with nowhere to put its picture; the server stays, and says no.
    let until = tokio::time::Instant::now() + Duration::from_secs(5);
    while tokio::time::Instant::now() < until {
        assert_refused(&api).await;
        let job = api.job(&id).await;
        assert_eq!(job["state"], "running", "{job}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    disk.free();
    let job = api.finished_within(&id, LIMIT).await;
    assert_eq!(attempt_states(&job), ["done"], "{job}");
    eventually("space came back", LIMIT, async || {
        ledger.submit(&api).await.map(|_| ())
    })
    .await;
    conclude(&mut server, &ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_on_a_full_disk_comes_back_with_the_space() {
    let Some((disk, mut server)) = start().await else {
        return;
    };
    let (api, ledger) = (server.api(), Ledger::default());
    for _ in 0..4 {
        assert!(ledger.submit(&api).await.is_some());
    }
    ledger.settle(&api).await;
    disk.fill();
    for _ in 0..2 {
        server.kill_child().await;
        let answer = api.send(api.request(reqwest::Method::GET, "/healthz")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    disk.free();
    eventually("space came back", LIMIT, async || {
        ledger.submit(&api).await.map(|_| ())
    })
    .await;
    conclude(&mut server, &ledger).await;
}
