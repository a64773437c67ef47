"""Promise: the manifests and units under examples/pool/ are valid by their schemas, and what they ask of
the worker is what the real worker takes: its flags, its probes, its filters, its drain."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tomllib
import urllib.error
import urllib.request

import kubernetes_validate
import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
POOL = ROOT / "examples/pool"
BINARY = os.environ.get("WORKER", str(ROOT / "target/debug/rbees-workerd"))
MODEL = str(ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
UNIT = POOL / "systemd/rbees-workerd@.service"


def manifests() -> dict[str, dict]:
    documents = yaml.safe_load_all((POOL / "kubernetes/worker.yaml").read_text())
    return {document["kind"]: document for document in documents}


def container() -> dict:
    return manifests()["Deployment"]["spec"]["template"]["spec"]["containers"][0]


def start(arguments: list[str], environment: dict[str, str]) -> tuple[subprocess.Popen, str]:
    """A real worker that takes work, and where."""
    child = subprocess.Popen([BINARY, *arguments], env=os.environ | environment, stdout=subprocess.PIPE, text=True)
    address = None
    for line in child.stdout:
        fact = json.loads(line).get("fact", {})
        address = fact.get("server-bound", {}).get("address", address)
        if "warmup-completed" in fact:
            return child, f"http://127.0.0.1:{address.rpartition(':')[2]}"
    pytest.fail(f"the worker ended with {child.wait()}")


def get(url: str, host: str | None = None) -> int:
    request = urllib.request.Request(url, headers={"host": host} if host else {})
    try:
        return urllib.request.urlopen(request, timeout=30).status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("version", ["1.34", "1.36"])
def test_manifests_are_valid(version):
    for kind, document in manifests().items():
        kubernetes_validate.validate(document, version, strict=True)
    broken = manifests()["Deployment"]
    broken["spec"]["template"]["spec"]["terminationGracePeriod"] = 45
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, version, strict=True)


def test_the_manifests_worker_starts_and_answers_its_probes(tmp_path):
    (tmp_path / "filters.toml").write_text(manifests()["ConfigMap"]["data"]["filters.toml"])
    (tmp_path / "token").write_text("sesame\n")
    spec = container()
    here = {"--model": MODEL, "--filters": str(tmp_path), "--api-token-file": str(tmp_path / "token"),
            "--host": "127.0.0.1", "--port": "0"}
    arguments = [f"{flag}={here.get(flag, value)}" for flag, _, value in (a.partition("=") for a in spec["args"])]
    names = next(e["value"] for e in spec["env"] if e["name"] == "RBEES_HOST_NAME").replace("$(POD_IP)", "10.1.2.3")
    child, url = start(["serve", *arguments], {"RBEES_HOST_NAME": names, "RBEES_WORKER_ID": "pod"})
    try:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            path = spec[probe]["httpGet"]["path"]
            assert get(url + path, "10.1.2.3:8080") == 200, f"{probe}, as the kubelet calls it"
            assert get(url + path, "10.9.9.9:8080") == 421
        assert get(f"{url}/jobs/x", "rbees") == 401, "the token is asked for"
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0
    finally:
        child.kill()


def test_the_grace_fits_into_the_time_that_the_pod_has():
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    spec = container()
    grace_s = int(next(a for a in spec["args"] if a.startswith("--grace-ms=")).partition("=")[2]) / 1000
    needed = grace_s + spec["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert needed + 5 <= pod["terminationGracePeriodSeconds"]
    unit_s = int(re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.M)[1])
    config = tomllib.loads((POOL / "systemd/hive.toml").read_text())
    assert config["grace-ms"] / 1000 + 5 <= unit_s


def test_the_units_configuration_is_taken(tmp_path):
    text = (POOL / "systemd/hive.toml").read_text()
    text = text.replace("/var/lib/rbees/models/SmolLM2-135M-Instruct.Q4_1.gguf", MODEL)
    text = text.replace("/etc/rbees/filters", str(tmp_path)).replace("port = 8080", "port = 0")
    (tmp_path / "hive.toml").write_text(text)
    (tmp_path / "token").write_text("sesame\n")
    line = re.search(r"^ExecStart=(.*)$", UNIT.read_text(), re.M)[1]
    line = line.replace("/etc/rbees", str(tmp_path)).replace("%d", str(tmp_path)).replace("%i", "hive").replace("%m", "m")
    child, url = start(line.split()[1:], {})
    try:
        assert get(f"{url}/ready") == 200 and get(f"{url}/jobs/x") == 401
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0
    finally:
        child.kill()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_the_unit_is_valid_and_hardened(tmp_path):
    unit = tmp_path / "rbees-workerd@hive.service"
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/rbees-workerd", BINARY))
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit], capture_output=True, text=True)
    assert verified.returncode == 0, verified.stderr
    assert str(unit.name) not in verified.stderr, verified.stderr
    # Tenths of the exposure level that systemd gives: 10 for a unit without any protection, 100 in all.
    secure = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--threshold=20", unit], capture_output=True, text=True)
    assert secure.returncode == 0, secure.stdout[-400:]
