"""`python -m services.dense_retrieval.bench`: both stores on the same passages, in one run.

Prints a table: median and 99th percentile of a dense search (50 passages with their payload),
the time to open the stored collection, the ingestion rate and the memory that the store adds to
a process. Vectors are random and normalised; rates and times do not depend on their values.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from .domain import Entry, Options, VectorStore, open_store

BATCH, TOP_K = 100, 50
MODELS = {"bilingual": "bench-bilingual", "english": "bench-english"}
KINDS = ("edge", "client")


def entries(passages: int, dimensions: int) -> list[Entry]:
    """Passages of 800 characters with two random vectors each, the same in every run."""
    random = np.random.default_rng(7)
    made = []
    for number in range(passages):
        vectors = random.standard_normal((2, dimensions)).astype(np.float32)
        passage = {
            "id": f"en/d{number // 8}#{number}",
            "document": f"en/d{number // 8}",
            "title": "A page",
            "heading": f"Section {number}",
            "position": number % 8,
            "language": "pt" if number % 2 else "en",
            "tags": ["bench"],
            "text": "word " * 160,
        }
        made.append(Entry(passage, dict(zip(MODELS, vectors, strict=True))))
    return made


def _memory() -> float:
    """Proportional set size of this process, in MB; resident size where there is none."""
    info = psutil.Process().memory_full_info()
    return float(getattr(info, "pss", info.rss)) / 1e6


def _fill(kind: str, folder: str, passages: int, dimensions: int, results: Any) -> None:
    data = entries(passages, dimensions)
    store = open_store(kind, folder, options=Options(exact_below=passages))
    started = time.perf_counter()
    for start in range(0, passages, BATCH):
        store.put(MODELS, data[start : start + BATCH])
    results.put(passages / (time.perf_counter() - started))
    store.close()


def _search(kind: str, folder: str, passages: int, dimensions: int, pipe: Any) -> None:
    """Open the store, then time one search for every `True` that comes through the pipe."""
    before = _memory()
    started = time.perf_counter()
    store: VectorStore = open_store(kind, folder, options=Options(exact_below=passages))
    loaded = time.perf_counter() - started
    queries = np.random.default_rng(8).standard_normal((1000, dimensions)).astype(np.float32)
    for query in queries[:5]:
        store.search(query, using="bilingual", top_k=TOP_K)
    pipe.send((loaded, _memory() - before))
    number = 0
    while pipe.recv():
        started = time.perf_counter()
        store.search(queries[number % len(queries)], using="bilingual", top_k=TOP_K)
        pipe.send(time.perf_counter() - started)
        number += 1
    store.close()


def measure(passages: int, dimensions: int, searches: int) -> list[dict[str, float | str]]:
    """One row a store; each store has a process of its own, searches take turns."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        rows: list[dict[str, float | str]] = []
        workers = []
        for kind in KINDS:
            home = str(Path(folder) / kind)
            results = spawn.Queue()
            filler = spawn.Process(target=_fill, args=(kind, home, passages, dimensions, results))
            filler.start()
            rate = results.get()
            filler.join()
            here, there = spawn.Pipe()
            worker = spawn.Process(target=_search, args=(kind, home, passages, dimensions, there))
            worker.start()
            loaded, memory = here.recv()
            workers.append((worker, here))
            rows.append({"store": kind, "load": loaded, "rate": rate, "memory": memory})
        times: list[list[float]] = [[] for _ in workers]
        for _ in range(searches):
            for (_, pipe), mine in zip(workers, times, strict=True):
                pipe.send(True)
                mine.append(pipe.recv())
        for (worker, pipe), mine, row in zip(workers, times, rows, strict=True):
            pipe.send(False)
            worker.join()
            row["p50"] = statistics.median(mine) * 1000
            row["p99"] = statistics.quantiles(mine, n=100)[98] * 1000
        return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Compare the stores of dense_retrieval.")
    parser.add_argument("--passages", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--searches", type=int, default=200)
    chosen = parser.parse_args(arguments)
    print(f"{chosen.passages} passages, two vectors of {chosen.dimensions}, top {TOP_K}")
    print("| store | p50 ms | p99 ms | load s | passages/s in | memory MB |")
    print("|---|---|---|---|---|---|")
    for row in measure(chosen.passages, chosen.dimensions, chosen.searches):
        print(
            f"| {row['store']} | {row['p50']:.2f} | {row['p99']:.2f} | {row['load']:.2f} "
            f"| {row['rate']:.0f} | {row['memory']:.0f} |"
        )


if __name__ == "__main__":
    main()
