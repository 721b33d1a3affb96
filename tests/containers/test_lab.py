"""The whole system in containers: asked, watched, restarted, drained."""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.request

import pytest

from workshop import client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
QUESTION = "When does a circuit breaker open?"
PAGE = "en/retries-and-circuit-breakers"


def test_every_container_is_healthy(lab):
    assert [s.name for s in lab.statuses() if not s.ok] == []
    assert all(s.memory > 1e6 for s in lab.statuses())


def test_the_question_of_the_readme_is_answered_through_the_gateway(asked):
    answer = asyncio.run(client.answer(asked.url("gateway"), QUESTION))
    assert answer["degraded"] == []
    assert PAGE in {citation["document"] for citation in answer["citations"]}


def test_a_conversation_lies_in_postgresql(lab):
    """Where every replica of the orchestrator finds it."""
    answer = asyncio.run(client.answer(lab.url("gateway"), "hello"))
    assert answer["degraded"] == []
    find = f"SELECT question FROM turns WHERE conversation = '{answer['conversation_id']}'"
    psql = ["psql", "--username=postgres", "--dbname=orchestrator", "--tuples-only", "--command"]
    found = lab.processes["postgres"]["container"].exec_run([*psql, find])
    assert found.output.split() == [b"hello"]


def test_only_the_gateway_is_published(lab):
    bound = {}
    for name, process in lab.processes.items():
        ports = process["container"].attrs["NetworkSettings"]["Ports"] or {}
        bound[name] = [b["HostIp"] for binding in ports.values() for b in binding or ()]
    assert bound.pop("gateway") == ["127.0.0.1"]
    assert not any(bound.values())


def test_no_container_reaches_the_world_but_the_gateway(lab):
    networks = {
        name: set(p["container"].attrs["NetworkSettings"]["Networks"])
        for name, p in lab.processes.items()
    }
    inner = {name for name, found in networks.items() if len(found) == 1}
    assert networks.keys() - inner == {"gateway"}
    network = next(iter(networks["embedding"]))
    assert lab.processes["embedding"]["container"].client.networks.get(network).attrs["Internal"]


@pytest.mark.parametrize("name", ["gateway", "orchestrator", "embedding", "post_processing"])
def test_a_container_runs_as_nobody_and_writes_nowhere(lab, name):
    container = lab.processes[name]["container"]
    assert container.exec_run("id -u").output.strip() == b"10001"
    assert container.exec_run("touch /app/x").exit_code != 0
    assert container.exec_run("touch /tmp/x").exit_code == 0


def test_sigterm_drains(asked):
    """A streaming answer that has begun is finished, and the container ends with code 0.

    Asked once before: the model has read the prompt, and the answer fits into the ten seconds that
    a service has to drain.
    """
    address = asked.url("gateway")
    asyncio.run(client.answer(address, "What is reciprocal rank fusion?"))
    pieces: list[bytes] = []
    first = threading.Event()

    def ask() -> None:
        body = b'{"question": "What is reciprocal rank fusion?", "stream": true}'
        request = urllib.request.Request(
            f"{address}/v1/answer", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            for line in answer:
                pieces.append(line)
                first.set()

    thread = threading.Thread(target=ask)
    thread.start()
    assert first.wait(60)
    orchestrator = asked.processes["orchestrator"]["container"]
    try:
        orchestrator.stop(timeout=60)
        orchestrator.reload()
        code = orchestrator.attrs["State"]["ExitCode"]
        thread.join(120)
    finally:
        asked.start("orchestrator")
        asked.wait("orchestrator", 120)
    assert any(line.startswith(b"event: answer") for line in pieces)
    assert code == 0


def test_a_service_that_is_stopped_is_missed_and_comes_back(asked):
    asked.stop("reranking")
    try:
        answer = asyncio.run(client.answer(asked.url("gateway"), QUESTION))
    finally:
        asked.start("reranking")
        asked.wait("reranking", 120)
    assert answer["degraded"] == ["reranking"]
    time.sleep(1)
    answer = asyncio.run(client.answer(asked.url("gateway"), QUESTION))
    assert answer["degraded"] == []
