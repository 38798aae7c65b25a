#!/usr/bin/env bash
# Runs all tests with all features. On a machine with only Rust and a package
# manager, it installs the programs that the tests need.
#
#   tests/run.sh            all tests
#   tests/run.sh close      tests with "close" in their name
set -euo pipefail
cd "$(dirname "$0")/.."

# SQLite is compiled in from C.
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

# The programs of the server are often not in the PATH.
has_postgres() {
    command -v initdb >/dev/null && return
    [ -x "$(pg_config --bindir 2>/dev/null)/initdb" ] && return
    compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null ||
        compgen -G "/opt/homebrew/opt/postgresql*/bin/initdb" >/dev/null ||
        compgen -G "/usr/local/opt/postgresql*/bin/initdb" >/dev/null
}

has_pgbouncer() {
    PATH=$PATH:/usr/sbin command -v pgbouncer >/dev/null
}

# The tests start their own servers in temporary folders.
need_postgres() {
    local missing=()
    has_postgres || missing+=(postgresql)
    has_pgbouncer || missing+=(pgbouncer)
    if [ ${#missing[@]} -eq 0 ]; then
        return
    fi
    if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
        echo "The tests need PostgreSQL (13 or later) and PgBouncer; missing: ${missing[*]}. Install them:" >&2
        echo "  Debian, Ubuntu: sudo apt-get install postgresql pgbouncer" >&2
        echo "  Fedora: sudo dnf install postgresql-server pgbouncer     macOS: brew install postgresql pgbouncer" >&2
        exit 1
    fi
    echo "== installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

# The limit for tests that hang.
max_minutes=30

run_tests() {
    if ! command -v timeout >/dev/null; then
        cargo test "$@"
        return
    fi
    # `timeout` runs in its own process group, which Ctrl-C does not reach; the trap ends it.
    timeout --kill-after=30s "${max_minutes}m" cargo test "$@" &
    trap 'kill $!' INT TERM
    local status=0
    wait $! || status=$?
    if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
        echo "FAILED: the tests did not finish in $max_minutes minutes; a test without a result above hangs" >&2
    fi
    return "$status"
}

if ! command -v cargo >/dev/null; then
    echo "The tests need Rust: 'cargo' is not in the PATH. See https://rustup.rs" >&2
    exit 1
fi
need_c_compiler
need_postgres

# Ignored tests run as well, so that no test is skipped silently.
echo "== cargo test --all-features"
cargo test --all-features --lib --tests --no-run
run_tests --all-features --lib --tests --no-fail-fast -- --include-ignored "$@"
