"""The bootstrap script: readable by old Pythons, quick when done, clear when it cannot."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from workshop import bootstrap


def test_an_old_python_can_read_it() -> None:
    for name in ("bootstrap.py", "__init__.py"):
        source = (Path(bootstrap.__file__).parent / name).read_text()
        tree = ast.parse(source, feature_version=(3, 6))
        imported = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        assert "__future__" not in imported  # `from __future__ import annotations` is 3.7
        if name == "bootstrap.py":
            assert imported == []


def test_nothing_is_installed_when_the_stamp_fits(tmp_path: Path, monkeypatch) -> None:
    stamp = tmp_path / "stamp"
    stamp.write_text(bootstrap.fingerprint())
    monkeypatch.setattr(bootstrap, "STAMP", str(stamp))
    monkeypatch.setattr(bootstrap, "works", lambda _: True)
    monkeypatch.setattr(bootstrap, "create_venv", lambda _: pytest.fail("started to install"))
    bootstrap.run(force=False)
    stamp.write_text("older")
    with pytest.raises(pytest.fail.Exception, match="started to install"):
        bootstrap.run(force=False)


def test_an_old_python_gets_a_sentence(monkeypatch) -> None:
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 9, 1))
    monkeypatch.setattr(bootstrap.shutil, "which", lambda _: None)
    with pytest.raises(bootstrap.Stop, match=r"needs Python 3\.11 to 3\.14"):
        bootstrap.find_python()


@pytest.fixture
def attempts(monkeypatch) -> list[list[str]]:
    """Commands that would run; all of them fail."""
    made: list[list[str]] = []
    monkeypatch.setattr(
        bootstrap, "attempt", lambda command, quiet=False: made.append(command) or False
    )
    monkeypatch.setattr(bootstrap, "installed_torch", lambda: "")
    return made


def test_on_linux_only_a_cpu_build_of_torch_is_taken(attempts, monkeypatch) -> None:
    monkeypatch.setattr(bootstrap.sys, "platform", "linux")
    monkeypatch.delenv("WORKSHOP_ALLOW_CUDA_TORCH", raising=False)
    assert bootstrap.install_torch(uv="uv") is False
    assert all(command[-1].endswith("+cpu") for command in attempts)
    assert "--no-index" in attempts[0]
    assert bootstrap.TORCH_INDEX in attempts[1]


def test_elsewhere_the_registry_has_the_cpu_build(attempts, monkeypatch) -> None:
    monkeypatch.setattr(bootstrap.sys, "platform", "darwin")
    bootstrap.install_torch(uv="")
    assert attempts == [[*bootstrap.pip(), "--no-deps", f"torch=={bootstrap.locked('torch')}"]]


def test_pip_takes_over_where_uv_fails(attempts) -> None:
    with pytest.raises(bootstrap.Stop, match="sorry"):
        bootstrap.install("uv", ["x"], "sorry")
    assert [command[0] for command in attempts] == ["uv", bootstrap.PYTHON]


def test_uv_is_fetched_in_its_locked_version_where_there_is_none(attempts, monkeypatch) -> None:
    monkeypatch.setattr(bootstrap.shutil, "which", lambda _: None)
    assert bootstrap.find_uv() == bootstrap.fetch_uv() == ""
    assert [command[-1] for command in attempts] == ["uv==" + bootstrap.locked("uv")]


@pytest.mark.parametrize(
    ("said", "index"),
    [
        ("global.index-url='https://a.example/simple'\n", "https://a.example/simple"),
        ("global.extra-index-url='https://b.example/simple'\n", ""),
        ("", ""),
    ],
)
def test_uv_asks_the_index_that_pip_is_set_to(monkeypatch, said, index) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(bootstrap.subprocess, "check_output", lambda *_, **__: said.encode())
    command = bootstrap.uv_or_pip("uv")
    assert ("--default-index" in command) == bool(index)
    assert not index or command[command.index("--default-index") + 1] == index
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://c.example/simple")
    assert "--default-index" not in bootstrap.uv_or_pip("uv")


def test_code_is_compiled_where_python_may_not_keep_it(monkeypatch) -> None:
    monkeypatch.setattr(bootstrap, "index_of_pip", lambda: "")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert "--compile-bytecode" in bootstrap.uv_or_pip("uv")
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE")
    assert "--compile-bytecode" not in bootstrap.uv_or_pip("uv")
