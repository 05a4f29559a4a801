"""The examples in docs/deploy say what the service understands, and what their schedulers accept."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
from ruamel.yaml import YAML
from tests.certificates import authority, leaf, server_of
from tests.documents import ROOT
from tests.serving import POLICIES, gatebook, serving

from gatebook.cli import main
from gatebook.config import Limits
from gatebook.policy.bundle import belongs

DEPLOY = ROOT / "docs" / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
VERSIONS = ("1.30", "1.33", kubernetes_validate.latest_version())
UNIT = DEPLOY / "systemd" / "gatebook.service"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")

CA = authority()
METRICS, LISTEN = "127.0.0.1:9464", "0.0.0.0:7443"

Manifest = dict[str, Any]


def manifests(path: Path) -> list[Manifest]:
    """Returns the documents of a file."""
    return [document for document in YAML(typ="safe").load_all(path) if document]


def all_manifests(kind: str = "") -> Iterator[Manifest]:
    """Yields every document of a kind."""
    yield from (each for path in MANIFESTS for each in manifests(path) if kind in {"", each["kind"]})


def require_command(words: Iterable[str]) -> None:
    """Requires that a command of ours and each of its options exist."""
    name, *rest = words
    command = main.get_command(click.Context(main), name)
    assert command is not None, name
    known = {option for each in command.params for option in each.opts}
    for word in rest:
        if word.startswith("--"):
            assert word.partition("=")[0] in known, f"gatebook {name} {word}"


def pod() -> Manifest:
    """Returns the pod of the stateful set."""
    [stateful_set] = all_manifests("StatefulSet")
    return dict(stateful_set["spec"]["template"]["spec"])


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_valid(path: Path, version: str) -> None:
    """Each document has the fields of its kind, and no others, in old and new versions of Kubernetes."""
    for document in manifests(path):
        kubernetes_validate.validate(document, version, strict=True)


def test_a_pod_has_no_rights() -> None:
    """It runs as the user of the image, on a read-only root, without capabilities or a token of the cluster."""
    found, [container] = pod(), pod()["containers"]
    user = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    assert user is not None
    context = found["securityContext"]
    assert (True, *map(int, user.groups())) == (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"])
    assert {"type": "RuntimeDefault"} == context["seccompProfile"]
    assert "OnRootMismatch" == context["fsGroupChangePolicy"]
    assert found["automountServiceAccountToken"] is False
    assert {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "privileged": False,
        "capabilities": {"drop": ["ALL"]},
    } == container["securityContext"]


def test_what_a_pod_runs_exists() -> None:
    """Its arguments and its probes are commands and options of this version."""
    [container] = pod()["containers"]
    require_command(container["args"])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        name, *words = container[probe]["exec"]["command"]
        assert "gatebook" == name
        require_command(words)
    assert 'CMD ["gatebook", "health"' in DOCKERFILE


def test_a_pod_has_time_to_drain() -> None:
    """The grace of a stop is longer than the wait before it and the drain together."""
    [container] = pod()["containers"]
    [_, wait] = container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod()["terminationGracePeriodSeconds"] > int(wait) + Limits().drain_seconds + 10


def test_labels_ports_and_volumes_fit() -> None:
    """Every selector finds the pod, every port and volume that is named is there, and the headless service is named."""
    [stateful_set] = all_manifests("StatefulSet")
    labels = stateful_set["spec"]["template"]["metadata"]["labels"].items()
    [container] = pod()["containers"]
    for service in all_manifests("Service"):
        assert service["spec"]["selector"].items() <= labels
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= {
            port["name"] for port in container["ports"]
        }
    for kind, field in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        [found] = all_manifests(kind)
        assert found["spec"][field]["matchLabels"].items() <= labels
    volumes = {each["name"] for each in pod()["volumes"]}
    volumes |= {each["metadata"]["name"] for each in stateful_set["spec"]["volumeClaimTemplates"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    for word in container["args"]:
        _, _, path = word.partition("=/")
        assert not path or any(f"/{path}".startswith(mount) for mount in mounts), word
    assert stateful_set["spec"]["serviceName"] in {each["metadata"]["name"] for each in all_manifests("Service")}


def test_the_first_policy_set_is_one() -> None:
    """The files in the config map are a policy set without findings."""
    config_map = config_map_of("gatebook-policies")
    assert all(belongs(name) for name in config_map["data"])


def test_who_may_call_is_the_shipped_set_and_callers_of_the_cluster() -> None:
    """But for the lines that name callers of the cluster the config map is `policies/gatebook`, word for word."""
    told = config_map_of("gatebook-authority")["data"]
    named = [line for line in told["policy.csv"].splitlines() if "cluster.example" in line]
    rest = re.sub(r"# The callers of this cluster.*\n(g, .*\n)+\n", "", told["policy.csv"])

    assert 4 == len(named)
    for name, content in {**told, "policy.csv": rest}.items():
        assert (POLICIES / "gatebook" / name).read_text(encoding="utf-8").rstrip() == content.rstrip()


def config_map_of(name: str) -> Manifest:
    """Returns the config map of a name."""
    [found] = (each for each in all_manifests("ConfigMap") if each["metadata"]["name"] == name)
    return found


def mounted(folder: Path) -> dict[str, Path]:
    """Makes what is mounted into the pod, in a folder; returns it by where the pod sees it."""
    found = {}
    [container] = pod()["containers"]
    volumes = {each["name"]: each for each in pod()["volumes"]}
    for mount in container["volumeMounts"]:
        place = found[mount["mountPath"]] = folder / mount["name"]
        place.mkdir()
        volume = volumes.get(mount["name"], {})
        if "configMap" in volume:
            for name, content in config_map_of(volume["configMap"]["name"])["data"].items():
                (place / name).write_text(content, encoding="utf-8")
    server_of(CA).write(found["/etc/gatebook/tls"], "tls")
    (found["/etc/gatebook/client-ca"] / "ca.crt").write_bytes(CA.pem)
    return found


def test_a_pod_really_serves(tmp_path: Path) -> None:
    """With its own arguments and mounts a server starts and its probes pass; without a certificate nobody gets in."""
    mounts, [container] = mounted(tmp_path), pod()["containers"]
    data = mounts["/var/lib/gatebook"] / "data"
    with serving(data, (), *(here(word, mounts) for word in container["args"][1:])) as server:
        [metrics] = (line["listen"] for line in server.lines if line.get("event") == "metrics")
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            _, *asked = container[probe]["exec"]["command"]
            done = gatebook(*(word.replace(METRICS, metrics) for word in asked))
            assert (0, "SERVING\n") == (done.returncode, done.stdout), done.stderr
        assert 3 == gatebook("check", "alice", "read", "report:weekly", "--target", server.target).returncode
        caller = leaf(CA, uris=["spiffe://cluster.example/ns/reports/sa/cost-report"]).write(tmp_path, "caller")
        ca = mounts["/etc/gatebook/client-ca"] / "ca.crt"
        tls = ("--tls-ca", str(ca), "--tls-cert", str(caller[0]), "--tls-key", str(caller[1]))
        asked = gatebook("check", "alice", "read", "report:weekly", "--target", server.target, *tls)
        assert (0, True) == (asked.returncode, "ALLOW" in asked.stdout), asked.stderr
    assert 0o700 == data.stat().st_mode & 0o777


def here(word: str, mounts: Mapping[str, Path]) -> str:
    """Returns an argument of the pod as it is said on this machine: other folders, and ports that are free."""
    option, _, value = word.partition("=")
    mount = next((path for path in mounts if value.startswith(f"{path}/") or value == path), None)
    if mount is not None:
        return f"{option}={mounts[mount]}{value.removeprefix(mount)}"
    if value in {METRICS, LISTEN}:
        return f"{option}=127.0.0.1:0"
    return word.replace("$(POD_NAME)", "gatebook-0")


def unit() -> dict[str, list[str]]:
    """Returns the settings of the unit."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_what_the_unit_runs_exists() -> None:
    """Its command is one of this version, and it is given each credential that it names."""
    [command] = unit()["ExecStart"]
    _, *words = shlex.split(command)
    require_command(words)
    loaded = {each.partition(":")[0] for each in unit()["LoadCredential"]}
    assert loaded == set(re.findall(r"%d/(\S+)", command))


def test_the_unit_has_time_to_drain_and_knows_the_exit_codes() -> None:
    """It waits longer than a drain, starts again after a failed write, and not after a refusal."""
    assert int(unit()["TimeoutStopSec"][0]) > Limits().drain_seconds + 10
    assert ["on-failure"] == unit()["Restart"]
    assert ["1 2"] == unit()["RestartPreventExitStatus"]
