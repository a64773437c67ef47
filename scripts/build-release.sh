#!/bin/sh
# The release build whose bytes do not depend on where it was made: no path of this machine is in it.
# Usage: build-release.sh TARGET-FOLDER [PROFILE]
set -eu
cd "$(dirname "$0")/.."
cargo_home=${CARGO_HOME:-$HOME/.cargo}
sysroot=$(rustc --print sysroot)
# Separated by the unit separator, so that folders may have spaces in their names.
flags="--remap-path-prefix=$PWD=/build"
flags="$flags$(printf '\037')--remap-path-prefix=$cargo_home=/cargo"
flags="$flags$(printf '\037')--remap-path-prefix=$sysroot=/rust"
case $1 in
/*) flags="$flags$(printf '\037')--remap-path-prefix=$1=/target" ;;
esac
export CARGO_ENCODED_RUSTFLAGS="$flags"
exec cargo build --locked --profile "${2:-release}" --target-dir "$1"
