# Two commands set everything up: `make run` and `make test`. `make chaos` looks for what survives, for as long as one likes.
#
# Both look for what they need first (.ci/prerequisites), install it where they can, and otherwise name the command that
# does.

SHELL := /bin/bash

# Cargo's own default, unless the environment says otherwise.
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
# Python packages that tests compare with; made by .ci/prerequisites.
VENV := $(TARGET)/test-venv

# Debian keeps initdb and postgres out of the path.
POSTGRES := $(lastword $(sort $(wildcard /usr/lib/postgresql/*/bin)))
export PATH := $(VENV)/bin:$(HOME)/.cargo/bin:$(PATH):$(POSTGRES)

DATA_DIR ?= ./tidegate-data
# What `tidegate server --help` lists: make run ARGS="--workers 2 --set state_backend=rocksdb"
ARGS ?=

# How long `make chaos` disturbs a server: make chaos CHAOS_SECONDS=7200
CHAOS_SECONDS ?= 300

.PHONY: help run test chaos

help:
	@echo 'make run     builds the server and starts it on $(DATA_DIR)'
	@echo 'make test    formatting, lints and all tests: what CI runs'
	@echo 'make chaos   disturbs a server under load in every mode, for CHAOS_SECONDS; TIDEGATE_CRASH_SEED repeats a run'

run:
	@.ci/prerequisites build '$(VENV)'
	cargo build --release --locked --package tidegate
	@echo
	@echo 'Starting on $(DATA_DIR). When it is ready:  psql -h 127.0.0.1 -p 7432 -d tidegate'
	@echo
	@exec '$(TARGET)/release/tidegate' server --data-dir '$(DATA_DIR)' $(ARGS)

# One selection of packages and features for all of cargo's commands, so that nothing is built twice.
test:
	@.ci/prerequisites test '$(VENV)'
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --workspace --locked --no-fail-fast

# Kills, crashes in the middle of storage, storage that fails, full disks, stopped processes, clocks that jump.
chaos:
	@.ci/prerequisites test '$(VENV)'
	TIDEGATE_CHAOS_SECONDS='$(CHAOS_SECONDS)' cargo test --locked --package tidegate --test crash -- --nocapture chaos::
