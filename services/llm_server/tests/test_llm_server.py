"""Start-up checks always; the server itself where a model is there (see `model`)."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.llm_server.server import CannotStart, check_port, find_model, parameters
from services.llm_server.settings import DEFAULT_MODEL, Settings

ROOT = Path(__file__).parents[3]


def start(**environment):
    return subprocess.Popen(
        [sys.executable, "-m", "services.llm_server"],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def gguf(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF....")
    return path


def test_a_folder_stands_for_the_one_model_in_it(gguf):
    assert find_model(gguf.parent) == find_model(gguf) == gguf


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "none.gguf", "there is no model at"),
        (lambda folder: folder, "there is no model at"),
        (lambda folder: _two_models(folder), "holds 2 .gguf files"),
        (lambda folder: _not_a_model(folder), "is not a GGUF file"),
    ],
)
def test_a_model_that_cannot_be_used_is_named_with_a_way_out(tmp_path, make, said):
    with pytest.raises(CannotStart, match=said) as raised:
        find_model(make(tmp_path))
    assert "LLM_MODEL_PATH" in str(raised.value)


def _two_models(folder):
    for name in ("a.gguf", "b.gguf"):
        (folder / name).write_bytes(b"GGUF")
    return folder


def _not_a_model(folder):
    path = folder / "page.gguf"
    path.write_bytes(b"<html>")
    return path


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CannotStart, match=f"127.0.0.1:{port}.*LLM_PORT"):
            check_port("127.0.0.1", port)


def test_the_slots_share_one_context_and_nothing_private_is_served(gguf):
    settings = Settings(slots=3, context=1024, threads=3, answer_threads=2)
    params = parameters(settings, gguf)
    assert (params.cpuparams.n_threads, params.cpuparams_batch.n_threads) == (2, 3)
    assert (params.n_parallel, params.n_ctx, params.kv_unified) == (3, 1024, True)
    assert params.cache_prompt
    assert not params.endpoint_slots
    assert not params.ui


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"LLM_MODEL_PATH": "no/such/model.gguf"}, "there is no model at no/such/model.gguf"),
        ({"LLM_PORT": "many"}, "LLM_PORT: Input should be a valid integer"),
    ],
)
def test_a_wrong_start_ends_with_one_message_and_no_traceback(environment, said):
    process = start(**environment)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert said in output
    assert "Traceback" not in output


@pytest.fixture(scope="module")
def model():
    """The smallest LLM that has been fetched; skipped where there is none."""
    home = Path(os.environ.get("WORKSHOP_HOME", ROOT / ".workshop"))
    folder = Path(os.environ.get("WORKSHOP_MODELS_DIR", home / "models"))
    found = sorted(folder.glob("*/*.gguf"), key=lambda path: path.stat().st_size)
    if not found:
        pytest.skip(f"no .gguf below {folder}: `workshop models fetch {DEFAULT_MODEL.name}`")
    return found[0]


@pytest.fixture
def server(model):
    port = free_port()
    process = start(
        LLM_MODEL_PATH=str(model), LLM_PORT=str(port), LLM_THREADS="1", LLM_DRAIN_TIMEOUT="0.2"
    )
    try:
        wait_until_healthy(process, port)
        yield process, port
    finally:
        process.kill()
        process.wait()


def wait_until_healthy(process, port):
    for _ in range(600):
        assert process.poll() is None, process.stdout.read()
        try:
            if get(port, "/health")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    pytest.fail("the server did not become healthy in 60 s")


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read()


def begin_answer(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = {
        "messages": [{"role": "user", "content": "Count to five hundred in words."}],
        "max_tokens": 400,
        "temperature": 0,
        "stream": True,
    }
    connection.request(
        "POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"}
    )
    response = connection.getresponse()
    assert response.status == 200
    assert response.readline().startswith(b"data: ")
    return response


def test_it_answers_and_sigterm_ends_it_cleanly_even_in_the_middle_of_an_answer(server):
    process, port = server
    assert get(port, "/slots")[0] == 501
    response = begin_answer(port)
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 0
    assert time.monotonic() - started < 3
    response.close()
