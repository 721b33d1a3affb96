"""A home folder of its own for every test, and a system of tiny programs under a supervisor."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workshop import system
from workshop.catalogue import ProcessSpec

WEB = """
import http.server, os, signal, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["GREETING"].encode())

    def log_message(self, *_):
        print("served", flush=True)

if os.environ.get("STUBBORN"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
http.server.HTTPServer.allow_reuse_address = True
http.server.HTTPServer(("127.0.0.1", int(os.environ["TINY_PORT"])), Handler).serve_forever()
"""
CRASH = "import sys; sys.exit('a setting is wrong')"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKSHOP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def tiny(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., system.System]]:
    """`tiny("web", crash=False, …)` starts a supervisor over such programs."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "tiny_web.py").write_text(textwrap.dedent(WEB))
    (modules / "tiny_crash.py").write_text(CRASH)
    monkeypatch.setenv("PYTHONPATH", str(modules))
    if "WORKSHOP_START" not in os.environ:  # starts sooner: the web parts are not imported
        monkeypatch.setenv("WORKSHOP_START", "subprocess")
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    base = system.free_port_base(31000 + 500 * worker)

    def start(*modules: str, **environment: str) -> system.System:
        specs = [
            ProcessSpec(
                name=f"{module}{number}",
                tier=number,
                module=f"tiny_{module}",
                environment={"GREETING": f"hello {number}", "TINY_PORT": str(base + number)},
                overrides=environment,
                port=base + number,
                url=f"http://127.0.0.1:{base + number}",
                ready="/",
            )
            for number, module in enumerate(modules)
        ]
        return system.launch(specs, base)

    yield start
    system.stop()
