#!/usr/bin/env bash
# Every test of the project, one after the other, with one plain line at the end:
#     N passed, N failed
# and, if anything was skipped or flaky, how much on the lines before it.
# A test that failed is run once more, alone. If it passes then, it is named as FLAKY and counts as passed: a full machine is
# no reason to refuse a change, and a test that fails by chance is a defect that must be seen and mended. Where more than
# RERUN_MOST fail in one run, something is broken and nothing is run again.
# Runs on a fresh machine with Rust, a C compiler, make, and Python >= 3.9. A package that is missing for a part is named
# and then installed where we are root on Debian; otherwise that part is skipped loudly. The client programs are a
# contract: with CI=true a run without them has failed. Never reads stdin.
set -u
exec </dev/null
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never RUST_BACKTRACE=1
TARGET=${CARGO_TARGET_DIR:-$PWD/target}
LOGS=$TARGET/test-logs
mkdir -p "$LOGS"
. tests/report.sh
passed=0 failed=0 skipped=0 flaky=0
RERUN_MOST=5
# A test that hangs must not take the summary with it. Compiling counts too: generous.
LIMIT_S=${TEST_LIMIT_S:-2400}
command -v timeout >/dev/null && bounded() { timeout --kill-after=10 "$LIMIT_S" "$@"; } || bounded() { "$@"; }

say() { printf '\n== %s\n' "$*"; }
skip() { printf '\n!! SKIPPED: %s\n' "$*"; skipped=$((skipped + 1)); }
# What a run that counts must not leave out.
must_run() {
  case ${CI:-} in
    true | 1) fail "$* (skipped, and CI=$CI: these tests are part of what is promised)" ;;
    *) skip "$* (with CI=true this counts as a failure)" ;;
  esac
}
fail() { printf '\n!! FAILED: %s\n' "$*"; failed=$((failed + 1)); }

# Sets `recovered` to how many of the failed tests in $1 (one per line) pass when the command "$2 LINE" runs each alone.
rerun() {
  local list=$1 one=$2 line
  recovered=0
  [ -s "$list" ] && [ "$(wc -l <"$list")" -le "$RERUN_MOST" ] || return 0
  while IFS= read -r line <&3; do
    say "once more, alone: $line"
    if "$one" "$line" >"$LOGS/rerun.log" 2>&1; then
      printf '!! FLAKY: %s failed, and passed when it ran again\n' "$line"
      recovered=$((recovered + 1))
    else
      tail -n 60 "$LOGS/rerun.log"
    fi
  done 3<"$list"
  flaky=$((flaky + recovered))
}

# One Rust test; zero tests run is no pass.
one_cargo() {
  local target=${1%%$'\t'*} name=${1#*$'\t'} p f s
  # $target is words for cargo.
  # shellcheck disable=SC2086
  bounded cargo test --workspace --locked --no-fail-fast $target -- --exact "$name" >"$LOGS/rerun-cargo.log" 2>&1
  local rc=$?
  cat "$LOGS/rerun-cargo.log"
  read -r p f s < <(count_cargo "$LOGS/rerun-cargo.log")
  [ "$rc" -eq 0 ] && [ "$p" -ge 1 ] && [ "$f" -eq 0 ]
}

one_pytest() { bounded "$python" -m pytest -q -p no:cacheprovider "$1"; }

add() { passed=$((passed + $1)); failed=$((failed + $2)); skipped=$((skipped + $3)); }

rust_tests() {
  say "building the binary the black-box tests start"
  if ! cargo build --locked -p darkroom; then fail "cargo build -p darkroom"; return; fi
  say "cargo test --workspace"
  bounded cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$LOGS/cargo-test.log"
  local rc=${PIPESTATUS[0]} p f s
  read -r p f s < <(count_cargo "$LOGS/cargo-test.log")
  failed_cargo "$LOGS/cargo-test.log" >"$LOGS/cargo-failed.txt"
  rerun "$LOGS/cargo-failed.txt" one_cargo
  add $((p + recovered)) $((f - recovered)) "$s"
  # A compile error or a test binary that died prints no result line of its own.
  if [ "$rc" -ne 0 ] && { [ "$f" -eq 0 ] || ! all_ended "$LOGS/cargo-test.log"; }; then
    fail "cargo test ended with $rc, and not every test binary to its end"
  fi
}

# A Python environment under the target directory with what a file names; prints its python, or nothing where that cannot be
# had. Logs go to files named after it.
python_env() {
  local name=$1 requirements=$2
  local venv=$TARGET/test-venv/$name
  if [ ! -x "$venv/bin/python" ]; then
    command -v python3 >/dev/null || return 1
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' || return 1
    if ! python3 -m venv "$venv" >"$LOGS/venv-$name.log" 2>&1; then
      rm -rf "$venv"
      [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
      # To stderr: stdout is the answer of this function.
      say "installing as root, with apt-get: python3-venv (for tests/protocols)" >&2
      { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv; } >>"$LOGS/venv-$name.log" 2>&1 || return 1
      python3 -m venv "$venv" >>"$LOGS/venv-$name.log" 2>&1 || { rm -rf "$venv"; return 1; }
    fi
  fi
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements" >"$LOGS/pip-$name.log" 2>&1 || return 1
  echo "$venv/bin/python"
}

# Runs suites in one environment: its name, what it needs, the suites' directories.
python_suites() {
  local name=$1 requirements=$2 python
  shift 2
  [ $# -gt 0 ] || return 0
  say "client programs against the running server: $*"
  if ! python=$(python_env "$name" "$requirements"); then
    must_run "$*: no Python environment (python3 >= 3.9 with venv, and a package index, are needed; see $LOGS/pip-$name.log)"
    return
  fi
  rm -f "$LOGS/pytest-$name.xml"
  bounded "$python" -m pytest -q -rfEs -p no:cacheprovider --junitxml="$LOGS/pytest-$name.xml" "$@" 2>&1 | tee "$LOGS/pytest-$name.log"
  local rc=${PIPESTATUS[0]} p f s
  read -r p f s < <(count_pytest "$LOGS/pytest-$name.xml")
  failed_pytest "$LOGS/pytest-$name.log" >"$LOGS/pytest-$name-failed.txt"
  rerun "$LOGS/pytest-$name-failed.txt" one_pytest
  add $((p + recovered)) $((f - recovered)) "$s"
  # 1: tests failed. Anything else (2: broken off, 124: too slow) means that others did not run.
  if [ "$rc" -ne 0 ] && { [ "$f" -eq 0 ] || [ "$rc" -ne 1 ]; }; then
    fail "pytest ended with $rc"
  elif [ "$p" -eq 0 ] && [ "$f" -eq 0 ]; then
    must_run "$*: every one of its tests was skipped"
  fi
}

# A Chromium; prints its path, or nothing where that cannot be had.
find_chromium() {
  local name
  for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable; do
    [ -n "$name" ] && command -v "$name" && return
  done
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  say "installing as root, with apt-get: chromium (for tests/browser)" >&2
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; } >"$LOGS/chromium.log" 2>&1 || return 1
  command -v chromium
}

# Whether a Chromium starts here at all: some containers let none.
starts() { timeout 120 "$1" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --dump-dom about:blank >>"$LOGS/chromium.log" 2>&1; }

# Skipped loudly where there is no browser.
browser_tests() {
  if ! CHROMIUM=$(find_chromium) || ! starts "$CHROMIUM"; then
    skip "tests/browser: no Chromium that starts (see $LOGS/chromium.log)"
    return
  fi
  export CHROMIUM DARKROOM_BIN=${DARKROOM_BIN:-$TARGET/debug/darkroom} DARKROOM_SCREENSHOTS=$LOGS/browser
  python_suites browser tests/browser/requirements.txt tests/browser
}

# Suites share one environment, except those that the shared requirements do not name.
python_tests() {
  local root=tests/protocols suite shared=()
  export DARKROOM_BIN=${DARKROOM_BIN:-$TARGET/debug/darkroom}
  for suite in "$root"/*/; do
    suite=${suite%/}
    ls "$suite"/test_*.py >/dev/null 2>&1 || continue
    if [ ! -f "$suite/requirements.txt" ] || grep -q "^-r ${suite##*/}/" "$root/requirements.txt"; then
      shared+=("$suite")
    else
      python_suites "${suite##*/}" "$suite/requirements.txt" "$suite"
    fi
  done
  python_suites shared "$root/requirements.txt" "${shared[@]}"
}

rust_tests
[ -n "${COMFYUI_DIR:-}" ] || skip "the tests on a real ComfyUI: COMFYUI_DIR names no checkout (tests/tests/it/real_comfyui.rs)"
python_tests
browser_tests

echo
if [ "$passed" -eq 0 ] && [ "$failed" -eq 0 ]; then fail "no test ran at all"; fi
[ "$flaky" -eq 0 ] || echo "$flaky flaky: failed once and passed alone, as said above"
[ "$skipped" -eq 0 ] || echo "$skipped skipped, as said above"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
