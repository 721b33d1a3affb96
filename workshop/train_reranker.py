"""`workshop train-reranker`: train, export, measure and perhaps promote the cross-encoder."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.markdown import Markdown
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from services.reranking.cross_encoder import OnnxCrossEncoder
from services.reranking.domain import TimeLeft
from services.reranking.late_interaction import LateInteraction

from . import models, paths
from .errors import WorkshopError
from .evaluation.intervals import Interval, bootstrap
from .reranker_data import MINED, Bm25, Collection, fitz_gov, handbook, only_pages, training_groups
from .reranker_evaluation import CANDIDATES, FirstStage, Result, compare, late_interaction
from .reranker_evaluation import Progress as ShowProgress
from .reranker_export import export_int8
from .reranker_training import load_trained, train_cross_encoder
from .show import console

PROMOTED = paths.ROOT / "services/reranking/models/cross-encoder"
MAX_BYTES = 25_000_000
MIN_TAU = 0.9
CROSS, LATE = OnnxCrossEncoder.kind, LateInteraction.kind


@dataclass(frozen=True, slots=True)
class Options:
    """What a training run is made of; written down beside its result."""

    epochs: int = 2
    max_minutes: float = 25.0
    max_tokens: int = 128
    negatives: int = 3
    handbook_repeats: int = 3
    learning_rate: float = 5e-5
    batch_groups: int = 8
    threads: int = 1
    seed: int = 7


def train(start_from: Path, fitz: Path, work: Path, options: Options) -> dict[str, Any]:
    """Train on fitz-gov and the handbook's training questions; write `work/torch`.

    Returns what the run was: counts, data hash, minutes, loss, machine.
    """
    fitz_train, _ = fitz_gov(fitz)
    book = handbook(paths.ROOT, "train")
    book_train = only_pages(book, book.queries)
    groups = training_groups(fitz_train, negatives=options.negatives, seed=options.seed)
    from_fitz = len(groups)
    groups += training_groups(
        book_train,
        negatives=options.negatives,
        repeats=options.handbook_repeats,
        seed=options.seed,
    )
    started, last = time.monotonic(), 0.0
    with _progress() as bar:
        task = bar.add_task(f"training on {len(groups)} groups", total=1.0)

        def on_step(done: float, loss: float) -> None:
            nonlocal last
            last = loss
            bar.update(task, completed=done, description=f"training, loss {loss:.3f}")

        model, tokenizer = train_cross_encoder(
            start_from,
            groups,
            epochs=options.epochs,
            max_minutes=options.max_minutes,
            max_tokens=options.max_tokens,
            learning_rate=options.learning_rate,
            batch_groups=options.batch_groups,
            threads=options.threads,
            seed=options.seed,
            on_step=on_step,
        )
    model.save_pretrained(work / "torch")
    tokenizer.save_pretrained(work / "torch")
    run = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {options.threads} thread(s), {platform.system()}",
        "minutes": round((time.monotonic() - started) / 60, 1),
        "loss": round(last, 3),
        "fitz_gov_queries": len(fitz_train.queries),
        "fitz_gov_groups": from_fitz,
        "handbook_questions": len(book_train.queries),
        "handbook_groups": len(groups) - from_fitz,
        "data_sha256": data_hash([fitz_train, book_train]),
        "options": asdict(options),
    }
    (work / "training.json").write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    return run


def data_hash(collections: list[Collection]) -> str:
    """SHA-256 over the queries and passages that training could see."""
    digest = hashlib.sha256()
    for collection in collections:
        for query in collection.queries:
            digest.update(f"{query.text}\x1f{sorted(query.relevant)}\x1e".encode())
        for name, text in collection.passages.items():
            digest.update(f"{name}\x1f{text}\x1e".encode())
    return digest.hexdigest()


def agreement(model: Any, tokenizer: Any, exported: OnnxCrossEncoder, book: Collection) -> float:
    """Mean Kendall's tau between the orders of the trained and the exported model.

    Over the best ten passages of BM25 for each of twenty questions.
    """
    import torch
    from scipy.stats import kendalltau

    bm25 = Bm25(book.passages)
    taus = []
    for query in book.queries[:: max(1, len(book.queries) // 20)][:20]:
        texts = [book.passages[name] for name in bm25.search(query.text, query.language, 10)]
        if len(texts) < 3:
            continue
        inputs = tokenizer(
            [query.text] * len(texts),
            texts,
            truncation="longest_first",
            max_length=exported.max_tokens,
            padding=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            wanted = model(**inputs).logits[:, 0].tolist()
        taus.append(
            kendalltau(wanted, exported.score(query.text, texts, TimeLeft(600.0))).statistic
        )
    return float(np.mean(taus))


def judge(
    exported: OnnxCrossEncoder, collections: list[Collection], work: Path, threads: int
) -> list[Result]:
    """Both engines and the first stage's order on each collection."""
    with _first_stage(work, threads) as (first_stage, late, progress):
        return [
            compare(collection, first_stage, [late, exported], late.store, progress)
            for collection in collections
        ]


@contextmanager
def _first_stage(
    work: Path, threads: int
) -> Iterator[tuple[FirstStage, LateInteraction, ShowProgress]]:
    """The first stage, and late interaction over the passages that it has encoded."""
    with _progress() as bar:
        tasks: dict[str, TaskID] = {}

        def progress(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name)
            bar.update(tasks[name], completed=done, total=total)

        folder = models.ensure(models.EMBEDDING)
        first_stage = FirstStage(folder, work, threads=threads, progress=progress)
        late = late_interaction(first_stage, work)
        try:
            yield first_stage, late, progress
        finally:
            late.store.close()


def gain(results: list[Result], engine: str) -> Interval:
    """Difference in nDCG@10 between an engine and the first stage, over all queries."""
    return bootstrap(
        [
            after - before
            for result in results
            for arm in result.engines
            if arm.name == engine
            for after, before in zip(arm.ndcg, result.first_stage.ndcg, strict=True)
        ]
    )


def table(results: list[Result]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| collection | queries | order | nDCG@10 | against the first stage (95 %) | ms a query |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        start = f"| {result.collection} | {result.queries} |"
        lines.append(f"{start} first stage | {np.mean(result.first_stage.ndcg):.3f} | | |")
        for arm in result.engines:
            change = arm.against(result.first_stage)
            lines.append(
                f"{start} {arm.name} | {np.mean(arm.ndcg):.3f} | {show(change)} | "
                f"{np.median(arm.milliseconds):.0f} |"
            )
    return "\n".join(lines)


def show(change: Interval) -> str:
    return f"{change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"


def card(run: dict[str, Any], results: list[Result], tau: float, model: Path) -> str:
    """The model card."""
    options = run["options"]
    command = (
        f"workshop train-reranker --epochs {options['epochs']} "
        f"--max-minutes {options['max_minutes']:g} --threads {options['threads']}"
    )
    chance = np.log(options["negatives"] + 1)
    facts = {
        "file": f"`model.onnx`, {model.stat().st_size / 1e6:.1f} MB",
        "SHA-256": f"`{hashlib.sha256(model.read_bytes()).hexdigest()}`",
        "inputs": "`input_ids`, `attention_mask`, `token_type_ids`: int64 [pairs, tokens]",
        "longest input": f"{options['max_tokens']} tokens, both texts together",
        "output": "`logits`: float32 [pairs, 1]",
        "command": f"`{command}`",
        "trained": f"{run['date']}, {run['minutes']} minutes on {run['machine']}",
        "last loss": f"{run['loss']} (by chance {chance:.3f})",
        "int8 against float32": f"Kendall's tau {tau:.3f}, ten passages for each of 20 questions",
        "licence": "Apache-2.0, as the model that it was trained from",
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return f"""# Cross-encoder for reranking

A BERT encoder of six layers (22.7 million weights) that reads a query and a passage together and
gives one logit, higher for a more relevant passage. It was trained from all-MiniLM-L6-v2 and
exported to ONNX with int8 weights. It is for English: its vocabulary is English, and only the
handbook's questions showed it Portuguese.

| | |
|---|---|
{rows}

## Data

- fitz-gov 4.1.0 (MIT): {run["fitz_gov_queries"]} judged queries, one group each. Its held-out
  queries share no relevant passage and no wording with them.
- The handbook's training questions (Apache-2.0): {run["handbook_questions"]} in English and
  Portuguese, {run["handbook_groups"]} groups. Pages of the other splits were not seen.
- SHA-256 over queries and passages: `{run["data_sha256"]}`.

A group is one relevant passage and {options["negatives"]} hard negatives, drawn from the best
{MINED} of BM25. The loss is the softmax cross-entropy of the relevant one.

## Figures

The {CANDIDATES} best passages of the first stage (BM25 and the bilingual encoder, fused by RRF),
put in order again. Late interaction had its passages encoded ahead, as in the service.

{table(results)}

Over all queries together the cross-encoder changes nDCG@10 by {show(gain(results, CROSS))},
late interaction by {show(gain(results, LATE))}.
"""


def promote(candidate: Path, target: Path) -> None:
    """Replace the promoted model. A service picks it up when it starts again."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(candidate.iterdir()):
        shutil.copyfile(path, target / path.name)


def command(
    epochs: Annotated[int, typer.Option(min=1, help="times over the training data")] = 2,
    max_minutes: Annotated[
        float, typer.Option(min=0.1, help="training ends here, whatever the epochs")
    ] = 25.0,
    threads: Annotated[int, typer.Option(min=1, help="processor threads")] = 1,
    seed: Annotated[int, typer.Option(help="of the shuffling and of the negatives")] = 7,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="measure the model trained last, do not train")
    ] = False,
    promote_anyway: Annotated[
        bool, typer.Option("--promote-anyway", help="promote it whatever the figures say")
    ] = False,
) -> None:
    """Train the cross-encoder, export it to int8, measure it, and promote it if it is better.

    It is promoted if it beats the first stage's order on the held-out queries of fitz-gov and on
    the handbook's validation questions together, beyond the 95 % interval. Else the promoted
    model stays as it is. Everything is written to WORKSHOP_HOME/reranker.
    """
    work = paths.home() / "reranker"
    work.mkdir(parents=True, exist_ok=True)
    fitz = models.ensure("fitz-gov")
    if not reuse:
        options = Options(epochs=epochs, max_minutes=max_minutes, threads=threads, seed=seed)
        train(models.ensure(models.EMBEDDING_ENGLISH), fitz, work, options)
    if not (work / "training.json").is_file():
        raise WorkshopError("No model was trained here yet.", "Run it without --reuse.")
    run = json.loads((work / "training.json").read_text(encoding="utf-8"))
    model, tokenizer = load_trained(work / "torch")
    max_tokens = run["options"]["max_tokens"]
    exported = export_int8(work / "torch", work / "candidate", max_tokens=max_tokens)
    if exported.stat().st_size > MAX_BYTES:
        raise WorkshopError(f"The exported model is larger than {MAX_BYTES / 1e6:.0f} MB.")
    engine = OnnxCrossEncoder(work / "candidate", threads=threads)
    book = handbook(paths.ROOT, "validation")
    tau = agreement(model, tokenizer, engine, book)
    console.print(f"int8 against float32: Kendall's tau {tau:.3f}")
    if tau < MIN_TAU:
        raise WorkshopError(
            f"The int8 model orders passages unlike the float32 one (tau {tau:.3f} < {MIN_TAU}).",
            "It is not promoted.",
        )
    _, held_out = fitz_gov(fitz)
    results = judge(engine, [held_out, book], work, threads)
    console.print(Markdown(table(results)))
    change = gain(results, CROSS)
    text = card(run, results, tau, exported) + verdict(change)
    (work / "candidate" / "README.md").write_text(text, encoding="utf-8")
    console.print(verdict(change).strip())
    if change.low <= 0 and not promote_anyway:
        console.print("Not promoted: the promoted model stays as it is.")
        return
    promote(work / "candidate", PROMOTED)
    console.print(f"Promoted to {PROMOTED.relative_to(paths.ROOT)}.")


def verdict(change: Interval) -> str:
    """What the figures mean for whoever chooses an engine."""
    if change.low > 0:
        return "\nIt beats the first stage's order beyond the interval.\n"
    return (
        "\nIt does not beat the first stage's order, so it is not the default and is here for\n"
        "comparison. For a better cross-encoder name one of the hub (`RERANKING_CROSS_ENCODER`).\n"
    )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        console=console,
    )
