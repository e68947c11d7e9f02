# What cargo's and pytest's reports say, for tests/run.sh: how many passed, failed and were skipped, and which failed.
# Sourced; tests/tests/it/driver.rs holds its tests.

# Adds up what `cargo test` printed: one "test result:" line per test binary.
count_cargo() {
  awk '/^test result:/ { for (i = 1; i < NF; i++) { if ($(i+1) == "passed;") p += $i; if ($(i+1) == "failed;") f += $i; if ($(i+1) == "ignored;") s += $i } }
       END { print p + 0, f + 0, s + 0 }' "$1"
}

# Adds up pytest's own report: the counts in the head of its junit file. Not its last line: threads of a client may print after it.
count_pytest() {
  [ -f "$1" ] || { echo 0 0 0; return; }
  grep -o '<testsuite [^>]*>' "$1" | head -n 1 | awk '
    function of(name) { return match($0, " " name "=\"[0-9]+\"") ? substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 4) + 0 : 0 }
    { f = of("failures") + of("errors"); s = of("skipped"); print of("tests") - f - s, f, s; found = 1 }
    END { if (!found) print 0, 0, 0 }'
}

# Whether every test binary that was begun said how it ended: one that aborts, or is killed, says nothing.
all_ended() {
  awk '/^ +Running |^ +Doc-tests / { begun++ } /^test result:/ { ended++ } END { exit !(begun > 0 && begun == ended) }' "$1"
}

# The failed tests of a `cargo test` log, one "TARGET NAME" per line, where TARGET is what names the test binary to cargo:
# "--lib", "--test it". Their packages are left out on purpose: with -p cargo would build them again with fewer features.
failed_cargo() {
  awk '/^ +Running |^ +Doc-tests / { n = 0 }
       /^test .* \.\.\. FAILED$/ { sub(/^test /, ""); sub(/( - should panic)? \.\.\. FAILED$/, ""); name[n++] = $0 }
       /^error: test failed, to rerun pass `/ { sub(/^[^`]*`-p [^ ]+ /, ""); sub(/`.*/, ""); if ($0 != "--doc") for (i = 0; i < n; i++) print $0 "\t" name[i]; n = 0 }' "$1"
}

# The failed tests of a pytest log, by their ids. An id may hold spaces; what pytest says of the failure comes after " - ".
failed_pytest() {
  sed -n -E 's/^(FAILED|ERROR) (tests\/[^ ]+::.*)$/\2/p' "$1" | sed 's/ - .*//' | sort -u
}
