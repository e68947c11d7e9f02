//! The test run itself: what `tests/report.sh` reads out of cargo's and pytest's reports. A wrong count there hides a failed
//! test, or refuses a change that has none.

use std::{path::Path, process::Command};

/// What a function of `tests/report.sh` prints for a report, and whether it succeeded.
fn asked(function: &str, report: &str) -> (String, bool) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report");
    std::fs::write(&file, report).unwrap();
    let said = Command::new("bash")
        .args(["-c", ". tests/report.sh; \"$0\" \"$1\"", function])
        .arg(&file)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stderr), "", "{function}");
    let text = String::from_utf8(said.stdout).unwrap();
    (text.trim_end().to_owned(), said.status.success())
}

fn told(function: &str, report: &str) -> String {
    asked(function, report).0
}

const CARGO: &str = "\
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
