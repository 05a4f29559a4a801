"""The image: linted, built from the Dockerfile, and run without rights on a read-only root."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import image
from tests.documents import ROOT
from tests.serving import gatebook

LISTEN = re.compile(r'"listen":"(127\.0\.0\.1:\d+)"[^\n]*"event":"serving"')
METRICS = re.compile(r'"listen":"(127\.0\.0\.1:\d+)"[^\n]*"event":"metrics"')
GRACE_SECONDS = 30


@pytest.fixture(scope="module")
def built() -> dict[str, object]:
    """Builds the image; tells exactly what is missing where it cannot be built."""
    if lacking := image.missing():
        pytest.skip(f"an image cannot be built here: {', '.join(lacking)} is missing")
    image.build()
    return image.inspect()


@pytest.fixture
def data(built: object, tmp_path: Path) -> Iterator[Path]:
    """A folder for the volume of a container, which its user may enter."""
    del built
    folder = Path("/var/tmp") / f"gatebook-image-{tmp_path.name}"  # noqa: S108  # tmp_path is closed to other users
    shutil.rmtree(folder, ignore_errors=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_the_dockerfile_has_no_findings() -> None:
    """Hadolint finds nothing at any level."""
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert ("", 0) == (done.stdout, done.returncode)


@pytest.mark.timeout(1_200)
def test_the_image_says_how_it_is_run(built: dict[str, object]) -> None:
    """It runs as a user without rights, stops on SIGTERM, checks its health, and is labelled."""
    config = built["Config"]
    assert isinstance(config, dict)
    assert "10001:10001" == config["User"]
    assert "SIGTERM" == config["StopSignal"]
    assert ["CMD", "gatebook", "health", "--http", "127.0.0.1:9464"] == built[
        "HealthcheckConfig" if "HealthcheckConfig" in built else "Healthcheck"
    ]["Test"]  # type: ignore[index]  # as inspect prints it
    assert {"/var/lib/gatebook": {}} == config["Volumes"]
    labels = config["Labels"]
    assert ("Apache-2.0", "0.0.0.test", "0000000") == tuple(
        labels[f"org.opencontainers.image.{name}"] for name in ("licenses", "version", "revision")
    )


@pytest.mark.timeout(1_200)
def test_the_list_of_contents_is_complete(built: object) -> None:
    """The CycloneDX list in the image names each locked package that is installed, and nothing of the build."""
    del built
    listed = json.loads(image.read("/usr/share/gatebook/sbom.cdx.json"))
    (image.CACHE / "sbom.cdx.json").write_text(json.dumps(listed, indent=2), encoding="utf-8")
    assert "CycloneDX" == listed["bomFormat"]
    found = {normal(each["name"]): each["version"] for each in listed["components"]}
    lines = re.findall(r"^([\w.-]+)==([^ ;]+)", (ROOT / "requirements/server.txt").read_text(), re.MULTILINE)
    locked = {normal(name): version for name, version in lines}
    assert found.pop("gatebook")
    assert {"grpcio", "cryptography", "pycasbin"} <= found.keys()
    assert {"pip", "hatchling", "cyclonedx-bom"}.isdisjoint(found)
    assert found == {name: locked[name] for name in found}
    # What is locked and not there is for another system or Python.
    assert len(found) >= len(locked) - 5


def normal(name: str) -> str:
    """Returns the name of a package in the one form of PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.timeout(1_200)
def test_the_image_holds_no_trace_of_the_machine(built: object) -> None:
    """No setting of this machine's pip and no compiler or package tool is in it."""
    del built
    for path in ("/etc/pip.conf", "/run/certificates.crt", "/opt/gatebook/bin/pip", "/opt/build"):
        assert "" == image.once("sh", "-c", f"test ! -s {path} || echo {path}")
    assert "basic\n" in image.once("ls", "/usr/share/gatebook/policies")


@pytest.mark.timeout(1_200)
def test_a_container_serves_stops_and_leaves_a_book(data: Path) -> None:
    """On a read-only root as a user without rights: healthy, answers, drains on SIGTERM, and the book verifies."""
    command = ("serve", "--data", "/var/lib/gatebook", "--policies", "/usr/share/gatebook/policies/basic")
    options = ("--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--log", "json")
    with image.container(data, *command, *options) as made:
        found = image.wait_until("serving", lambda: LISTEN.search(logs(made)))
        target = found[1]
        healthy = image.podman("exec", "--env", f"GATEBOOK_TARGET={target}", made, "gatebook", "health")
        assert "SERVING\n" == healthy
        for option in ([], ["--alive"]):
            told = METRICS.search(logs(made))
            assert told
            assert "SERVING\n" == image.podman("exec", made, "gatebook", "health", "--http", told[1], *option)

        asked = gatebook("check", "alice", "write", "report:incidents", "--target", target)
        assert (0, "ALLOW") == (asked.returncode, asked.stdout.split()[0]), asked.stderr
        refused = gatebook("check", "carol", "write", "report:incidents", "--target", target)
        assert 1 == refused.returncode

        status = image.podman("exec", made, "cat", "/proc/1/status")
        assert ["10001"] * 4 == re.search(r"^Uid:\s+(.*)$", status, re.MULTILINE)[1].split()  # type: ignore[index]  # there
        assert "0000000000000000" == re.search(r"^CapEff:\s+(\w+)$", status, re.MULTILINE)[1]  # type: ignore[index]  # there
        assert "1" == re.search(r"^NoNewPrivs:\s+(\d)$", status, re.MULTILINE)[1]  # type: ignore[index]  # there
        denied = image.podman("exec", made, "sh", "-c", "touch /opt/x /usr/x /etc/x 2>&1; true")
        assert 3 == denied.count("Read-only file system")

        started = time.monotonic()
        image.podman("stop", "--time", str(GRACE_SECONDS), made)
        assert GRACE_SECONDS > time.monotonic() - started
        state = json.loads(image.podman("inspect", made))[0]["State"]
        assert (0, False) == (state["ExitCode"], state["OOMKilled"]), logs(made)
        assert '"event":"stopped"' in logs(made)

    verified = gatebook("audit", "verify", str(data), "--vkey", str(data / "book" / "vkey"), "--json")
    kinds = json.loads(verified.stdout)["kinds"]
    assert (0, 2) == (verified.returncode, kinds["decision"])


@pytest.mark.timeout(1_200)
def test_a_backup_is_taken_in_the_container(data: Path) -> None:
    """An operator takes a backup where the service runs, and restores it in another container."""
    with image.container(
        data, "serve", "--data", "/var/lib/gatebook/data", "--listen", "127.0.0.1:0", "--log", "json"
    ) as made:
        image.wait_until("serving", lambda: LISTEN.search(logs(made)))
        told = image.podman("exec", made, "gatebook", "backup", "b.tar", "--data", "data", "--json")
        image.podman("stop", "--time", str(GRACE_SECONDS), made)
    with image.container(
        data, "restore", "b.tar", "--data", "restored", "--continue", "--no-erasures", "--json"
    ) as made:
        assert "0\n" == image.podman("wait", made)
        restored = json.loads(image.podman("logs", made))

    assert json.loads(told)["size"] == restored["size"]
    verified = gatebook("audit", "verify", str(data / "restored"), "--vkey", str(data / "data" / "book" / "vkey"))
    assert 0 == verified.returncode, verified.stderr


def logs(made: str) -> str:
    """Returns what the container wrote so far."""
    return subprocess.run(["podman", *image.store(), "logs", made], capture_output=True, text=True, check=True).stderr
