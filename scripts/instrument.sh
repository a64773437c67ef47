#!/bin/sh
# Stands between cargo and rustc (RUSTC_WRAPPER) when fuzz targets are built: our own crates are
# compiled so that libFuzzer sees which way they went; dependencies stay as they are, and as they are
# cached. `cargo fuzz` instruments everything, and takes long for it.
rustc=$1
shift
case " $* " in
*" --crate-name rbees_workerd "* | *" --crate-name redact "*)
	case " $* " in
	*"--target wasm32"*) ;;
	*)
		set -- "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
			-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
			-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
		;;
	esac
	;;
esac
exec "$rustc" "$@"
