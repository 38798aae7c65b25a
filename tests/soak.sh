#!/usr/bin/env bash
# Runs random histories of maps on failing stores for a given time; see
# tests/it/soak.rs. It stops at the first failure and prints how to repeat it.
#
#   tests/soak.sh                       one minute per provider
#   tests/soak.sh 600                   ten minutes per provider
#   tests/soak.sh 600 on_sqlite         tests with "on_sqlite" in their name
#
# The first seed is random; PERSISTIFY_SOAK_FROM=1000 starts with seed 1000.
# PERSISTIFY_SOAK_SEED=7 repeats seed 7 a few times. PERSISTIFY_SOAK_TRACE=1 prints
# every write and every call of the store.
set -euo pipefail
cd "$(dirname "$0")/.."

export PERSISTIFY_SOAK_SECONDS=${1:-60}
export PERSISTIFY_SOAK_FROM=${PERSISTIFY_SOAK_FROM:-$((RANDOM * 1000000))}
export RUST_BACKTRACE=${RUST_BACKTRACE:-0}

cargo test --all-features --test it --no-run
cargo test --all-features --test it -- "soak::histories_${2:-}" --nocapture
