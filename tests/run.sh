#!/usr/bin/env bash
# Runs every test there is, with all features. It sets up what the tests need on
# a machine that has only Rust and a package manager.
#
#   tests/run.sh            all tests
#   tests/run.sh close      those with "close" in their name
set -euo pipefail
cd "$(dirname "$0")/.."

# SQLite is compiled in, from C.
need_c_compiler() {
    if [ -n "${CC:-}" ] || command -v cc >/dev/null; then
        return
    fi
    if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
        echo "The tests need a C compiler named 'cc' (SQLite is compiled in). Install one:" >&2
        echo "  Debian, Ubuntu: sudo apt-get install gcc libc6-dev" >&2
        echo "  Fedora: sudo dnf install gcc     macOS: xcode-select --install" >&2
        exit 1
    fi
    echo "== installing a C compiler (SQLite is compiled in)"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev
}

if ! command -v cargo >/dev/null; then
    echo "The tests need Rust: 'cargo' is not in the PATH. See https://rustup.rs" >&2
    exit 1
fi
need_c_compiler

# Ignored tests run as well: nothing is left out in silence.
echo "== cargo test --all-features"
cargo test --all-features --lib --tests --no-fail-fast -- --include-ignored "$@"
