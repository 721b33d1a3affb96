"""JupyterLab as the workshop opens it: `python -m workshop.lab [ARGUMENTS] FOLDER`.

The plugin that asks whether to fetch Jupyter's news and looks for updates is off: nothing lies over
the first lesson, and nothing leaves the machine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

CONFIG = Path(__file__).with_name("jupyter")


def command(arguments: Sequence[str]) -> list[str]:
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    return [sys.executable, "-m", "jupyterlab", *(["--allow-root"] if root else []), *arguments]


def environment(base: Mapping[str, str]) -> dict[str, str]:
    """`base`, with our settings before those of the machine."""
    others = base.get("JUPYTER_CONFIG_PATH", "")
    path = os.pathsep.join([str(CONFIG), *([others] if others else [])])
    return {**base, "JUPYTER_CONFIG_PATH": path}


if __name__ == "__main__":
    os.execve(sys.executable, command(sys.argv[1:]), environment(os.environ))
