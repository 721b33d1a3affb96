"""The repository has the layout that the README promises, and every service the same shape."""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path

import pytest

from services.chassis.openapi import openapi_document, service_names
from services.chassis.settings import ServiceSettings
from workshop import catalogue

ROOT = Path(__file__).parents[2]
FOLDERS = {
    ".ci",
    "compose",
    "handbook",
    "lessons",
    "notebooks",
    "reports",
    "services",
    "slides",
    "solutions",
    "tests",
    "workshop",
}
THIRTEEN = {
    "gateway",
    "orchestrator",
    "query_preprocessing",
    "embedding",
    "dense_retrieval",
    "sparse_retrieval",
    "hybrid_search",
    "reranking",
    "context_aggregation",
    "generation",
    "post_processing",
    "feedback",
    "ingestion",
}
BESIDE = {"chassis", "llm_server", "monolith"}
SHAPE = (
    "README.md",
    "__init__.py",
    "__main__.py",
    "api.py",
    "domain.py",
    "openapi.json",
    "requirements.txt",
    "schemas.py",
    "settings.py",
)
# Written so that this file does not match itself.
FORBIDDEN = re.compile(
    "|".join(
        [
            r"(?<![\w.])/(?:root|work|home/\w+|Users/\w+)/",
            r"/opt/(?:wheels|pypi)",
            r"files\.python[h]osted\.org",
            r"registry\.npm[j]s\.org",
            r"deb\.deb[i]an\.org",
        ]
    )
)


def tracked() -> list[str]:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_the_top_level_has_the_promised_folders_and_no_other() -> None:
    found = {name.split("/")[0] for name in tracked() if "/" in name}
    assert found - FOLDERS == set()
    assert {".ci", "handbook", "services", "tests", "workshop"} <= found


def test_the_thirteen_services_are_there() -> None:
    folders = {name.split("/")[1] for name in tracked() if re.match(r"services/\w+/", name)}
    assert folders - BESIDE == THIRTEEN
    assert set(catalogue.SERVICES) == THIRTEEN


@pytest.mark.parametrize("name", sorted(THIRTEEN))
def test_every_service_has_the_same_shape(name: str) -> None:
    folder = ROOT / "services" / name
    assert [file for file in SHAPE if not (folder / file).is_file()] == []
    assert list((folder / "tests").glob("test_*.py"))


@pytest.mark.parametrize("name", sorted(THIRTEEN))
def test_the_domain_of_a_service_knows_no_web_framework(name: str) -> None:
    source = (ROOT / "services" / name / "domain.py").read_text()
    imports = re.findall(r"^\s*(?:from|import)\s+([\w.]+)", source, re.MULTILINE)
    web = ("fastapi", "starlette", "uvicorn", "aiohttp", "httpx")
    assert [module for module in imports if module.split(".")[0] in web] == []


@pytest.mark.parametrize("name", service_names())
def test_the_committed_openapi_document_is_what_the_code_says(name: str) -> None:
    committed = (ROOT / "services" / name / "openapi.json").read_bytes()
    assert committed == openapi_document(name), f"run: workshop openapi {name}"


@pytest.mark.parametrize("name", sorted(THIRTEEN))
def test_the_catalogue_gives_every_address_that_a_service_asks_for(name: str) -> None:
    settings: type[ServiceSettings] = importlib.import_module(f"services.{name}.settings").Settings
    prefix = settings.model_config["env_prefix"]
    plan = catalogue.plan(20000, model_settings={}, broker_command=("nats-server",), environ={})
    spec = next(spec for spec in plan if spec.name == name)
    assert spec.environment[f"{prefix}PORT"] == str(spec.port)
    for field, info in settings.model_fields.items():
        default = info.default
        if field.endswith("_url") and isinstance(default, str) and "127.0.0.1" in default:
            own = spec.environment.get(f"{prefix}{field.upper()}")
            assert own is not None, f"{prefix}{field.upper()} keeps its default under --port-base"
            assert own == default.replace(":80", ":200"), field


def test_no_tracked_file_names_a_machine_or_a_mirror() -> None:
    found = []
    for name in tracked():
        try:
            text = (ROOT / name).read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{name}: {match[0]}" for match in FORBIDDEN.finditer(text)]
    assert found == []
