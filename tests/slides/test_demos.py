"""The demo of every deck runs unattended, says the same twice, and leaves the system as it was."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from workshop import decks, demo, replicas, slides
from workshop import system as processes
from workshop.errors import WorkshopError

RULES = [
    Path(__file__).with_name("demo_sanitize.cfg"),
    Path(__file__).parents[1] / "notebooks" / "sanitize.cfg",
]
DECKS = slides.every()


def rules() -> list[tuple[str, str, str]]:
    """(example, pattern, replacement) of each rule."""
    found = r"^# example: (.*)$\n^\[\w+\]\n^regex: (.*)$\n^replace: (.*)$"
    return [rule for path in RULES for rule in re.findall(found, path.read_text(), re.MULTILINE)]


def sanitized(text: str) -> str:
    for _, pattern, replacement in rules():
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


def test_each_rule_has_an_example() -> None:
    assert len(rules()) == sum(path.read_text().count("regex: ") for path in RULES)
    for example, pattern, replacement in rules():
        assert re.sub(pattern, replacement, example, flags=re.MULTILINE) != example
        assert not re.search(pattern, " 1. Scaling  en/scaling#x  0.0323\n    ranks: sparse 1.")


def test_what_a_trace_says_of_a_stage_is_compared() -> None:
    bars = ["reranking    █   3.8  degraded    ", "reranking  ███  12.1  degraded"]
    assert {sanitized(bar) for bar in bars} == {"reranking BAR degraded"}
    assert sanitized("reranking    █   3.8    ") == "reranking BAR "


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [deck.number for deck in DECKS])
def test_a_demo_says_the_same_twice(patient: processes.System, cli, number: str) -> None:
    first, second = cli("demo", number), cli("demo", number)
    for done in (first, second):
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
        assert "Traceback" not in done.stderr
    assert sanitized(first.stdout).splitlines() == sanitized(second.stdout).splitlines()
    assert sanitized(first.stderr) == sanitized(second.stderr)
    for step in decks.find(number).front.demo:
        assert f"$ workshop {step.run}" in first.stdout
    assert [s.name for s in processes.statuses(patient) if not s.ok] == []


STOPS = """\
---
title: "05 · A deck"
minutes: 1
demo:
  - run: stop feedback
    look: Feedback is taken away.
  - run: {run}
    look: This step does not do what it should.
    fails: {fails}
  - run: start feedback
    look: It is never reached.
---
"""


@pytest.mark.system
@pytest.mark.parametrize(
    ("run", "fails", "says"),
    [
        ("call feedback /v1/nothing", "false", "Step 2 of the demo failed"),
        ("call gateway /openapi.json --only /openapi", "true", "Step 2 of the demo went through"),
        ("search --tops 3 x", "false", "Step 2 of the demo failed"),
    ],
)
def test_a_step_that_goes_wrong_ends_the_demo_and_what_it_stopped_comes_back(
    system: processes.System,
    system_environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: str,
    fails: str,
    says: str,
) -> None:
    path = tmp_path / "05_a_deck.md"
    path.write_text(STOPS.format(run=run, fails=fails))
    monkeypatch.setattr(decks, "find", lambda _: decks.read(path))
    for name, value in system_environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(WorkshopError, match=says):
        demo.run_lesson("05")
    assert [s.name for s in processes.statuses(system) if not s.ok] == []


def test_copies_of_a_demo_that_broke_off_go_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, scaled = tmp_path / "05_a_deck.md", []
    steps = [
        f"  - {{run: scale {name} 2, look: Two copies.}}" for name in ("embedding", "generation")
    ]
    path.write_text("\n".join(["---", "title: A", "minutes: 1", "demo:", *steps, "---", "", ""]))
    here = SimpleNamespace(processes={"embedding": {"replaced": True}, "generation": {}})
    here.refresh = lambda: here
    monkeypatch.setattr(replicas, "scale", lambda *given: scaled.append(given))
    demo._bring_back(here, decks.read(path))
    assert scaled == [("embedding", 1)]
