"""`python -m services.embedding.measure [FOLDER]`: the runtimes and the batching, measured here.

Prints two Markdown tables: speed and agreement of both runtimes on texts of the handbook, and the
throughput of 32 clients that ask one question each, with and without dynamic batching.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from .batching import Batcher
from .domain import Encoder, Prepared, TextEncoder
from .reference import SentenceTransformersEncoder
from .settings import Settings

CLIENTS, ROUNDS = 32, 5


def handbook_texts(root: Path, count: int) -> list[str]:
    """Paragraphs of the handbook, evenly spread over its pages and both languages."""
    paragraphs = [
        paragraph.strip()
        for page in sorted(root.glob("handbook/??/*.md"))
        for paragraph in page.read_text(encoding="utf-8").split("\n\n")
        if len(paragraph) > 200
    ]
    return paragraphs[:: max(1, len(paragraphs) // count)][:count]


def runtimes(folder: Path, passages: Sequence[str], threads: int) -> None:
    queries = [passage.split(".")[0][:60] for passage in passages]
    arms: dict[str, TextEncoder] = {
        "sentence-transformers": SentenceTransformersEncoder(str(folder), threads=threads),
        "onnx": Encoder.load(folder, threads=threads),
    }
    times: dict[str, list[float]] = {name: [] for name in arms}
    rates: dict[str, float] = {}
    vectors = {}
    for query in queries:  # one after the other and interleaved, so that both meet the same noise
        for name, encoder in arms.items():
            started = time.perf_counter()
            encoder.run(encoder.prepare([query], "query"))
            times[name].append((time.perf_counter() - started) * 1000)
    for name, encoder in arms.items():
        prepared = sorted(encoder.prepare(passages, "passage"), key=lambda item: item.text)
        started = time.perf_counter()
        vectors[name] = np.concatenate(
            [encoder.run(prepared[at : at + 4]) for at in range(0, len(prepared), 4)]
        )
        rates[name] = len(passages) / (time.perf_counter() - started)
    print("| runtime | query p50, ms | passages/s | cosine to the reference: least, mean |")
    print("|---|---|---|---|")
    for name in arms:
        cosine = (vectors[name] * vectors["sentence-transformers"]).sum(axis=1)
        print(
            f"| {name} | {median(times[name]):.1f} | {rates[name]:.1f} | "
            f"{cosine.min():.4f}, {cosine.mean():.4f} |"
        )


async def batching(folder: Path, passages: Sequence[str], threads: int) -> None:
    encoder = Encoder.load(folder, threads=threads)
    questions = encoder.prepare([passage.split(".")[0][:60] for passage in passages], "query")
    rates: dict[int, list[float]] = {1: [], CLIENTS: []}
    for _ in range(ROUNDS):
        for max_items, found in rates.items():
            found.append(await _throughput(encoder, questions, max_items))
    print("\n| queries in one run of the model | queries/s, 32 clients |")
    print("|---|---|")
    for max_items, found in rates.items():
        print(f"| at most {max_items} | {median(found):.0f} |")
    print(f"\nBatching: {median(rates[CLIENTS]) / median(rates[1]):.2f} times the throughput.")


async def _throughput(encoder: Encoder, questions: Sequence[Prepared], max_items: int) -> float:
    batcher = Batcher(encoder, max_items=max_items)

    async def client(number: int) -> None:
        for turn in range(4):
            await batcher.submit([questions[(number + turn) % len(questions)]])

    started = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    seconds = time.perf_counter() - started
    await batcher.aclose()
    return CLIENTS * 4 / seconds


def main() -> None:
    settings = Settings()
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else settings.model_dir
    passages = handbook_texts(Path(), 48)
    if not passages or not (folder / "model.onnx").is_file():
        sys.exit(f"Run it from the repository, with the model fetched to {folder}.")
    runtimes(folder, passages, settings.threads)
    asyncio.run(batching(folder, passages, settings.threads))


if __name__ == "__main__":
    main()
