"""`workshop bench images`: sizes, layers and build times of the images, on this machine's engine.

Each image is built three times: all anew (nothing from the builder's cache, but the base image is
here), after one changed line of the service, and with nothing changed. `--quick` leaves the first
out, which takes minutes for all images together.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from . import containers, images, paths
from .errors import WorkshopError
from .evaluate import machine

TAG = "bench"
console = Console()


def command(out: Path, names: Sequence[str] = (), *, quick: bool = False) -> int:
    """Measure these images (default: all), print the table, and write images.json.

    Images that are not measured keep their lines, if they are from this machine and engine.
    """
    docker = containers.engine()
    unknown = sorted(set(names) - set(images.names()))
    if unknown:
        raise WorkshopError(
            f"No service {unknown[0]} has a Dockerfile.", f"Known: {', '.join(images.names())}."
        )
    builder = "BuildKit" if containers.has_buildx() else "classic builder"
    report: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "engine": f"Docker {docker.version()['Version']}, {builder}",
        "images": {},
    }
    target = out / images.REPORT.name
    if names and target.exists():
        before = json.loads(target.read_text(encoding="utf-8"))
        if all(before[key] == report[key] for key in ("machine", "engine")):
            report["images"] = before["images"]
    with copy_of_the_tree() as root:
        for name in names or images.names():
            with console.status(name):
                report["images"][name] = measure(docker, name, root, anew=not quick)
    report["images"] = dict(sorted(report["images"].items()))
    out.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    console.print(images.size_table(report))
    return 0


def measure(docker: Any, name: str, root: Path, *, anew: bool) -> dict[str, Any]:
    """One image: `bytes`, `budget`, `layers`, and `seconds` of its builds."""
    first = images.build(name, TAG, root=root, cache=not anew)
    seconds = {"all anew": first} if anew else {}
    found = images.layers(docker, name, TAG)
    change_a_line(root, name)
    seconds["one line"] = images.build(name, TAG, root=root)
    seconds["no change"] = images.build(name, TAG, root=root)
    docker.images.remove(f"rag-workshop/{name}:{TAG}")
    return {
        "bytes": sum(layer.bytes for layer in found),
        "budget": budget(name),
        "layers": [{"step": layer.step, "bytes": layer.bytes} for layer in found],
        "seconds": {kind: round(value, 1) for kind, value in seconds.items()},
    }


@contextmanager
def copy_of_the_tree() -> Iterator[Path]:
    """What a build may read, in a folder where a line may be changed."""
    with tempfile.TemporaryDirectory(prefix="workshop-images-") as temporary:
        root = Path(temporary)
        for file in ("requirements.lock", ".dockerignore"):
            shutil.copy(paths.ROOT / file, root / file)
        for folder in ("services", "handbook"):
            left_out = shutil.ignore_patterns("__pycache__")
            shutil.copytree(paths.ROOT / folder, root / folder, ignore=left_out)
        yield root


def change_a_line(root: Path, name: str, line: str = "CHANGED = True") -> Path:
    """Add a line to the program of a service in a copied tree; gives the file."""
    file = root / "services" / name / "__main__.py"
    with file.open("a", encoding="utf-8") as program:
        program.write(f"{line}\n")
    return file


def budget(name: str) -> int:
    """Bytes, from the table of images in README.md."""
    text = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `{name}` \| \d+ \| (\d+)\b[^|]*\|$", text, re.MULTILINE)
    if row is None:
        raise WorkshopError(f"README.md has no budget of the image {name}.")
    return int(row[1]) * 1_000_000
