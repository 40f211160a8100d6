#!/usr/bin/env bash
# Runs the suite with the Rust client. Cargo installs it where it is missing.
# Usage: POSTRIDER_URL=… POSTRIDER_TOKEN=… run.sh CACHE_FOLDER
set -uo pipefail
cd "$(dirname "$0")" || exit 1
cargo run --quiet --package client-suite-rust
