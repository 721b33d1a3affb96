"""The images as they are built: size, user, what is in them, how long a change takes."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from workshop import containers

from .conftest import IMAGES, ROOT

README = (ROOT / "README.md").read_text()
WITH_A_MODEL = {"embedding", "reranking", "llm_server", "monolith"}


def budget(label: str) -> int:
    """Bytes, from the table of images in README.md."""
    row = re.search(rf"^\| {label} \|.*\| (\d+) \|$", README, re.MULTILINE)
    assert row, f"README.md has no budget of the image {label}"
    return int(row[1]) * 1_000_000


def inside(image: str, program: str, *arguments: str) -> str:
    command = ["docker", "run", "--rm", "--read-only", "--network", "none", "--entrypoint"]
    done = subprocess.run(
        [*command, program, image, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def assert_within_budget(label: str, size: int) -> None:
    print(f"{label}: {size / 1e6:.0f} MB")
    assert size <= budget(label)


@pytest.mark.parametrize("name", IMAGES)
def test_it_keeps_to_its_budget(engine, build, name):
    assert_within_budget(f"`{name}`", engine.images.get(build(name)).attrs["Size"])


def test_the_form_for_a_qdrant_server_keeps_to_its_budget(engine, build):
    size = engine.images.get(build("dense_retrieval", store="client")).attrs["Size"]
    assert_within_budget("`dense_retrieval` with Qdrant's client", size)


def test_the_classic_builder_makes_the_same_of_a_dockerfile(engine, build):
    """It is what an engine without buildx has."""
    if not containers.has_buildx():
        pytest.skip("no buildx here: every image is built by the classic builder")
    ours, classic = (
        engine.images.get(build("hybrid_search", classic=kind)).attrs for kind in (False, True)
    )
    same = ("User", "Env", "Cmd", "ExposedPorts", "Healthcheck", "StopSignal", "Volumes", "Labels")
    assert {key: ours["Config"][key] for key in same} == {
        key: classic["Config"][key] for key in same
    }
    assert classic["Size"] == pytest.approx(ours["Size"], rel=0.02)


@pytest.mark.parametrize("name", IMAGES)
def test_it_runs_as_nobody_in_particular_with_no_tools_left(engine, build, name):
    configuration = engine.images.get(build(name)).attrs["Config"]
    assert configuration["User"] == "10001:10001"
    assert configuration["StopSignal"] == "SIGTERM"
    assert "probe.sh" in " ".join(configuration["Healthcheck"]["Test"])
    assert {"org.opencontainers.image.version", "org.opencontainers.image.revision"} <= set(
        configuration["Labels"]
    )
    look = (
        "id -u; for tool in gcc cc g++ make ld strip uv; do command -v $tool; done; "
        "find /var/lib/apt/lists /var/cache/apt /root /home -type f -name '*[!.]*' "
        "! -name '.bashrc' ! -name '.profile' ! -name lock 2>/dev/null; "
        "find / -xdev -type d -name .cache 2>/dev/null"
    )
    assert inside(f"rag-workshop/{name}:test", "sh", "-c", look).split() == ["10001"]


@pytest.mark.parametrize("name", IMAGES)
def test_a_runtime_for_models_is_only_where_a_model_runs_and_never_twice(build, name):
    build(name)
    found = inside(f"rag-workshop/{name}:test", "ls", "/packages").split()
    runtimes = {"onnxruntime", "xllamacpp", "torch", "tensorflow"} & set(found)
    wanted = {"llm_server": {"xllamacpp"}, "monolith": {"onnxruntime", "xllamacpp"}}
    if name not in WITH_A_MODEL:
        assert runtimes == set()
    else:
        assert runtimes == wanted.get(name, {"onnxruntime"})


def ids(build, names, root):
    """The image of each, built from the tree at `root`."""
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(names, pool.map(lambda name: build(name, root), names), strict=True))


def test_a_changed_line_rebuilds_one_image_within_ten_seconds(build, tmp_path):
    """A copy of the tree, so that the change is nobody else's."""
    for file in ("requirements.lock", ".dockerignore"):
        shutil.copy(ROOT / file, tmp_path / file)
    shutil.copytree(
        ROOT / "services", tmp_path / "services", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(ROOT / "handbook", tmp_path / "handbook")
    services = [name for name in IMAGES if name != "monolith"]  # it holds all of the code
    before = ids(build, services, tmp_path)
    changed = tmp_path / "services" / "hybrid_search" / "domain.py"
    changed.write_text(changed.read_text() + "\nCHANGED = True\n")
    started = time.monotonic()
    build("hybrid_search", tmp_path)
    seconds = time.monotonic() - started
    after = ids(build, services, tmp_path)
    print(f"rebuilt in {seconds:.1f} s")
    assert {name for name in services if before[name] != after[name]} == {"hybrid_search"}
    assert seconds <= 10
