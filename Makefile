# The recipes a developer types. Every one of them works in a fresh clone with Rust, a C compiler, and Python.
CARGO ?= cargo

.PHONY: demo build test lint bench help

help:
	@echo "make demo    start a server, run a sample workflow, keep serving (Ctrl-C ends it)"
	@echo "make test    every test there is; ends with one line 'N passed, N failed'"
	@echo "make lint    formatting, clippy, and cargo-deny where it is installed"
	@echo "make build   the release binary, target/release/darkroom"
	@echo "make bench   measure this machine: about five minutes (docs/performance.md says what the figures mean)"

demo:
	$(CARGO) run --quiet -p darkroom -- demo $(ARGS)

build:
	$(CARGO) build --release --locked -p darkroom

test:
	@bash tests/run.sh

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@if command -v cargo-deny >/dev/null 2>&1; then $(CARGO) deny --offline check licenses bans sources; \
	else echo "lint: cargo-deny is not installed, licences were not checked"; fi

bench:
	$(CARGO) run --quiet --release --locked -p darkroom -- bench --dir target/bench $(ARGS)
