#!/usr/bin/env bash
# Tries random histories of maps on failing stores, for as long as one asks; see
# tests/it/soak.rs. It ends at the first that fails, and says how to repeat it.
#
#   tests/soak.sh                       a minute on each provider
#   tests/soak.sh 600                   ten minutes on each
#   tests/soak.sh 600 on_sqlite         those with "on_sqlite" in their name
#
# Each begins with a seed of its own choice; PERSISTIFY_SOAK_FROM=1000 begins
# with seed 1000. PERSISTIFY_SOAK_SEED=7 repeats seed 7, a few times, and
# PERSISTIFY_SOAK_TRACE=1 tells every write and every call of the store.
set -euo pipefail
cd "$(dirname "$0")/.."

export PERSISTIFY_SOAK_SECONDS=${1:-60}
export PERSISTIFY_SOAK_FROM=${PERSISTIFY_SOAK_FROM:-$((RANDOM * 1000000))}
export RUST_BACKTRACE=${RUST_BACKTRACE:-0}

cargo test --all-features --test it --no-run
cargo test --all-features --test it -- "soak::histories_${2:-}" --nocapture
