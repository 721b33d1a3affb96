"""The command line against the whole running system."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from workshop import client
from workshop import system as processes

Cli = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(600)]


def test_status_shows_every_process_ready(system: processes.System, cli: Cli) -> None:
    done = cli("status")
    assert done.returncode == 0, done.stdout
    for name in system.processes:
        assert name in done.stdout
    assert "crashed" not in done.stdout


def test_a_second_up_says_where_the_system_is(system: processes.System, cli: Cli) -> None:
    done = cli("up")
    assert done.returncode == 0
    assert f"Already running {system.where}" in done.stdout.replace("\n", " ")


@pytest.mark.parametrize(
    ("question", "document"),
    [
        ("What does a circuit breaker do when calls keep failing?", "en/retries-and-circuit"),
        ("O que faz um circuit breaker quando as chamadas falham?", "pt/retries-and-circuit"),
    ],
)
def test_ask_answers_with_citations_and_a_trace(
    indexed: processes.System, cli: Cli, question: str, document: str
) -> None:
    done = cli("ask", question, "--trace")
    assert done.returncode == 0, done.stderr
    assert re.search(r"\[\d\]", done.stdout)
    assert document in done.stdout
    for stage in ("query_preprocessing", "hybrid_search", "generation", "post_processing"):
        assert stage in done.stdout
    assert "█" in done.stdout


def test_search_shows_passages_and_their_lists(indexed: processes.System, cli: Cli) -> None:
    done = cli("search", "reciprocal rank fusion", "--top", "3")
    assert done.returncode == 0, done.stderr
    assert "en/reciprocal-rank-fusion" in done.stdout
    assert "sparse" in done.stdout


def test_ingest_makes_a_persons_own_file_findable(
    system: processes.System, cli: Cli, tmp_path: Path
) -> None:
    page = tmp_path / "quokka.md"
    page.write_text("# Quokka\n\nThe quokka keeper of Rottnest is called Zebulon Farnsworth.\n")
    done = cli("ingest", str(page))
    assert done.returncode == 0, done.stderr
    assert "1 indexed (1 passages), 0 unchanged, 0 failed." in done.stdout
    again = cli("ingest", str(page))
    assert "0 indexed (0 passages), 1 unchanged, 0 failed." in again.stdout
    assert "Zebulon Farnsworth" in cli("search", "quokka keeper", "--top", "1").stdout


def test_a_bad_file_fails_alone(system: processes.System, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("A plain good file about nothing in particular.")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 this is no PDF")
    done = cli("ingest", str(tmp_path))
    assert done.returncode == 1
    assert "1 indexed" in done.stdout
    assert "1 failed" in done.stdout
    assert "broken.pdf" in done.stderr
    assert "Traceback" not in done.stderr


def test_restart_gives_a_new_process_that_is_ready(system: processes.System, cli: Cli) -> None:
    before = system.refresh().pids["hybrid_search"]
    done = cli("restart", "hybrid_search")
    assert done.returncode == 0, done.stderr
    assert "hybrid_search is ready again" in done.stdout
    assert system.refresh().pids["hybrid_search"] != before


def test_a_killed_service_comes_back(system: processes.System) -> None:
    try:
        psutil.Process(system.refresh().pids["context_aggregation"]).kill()
    except psutil.Error:
        pytest.skip("this user may not end a container's process")
    system.wait("context_aggregation")


def test_the_handbook_is_ingested_once(indexed: processes.System) -> None:
    pages = client.handbook()[:3]
    report = asyncio.run(client.ingest(indexed.url("ingestion"), pages))
    assert (report.documents, report.unchanged, report.failed) == (3, 3, [])


@pytest.mark.processes("in containers compose/nats.conf is the broker's configuration")
def test_the_broker_keeps_what_it_acknowledges(system_home: Path, system: processes.System) -> None:
    config = (system_home / "run" / "broker.conf").read_text()
    assert "sync_interval: always" in config
    assert f"listen: 127.0.0.1:{system.processes['broker']['port']}" in config


def test_logs_are_readable(system: processes.System, cli: Cli) -> None:
    done = cli("logs", "gateway", "-n", "5")
    assert done.returncode == 0
    assert "gateway  " in done.stdout
    with pytest.raises(json.JSONDecodeError):
        json.loads(done.stdout.splitlines()[0])
