"""The image of the Dockerfile, really built, and a container of it, really run: buildah, podman, and no registry.

Owns how the machine's own way to its package indexes gets into the build: pip's settings and certificates are mounted
while it builds and are in no layer; proxies come from the environment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.documents import ROOT

PROGRAMS = ("mmdebstrap", "buildah", "podman", "runc")
CACHE = ROOT / "build" / "image"
BASE = "docker.io/library/debian:bookworm-slim"
IMAGE = "localhost/gatebook:test"
USER = 10_001
BUILD_SECONDS, RUN_SECONDS = 900, 120
_STORE = ("--root", str(CACHE / "storage"), "--runroot", str(CACHE / "run"), "--storage-driver", "overlay")
_SLIM = ("doc", "man", "info", "locale")
_SETTINGS = ("index-url", "extra-index-url", "find-links", "trusted-host", "timeout", "proxy")


def run(*words: str, seconds: int = RUN_SECONDS, check: bool = True) -> str:
    """Runs a program and returns what it printed; tells what it said where it fails."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False, cwd=ROOT)
    assert not check or done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-4_000:]}\n{done.stderr[-4_000:]}"
    return done.stdout


def podman(*words: str, check: bool = True) -> str:
    """Runs podman on the store of these tests."""
    return run("podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs", *_STORE, *words, check=check)


def store() -> Sequence[str]:
    """Returns the options that name the store of these tests."""
    return _STORE


def missing() -> list[str]:
    """Returns what this machine lacks for building an image, each in words."""
    found = [f"the program `{program}`" for program in PROGRAMS if shutil.which(program) is None]
    if os.geteuid() != 0:
        found.append("root, for the namespaces and mounts of a container")
    return found


def build() -> None:
    """Builds the image from the Dockerfile, on a base that stands in for the registry's."""
    CACHE.mkdir(parents=True, exist_ok=True)
    _make_base()
    settings = _pip_settings()
    mounts = [f"{settings}:/etc/pip.conf:ro"]
    certificates = next(iter(Path(p) for p in _certificates() if Path(p).is_file()), None)
    if certificates is not None:
        mounts.append(f"{certificates}:/run/certificates.crt:ro")
    volumes = [word for mount in mounts for word in ("--volume", mount)]
    told = ("--build-arg", "VERSION=0.0.0.test", "--build-arg", "REVISION=0000000")
    # HEALTHCHECK is no part of the OCI format.
    form = ("--format", "docker", "--isolation", "chroot", "--layers", "--pull-never")
    run("buildah", "build", *_STORE, *form, *volumes, *told, "--tag", IMAGE, ".", seconds=BUILD_SECONDS)


def _make_base() -> None:
    """Makes the base image from Debian's archive, once."""
    if BASE in run("buildah", "images", *_STORE, "--format", "{{.Name}}:{{.Tag}}"):
        return
    archive = CACHE / "base.tar"
    without = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in _SLIM]
    run("mmdebstrap", "--variant=minbase", "--mode=root", *without, "bookworm", str(archive), seconds=BUILD_SECONDS)
    (CACHE / "Containerfile").write_text("FROM scratch\nADD base.tar /\n", encoding="utf-8")
    containerfile = str(CACHE / "Containerfile")
    run("buildah", "build", *_STORE, "--isolation", "chroot", "--tag", BASE, "--file", containerfile, str(CACHE))
    archive.unlink()


def _pip_settings() -> Path:
    """Writes how this machine's pip finds packages, as a file for the pip of the build."""
    lines = ["[global]"]
    for line in run("python3", "-m", "pip", "config", "list").splitlines():
        name, _, value = line.partition("=")
        setting = name.rpartition(".")[2]
        value = value.strip("'\"")
        if setting in _SETTINGS and not Path(value).is_dir():
            lines.append(f"{setting} = {value}")
    if any(Path(path).is_file() for path in _certificates()):
        lines.append("cert = /run/certificates.crt")
    path = CACHE / "pip.conf"
    path.write_text("\n".join((*lines, "")), encoding="utf-8")
    return path


def _certificates() -> Sequence[str]:
    return [os.environ.get(name, "") for name in ("PIP_CERT", "SSL_CERT_FILE")] + ["/etc/ssl/certs/ca-certificates.crt"]


def inspect() -> dict[str, Any]:
    """Returns what the image says about itself."""
    return dict(json.loads(podman("inspect", IMAGE))[0])


def read(path: str) -> str:
    """Returns a file of the image."""
    return once("cat", path)


def once(*words: str) -> str:
    """Runs a program of the image in a container of its own, hardened as the service."""
    return podman("run", "--rm", *HARDENED, "--entrypoint", words[0], IMAGE, *words[1:])


HARDENED = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--tmpfs=/tmp:rw,nosuid,nodev,noexec,size=64m",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--network=host",
    # Without these podman asks for more than this process may give.
    "--ulimit=nofile=8192:8192",
    "--ulimit=nproc=1024:1024",
)


@contextmanager
def container(data: Path, *command: str) -> Iterator[str]:
    """Runs the service in a container within the block; gives its id. What it leaves is in `data`."""
    data.mkdir(mode=0o700, exist_ok=True)
    os.chown(data, USER, USER)
    volume = f"--volume={data}:/var/lib/gatebook"
    made = podman("run", "--detach", *HARDENED, volume, IMAGE, *command).strip()
    try:
        yield made
    finally:
        podman("rm", "--force", "--time", "1", made, check=False)


def wait_until(what: str, condition: Any, seconds: int = 60) -> Any:  # noqa: ANN401  # whatever the condition gives
    """Waits until a condition gives something, and returns it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {seconds} s")
