#!/bin/sh
# Builds what is committed twice, from two copies in folders of different lengths, and compares the
# two binaries byte by byte. Ends with 1 if they differ, or name a folder of this machine.
# Usage: reproduce.sh [PROFILE]
set -eu
profile=${1:-release}
root=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for copy in "$work/a" "$work/another-place"; do
	mkdir "$copy"
	git -C "$root" archive HEAD | tar -x -C "$copy"
	"$copy/scripts/build-release.sh" "$copy/target" "$profile"
	binary=$copy/target/$profile/rbees-workerd
	[ "$profile" = dev ] && binary=$copy/target/debug/rbees-workerd
	sha256sum <"$binary" | cut -d' ' -f1 >>"$work/digests"
	if strings -a "$binary" | grep -F -e "$work" -e "${CARGO_HOME:-$HOME/.cargo}"; then
		echo "the binary names folders of this machine" >&2
		exit 1
	fi
	rm -rf "$copy/target"
done
cat "$work/digests"
[ "$(uniq "$work/digests" | wc -l)" = 1 ] || { echo "the two builds differ" >&2; exit 1; }
echo "both builds are the same, byte by byte"
