//! `tests/run.sh`: what it says and how it ends where the client programs cannot run (cargo, Python and Chromium are
//! stand-ins), and what it reads out of cargo's and pytest's reports.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Runs the driver with these programs in front of the real ones; returns whether it succeeded, and all it said.
fn drive(programs: &[(&str, &str)], ci: Option<&str>) -> (bool, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let passing = "echo 'test result: ok. 3 passed; 0 failed; 0 ignored'";
    let here = [("cargo", passing), ("chromium", "exit 1")];
    for (name, script) in here.iter().chain(programs) {
        let path = dir.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a stand-in is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is made a program");
    }
    let path = std::env::var("PATH").expect("there is a PATH");
    let mut command = Command::new("bash");
    command
        .arg(Path::new(ROOT).join("tests/run.sh"))
        .env("PATH", format!("{}:{path}", dir.path().display()))
        .env("CARGO_TARGET_DIR", dir.path().join("target"))
        .env_remove("CI");
    if let Some(ci) = ci {
        command.env("CI", ci);
    }
    let output = command.output().expect("bash runs");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn a_skipped_client_suite_is_a_failure_where_it_counts() {
    let none = [("python3", "exit 1"), ("id", "echo 1000")];
    let (ok, said) = drive(&none, None);
    assert!(
        ok && said.contains("!! SKIPPED: tests/protocols") && said.contains("counts as a failure"),
        "{said}"
    );
    assert!(
        said.contains("skipped, as said above") && said.trim_end().ends_with("\n3 passed, 0 failed"),
        "{said}"
    );
    let (ok, said) = drive(&none, Some("true"));
    let failed = said.matches("!! FAILED: tests/protocols").count();
    assert!(!ok && failed > 0, "{said}");
    assert!(
        said.trim_end().ends_with(&format!("\n3 passed, {failed} failed")),
        "{said}"
    );
}

#[test]
fn a_package_is_named_before_it_is_installed_as_root() {
    let programs = [
        ("python3", "[ \"$1\" = -c ]"),
        ("id", "echo 0"),
        ("apt-get", "exit 1"),
    ];
    let (_, said) = drive(&programs, None);
    assert!(
        said.contains("installing as root") && said.contains("python3-venv"),
        "{said}"
    );
    let user = [programs[0], ("id", "echo 1000"), programs[2]];
    let (_, said) = drive(&user, None);
    assert!(!said.contains("installing as root"), "{said}");
}

/// What a function of `tests/report.sh` prints for a report, and whether it succeeded.
fn asked(function: &str, report: &str) -> (String, bool) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report");
    std::fs::write(&file, report).unwrap();
    let said = Command::new("bash")
        .args(["-c", ". tests/report.sh; \"$0\" \"$1\"", function])
        .arg(&file)
        .current_dir(ROOT)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stderr), "", "{function}");
    let text = String::from_utf8(said.stdout).unwrap();
    (text.trim_end().to_owned(), said.status.success())
}

fn told(function: &str, report: &str) -> String {
    asked(function, report).0
}

const CARGO: &str = "
     Running unittests src/lib.rs (target/debug/deps/darkroom_core-1)
test clock::ticks ... ok
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

     Running tests/it/main.rs (target/debug/deps/it-2)
test fc::one ... FAILED
test fc::two - should panic ... FAILED
test result: FAILED. 7 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s

error: test failed, to rerun pass `-p darkroom-tests --test it`
   Doc-tests darkroom_core
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

#[test]
fn cargo_reports_are_added_up_and_name_their_failures() {
    assert_eq!(told("count_cargo", CARGO), "10 2 1");
    assert_eq!(
        told("failed_cargo", CARGO),
        "--test it\tfc::one\n--test it\tfc::two"
    );
    assert!(asked("all_ended", CARGO).1);
}

#[test]
fn a_test_binary_that_aborted_did_not_end() {
    let aborted = format!("{CARGO}     Running unittests src/lib.rs (target/debug/deps/x-3)\n");
    assert!(!asked("all_ended", &aborted).1);
    assert!(!asked("all_ended", "error: could not compile").1);
}

#[test]
fn pytest_is_counted_by_its_own_report() {
    let report = |head: &str| {
        format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><testsuites name=\"pytest tests\"><testsuite {head} \
             timestamp=\"2026-01-01T00:00:00\" hostname=\"h\"><testcase classname=\"a\" name=\"tests=&quot;9&quot;\" /></testsuite></testsuites>"
        )
    };
    let all = "name=\"pytest\" errors=\"0\" failures=\"0\" skipped=\"0\" tests=\"72\" time=\"405.4\"";
    assert_eq!(told("count_pytest", &report(all)), "72 0 0");
    let some = "name=\"pytest\" errors=\"1\" failures=\"2\" skipped=\"3\" tests=\"16\" time=\"1.0\"";
    assert_eq!(told("count_pytest", &report(some)), "10 3 3");
    assert_eq!(told("count_pytest", "cut off"), "0 0 0");
}

#[test]
fn failed_pytests_are_named_by_their_ids() {
    let log = "\
FAILED tests/protocols/eas/test_wire.py::test_a - assert 1 == 2
FAILED tests/protocols/eas/test_wire.py::test_b[a b] - AssertionError: x - y
ERROR tests/protocols/fc/test_c.py::test_c
3 failed in 0.1s
send_ping error ([Errno 32] Broken pipe)
";
    assert_eq!(
        told("failed_pytest", log),
        "tests/protocols/eas/test_wire.py::test_a\ntests/protocols/eas/test_wire.py::test_b[a b]\ntests/protocols/fc/test_c.py::test_c"
    );
}
