"""What answers, traces, passages and logs look like."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest
from rich.console import Console

from workshop import client, log_view, show
from workshop.errors import WorkshopError

TIMINGS = [
    {"stage": "query_preprocessing", "start_ms": 0.0, "ms": 10.0, "status": "ok"},
    {"stage": "reranking", "start_ms": 10.0, "ms": 30.0, "status": "degraded"},
]
ANSWER = {
    "answer": "It stops calling. [1]",
    "kind": "extractive",
    "citations": [{"number": 1, "id": "en/x#y", "title": "Breakers", "heading": "States"}],
    "degraded": ["reranking"],
    "suggestion": "circuit breaker",
    "groundedness": 1.0,
    "timings": TIMINGS,
}


def text_of(renderable) -> str:
    out = io.StringIO()
    Console(file=out, width=100, color_system=None).print(renderable)
    return out.getvalue()


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [(0, 100, (0, 40)), (0, 0, (0, 1)), (50, 25, (20, 10)), (100, 0, (39, 1)), (99, 1, (39, 1))],
)
def test_bars_stay_inside(start: float, length: float, expected: tuple[int, int]) -> None:
    assert show.bar(start, length, 100.0, width=40) == expected


def test_the_waterfall_has_a_line_a_stage_and_names_what_was_degraded() -> None:
    lines = text_of(show.waterfall(TIMINGS)).splitlines()
    assert "0 to 40 ms" in lines[1]
    assert lines[2].split()[0] == "query_preprocessing"
    assert "█" * 10 in lines[2]
    assert " " * 10 + "█" * 30 in lines[3]
    assert lines[3].rstrip().endswith("30.0  degraded")


def test_an_answer_shows_citations_and_what_is_missing() -> None:
    text = text_of(show.answer_view(ANSWER))
    assert "[1] Breakers — States  en/x#y" in text
    assert "Did you mean: circuit breaker" in text
    assert "Degraded: reranking did not take part." in text
    assert "no text was generated" in text


def test_a_stream_that_ends_early_is_an_error() -> None:
    async def events():
        yield "stage", {"stage": "reranking"}
        yield "token", {"text": "half an"}

    with pytest.raises(WorkshopError, match="ended before the answer"):
        asyncio.run(show.stream_answer(events(), trace=False))


def test_hits_show_rank_and_lists() -> None:
    passage = {"title": "BM25", "heading": "", "text": "word " * 100}
    hit = {"id": "en/bm25", "score": 0.5, "passage": passage}
    hit["provenance"] = {"dense": {"rank": 2, "score": 0.8}, "sparse": {"rank": 1, "score": 9.0}}
    text = text_of(show.hits_view({"hits": [hit], "degraded": ["dense_english"]}))
    assert " 1. BM25  en/bm25  0.5000" in text
    assert "ranks: dense 2., sparse 1." in text
    assert "Degraded: dense_english" in text


def test_log_lines_become_readable_and_foreign_ones_pass() -> None:
    line = (
        '{"event": "request", "level": "info", "timestamp": "2026-01-02T03:04:05Z",'
        ' "status": 200, "trace_id": "abc"}'
    )
    assert log_view.show_line("gateway", line, 9).plain == "gateway    03:04:05  request status=200"
    assert log_view.show_line("broker", "[1] ready", 6).plain == "broker  [1] ready"


def test_a_tail_goes_on_after_rotation(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("one\ntwo\nthree\n")
    tail = log_view.Tail(log, lines=2)
    assert tail.read() == ["two", "three"]
    assert tail.read() == []
    log.write_text("new\n")
    assert tail.read() == ["new"]


def test_find_documents_takes_folders_and_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A")
    (tmp_path / "b.xyz").write_text("?")
    assert [d.path.name for d in client.find_documents([tmp_path])] == ["a.md"]
    with pytest.raises(WorkshopError, match="does not read"):
        client.find_documents([tmp_path / "b.xyz"])
    with pytest.raises(WorkshopError, match="There is no file"):
        client.find_documents([tmp_path / "c.md"])


def test_the_fingerprint_changes_with_every_page(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("one")
    documents = [client.Document(page, "en/a")]
    before = client.fingerprint(documents)
    assert client.fingerprint(documents) == before
    page.write_text("two")
    assert client.fingerprint(documents) != before
