# What people type: `just` lists it. Each recipe is one command that also works without just.

# list the recipes
default:
    @just --list

# run the embedded demo, or with arguments: just run --config weir.toml
run *arguments:
    cargo run --release -- serve {{arguments}}

# all tests, or one: just test crash --kills 200
test *arguments:
    tests/run {{arguments}}

# the benchmarks, or one: just bench toggle
bench *arguments:
    tests/bench/run {{arguments}}

# build the book into target/book and check its links
book:
    tests/book --install

# licences, duplicate versions, sources and advisories of dependencies
deny:
    tests/deny --install

# format, lints, API documents, as CI does
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# everything that CI runs
ci:
    bash .ci/run
