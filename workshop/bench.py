"""`workshop bench`: what the split costs, measured on this machine in one run.

Two arms are always measured together, in turns, after a warm-up, and compared by their medians:
the machine's noise then hits both alike.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from rich.console import Console
from rich.table import Table

from services.chassis import RequestContext, ServiceClient, use_context

from . import models, paths, system
from .errors import WorkshopError
from .evaluate import machine
from .fixed import fixed_questions
from .measure import Times, interleaved, proportional_memory
from .temporary import TemporarySystem, temporary_system

console = Console()
PARTS = ("pipeline", "retrieval", "hop", "hybrid", "batching", "tokens", "memory", "scale")
NOTEBOOKS, IMAGES, CAPACITY = "notebooks", "images", "capacity"
"""Measured alone, and only when asked for: the first runs every solution of the course, the second
builds every image."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `met` is None where there is no goal."""

    what: str
    value: str
    goal: str = ""
    met: bool | None = None
    note: str = ""


def command(
    parts: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"Which of {', '.join(PARTS)}; default: all. "
            f"Or {NOTEBOOKS} or {IMAGES}, and which. Or {CAPACITY}, of the running system."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=5, help="Rounds of the short measurements.")] = 200,
    questions: Annotated[int, typer.Option(min=4, help="Questions of the long ones.")] = 20,
    largest: Annotated[int, typer.Option(help="Passages of the largest collection.")] = 100_000,
    quick: Annotated[bool, typer.Option(help="Images: do not build them all anew.")] = False,
    out: Annotated[Path, typer.Option(help="Where the table and the plots go.")] = paths.ROOT
    / "reports",
) -> int:
    """Speed and memory: the services against the monolith, side by side."""
    if parts and parts[0] == NOTEBOOKS:
        from . import bench_notebooks

        return bench_notebooks.command(out, parts[1:])
    if parts and parts[0] == IMAGES:
        from . import bench_images

        return bench_images.command(out, parts[1:], quick=quick)
    if parts == [CAPACITY]:
        from . import capacity

        return capacity.command(out)
    wanted = parts or list(PARTS)
    for part in wanted:
        if part not in PARTS:
            raise WorkshopError(
                f"There is no part {part!r}.",
                f"Choose from {', '.join(PARTS)}, or {NOTEBOOKS}, {IMAGES}, {CAPACITY}.",
            )
    figures: list[Figure] = []
    out.mkdir(parents=True, exist_ok=True)
    with asyncio.Runner() as runner:
        if set(wanted) & {"pipeline", "retrieval", "hybrid", "tokens", "memory"}:
            # The monolith remembers neither answers nor vectors, so the services may not either.
            caches_off = {"GENERATION_CACHE_BYTES": "0", "EMBEDDING_CACHE_SIZE": "0"}
            with console.status("starting a system of its own, without its caches"):
                started = temporary_system(caches_off)
            with started as here:
                bench = SystemBench(here, runner, rounds, questions)
                for part in wanted:
                    if hasattr(bench, part):
                        with console.status(part):
                            figures += getattr(bench, part)()
                bench.close()
        if "hop" in wanted:
            with console.status("hop"):
                figures += hop(runner, max(rounds, 500))
        if "batching" in wanted:
            with console.status("batching"):
                figures += batching(runner)
    if "scale" in wanted:
        figures += scale(largest, out)
    show(figures)
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "figures": [asdict(figure) for figure in figures],
    }
    path = out / ("bench.json" if not parts else f"bench-{'-'.join(wanted)}.json")
    plot_goals(figures, path.with_suffix(".png"))
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def until_quiet(patience: float = 180.0) -> None:
    """Return when both the reranker's work ahead and the machine have come to rest."""
    end = time.monotonic() + patience
    quiet = 0
    while quiet < 3 and time.monotonic() < end:
        quiet = quiet + 1 if psutil.cpu_percent(1.0) < 15 else 0


def show(figures: list[Figure]) -> None:
    table = Table(title=f"workshop bench, {machine()}")
    for name in ("what", "measured", "goal", "", "note"):
        table.add_column(name)
    for item in figures:
        mark = {True: "met", False: "[red]missed[/]", None: ""}[item.met]
        table.add_row(item.what, item.value, item.goal, mark, item.note)
    console.print(table)


def plot_goals(figures: list[Figure], path: Path) -> None:
    """Each figure that has a goal as a share of it: a bar that stays left of the line met it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shares = {}
    for item in figures:
        if item.goal:
            sign, goal = item.goal.split()[:2]
            share = float(item.value.split()[0]) / float(goal)
            shares[item.what] = share if sign == "≤" else 1 / share
    if not shares:
        return
    figure, axes = pyplot.subplots(figsize=(9, 0.5 + 0.34 * len(shares)), layout="constrained")
    colours = ["#1f5f8b" if share <= 1 else "#b5452c" for share in shares.values()]
    axes.barh(list(shares), list(shares.values()), color=colours)
    axes.axvline(1, color="black", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("share of what the goal allows")
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)


def at_most(what: str, value: float, goal: float, form: str, note: str = "") -> Figure:
    return Figure(what, form.format(value), "≤ " + form.format(goal), value <= goal, note)


def compare(
    what: str, arm: Times, base: Times, p50: float, p99: float | None = None
) -> list[Figure]:
    """Ratios of two arms that were measured in turns, on the same questions.

    The p50 is that of the ratios of neighbours: questions differ more than the arms do.
    """
    ratios = [a / b for a, b in zip(arm.milliseconds, base.milliseconds, strict=True)]
    note = f"p50 {arm.p50:.1f} ms against {base.p50:.1f} ms, {len(ratios)} pairs"
    figures = [at_most(f"{what}, p50", statistics.median(ratios), p50, "{:.2f} ×", note)]
    if p99 is not None:
        name = "p99" if len(ratios) >= 100 else "longest"
        note = f"{name} {arm.p99:.1f} ms against {base.p99:.1f} ms"
        figures.append(at_most(f"{what}, p99", arm.p99 / base.p99, p99, "{:.2f} ×", note))
    return figures


def handbook_questions(count: int) -> list[dict[str, Any]]:
    """`count` plain questions, spread evenly over the handbook's."""
    text = (paths.ROOT / "handbook" / "questions.jsonl").read_text(encoding="utf-8")
    rows = [row for line in text.splitlines() if (row := json.loads(line))["kind"] == "plain"]
    return spread(rows, count)


def spread(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return [rows[number * len(rows) // count] for number in range(min(count, len(rows)))]


class SystemBench:
    """Measurements that need the whole system, beside a monolith on the same models."""

    def __init__(
        self, here: TemporarySystem, runner: asyncio.Runner, rounds: int, questions: int
    ) -> None:
        self.here, self.runner, self.rounds = here, runner, rounds
        self.questions = [row["question"] for row in spread(fixed_questions(), questions)]
        self._clients: dict[str, ServiceClient] = {}
        self._monolith: Any = None

    @property
    def monolith(self) -> Any:
        if self._monolith is None:
            from services.monolith.rag import Rag

            self._monolith = Rag(
                self.here.home, models.models_folder(), self.here.url("llm_server") + "/v1"
            )
        return self._monolith

    def close(self) -> None:
        for client in self._clients.values():
            self.runner.run(client.aclose())
        if self._monolith is not None:
            self._monolith.qdrant.close()

    def post(self, service: str, path: str, body: dict[str, Any]) -> Any:
        return self.runner.run(self._post(service, path, body))

    async def _post(self, service: str, path: str, body: dict[str, Any]) -> Any:
        with use_context(RequestContext.new(120)):
            return await self._client(service).post(path, body, timeout=120)

    def _client(self, service: str) -> ServiceClient:
        if service not in self._clients:
            self._clients[service] = ServiceClient(service, self.here.url(service), timeout=120)
        return self._clients[service]

    def pipeline(self) -> list[Figure]:
        """Full pipeline. The LLM server has every prompt in its cache in both arms: what differs
        is the way there and back."""

        def ask(number: int) -> None:
            question = self.questions[number % len(self.questions)]
            answer = self.post("orchestrator", "/v1/answer", {"question": question})
            if answer["degraded"]:
                raise WorkshopError(f"An answer was degraded: {answer['degraded']}.", "Try again.")

        def monolith(number: int) -> None:
            self.monolith.answer(self.questions[number % len(self.questions)])

        for number in range(len(self.questions)):
            ask(number)
        services, script = interleaved(
            {"services": ask, "monolith": monolith}, max(len(self.questions) * 2, 8), warm_up=1
        )
        return compare("full pipeline, services ÷ monolith", services, script, 1.05, 1.15)

    def retrieval(self) -> list[Figure]:
        """Everything before generation: preprocess, search, rerank, context."""

        def ask(number: int) -> None:
            self.runner.run(self._retrieve(self.questions[number % len(self.questions)]))

        def monolith(number: int) -> None:
            self.monolith.retrieval.invoke(
                {"question": self.questions[number % len(self.questions)]}
            )

        services, script = interleaved({"services": ask, "monolith": monolith}, self.rounds)
        return compare("retrieval only, services ÷ monolith", services, script, 2.0)

    async def _retrieve(self, question: str) -> None:
        """Up to the `sources` event of the orchestrator's stream, then leave."""
        with use_context(RequestContext.new(120)):
            body = {"question": question, "stream": True}
            stream = self._client("orchestrator").stream("/v1/answer", body)
            async for event in stream:
                if event.event in ("sources", "answer"):
                    break
            await stream.aclose()

    def hybrid(self) -> list[Figure]:
        def ask(service: str) -> Callable[[int], None]:
            def run(number: int) -> None:
                question = self.questions[number % len(self.questions)]
                body = {"query": question, "top_k": 20}
                self.post(service, "/v1/search", body)

            return run

        arms = {"hybrid": ask("hybrid_search"), "dense": ask("dense_retrieval")}
        fused, dense = interleaved(arms, self.rounds)
        return compare("hybrid ÷ dense", fused, dense, 1.3)

    def tokens(self) -> list[Figure]:
        """First token and first sources, on questions whose passages the LLM has not seen."""
        fresh = [row["question"] for row in handbook_questions(len(self.questions) * 2)]
        sources, first = [], []
        for question in fresh:
            to_sources, to_token = self.runner.run(self._first(question))
            sources.append(to_sources)
            if to_token is not None:
                first.append(to_token)
        seen = fresh[: len(self.questions)]

        def services(number: int) -> float | None:
            return self.runner.run(self._first(seen[number % len(seen)]))[1]

        def script(number: int) -> float | None:
            value: float = self.monolith.answer(seen[number % len(seen)])["ms"]["first_token"]
            return value

        gaps: list[float] = []
        for number in range(len(seen)):
            pair = [services(number), script(number)]
            if pair[0] is not None and pair[1] is not None:
                gaps.append(pair[0] - pair[1])
        model = models.choose_llm()
        return [
            at_most(
                "cited passages on screen, p50",
                statistics.median(sources),
                300,
                "{:.0f} ms",
                f"{len(sources)} handbook questions",
            ),
            at_most(
                "first token, p50",
                statistics.median(first) / 1000,
                2.0,
                "{:.2f} s",
                f"{model}; instructions cached, passages new",
            ),
            at_most(
                "first token, services − monolith, same cached prompt",
                statistics.median(gaps),
                30,
                "{:.0f} ms",
                f"median of {len(gaps)} pairs",
            ),
        ]

    async def _first(self, question: str) -> tuple[float, float | None]:
        """Milliseconds to the `sources` event and to the first `token` at the orchestrator."""
        started = time.perf_counter()
        to_sources, to_token = 0.0, None
        with use_context(RequestContext.new(120)):
            body = {"question": question, "stream": True}
            stream = self._client("orchestrator").stream("/v1/answer", body)
            async for event in stream:
                elapsed = (time.perf_counter() - started) * 1000
                if event.event == "sources":
                    to_sources = elapsed
                elif event.event == "token" and to_token is None:
                    to_token = elapsed
        return to_sources, to_token

    def memory(self) -> list[Figure]:
        state = json.loads((self.here.home / "run" / "system.json").read_text(encoding="utf-8"))
        pids = {name: item["pid"] for name, item in state["processes"].items() if item["pid"]}
        total = proportional_memory([*pids.values(), state["pid"]])
        loaded = loaded_models()
        # The reranker has a copy of the bilingual model of its own.
        encoders = 2 * loaded["bilingual"] + loaded["english"] + loaded["tokenizer"]
        llm = proportional_memory([pids["llm_server"]])
        return [
            at_most(
                "memory of the system without models (PSS)",
                (total - llm - encoders) / 1e6,
                700,
                "{:.0f} MB",
                f"{len(pids) + 1} processes, {total / 1e6:.0f} MB in all; left out: LLM server "
                f"{llm / 1e6:.0f} MB, encoders and the LLM's tokenizer {encoders / 1e6:.0f} MB",
            )
        ]


_LOAD = """
import gc, json, sys
from pathlib import Path
import psutil
from services.context_aggregation.tokenizer import load_tokenizer
from services.embedding.domain import Encoder

def load(model, folder):
    gc.collect()
    before = psutil.Process().memory_full_info().uss
    if model == "tokenizer":
        kept.append(load_tokenizer(Path(folder)))
    else:
        kept.append(Encoder.load(folder))
        kept[-1].encode(["a question of ten words or so, as people ask them"] * 8)
    gc.collect()
    return psutil.Process().memory_full_info().uss - before

kept = []
print(json.dumps({model: load(model, folder) for model, folder in json.loads(sys.argv[1]).items()}))
"""


def loaded_models() -> dict[str, int]:
    """Bytes that each model takes once loaded and run, in a process of its own (USS)."""
    folders = {
        "bilingual": models.path("multilingual-e5-small-enpt"),
        "english": models.path("all-MiniLM-L6-v2"),
        "tokenizer": models.path(models.choose_llm()),
    }
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, json.dumps({k: str(v) for k, v in folders.items()})],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded: dict[str, int] = json.loads(done.stdout)
    return loaded


_ECHO = """
from fastapi import APIRouter
from starlette.responses import Response
import orjson
from services.chassis import ApiModel, ServiceSettings, create_service, serve
class Body(ApiModel):
    query: str
    passages: list[dict]
router = APIRouter()
@router.post("/echo")
async def echo(body: Body) -> Response:
    return Response(orjson.dumps({"passages": body.passages}), media_type="application/json")
class Settings(ServiceSettings):
    log_level: str = "INFO"
serve(lambda s: create_service(s, title="echo", description="", router=router), Settings)
"""


def hop(runner: asyncio.Runner, rounds: int) -> list[Figure]:
    """CPU of one hop with id, deadline, metrics and a log line: 4 kB of JSON there and back."""
    body = {"query": "q", "passages": [{"id": str(n), "text": "word " * 80} for n in range(10)]}
    with _process(["-c", _ECHO], {}) as (pid, url):
        server = psutil.Process(pid)

        def cpu() -> float:
            times = server.cpu_times()
            return float(times.user + times.system)

        async def run() -> float:
            client = ServiceClient("echo", url)
            with use_context(RequestContext.new(600)):
                for _ in range(100):
                    await client.post("/v1/echo", body)
                ours, theirs = time.process_time(), cpu()
                for _ in range(rounds):
                    await client.post("/v1/echo", body)
                spent = time.process_time() - ours + cpu() - theirs
            await client.aclose()
            return spent / rounds * 1000

        value = runner.run(run())
    return [at_most("one hop, CPU of both ends", value, 1.0, "{:.2f} ms", f"{rounds} calls")]


def batching(runner: asyncio.Runner, clients: int = 32, each: int = 20) -> list[Figure]:
    """Texts a second of the embedding service at 32 clients, with and without batching."""
    folder = {
        "EMBEDDING_MODEL_DIR": str(models.path("multilingual-e5-small-enpt")),
        "EMBEDDING_ENGLISH_MODEL_DIR": str(models.path("all-MiniLM-L6-v2")),
        "EMBEDDING_CACHE_SIZE": "0",
    }
    texts = [row["question"] for row in handbook_questions(200)]

    async def load(url: str) -> float:
        client = ServiceClient("embedding", url, timeout=120, connections=clients)

        async def one(start: int) -> None:
            with use_context(RequestContext.new(300)):
                for number in range(each):
                    text = texts[(start * each + number) % len(texts)]
                    await client.post("/v1/embeddings", {"input": text})

        await one(0)
        started = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(clients)))
        spent = time.perf_counter() - started
        await client.aclose()
        return clients * each / spent

    module = ["-m", "services.embedding"]
    with (
        _process(module, folder, "EMBEDDING_") as (_, batched),
        _process(module, {**folder, "EMBEDDING_MAX_BATCH": "1"}, "EMBEDDING_") as (_, single),
    ):
        pairs = [(runner.run(load(batched)), runner.run(load(single))) for _ in range(3)]
    ratio = statistics.median(a / b for a, b in pairs)
    best = statistics.median(a for a, _ in pairs)
    return [
        Figure(
            f"dynamic batching at {clients} clients, throughput",
            f"{ratio:.2f} ×",
            "≥ 1.60 ×",
            ratio >= 1.6,
            f"{best:.0f} texts/s with batches",
        )
    ]


@contextmanager
def _process(
    arguments: list[str], environment: dict[str, str], prefix: str = ""
) -> Iterator[tuple[int, str]]:
    """Run one service alone on a free port until the block ends: (pid, base URL)."""
    with tempfile.TemporaryDirectory(prefix="workshop-bench-") as folder:
        port = system.free_port()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=paths.ROOT,
            env={
                **os.environ,
                **environment,
                f"{prefix}PORT": str(port),
                f"{prefix}DATA_DIR": folder,
            },
            stdout=subprocess.DEVNULL,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            asyncio.run(_until_ready(url, process))
            yield process.pid, url
        finally:
            process.terminate()
            process.wait(20)


async def _until_ready(url: str, process: subprocess.Popen[bytes], patience: float = 60.0) -> None:
    client = ServiceClient("service", url)
    # The breaker would count the refusals of a service that is still starting.
    client.breaker.circuit.threshold = sys.maxsize
    end = time.monotonic() + patience
    try:
        while not await _answers(client.get("/healthz")) or not await _answers(
            client.get("/readyz")
        ):
            if process.poll() is not None or time.monotonic() > end:
                raise WorkshopError("A service under measurement did not start.", "")
            await asyncio.sleep(0.1)
    finally:
        await client.aclose()


async def _answers(call: Awaitable[Any]) -> bool:
    """Health paths answer plain text, which a JSON client calls a bad answer: that will do."""
    from services.chassis import BadAnswer, CallFailed

    try:
        await call
    except BadAnswer as error:
        return error.status is None
    except CallFailed:
        return False
    return True


def scale(largest: int, out: Path) -> list[Figure]:
    """Dense search over growing collections of random unit vectors: time, memory, writing."""
    from services.dense_retrieval.domain import Entry, open_store

    sizes = [size for size in (1_000, 3_000, 10_000, 30_000, 100_000) if size <= largest]
    random = np.random.default_rng(7)
    rows = []
    with tempfile.TemporaryDirectory(prefix="workshop-scale-") as folder:
        store = open_store("edge", Path(folder))
        before = proportional_memory([os.getpid()])
        done = 0
        for size in sizes:
            started = time.perf_counter()
            written = size - done
            while done < size:
                part = min(500, size - done)
                vectors = random.standard_normal((part, 384)).astype(np.float32)
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
                store.put(
                    {"bilingual": "random-384"},
                    [
                        Entry(_passage(done + row), {"bilingual": vectors[row]})
                        for row in range(part)
                    ],
                )
                done += part
            rate = written / (time.perf_counter() - started)
            queries = random.standard_normal((60, 384)).astype(np.float32)
            queries /= np.linalg.norm(queries, axis=1, keepdims=True)
            spent = []
            for query in queries:
                begun = time.perf_counter()
                store.search(query, using="bilingual", top_k=50)
                spent.append((time.perf_counter() - begun) * 1000)
            memory = (proportional_memory([os.getpid()]) - before) / 1e6
            rows.append((size, statistics.median(spent[10:]), memory, rate))
            console.print(
                f"  {size:>7} passages: {rows[-1][1]:.1f} ms, {memory:.0f} MB", style="dim"
            )
        store.close()
    _plot_scale(rows, out / "bench-scale.png")
    return [
        Figure(
            f"dense search over {size:,} passages, p50",
            f"{milliseconds:.1f} ms",
            note=f"top 50; {memory:.0f} MB; written at {rate:.0f} passages/s",
        )
        for size, milliseconds, memory, rate in rows
    ]


def _passage(number: int) -> dict[str, Any]:
    return {
        "id": f"d{number}",
        "document": f"d{number}",
        "title": "",
        "heading": "",
        "position": 0,
        "language": "en",
        "tags": [],
        "text": f"passage {number} " + "of a collection that only measures the store " * 12,
    }


def _plot_scale(rows: list[tuple[int, float, float, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    titles = ("dense search, p50 in ms", "memory of the store in MB", "written passages a second")
    sizes = [row[0] for row in rows]
    for column, (axes, title) in enumerate(zip(panels, titles, strict=True), 1):
        axes.plot(sizes, [row[column] for row in rows], "o-", color="#1f5f8b")
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("passages")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)
