"""The models and data sets of ``models.toml``: fetched once, checked by hash, found by name.

>>> from workshop import models
>>> models.ensure("multilingual-e5-small-enpt")   # fetches on first use, returns the folder
>>> models.path("multilingual-e5-small-enpt")     # never fetches; a clear error when absent

Files lie in ``${WORKSHOP_HOME:-<repository>/.workshop}/models/NAME/``. A file whose SHA-256 is not
the one in ``models.toml`` is refused and deleted, wherever it came from. Fetching needs nothing
beyond the standard library, rich and pip; only conversions need NumPy, onnx and safetensors.
"""

import contextlib
import hashlib
import json
import os
import shutil
import threading
import tomllib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from workshop import paths
from workshop.errors import WorkshopError
from workshop.model_sources import LOCAL_ENV, SourceError, fetch

MANIFEST = paths.ROOT / "models.toml"
LLM_ENV = "WORKSHOP_LLM"
EMBEDDING = "multilingual-e5-small-enpt"
EMBEDDING_ENGLISH = "all-MiniLM-L6-v2"
LLM_BETTER = "qwen2.5-coder-1.5b-instruct"
LLM_SMALL = "qwen2.5-coder-0.5b-instruct"
LLM_LAST_RESORT = "smollm2-135m-instruct"
GIB = 1 << 30

_STAMP = ".verified.json"
_CHUNK = 1 << 20

Say = Callable[[str], None]


class ModelError(WorkshopError):
    """A model cannot be had or used."""


@dataclass(frozen=True)
class File:
    """One file: path inside the model's folder, size in bytes, SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Model:
    """One entry of ``models.toml``.

    ``downloads`` come from a source; ``files`` are what the folder holds in the end. They are the
    same unless a ``conversion`` makes some of the files.
    """

    name: str
    task: str
    description: str
    languages: tuple[str, ...]
    licence: str
    files: tuple[File, ...]
    downloads: tuple[File, ...]
    sources: tuple[dict[str, Any], ...]
    conversion: str | None = None

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.size for file in self.files)


def catalogue(manifest: Path = MANIFEST) -> dict[str, Model]:
    """All models by name; raises ModelError when ``models.toml`` cannot be read."""
    try:
        raw = tomllib.loads(manifest.read_text(encoding="utf-8"))
        return {name: _model(name, entry) for name, entry in raw["models"].items()}
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise ModelError(
            f"{manifest.name} cannot be read: {error}.",
            f"`git checkout {manifest.name}` restores it.",
        ) from error


def _model(name: str, entry: dict[str, Any]) -> Model:
    downloads = tuple(File(**file) for file in entry["downloads"])
    conversion = entry.get("conversion", {})
    made = tuple(File(**file) for file in conversion.get("files", []))
    return Model(
        name=name,
        task=entry["task"],
        description=entry["description"],
        languages=tuple(entry["languages"]),
        licence=entry["licence"],
        files=made + (downloads if conversion.get("keep_downloads", True) else ()),
        downloads=downloads,
        sources=tuple(entry["sources"]),
        conversion=conversion.get("kind"),
    )


def get(name: str) -> Model:
    """The entry of a model; raises ModelError, with the known names, when there is none."""
    models = catalogue()
    if name not in models:
        raise ModelError(f"There is no model {name!r}.", f"Known are {', '.join(sorted(models))}.")
    return models[name]


def models_folder() -> Path:
    """The folder of all models; ``WORKSHOP_HOME`` or ``WORKSHOP_MODELS_DIR`` moves it."""
    return paths.models_dir()


def is_present(name: str) -> bool:
    """True when every file is there and was checked (by hash once, by size and time since)."""
    model = get(name)
    folder = models_folder() / name
    try:
        stamps = json.loads((folder / _STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all(stamps.get(file.path) == _stamp(folder, file) for file in model.files)


def path(name: str) -> Path:
    """The folder of a model that is already here; raises ModelError when it is not."""
    folder = models_folder() / name
    if not is_present(name):
        raise ModelError(
            f"The model {name} is not here.", f"Fetch it with `workshop models fetch {name}`."
        )
    return folder


def gguf(name: str) -> Path:
    """The weight file of a language model that is already here; raises ModelError."""
    folder = path(name)
    for file in get(name).files:
        if file.path.endswith(".gguf"):
            return folder / file.path
    raise ModelError(f"{name} is not a language model: it has no .gguf file.", "Name another.")


def ensure(name: str, *, progress: Progress | None = None, say: Say | None = None) -> Path:
    """The folder of a model, fetched and checked first where needed; raises ModelError.

    Without ``progress`` a progress bar of its own is drawn on standard error.
    """
    return ensure_all([name], progress=progress, say=say)[0]


def needed() -> list[str]:
    """What the running system loads on this machine: two embedding models and one LLM."""
    return [EMBEDDING, EMBEDDING_ENGLISH, choose_llm()]


def ensure_all(
    names: Iterable[str] | None = None,
    *,
    progress: Progress | None = None,
    say: Say | None = None,
) -> list[Path]:
    """As ``ensure``, for several models at once, by default those of ``needed()``.

    The first failure is raised after the other downloads have ended.
    """
    wanted = [get(name) for name in dict.fromkeys(needed() if names is None else names)]
    absent = [model for model in wanted if not is_present(model.name)]
    if absent:
        _check_space(absent)
        with contextlib.ExitStack() as stack:
            bars = progress or stack.enter_context(_progress_bars())
            run = _Run(bars, say or bars.console.print, threading.Event())
            # Two at a time: each already downloads its packages in parallel.
            pool = stack.enter_context(ThreadPoolExecutor(max_workers=2))
            jobs = [pool.submit(_fetch_model, model, run) for model in absent]
            try:
                wait(jobs)
            except KeyboardInterrupt:
                run.stop.set()
                pool.shutdown(cancel_futures=True)
                raise
            for job in jobs:
                job.result()
    return [models_folder() / model.name for model in wanted]


def verify(name: str) -> list[str]:
    """Hash every file again; returns one sentence for each that is wrong or missing."""
    model = get(name)
    folder = models_folder() / name
    return [problem for file in model.files if (problem := _problem(folder, file, str(folder)))]


def choose_llm(
    cores: int | None = None,
    memory_bytes: int | None = None,
    override: str | None = None,
    say: Say | None = None,
) -> str:
    """The language model for a machine, by its cores and free memory (bytes).

    ``override``, or the environment variable ``WORKSHOP_LLM``, names one whatever the machine is.
    """
    if chosen := override or os.environ.get(LLM_ENV):
        if get(chosen).task != "llm":
            raise ModelError(f"{chosen} is not a language model.", f"{LLM_ENV} must name one.")
        return chosen
    cores = _cores() if cores is None else cores
    memory_bytes = _free_memory() if memory_bytes is None else memory_bytes
    if cores >= 4 and memory_bytes >= 6 * GIB:
        return LLM_BETTER
    if memory_bytes >= 1.5 * GIB:
        return LLM_SMALL
    if say:
        say(
            f"Only {memory_bytes / GIB:.1f} GiB of memory are free, so the smallest language model "
            "is used: it shows how the parts fit together, and its answers are often wrong."
        )
    return LLM_LAST_RESORT


# -- fetching -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Run:
    """What the downloads of one call share."""

    progress: Progress
    say: Say
    stop: threading.Event

    def advance(self, task: TaskID, count: int) -> None:
        if self.stop.is_set():
            raise SourceError("The download was stopped.")
        self.progress.advance(task, count)


def _fetch_model(model: Model, run: _Run) -> None:
    progress = run.progress
    with _lock(model.name):
        if is_present(model.name):  # Another process fetched it while this one waited.
            return
        work = models_folder() / ".partial" / model.name
        work.mkdir(parents=True, exist_ok=True)
        task = progress.add_task(model.name, total=sum(file.size for file in model.downloads))
        try:
            _fetch_downloads(model, work, run, task)
            if model.conversion:
                progress.update(task, description=f"{model.name}: converting")
                _convert(model, work)
            progress.update(task, description=f"{model.name}: ready")
            _install(model, work)
        except OSError as error:
            raise ModelError(
                f"{model.name} could not be stored: {error}.",
                "Check the disk and your rights there, and run the same command again.",
            ) from error


def _fetch_downloads(model: Model, work: Path, run: _Run, task: TaskID) -> None:
    """Try the sources in order until one gives files with the right hashes."""
    names = [file.path for file in model.downloads]
    reasons: list[str] = []
    for source in model.sources:
        run.progress.update(task, completed=0)
        try:
            where = fetch(source, model.name, names, work, partial(run.advance, task))
        except SourceError as error:
            if run.stop.is_set():
                raise ModelError(
                    "The download was stopped.", "The next one goes on here."
                ) from error
            reasons.append(str(error))
            if source["kind"] != "local" or os.environ.get(LOCAL_ENV):
                run.say(f"{model.name}: {error} Trying the next source.")
            continue
        problems = [p for file in model.downloads if (p := _problem(work, file, where))]
        if not problems:
            run.progress.update(task, completed=sum(file.size for file in model.downloads))
            return
        for name in names:
            (work / name).unlink(missing_ok=True)
        reasons += problems
        run.say(f"{model.name}: {problems[0]} It was deleted.")
    raise ModelError(
        f"{model.name} could not be fetched. " + " ".join(reasons),
        f"Check the network, or put its files into a folder {model.name} and set {LOCAL_ENV} to "
        "the folder above.",
    )


def _convert(model: Model, work: Path) -> None:
    # Imported here: the download path works with the standard library and rich alone.
    from workshop.model_conversion.convert import CONVERSIONS

    try:
        CONVERSIONS[model.conversion or ""](work, work)
    except ValueError as error:
        raise ModelError(
            f"{model.name} could not be converted: {error}.",
            f"Run `workshop models fetch {model.name}` again.",
        ) from error


def _install(model: Model, work: Path) -> None:
    """Check every file, then move the folder into place in one step."""
    problems = [p for file in model.files if (p := _problem(work, file, "the conversion"))]
    if problems:
        raise ModelError(
            f"{model.name}: {problems[0]} It is not used.",
            "Install the locked packages (`make lab` does), and fetch the model again.",
        )
    kept = {file.path for file in model.files}
    for found in [item for item in work.rglob("*") if item.is_file()]:
        if found.relative_to(work).as_posix() not in kept:
            found.unlink()
    stamps = {file.path: _stamp(work, file) for file in model.files}
    (work / _STAMP).write_text(json.dumps(stamps), encoding="utf-8")
    folder = models_folder() / model.name
    if folder.exists():
        shutil.rmtree(folder)
    work.replace(folder)


def _problem(folder: Path, file: File, where: str) -> str | None:
    """What is wrong with a file, as a sentence, or None."""
    target = folder / file.path
    if not target.is_file():
        return f"{file.path} is missing in {where}."
    size = target.stat().st_size
    digest = _sha256(target)
    if digest == file.sha256:
        return None
    return (
        f"{file.path} from {where} is not the file that models.toml asks for: expected sha256 "
        f"{file.sha256} ({file.size} bytes), got {digest} ({size} bytes)."
    )


def _sha256(target: Path) -> str:
    with target.open("rb") as reader:
        return hashlib.file_digest(reader, "sha256").hexdigest()


def _stamp(folder: Path, file: File) -> list[Any] | None:
    try:
        status = (folder / file.path).stat()
    except OSError:
        return None
    return [file.sha256, status.st_size, status.st_mtime_ns]


def _check_space(models: list[Model]) -> None:
    """Packages and the files unpacked from them lie side by side for a moment."""
    needed_bytes = sum(
        2 * sum(file.size for file in model.downloads) + model.size for model in models
    )
    root = models_folder()
    try:
        root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(root).free
    except OSError as error:
        raise ModelError(
            f"{root} cannot be written ({error.strerror}).", "Set WORKSHOP_HOME to another folder."
        ) from error
    if free < needed_bytes:
        raise ModelError(
            f"The models need {needed_bytes / GIB:.1f} GiB on the disk of {root}, and "
            f"{free / GIB:.1f} GiB are free.",
            "Free some space, or set WORKSHOP_HOME to a folder on another disk.",
        )


@contextlib.contextmanager
def _lock(name: str) -> Iterator[None]:
    """One process fetches a model at a time; the lock goes with the process that holds it."""
    try:
        import fcntl
    except ImportError:  # Windows: two runs at once are not guarded there.
        yield
        return
    folder = models_folder() / ".partial"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _progress_bars() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _free_memory() -> int:
    import psutil

    return int(psutil.virtual_memory().available)
