//! `darkroom bench` runs every scenario and gives every key; what the figures are is not a test's business.

use std::process::{Command, Stdio};

use darkroom_tests::{binary, processes};
use serde_json::Value;

/// The figures that docs/performance.md explains, by scenario.
const KEYS: &[(&str, &[&str])] = &[
    (
        "sync",
        &[
            "call_p50_ms",
            "call_p99_ms",
            "engine_p50_ms",
            "disk_two_writes_p50_ms",
            "durable_commits_per_call",
        ],
    ),
    (
        "submits",
        &[
            "submits_per_second",
            "p50_ms",
            "p99_ms",
            "echo_per_second",
            "disk_writes_per_second_before",
            "submits_per_durable_commit",
        ],
    ),
    ("idle", &["parent_rss_mb", "child_rss_mb", "child_threads"]),
    (
        "backlog",
        &[
            "bytes_per_job",
            "claim_p50_ms_few_queued",
            "claim_p50_ms_tenth_queued",
            "claim_p50_ms_all_queued",
        ],
    ),
    ("cold", &["p50_ms", "max_ms", "engine_alone_p50_ms"]),
    (
        "large",
        &[
            "large_bodies",
            "alone_p99_ms",
            "beside_echo_p99_ms",
            "beside_large_p99_ms",
        ],
    ),
    (
        "queues",
        &[
            "put_ms",
            "put_in_memory_ms",
            "raw_commit_ms",
            "get_by_index_p99_ms",
            "attributes_p99_ms",
            "watched_per_second",
        ],
    ),
    (
        "workflows",
        &[
            "call_p50_ms",
            "prompt_p50_ms",
            "publish_300_nodes_p50_ms",
            "signature_check_us",
        ],
    ),
    (
        "prompts",
        &["prompt_p50_ms", "prompt_p99_ms", "engine_p50_ms", "added_p99_ms"],
    ),
    (
        "history",
        &[
            "ended_jobs",
            "history_20_p50_ms",
            "jobs_200_p50_ms",
            "object_info_p50_ms",
        ],
    ),
    ("progress", &["clients", "messages_seen", "p50_ms", "p99_ms"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_gives_every_key_and_leaves_nothing_behind() {
    let home = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(binary::darkroom());
    command
        .args(["bench", "--quick", "--json", "--dir"])
        .arg(home.path())
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().expect("darkroom runs"))
        .await
        .expect("no panic");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}{stderr}");
    let result: Value = serde_json::from_str(stdout.trim()).expect("one JSON document");
    assert_eq!(result["quick"], true);
    assert!(result["machine"]["cores"].as_u64() > Some(0), "{result}");
    for (scenario, keys) in KEYS {
        let report = &result["scenarios"][scenario];
        for key in ["value", "target", "baseline"] {
            assert!(report[key].is_number(), "{scenario}: {key}: {report:#}");
        }
        assert!(report["met"].is_boolean(), "{scenario}: {report:#}");
        for key in *keys {
            assert!(
                report["figures"][key].is_number(),
                "{scenario}: {key}: {report:#}"
            );
        }
    }
    let left = processes::of(home.path());
    assert!(left.is_empty(), "{left:?}");
    let files: Vec<_> = std::fs::read_dir(home.path()).expect("the directory").collect();
    assert!(files.is_empty(), "{files:?}");
}
