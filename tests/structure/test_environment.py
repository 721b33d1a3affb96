"""environment.yml against the lock, the lock against what the services ask for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from rattler import MatchSpec, Version, VersionSpec

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
CONDA_SPECS = [item for item in CONDA["dependencies"] if isinstance(item, str)]
PIP_LINES = next(item["pip"] for item in CONDA["dependencies"] if isinstance(item, dict))
REQUIREMENT_FILES = sorted((ROOT / "services").glob("*/requirements.txt"))


def locked() -> dict[str, set[str]]:
    """Versions of each package; several where they differ by Python version."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if re.match(r"^[A-Za-z0-9]", line):
            requirement = Requirement(line)
            (pin,) = requirement.specifier
            assert pin.operator == "==", line
            found.setdefault(canonicalize_name(requirement.name), set()).add(pin.version)
    return found


@pytest.mark.parametrize("spec", CONDA_SPECS)
def test_each_conda_spec_is_valid_and_gives_what_the_lock_pins(spec: str) -> None:
    parsed = VersionSpec(str(MatchSpec(spec, strict=True).version))
    name = spec.split("=")[0].split("<")[0].split(">")[0].strip()
    if name == "python":
        wanted = SpecifierSet(PROJECT["project"]["requires-python"])
        for minor in range(8, 15):
            ours = f"3.{minor}.0" in wanted
            assert parsed.matches(Version(f"3.{minor}.0")) == ours, minor
    elif name != "pip":
        (version,) = locked()[canonicalize_name(name)]
        assert parsed.matches(Version(version))


def test_conda_users_get_the_lock_through_pip() -> None:
    assert "-r requirements.lock" in PIP_LINES
    assert "-e ." in PIP_LINES
    pins = [Requirement(line) for line in PIP_LINES if not line.startswith("-")]
    assert [pin.name for pin in pins] == ["torch"]  # its CPU build has another index
    for pin in pins:
        (version,) = locked()[canonicalize_name(pin.name)]
        assert str(pin.specifier) == f"=={version}+cpu"


def test_the_lock_has_every_dependency_of_the_project() -> None:
    groups = [PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"].values()]
    wanted = {canonicalize_name(Requirement(line).name) for group in groups for line in group}
    assert wanted - locked().keys() == set()


def test_the_lock_leads_to_a_cpu_build() -> None:
    gpu = [name for name in locked() if name.startswith(("nvidia-", "cuda-", "triton"))]
    assert gpu == []


def test_the_lock_names_no_index() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert [line for line in lines if "://" in line or line.startswith("-")] == []


@pytest.mark.parametrize("path", REQUIREMENT_FILES, ids=lambda path: path.parent.name)
def test_each_service_asks_only_for_locked_packages_and_pins_none(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line and line[0] not in "#"]
    requirements = [Requirement(line) for line in lines]
    assert requirements, "a service without dependencies has no requirements.txt"
    assert [r.name for r in requirements if canonicalize_name(r.name) not in locked()] == []
    assert [str(r) for r in requirements if r.specifier] == []
