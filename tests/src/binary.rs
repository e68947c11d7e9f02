//! The binary under test.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// `$DARKROOM_BIN`, else the one beside this test binary, built first (once per test process).
pub fn darkroom() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("DARKROOM_BIN") {
        Some(path) => PathBuf::from(path),
        None => build(),
    })
}

/// Cargo gives the path of a binary only to tests of its own package, so it is found by its place:
/// `target/PROFILE/deps/it-HASH` beside `target/PROFILE/darkroom`.
fn build() -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    let profile_dir = own
        .ancestors()
        .find(|dir| !dir.ends_with("deps") && dir.is_dir())
        .expect("a test binary lies in a directory");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--locked", "-p", "darkroom"]);
    if profile_dir.ends_with("release") {
        cargo.arg("--release");
    }
    // The directory of the target is `…/target`, one above the profile's.
    if let Some(target) = profile_dir.parent() {
        cargo.env("CARGO_TARGET_DIR", target);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let status = cargo.current_dir(root).status().expect("cargo runs");
    assert!(status.success(), "cargo build -p darkroom failed: {status}");
    let binary = profile_dir.join(format!("darkroom{}", std::env::consts::EXE_SUFFIX));
    assert!(binary.is_file(), "{} was not built", binary.display());
    binary
}
