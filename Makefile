# The commands for people. Each target installs what it needs (scripts/need), and is
# quick when that is installed.

# The documentation names target/release/lookaside, so this folder is fixed.
export CARGO_TARGET_DIR := target

.PHONY: help build demo test bare interop upgrade bench bench-short bench-policy profile soak fuzz lint deny oldest clean

help:
	@echo "make build  the program, as target/release/lookaside"
	@echo "make demo   the whole job on this machine; DEMO_SECONDS=20, 0 = until Ctrl-C"
	@echo "make test   every test, with real etcd and real clients"
	@echo "make interop  real clients of every language through every case, as a table"
	@echo "make upgrade  from the previous release to this one and back, under load (Linux, root)"
	@echo "make bare   make demo and make test on a bare Debian in a folder (Linux, root); half an hour"
	@echo "make lint   formatting, clippy and documentation, without a warning"
	@echo "make deny   licences, sources and advisories of everything that it depends on"
	@echo "make oldest  builds everything with the oldest Rust that Cargo.toml names"
	@echo "make bench  every figure of docs/performance.md, beside the limit and others; half an hour"
	@echo "make bench-short  the same in small: only whether it works"
	@echo "make bench-policy  figures and plots of traffic policy, simulated, beside their limits; a minute"
	@echo "make profile  where the processor goes while it pushes, as a flame graph"
	@echo "make soak   every fault at full scale, into docs/reliability.md; SOAK_MINUTES=20"
	@echo "make fuzz   what strangers write, at random; FUZZ_SECONDS=60 for each target"
	@echo "make clean  removes everything that was built"

build:
	@scripts/need rust protoc
	cargo build --release --locked

demo:
	@scripts/demo

test:
	@scripts/test

interop:
	@scripts/interop

upgrade:
	@scripts/upgrade

bare:
	@scripts/bare

lint:
	@scripts/lint

deny:
	@scripts/need rust deny
	PATH="$$PWD/target/tools/bin:$$PATH" cargo deny --locked check

# Another compiler builds into a folder of its own.
oldest:
	@scripts/need rust protoc oldest-rust
	CARGO_TARGET_DIR=target/oldest cargo +$$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) \
	    check --locked --workspace --all-targets

bench:
	@scripts/bench

bench-short:
	@scripts/need rust protoc etcd
	cargo test --locked --bench fanout

bench-policy:
	@scripts/need rust protoc
	cargo bench --locked --bench policy -- --docs

profile:
	@scripts/profile

soak:
	@scripts/soak

fuzz:
	@scripts/fuzz

clean:
	rm -rf target
