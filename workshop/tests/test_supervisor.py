"""The supervisor, with real processes: start, crash, restart, replace, stop, and its own death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from workshop import supervisor, system
from workshop.errors import WorkshopError

Start = Callable[..., system.System]


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:
        return response.read().decode()


def all_ready(here: system.System) -> bool:
    return all(status.ok for status in system.statuses(here))


@pytest.fixture(
    params=[
        "subprocess",
        pytest.param("fork", marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux")),
    ]
)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("WORKSHOP_START", request.param)
    return request.param


def test_starts_answers_and_leaves_nothing(way: str, tiny: Start) -> None:
    here = tiny("web", "web")
    until(lambda: all_ready(here))
    assert get(here.url("web1")) == "hello 1"
    pids = [here.pid, *here.refresh().pids.values()]
    assert len(set(pids)) == 3
    assert system.stop()
    assert not any(
        psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE for p in pids
    )
    assert system.running() is None


def test_the_persons_variables_win(tiny: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREETING", "mine")
    here = tiny("web")
    until(lambda: all_ready(here))
    assert get(here.url("web0")) == "mine"


def test_a_killed_process_comes_back_and_is_counted(tiny: Start) -> None:
    here = tiny("web")
    until(lambda: all_ready(here))
    before = here.refresh().pids["web0"]
    os.kill(before, signal.SIGKILL)
    until(lambda: here.refresh().pids.get("web0", before) != before)
    until(lambda: all_ready(here))
    process = here.refresh().processes["web0"]
    assert (process["restarts"], process["last_exit"]) == (1, "SIGKILL")


def test_a_process_that_cannot_start_backs_off_and_says_why(tiny: Start) -> None:
    here = tiny("crash", "web")
    until(lambda: here.refresh().processes["crash0"]["crashes"] >= 2)
    crash, web = system.statuses(here)
    assert crash.reason == "ended with exit code 1"
    assert not crash.ok
    until(lambda: system.statuses(here)[1].ok)
    assert web.restarts == 0
    assert system.last_log_line("crash0") == "a setting is wrong"


def test_restart_drains_and_gives_a_new_process(tiny: Start) -> None:
    here = tiny("web")
    until(lambda: all_ready(here))
    before = here.refresh().pids["web0"]
    here.restart("web0")
    here.wait("web0", timeout=10)
    process = here.refresh().processes["web0"]
    assert process["pid"] != before
    assert process["restarts"] == 0  # asked for, so not a crash


SERVICE = """
import os
from fastapi import APIRouter
from services.chassis import ServiceSettings, create_service, serve

router = APIRouter()

@router.get("/hello")
async def hello():
    return "hello"

def create(settings):
    return create_service(settings, title="tiny", description="tiny", router=router)

class Settings(ServiceSettings):
    port: int = int(os.environ["TINY_PORT"])

serve(create, Settings)
"""


def test_a_service_that_is_restarted_refuses_nobody(way: str, tiny: Start, tmp_path: Path) -> None:
    (tmp_path / "modules" / "tiny_service.py").write_text(SERVICE)
    here = tiny("service")
    url = here.url("service0")
    until(lambda: get_or_nothing(url + "/readyz") == "ready", 30)
    before = here.refresh().pids["service0"]
    here.restart("service0")
    asked = 0
    while asked < 50 or here.refresh().pids.get("service0", before) == before:
        assert get(url + "/v1/hello") == '"hello"'
        asked += 1
    assert here.refresh().processes["service0"]["crashes"] == 0
    os.kill(here.refresh().pids["service0"], signal.SIGKILL)  # one that is killed is gone at once
    until(lambda: get_or_nothing(url + "/v1/hello") == "")
    until(lambda: get_or_nothing(url + "/v1/hello") == '"hello"')  # and the port is free for it
    assert here.refresh().processes["service0"]["crashes"] == 1


def test_stop_and_start_of_one(tiny: Start) -> None:
    here = tiny("web", "web")
    until(lambda: all_ready(here))
    here.stop("web0")
    until(lambda: here.refresh().processes["web0"]["state"] == "stopped")
    assert get(here.url("web1")) == "hello 1"
    here.start("web0")
    here.wait("web0", timeout=10)


def test_replace_runs_another_program_and_restore_undoes_it(tiny: Start) -> None:
    here = tiny("web")
    until(lambda: all_ready(here))
    here.replace("web0", module="tiny_web", env={"GREETING": "other"})
    until(lambda: here.refresh().processes["web0"]["replaced"] and all_ready(here))
    assert get(here.url("web0")) == "other"
    here.restore("web0")
    until(lambda: get_or_nothing(here.url("web0")) == "hello 0")


def get_or_nothing(url: str) -> str:
    try:
        return get(url)
    except OSError:
        return ""


def test_replace_wants_one_program(tiny: Start) -> None:
    here = tiny("web")
    with pytest.raises(WorkshopError, match="either a module or a command"):
        here.replace("web0")


def test_a_stranger_cannot_command(tiny: Start) -> None:
    here = tiny("web")
    stranger = system.System({**here.state, "control": {**here.state["control"], "token": "x"}})
    with pytest.raises(WorkshopError, match="wrong token"):
        stranger.shutdown()
    assert oct(system.state_file().stat().st_mode & 0o777) == "0o600"


def test_an_unknown_name_lists_the_known(tiny: Start) -> None:
    with pytest.raises(WorkshopError, match=r"no service named nope\. Known: web0"):
        tiny("web").restart("nope")


def test_a_dead_supervisors_children_are_stopped(tiny: Start) -> None:
    here = tiny("web", "web")
    until(lambda: all_ready(here))
    children = [psutil.Process(pid) for pid in here.refresh().pids.values()]
    os.kill(here.pid, signal.SIGKILL)
    until(lambda: system.running() is None)
    assert all(child.is_running() for child in children)
    assert system.stop()
    gone, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    assert len(gone) == 2


def test_a_stubborn_process_is_killed(tiny: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKSHOP_GRACE", "0.3")
    here = tiny("web", STUBBORN="1")
    until(lambda: all_ready(here))
    stubborn = psutil.Process(here.refresh().pids["web0"])
    stubborn.terminate()
    with pytest.raises(psutil.TimeoutExpired):
        stubborn.wait(0.3)
    assert system.stop()
    assert not stubborn.is_running()


def test_it_stops_with_the_process_that_it_was_tied_to(
    tiny: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setenv("WORKSHOP_STOP_WITH", str(owner.pid))
    here = tiny("web")
    until(lambda: all_ready(here))
    owner.kill()
    owner.wait()
    until(lambda: system.running() is None)


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
def test_what_is_imported_before_the_fork_starts_no_thread() -> None:
    code = (
        "import importlib, os; from workshop.supervisor import PRELOAD; "
        "[importlib.import_module(m) for ms in PRELOAD.values() for m in ms]; "
        "print(len(os.listdir('/proc/self/task')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "1"


def test_rotation_keeps_what_was_written(tmp_path: Path) -> None:
    log = tmp_path / "embedding.log"
    with open(log, "ab", buffering=0) as writer:
        for round_ in range(5):
            writer.write(b"%d" % round_ * 100)
            supervisor.rotate(log, limit=50, keep=3)
        writer.write(b"new")
    assert log.read_bytes() == b"new"
    kept = [log.with_suffix(f".log.{n}").read_bytes()[:1] for n in (1, 2, 3)]
    assert kept == [b"4", b"3", b"2"]
    assert len(list(tmp_path.iterdir())) == 4
