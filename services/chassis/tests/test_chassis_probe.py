"""The health check of the images, against a server that is ready when it says so."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="bash and /proc")
PROBE = Path(__file__).parents[1] / "probe.sh"


class Server(ThreadingHTTPServer):
    ready = True
    asked = 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(200 if self.server.ready else 503)
        self.end_headers()
        self.wfile.write(b'{"detail": "the model is loading"}')

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def probe(port: int, patience: int) -> tuple[subprocess.CompletedProcess[str], float]:
    """Here process 1 is old, as it is in a container that has run for a while."""
    started = time.monotonic()
    done = subprocess.run(
        ["bash", str(PROBE), str(port), "/readyz"],
        env={**os.environ, "PROBE_PATIENCE": str(patience)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done, time.monotonic() - started


def test_a_ready_service_that_has_run_for_a_while_is_asked_again_only_later(server: Server) -> None:
    done, seconds = probe(server.server_port, 1)
    assert (done.returncode, done.stdout) == (0, "")
    assert seconds >= 1
    assert server.asked == 2


def test_a_service_that_gets_ready_is_healthy_at_once(server: Server) -> None:
    server.ready = False
    threading.Timer(0.5, setattr, (server, "ready", True)).start()
    done, seconds = probe(server.server_port, 20)
    assert done.returncode == 0
    assert 0.5 <= seconds < 10


def test_one_that_does_not_get_ready_is_unhealthy_and_says_why(server: Server) -> None:
    server.ready = False
    done, _ = probe(server.server_port, 1)
    assert done.returncode == 1
    assert "503" in done.stdout
    assert "the model is loading" in done.stdout


def test_nobody_there_is_unhealthy(server: Server) -> None:
    server.shutdown()
    server.server_close()
    done, _ = probe(server.server_port, 1)
    assert done.returncode == 1
    assert "no answer" in done.stdout
