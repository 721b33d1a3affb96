"""Start llama.cpp's HTTP server and run it until SIGTERM or Ctrl-C."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .settings import Settings


class CannotStart(Exception):
    """Why the server cannot start and what to do, in a sentence or two."""


def find_model(path: Path) -> Path:
    """The GGUF file at `path`, or the only one in the folder `path`. Raises CannotStart."""
    if path.is_dir():
        found = sorted(path.glob("*.gguf"))
        if len(found) > 1:
            raise CannotStart(
                f"{path} holds {len(found)} .gguf files; set LLM_MODEL_PATH to one of them."
            )
        path = found[0] if found else path / "*.gguf"
    if not path.is_file():
        raise CannotStart(
            f"there is no model at {path}. Fetch one with `workshop models fetch "
            "qwen2.5-coder-0.5b-instruct`, or set LLM_MODEL_PATH to a .gguf file."
        )
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise CannotStart(
            f"{path} is not a GGUF file (it may be a download that was cut off). "
            "Fetch it again, or set LLM_MODEL_PATH to another file."
        )
    return path


def check_port(host: str, port: int) -> None:
    """Raises CannotStart if the port is taken: llama.cpp itself would not say why it failed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotStart(
                f"cannot listen on {host}:{port} ({error.strerror}). "
                "Stop the program that uses it, or set LLM_PORT."
            ) from error


def parameters(settings: Settings, model: Path) -> Any:
    """llama.cpp's parameters: loopback only, no page, no hub, no view into others' prompts."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {model.stem}
    params.hostnames = [settings.host]
    params.port = settings.port
    params.n_parallel = settings.slots
    params.n_ctx = settings.context
    params.kv_unified = True
    params.cache_idle_slots = False
    params.n_predict = settings.max_answer_tokens
    params.cpuparams.n_threads = min(settings.answer_threads, settings.threads)
    params.cpuparams_batch.n_threads = settings.threads
    params.n_gpu_layers = settings.gpu_layers
    # A request goes to the slot whose last prompt begins like its own, and that beginning (the
    # instructions) is not read again: two slots keep two languages apart. The states of earlier
    # prompts wait in RAM; llama.cpp takes one back only if a quarter of it can be used.
    params.cache_prompt = True
    params.cache_ram_mib = settings.prompt_cache_mb
    params.ui = False
    params.endpoint_slots = False
    params.endpoint_metrics = True
    params.cors_origins = "http://127.0.0.1"
    params.verbosity = 1
    params.offline = True
    return params


def main() -> None:
    try:
        settings = Settings()
        model = find_model(settings.model_path)
        check_port(settings.host, settings.port)
    except ValidationError as error:
        wrong = "\n".join(
            f"  LLM_{str(item['loc'][0]).upper()}: {item['msg']} (got {item['input']!r})"
            for item in error.errors()
        )
        sys.exit(f"llm_server cannot start, these settings are wrong:\n{wrong}")
    except CannotStart as error:
        sys.exit(f"llm_server cannot start: {error}")
    # Threads that wait for one another sleep instead of spinning: on two cores that other programs
    # use too, spinning threads hold each other up. Read once, when the library is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import xllamacpp

    # While the model loads (native code), the signals end the process as they do by default.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        server = xllamacpp.Server(parameters(settings, model))
    except RuntimeError as error:
        sys.exit(
            f"llm_server cannot start: llama.cpp does not accept {model} ({error}) "
            "Is there enough memory, and is the file complete?"
        )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    print(f"llm_server: {model.stem} at {server.listening_address}", flush=True)
    stop.wait()
    wait_until_idle(settings)
    # Freeing `server` the ordinary way hangs in native code when an answer is being generated
    # (xllamacpp 2026.10). There is nothing to save: the kernel frees the socket and the memory.
    sys.stdout.flush()
    os._exit(0)


def wait_until_idle(settings: Settings) -> None:
    """Return when no answer is being generated, or after the drain timeout."""
    end = time.monotonic() + settings.drain_timeout
    while time.monotonic() < end and answers_in_flight(settings) > 0:
        time.sleep(0.05)


def answers_in_flight(settings: Settings) -> int:
    """Answers being generated or waiting, as the server's own metrics tell; 0 if it is silent."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    try:
        connection = http.client.HTTPConnection(host, settings.port, timeout=1.0)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
    except (OSError, http.client.HTTPException):
        return 0
    counts = re.findall(r"^llamacpp:requests_(?:processing|deferred) (\d+)", text, re.M)
    return sum(map(int, counts))
