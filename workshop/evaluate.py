"""`workshop evaluate`: the quality of every stage, side by side, with intervals."""

from __future__ import annotations

import asyncio
import csv
import json
import platform
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .errors import WorkshopError
from .evaluation.answers import AnswerRun, ask_all
from .evaluation.collections import Collection, load_beir, load_handbook
from .evaluation.intervals import Interval, bootstrap
from .evaluation.ranking import STAGES, StageRun, open_bench, per_query
from .paths import ROOT

METRICS = ("nDCG@10", "recall@100", "MRR")

console = Console()


def command(
    data: Annotated[
        Path | None,
        typer.Option(help="A folder in BEIR layout. Default: the handbook and its questions."),
    ] = None,
    stages: Annotated[
        str, typer.Option(help=f"Which of {','.join(STAGES)}, by comma, in order.")
    ] = ",".join(STAGES),
    split: Annotated[
        str, typer.Option(help="Which questions: test, validation or train.")
    ] = "test",
    engine: Annotated[
        str | None, typer.Option(help="Reranking engine; default: the one that serves.")
    ] = None,
    answers: Annotated[
        bool, typer.Option(help="Also ask the running system the handbook's questions.")
    ] = False,
    limit: Annotated[int, typer.Option(help="At most so many answers, spread evenly.")] = 0,
    out: Annotated[Path, typer.Option(help="Where tables and plots go.")] = ROOT / "reports",
) -> None:
    """Measure every stage on a test collection: quality, latency, 95 % intervals."""
    names = [name.strip() for name in stages.split(",") if name.strip()]
    for name in names:
        if name not in STAGES:
            raise WorkshopError(f"There is no stage {name!r}.", f"Choose from {', '.join(STAGES)}.")
    collection = load_beir(data, split) if data else load_handbook(ROOT / "handbook", split)
    console.print(
        f"[bold]{collection.name}[/]: {len(collection.passages)} passages, "
        f"{len(collection.qrels)} judged questions"
    )
    report = evaluate_ranking(collection, names, engine)
    show_ranking(report)
    out.mkdir(parents=True, exist_ok=True)
    files = write_ranking(report, out)
    if answers:
        if data:
            raise WorkshopError(
                "Answers are asked of the running system, which holds the handbook.",
                "Leave out --data, or ingest that collection and ask by `workshop ask`.",
            )
        run = evaluate_answers(collection, limit)
        show_answers(run)
        files += write_answers(run, collection.name, out)
    console.print("written: " + ", ".join(str(_shown(path)) for path in files), style="dim")


def evaluate_ranking(
    collection: Collection, names: list[str], engine: str | None = None
) -> dict[str, Any]:
    """Run the stages; the report holds means, intervals, latencies and each query's nDCG@10."""
    with _progress() as progress, open_bench(collection, progress) as bench:
        if "hybrid+rerank" in names:
            bench.load_reranker(engine)
        runs = [bench.run(name, progress) for name in names]
    ids = sorted(collection.qrels.keys() & runs[0].rankings.keys())
    scores = {run.name: per_query(run, collection, ids) for run in runs}
    rows = [_row(run, scores, names, ids) for run in runs]
    return {
        "collection": collection.name,
        "passages": len(collection.passages),
        "queries": len(ids),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "stages": rows,
        "ndcg_by_query": {name: scores[name]["nDCG@10"] for name in scores},
    }


def _row(
    run: StageRun, scores: dict[str, dict[str, dict[str, float]]], names: list[str], ids: list[str]
) -> dict[str, Any]:
    own = scores[run.name]["nDCG@10"]
    row: dict[str, Any] = {"stage": run.name}
    for metric in METRICS:
        row[metric] = statistics.fmean(scores[run.name][metric].values())
    row["interval"] = asdict(bootstrap([own[query] for query in ids]))
    row["ms p50"] = statistics.median(run.milliseconds.values())
    before = names[: names.index(run.name)]
    # A stage is held against the best of those before it: what would serve without it.
    if before:
        best = max(before, key=lambda name: statistics.fmean(scores[name]["nDCG@10"].values()))
        other = scores[best]["nDCG@10"]
        difference = bootstrap([own[query] - other[query] for query in ids])
        row["against"] = best
        row["difference"] = asdict(difference)
        row["verdict"] = difference.verdict
    return row


def evaluate_answers(collection: Collection, limit: int = 0) -> AnswerRun:
    """Ask the running system; needs `workshop up`."""
    from services.chassis import RequestContext, ServiceClient, use_context

    from . import system

    here = system.running()
    if here is None:
        raise WorkshopError("Nothing is running to be asked.", "Start it with `workshop up`.")
    queries = collection.queries
    if limit and limit < len(queries):
        queries = [queries[row * len(queries) // limit] for row in range(limit)]
    with asyncio.Runner() as runner, _progress() as progress:

        async def connect() -> ServiceClient:
            return ServiceClient("gateway", here.url("gateway"), timeout=120)

        async def post(question: str, history: list[str]) -> dict[str, Any]:
            with use_context(RequestContext.new(120)):
                body = {"question": question, "history": history}
                answer: dict[str, Any] = await gateway.post("/v1/answer", body)
                return answer

        gateway = runner.run(connect())
        try:
            return ask_all(
                lambda question, history: runner.run(post(question, history)),
                collection,
                queries,
                progress,
            )
        finally:
            runner.run(gateway.aclose())


def show_ranking(report: dict[str, Any]) -> None:
    table = Table(title=f"{report['collection']}: {report['queries']} questions")
    for name in ("stage", *METRICS, "95 % interval", "ms p50", "against the best before it"):
        table.add_column(name, justify="left" if name in ("stage",) else "right")
    for row in report["stages"]:
        interval = Interval(**row["interval"])
        compared = ""
        if "difference" in row:
            gap = Interval(**row["difference"])
            compared = (
                f"{row['against']} {gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}] "
                f"{row['verdict']}"
            )
        table.add_row(
            row["stage"],
            *(f"{row[metric]:.3f}" for metric in METRICS),
            f"[{interval.low:.3f}, {interval.high:.3f}]",
            f"{row['ms p50']:.1f}",
            compared,
        )
    console.print(table)


def write_ranking(report: dict[str, Any], out: Path) -> list[Path]:
    stem = out / f"evaluate-{report['collection']}"
    summary = {key: value for key, value in report.items() if key != "ndcg_by_query"}
    paths = [stem.with_suffix(suffix) for suffix in (".json", ".csv", ".png")]
    paths[0].write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    names = list(report["ndcg_by_query"])
    with paths[1].open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["query", *names])
        for query in report["ndcg_by_query"][names[0]]:
            writer.writerow(
                [query, *(f"{report['ndcg_by_query'][name][query]:.4f}" for name in names)]
            )
    _plot(report, paths[2])
    return paths


def _plot(report: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = report["stages"]
    figure, axes = pyplot.subplots(figsize=(7, 0.6 * len(rows) + 1.4), layout="constrained")
    means = [row["nDCG@10"] for row in rows]
    errors = [
        [row["nDCG@10"] - row["interval"]["low"] for row in rows],
        [row["interval"]["high"] - row["nDCG@10"] for row in rows],
    ]
    axes.errorbar(means, range(len(rows)), xerr=errors, fmt="o", capsize=4, color="#1f5f8b")
    axes.set_yticks(range(len(rows)), [row["stage"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("nDCG@10 with its 95 % interval")
    axes.set_title(f"{report['collection']}, {report['queries']} questions, {report['date']}")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)


def show_answers(run: AnswerRun) -> None:
    table = Table(title="answers of the running system")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in run.summary().items():
        shown = "–" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"
        table.add_row(name, shown)
    console.print(table)


def write_answers(run: AnswerRun, name: str, out: Path) -> list[Path]:
    stem = out / f"answers-{name}"
    head = {"date": datetime.now(UTC).date().isoformat(), "machine": machine()}
    paths = [stem.with_suffix(".json"), stem.with_suffix(".csv")]
    paths[0].write_text(json.dumps(head | run.summary(), indent=1) + "\n", encoding="utf-8")
    with paths[1].open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(run.rows[0]))
        writer.writeheader()
        writer.writerows(run.rows)
    return paths


def machine() -> str:
    """This machine in a few words, for the tables: cores, memory, processor family, Python."""
    import psutil

    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{psutil.cpu_count()} cores, {memory:.0f} GiB, {platform.machine()}, "
        f"Python {platform.python_version()}"
    )


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    columns = (TextColumn("{task.description:>14}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def report(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done)

        yield report


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
