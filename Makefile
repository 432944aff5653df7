# What people type. Each target installs what it needs (scripts/need) and is
# quick when it is there.

# The demo and the documentation say target/release/lookaside.
export CARGO_TARGET_DIR := target

.PHONY: help build demo test interop bench soak fuzz lint clean

help:
	@echo "make build  the program, as target/release/lookaside"
	@echo "make demo   the whole job on this machine; DEMO_SECONDS=20, 0 = until Ctrl-C"
	@echo "make test   every test, with real etcd and real clients"
	@echo "make interop  real clients of every language through every case, as a table"
	@echo "make lint   formatting, clippy and documentation, without a warning"
	@echo "make bench  how soon a large registry is served, beside reading it alone"
	@echo "make soak   every fault at full scale, into docs/reliability.md; SOAK_MINUTES=20"
	@echo "make fuzz   what strangers write, at random; FUZZ_SECONDS=60 for each target"
	@echo "make clean  removes everything that was built"

build:
	@scripts/need rust protoc
	cargo build --release --locked

demo: build
	@scripts/need python
	@scripts/demo

test:
	@scripts/test

interop:
	@scripts/interop

lint:
	@scripts/lint

bench:
	@scripts/need rust protoc etcd
	cargo bench --locked --bench start

soak:
	@scripts/soak

fuzz:
	@scripts/fuzz

clean:
	rm -rf target
