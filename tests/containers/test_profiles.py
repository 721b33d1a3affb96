"""The profiles on top of the running system: replicas, a learner's service, Prometheus."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.chassis import ServiceClient
from workshop import containers, course, lessons, my_services, paths

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
AT_ONCE = 4
REPLICATED = {"embedding": (8003, "/v1/embeddings"), "reranking": (8007, "/v1/rerank")}


def compose(lab: containers.Containers, *words: str) -> None:
    done = subprocess.run(
        lab._compose(*words), env=lab._environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def scaled(asked: containers.Containers) -> Iterator[containers.Containers]:
    """With `--profile scale`."""
    new = [f"{name}_2" for name in REPLICATED]
    compose(asked, "--profile", "scale", "up", "--detach", "--no-build", "--wait", *new)
    yield asked
    compose(asked, "--profile", "scale", "rm", "--stop", "--force", *new)


def metrics(container: Any, port: int) -> str:
    """/metrics as the container itself reads it; what the engine hands on of a command's output
    may be cut short, so it is asked again until all is there."""
    opened = f"exec 3<>/dev/tcp/127.0.0.1/{port}"
    ask = f"{opened}; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
    for _ in range(5):
        found = container.exec_run(["bash", "-c", ask])
        head, _, body = found.output.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if length and len(body) == int(length[1]):
            return str(body.decode())
    raise AssertionError(f"{container.name} does not give its metrics: {found.output[-200:]}")


def calls(lab: containers.Containers) -> dict[str, int]:
    """Requests that each replica has answered, by its own metrics."""
    processes, counts = lab.processes, {}
    for name, (port, path) in REPLICATED.items():
        counted = rf'http_request_duration_seconds_count\{{.*route="{path}".*\}} (\S+)'
        for replica in (name, f"{name}_2"):
            text = metrics(processes[replica]["container"], port)
            counts[replica] = int(sum(map(float, re.findall(counted, text))))
    return counts


async def search(lab: containers.Containers, seconds: float, during: Any = None) -> Counter[str]:
    """Search without a pause, `AT_ONCE` at a time, each time for something new. What was lost of
    each answer ('' for nothing), counted. `during` is called in the middle, in a thread."""
    lost: Counter[str] = Counter()
    client = ServiceClient("gateway", lab.url("gateway"), timeout=20)
    end = time.monotonic() + seconds

    async def caller(number: int) -> None:
        while time.monotonic() < end:
            query = f"What does caller {number} know of breaker {time.monotonic_ns()}?"
            found = await client.post("/v1/search", {"query": query, "rerank": True})
            assert found["degraded"] or found["reranked"], found
            lost[",".join(found["degraded"])] += 1

    async def meanwhile() -> None:
        await asyncio.sleep(seconds / 2)
        if during is not None:
            await asyncio.to_thread(during)

    try:
        await asyncio.gather(meanwhile(), *(caller(number) for number in range(AT_ONCE)))
    finally:
        await client.aclose()
    return lost


def test_both_replicas_share_the_load(scaled):
    for _ in range(2):  # at first, connections to the older one are still open
        before = calls(scaled)
        lost = asyncio.run(search(scaled, 5))
        share = {name: count - before[name] for name, count in calls(scaled).items()}
        print(f"{lost.total()} searches: {share}; lost: {dict(lost)}")
    for name in REPLICATED:
        both = share[name], share[f"{name}_2"]
        assert min(both) >= sum(both) / 5, share


@pytest.mark.alone  # the replica that is left has twice the work, within the same deadlines
def test_answers_go_on_when_a_replica_of_each_is_killed(scaled):
    """Lost is what the killed containers had in hand, and nothing later."""
    processes = scaled.processes
    killed = [processes[name]["container"] for name in REPLICATED]

    def kill() -> None:
        for container in killed:
            container.kill()

    try:
        lost = asyncio.run(search(scaled, 4, kill))
        after = asyncio.run(search(scaled, 3))
        print(f"killed in the middle: {dict(lost)}; after it: {dict(after)}")
        assert lost.total() - lost[""] <= AT_ONCE * len(killed)
        assert after.keys() == {""}
    finally:
        compose(scaled, "up", "--detach", "--no-build", "--no-deps", "--wait", *REPLICATED)


@pytest.fixture
def learner(
    asked: containers.Containers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[containers.Containers]:
    """With `--profile learner`: the solution of lesson 05 in the place of the reference."""
    mine = tmp_path / "my_services" / "hybrid_search"
    mine.mkdir(parents=True)
    solution = lessons.solution_notebook(course.find("05"))
    for (_, file), text in lessons.saved_files(solution).items():
        (mine / file).write_text(text)
    here = tmp_path / "here.yaml"
    monkeypatch.setenv("WORKSHOP_MY_SERVICES", str(mine.parent))
    my_services.prepare("hybrid_search")
    dockerfile = containers.COMPOSE / "learner.Dockerfile"
    build = {"context": str(mine.parent), "dockerfile": str(dockerfile)}
    here.write_text(json.dumps({"services": {"learner": {"build": build}}}))
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")
    profile = ("--file", str(here), "--profile", "learner")
    up = ("up", "--build", "--detach", "--no-deps", "--wait", "--scale", "hybrid_search=0")
    compose(asked, *profile, *up, "hybrid_search", "learner")
    yield asked
    compose(asked, *profile, "rm", "--stop", "--force", "learner")
    compose(asked, "up", "--detach", "--no-build", "--no-deps", "--wait", "hybrid_search")


def test_a_learners_container_answers_in_the_place_of_the_reference(asked, request):
    body = {"query": "When does a circuit breaker open?"}

    async def hits() -> list[str]:
        client = ServiceClient("gateway", asked.url("gateway"), timeout=20)
        try:
            for _ in range(20):  # breakers close a second after what was killed is back
                found = await client.post("/v1/search", body)
                if not found["degraded"]:
                    break
                await asyncio.sleep(0.5)
        finally:
            await client.aclose()
        assert found["degraded"] == []
        return [hit["passage"]["id"] for hit in found["hits"]]

    before = asyncio.run(hits())
    mine = request.getfixturevalue("learner").processes["learner"]["container"]
    assert asyncio.run(hits()) == before
    assert "rag-workshop/hybrid_search:mine" in mine.image.tags
    answered = re.search(r'_count\{.*route="/v1/search".*\} (\S+)', metrics(mine, 8006))
    assert answered
    assert float(answered[1]) >= 1


@pytest.fixture(scope="module")
def prometheus(engine: Any, lab: containers.Containers) -> Iterator[str]:
    """With `--profile observability`; the address of Prometheus."""
    settings = json.loads(
        containers._run(
            lab._compose("--profile", "observability", "config", "--format", "json"),
            lab._environment(),
        )
    )
    image = settings["services"]["prometheus"]["image"]
    if image.startswith("rag-workshop/") and not engine.images.list(name=image):
        file = "compose/offline/prometheus.Dockerfile"  # as build.sh does without a registry
        command = ["docker", "build", "--quiet", "--file", file, "--tag", image, "compose/offline"]
        subprocess.run(command, cwd=paths.ROOT, env=lab._environment(), check=True)
    up = ("up", "--detach", "--no-build", "--wait", "prometheus")
    compose(lab, "--profile", "observability", *up)
    yield f"http://127.0.0.1:{lab.base // 100}90"
    compose(lab, "--profile", "observability", "rm", "--stop", "--force", "prometheus")


def test_prometheus_scrapes_every_service(prometheus):
    configuration = yaml.safe_load((paths.ROOT / "compose" / "prometheus.yaml").read_text())
    discovered = configuration["scrape_configs"][0]["dns_sd_configs"]
    expected = {found["names"][0] for found in discovered}
    for _ in range(60):  # each is scraped every ten seconds
        with urllib.request.urlopen(f"{prometheus}/api/v1/targets?state=active") as answer:
            targets = json.load(answer)["data"]["activeTargets"]
        health = {target["labels"]["service"]: target["health"] for target in targets}
        if health == dict.fromkeys(expected, "up"):
            break
        time.sleep(0.5)
    assert health == dict.fromkeys(expected, "up")
    query = "api/v1/query?query=asyncio_tasks"
    with urllib.request.urlopen(f"{prometheus}/{query}") as answer:
        tasks = {
            row["metric"]["service"]: float(row["value"][1])
            for row in json.load(answer)["data"]["result"]
        }
    assert tasks.keys() == expected - {"llm_server"}
    assert all(count >= 1 for count in tasks.values())
