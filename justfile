# Every check has a name here. `just` alone lists them; without `just`, copy the command.

default:
    @just --list

# What CI runs
ci:
    .ci/run

# The README's two commands
tour:
    cargo run --release --example tour
test:
    cargo test --workspace

fmt:
    cargo fmt --all --check
clippy:
    cargo clippy --workspace --all-targets -- -D warnings
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
# JSONL alone, and each feature alone
features:
    cargo clippy -p argus-core --no-default-features -- -D warnings
    cargo clippy -p argus-core --no-default-features --features sqlite -- -D warnings
    cargo clippy -p argus-core --no-default-features --features watch,toml -- -D warnings
    rustup target add x86_64-unknown-linux-musl && cargo check -p argus-core --no-default-features --features watch,toml --target x86_64-unknown-linux-musl
    cargo clippy -p argus-otel --no-default-features -- -D warnings
    cargo clippy -p argus-otel -- -D warnings
    cargo clippy -p argus-tracing-layer --no-default-features -- -D warnings
# The examples, run by their tests
examples:
    cargo test -p argus-examples
# The independent verifier's own tests, and whether the golden vectors are what their script makes
python:
    python3 tools/test_argus_verify.py
    python3 tools/make_vectors.py --check

# On demand from here on: these need time, the network, or an installation

# All property tests at length
properties cases="20000":
    ARGUS_PROPTEST_CASES={{cases}} cargo test --release -p argus-core --test properties
# Kills at random moments, as many as it takes
kills rounds="1000":
    ARGUS_KILL_ROUNDS={{rounds}} cargo test --release -p argus-core --test killed --test killed_recovery -- --nocapture
# Every failure x store x policy x what comes next (needs the right to mount for all of it, else it says SKIPPED)
faults:
    ARGUS_FAULT_MATRIX=all cargo test -p argus-core --test fault_matrix -- --nocapture
# A lock of another program that lasts 30 s
long-lock seconds="30":
    ARGUS_LONG_LOCK={{seconds}} cargo test -p argus-core --test busy -- --nocapture
# A reader that does not end, until SQLite's write-ahead log is at its bound
stuck-reader:
    ARGUS_STUCK_READER=1 cargo test -p argus-core --test busy -- --nocapture
# The journal's unsafe file under Miri
miri:
    rustup component add miri --toolchain nightly
    cargo +nightly miri test -p argus-core --lib queue::segment
    cargo +nightly miri test -p argus-core --lib queue::journal
# The protocol of callers, writer, keeper, flush and close in so many orders of their steps
shuttle runs="20000":
    ARGUS_SHUTTLE_RUNS={{runs}} RUSTFLAGS="--cfg shuttle" cargo test -p argus-core --no-default-features --lib --target-dir target/shuttle sync::protocol
# Power loss at so many moments for each test, with rates
power-loss images="20000":
    ARGUS_POWERLOSS_IMAGES={{images}} cargo test --release -p argus-powerloss -- --nocapture --test-threads=1
# Each write and sync of a trail fails in turn
io-errors:
    ARGUS_IO_ERRORS=all cargo test -p argus-powerloss --test io_errors -- --nocapture
# Everything at TRACE beside exporters that fail and talk, for a minute: no record of Argus about itself
feedback events="100000":
    ARGUS_FEEDBACK_EVENTS={{events}} cargo test -p argus-tracing-layer --test feedback -- --nocapture
# With the real Collector, Jaeger, Zipkin and Prometheus: 9 minutes, and once the installation
e2e:
    deploy/e2e/install
    deploy/e2e/run
# The benchmark table
bench:
    cargo run --release -p argus-bench
# What each index costs
indexes:
    python3 dev/bench/indexes.py
# The stated minimum Rust version
msrv:
    rustup toolchain install 1.89 --profile minimal
    cargo +1.89 check --workspace
# Both ends of the range of rusqlite
rusqlite-range:
    dev/rusqlite-range
# Licences, advisories, sources (cargo install cargo-deny)
deny:
    cargo deny check
# Faster tests (cargo install cargo-nextest)
nextest:
    cargo nextest run --workspace
