"""The command line without a running system: help, refusals, and never a traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from workshop import cli, doctor, paths, system
from workshop.errors import WorkshopError

COMMANDS = {
    *("doctor", "up", "down", "status", "logs", "restart", "stop", "start"),
    *("ask", "search", "ingest", "call", "demo"),
    *("check", "progress", "catch-up", "bill", "build-lessons", "slides"),
    *("evaluate", "bench", "models", "train-reranker", "openapi"),
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workshop.cli", *arguments],
        cwd=paths.ROOT,
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_explains_the_workshop_in_one_screen() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) <= 45
    assert {name for name in COMMANDS if f" {name} " not in done.stdout} == set()


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from workshop import cli; "
        "print([m for m in ('aiohttp', 'fastapi', 'numpy', 'torch', 'onnxruntime', 'psutil') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command", [["status"], ["ask", "why?"], ["search", "x"], ["demo"], ["demo", "05"]]
)
def test_commands_that_need_the_system_say_how_to_start_it(
    home: Path, command: list[str], capfd: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["workshop", *command])
    assert cli._run() == 1
    assert capfd.readouterr().err == (
        "The workshop is not running.\nStart it with `workshop up`.\n"
    )


def test_down_without_a_system_is_no_error(home: Path, capfd, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["workshop", "down"])
    assert cli._run() == 0
    assert "Nothing was running." in capfd.readouterr().out


def test_wrong_usage_is_explained(home: Path) -> None:
    done = run("asks", "why?")
    assert done.returncode == 2
    assert "No such command 'asks'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_unexpected_is_kept_for_maintainers(home: Path, capfd, monkeypatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr(system, "require_running", broken)
    monkeypatch.setattr(sys, "argv", ["workshop", "status"])
    assert cli._run() == 1
    err = capfd.readouterr().err
    assert "nobody thought of this" in err
    assert "Traceback" not in err
    assert "Traceback" in (home / "logs" / "workshop.log").read_text()


def test_a_missing_part_is_named(home: Path, capfd, monkeypatch) -> None:
    monkeypatch.setattr(system, "has_module", lambda _: False)
    monkeypatch.setattr(sys, "argv", ["workshop", "bench"])
    assert cli._run() == 1
    assert "`workshop bench` is not part of this copy" in capfd.readouterr().err


def test_a_taken_port_names_the_service_and_the_way_out(home: Path) -> None:
    base = system.free_port_base(32000)
    with socket.create_server(("127.0.0.1", base + 4)), pytest.raises(WorkshopError) as caught:
        system.check_ports(base)
    assert caught.value.what.startswith(f"Port {base + 4} (dense_retrieval) is taken by ")
    assert f"(pid {os.getpid()})" in caught.value.what
    assert "--port-base" in caught.value.way_out


@pytest.mark.parametrize("base", [80, 65500])
def test_an_impossible_port_base_is_refused(base: int) -> None:
    with pytest.raises(WorkshopError, match=f"{base} cannot be a port base"):
        system.check_ports(base)


def test_a_stale_state_file_is_no_system(home: Path) -> None:
    system.state_file().parent.mkdir(parents=True)
    system.state_file().write_text(
        '{"pid": 999999999, "created": 1.0, "base": 8000, "processes": {}}'
    )
    assert system.running() is None
    assert doctor.state().severity == doctor.HINT
    assert system.clear_leftovers() is False
    assert not system.state_file().exists()


def test_a_reused_pid_is_not_killed(home: Path) -> None:
    """The state file names our own pid, but with the start time of another process."""
    state = {"pid": os.getpid(), "created": 1.0, "base": 8000, "processes": {}}
    assert system._family(state) == []


def test_doctor_compares_with_the_lock(monkeypatch) -> None:
    assert doctor.locked()["fastapi"].count(".") == 2
    assert "pywin32" not in doctor.locked() or sys.platform == "win32"
    monkeypatch.setattr(doctor, "locked", lambda: {"fastapi": "0.0.1", "torch": "0"})
    assert "other versions" in doctor.packages().text
    monkeypatch.setattr(doctor, "locked", lambda: {"no-such-package": "1"})
    assert doctor.packages().severity == doctor.FAIL
