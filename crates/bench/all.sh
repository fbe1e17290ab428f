#!/usr/bin/env bash
# All figures of docs/benchmarks.md, a JSON line a run: three runs of what is short, one of what is long.
#
#     crates/bench/all.sh target/release/tidegate-bench > docs/benchmarks/results.jsonl
#
# Nothing else should run on the machine.
set -euo pipefail
bench=${1:?the path of tidegate-bench}
events=${EVENTS:-10000000}
runs=${RUNS:-3}

for query in $(seq -f q%g 0 22); do
    for run in $(seq "$runs"); do
        "$bench" nexmark --query "$query" --events "$events"
    done
    # Of some queries the result alone is larger than the default limit.
    "$bench" nexmark --query "$query" --events "$events" --into view --set memory_limit=16GB
done
for query in q5 q7 q8 q11 q12; do
    "$bench" nexmark --query "$query" --events "$events" --watermarks
done
for query in q4 q17; do
    "$bench" nexmark --query "$query" --events "$events" --checkpoints off
    "$bench" nexmark --query "$query" --events "$events" --backend rocksdb
done
for backend in memory rocksdb; do
    for checkpoints in off 1s; do
        for run in $(seq "$runs"); do
            "$bench" keyed --keys 1000000 --rows $((2 * events)) --backend "$backend" --checkpoints "$checkpoints"
        done
    done
    for checkpoints in 1s 100ms; do
        for run in $(seq "$runs"); do
            "$bench" keyed --keys 1000000 --rows $((2 * events)) --backend "$backend" --checkpoints "$checkpoints" \
                --set checkpoint_execution=sync
        done
    done
    for run in $(seq "$runs"); do
        "$bench" keyed --keys 1000000 --rows $((2 * events)) --backend "$backend" --checkpoints 100ms
    done
    for keys in 100000 500000 1000000 2000000; do
        "$bench" recovery --keys "$keys" --backend "$backend"
        "$bench" recovery --keys "$keys" --backend "$backend" --moved
    done
done
for checkpoints in off 1s; do
    "$bench" keyed --keys 5000000 --rows $((2 * events)) --checkpoints "$checkpoints"
done
for backend in memory rocksdb; do
    "$bench" recovery --keys 5000000 --backend "$backend"
    "$bench" recovery --keys 5000000 --backend "$backend" --moved
    for keys in 100000 300000 1000000 3000000; do
        "$bench" changes --keys "$keys" --changed 100,1000,10000,100000 --backend "$backend"
    done
done
"$bench" backpressure
for query in q0 q17; do
    "$bench" json --query "$query" --events "$events"
done
"$bench" insert-latency
"$bench" point-reads
"$bench" idle
"$bench" rescale
