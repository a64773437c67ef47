#!/usr/bin/env bash
# Makes a virtual environment from a file of requirements: venv.sh FOLDER REQUIREMENTS. One that was made
# from the same requirements is left as it is. Needs Python 3 with pip, as the model does, and no ensurepip.
set -euo pipefail
folder=$1 requirements=$2 python=${PYTHON:-python3}
fail() { echo "$0: $1, or set PYTHON to one that has it" >&2; exit 1; }
program=$("$python" -c 'import sys; print(sys.executable)') || fail "$python can't be run: install Python 3"
stamp="$("$program" --version) $(cksum < "$requirements")"
[ -e "$folder/made-from" ] && [ "$(cat "$folder/made-from")" = "$stamp" ] && exit 0
"$program" -c 'import venv' 2> /dev/null ||
  fail "$python has no module venv: install it (on Debian: apt-get install python3-venv)"
"$program" -m pip --python "$program" --version > /dev/null 2>&1 ||
  fail "$python has no pip, or one before 22.3: install it (on Debian: apt-get install python3-pip)"
rm -rf "$folder"
"$program" -m venv --without-pip "$folder"
"$program" -m pip --python "$folder/bin/python" install --quiet --disable-pip-version-check --requirement "$requirements"
echo "$stamp" > "$folder/made-from"
