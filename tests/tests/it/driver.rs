//! `tests/run.sh`: what it says and how it ends where the client programs cannot run. Cargo and Python are stand-ins.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Runs the driver with these programs in front of the real ones; returns whether it succeeded, and all it said.
fn drive(programs: &[(&str, &str)], ci: Option<&str>) -> (bool, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let passing = "echo 'test result: ok. 3 passed; 0 failed; 0 ignored'";
    for (name, script) in [("cargo", passing)].iter().chain(programs) {
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
    let none = [("python3", "exit 1")];
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
    assert!(!ok && said.contains("!! FAILED: tests/protocols"), "{said}");
    assert!(said.trim_end().ends_with("\n3 passed, 1 failed"), "{said}");
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
