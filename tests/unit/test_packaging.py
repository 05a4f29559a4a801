"""The wheel holds the service and the client, and the base install is the client alone."""

from __future__ import annotations

import email.parser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITH_BASE_INSTALL_ONLY = """
import sys

INSTALLED = sys.stdlib_module_names | {"gatebook", "gatebook_client", "google", "grpc", "typing_extensions"}

class BaseInstall:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in INSTALLED:
            raise ModuleNotFoundError(f"no module named {top}", name=top)

sys.meta_path.insert(0, BaseInstall())
sys.path.insert(0, sys.argv.pop(1))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def _run_with_base_install(wheel: Path, code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITH_BASE_INSTALL_ONLY + code, str(wheel)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_wheel_holds_every_module(wheel: Path) -> None:
    """The wheel holds every module of both packages, typed, the set `gatebook`, and nothing else."""
    sources = [ROOT / "service", ROOT / "clients/python"]
    expected = {
        str(path.relative_to(source))
        for source in sources
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shipped = ROOT / "policies"
    expected |= {
        f"gatebook/policies/{path.relative_to(shipped)}" for path in (shipped / "gatebook").rglob("*") if path.is_file()
    }

    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]

    assert sorted(expected) == sorted(names)
    assert {"gatebook/py.typed", "gatebook_client/py.typed"} <= set(names)


def test_wheel_holds_one_copy_of_the_generated_code(wheel: Path) -> None:
    """Each .proto file has exactly one generated module in the wheel."""
    protos = (ROOT / "proto").rglob("*.proto")
    expected = [str(path.relative_to(ROOT / "proto").with_name(f"{path.stem}_pb2.py")) for path in protos]

    names = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("_pb2.py")]

    assert sorted(expected) == sorted(names)


def test_base_install_is_the_client(wheel: Path) -> None:
    """Without an extra, the wheel requires gRPC and protobuf alone."""
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.parser.Parser().parsestr(archive.read(name).decode())

    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]

    assert ["googleapis-common-protos", "grpcio", "protobuf"] == sorted(line.partition(">")[0] for line in required)


def test_client_imports_with_the_base_install(wheel: Path) -> None:
    """The client and the messages import where only the base install is."""
    done = _run_with_base_install(wheel, "import gatebook_client, gatebook.v1.access_service_pb2_grpc")

    assert (0, "") == (done.returncode, done.stderr)


def test_command_names_the_extra_to_install(wheel: Path) -> None:
    """With the base install alone the command says what to install, and exits with 2."""
    done = _run_with_base_install(wheel, "from gatebook.__main__ import main; sys.exit(main())")

    assert done.returncode == 2
    assert "pip install 'gatebook[server]'" in done.stderr
    assert "Traceback" not in done.stderr
