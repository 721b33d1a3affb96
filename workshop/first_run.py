"""What the first `workshop up` does beside starting: bring in the models, index the handbook.

Both continue where they stopped: model files are checked by hash, ingestion answers `unchanged`
for a page that it has, and the record of completion is written last.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from . import client, models, paths
from .errors import WorkshopError

FIRST_RUN_BYTES = 3_000_000_000
"""Models, stores and logs, with room to spare."""
LATER_BYTES = 200_000_000
NEEDED = (
    "broker",
    "embedding",
    "reranking",
    "dense_retrieval",
    "sparse_retrieval",
    "ingestion",
    "ingestion_worker",
)
"""Without one of these nothing can be indexed."""


def check_disk() -> None:
    """Raise `WorkshopError` when the disk of `WORKSHOP_HOME` is too full to start."""
    folder = paths.home()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    needed = LATER_BYTES if record().exists() else FIRST_RUN_BYTES
    if free < needed:
        raise WorkshopError(
            f"Only {free / 1e9:.1f} GB are free on the disk of {paths.home()}; "
            f"{needed / 1e9:.1f} GB are needed.",
            "Free some space, or set WORKSHOP_HOME to a folder on another disk.",
        )


def needed_models() -> list[str]:
    """Names in `models.toml` of what this machine's system runs with."""
    return [models.EMBEDDING, models.EMBEDDING_ENGLISH, llm()]


def llm() -> str:
    """The language model: `WORKSHOP_LLM`, or what suits cores and memory."""
    return models.choose_llm(override=os.environ.get("WORKSHOP_LLM"))


def ensure_models() -> None:
    """Bring in the models that are missing, with a progress bar; quick when nothing is."""
    models.ensure_all(needed_models())


def model_settings() -> dict[str, str]:
    """The environment variables that lead services to their model files."""
    embedding, english = models.path(models.EMBEDDING), models.path(models.EMBEDDING_ENGLISH)
    weights = models.gguf(llm())
    return {
        "EMBEDDING_MODEL_DIR": str(embedding.absolute()),
        "EMBEDDING_ENGLISH_MODEL_DIR": str(english.absolute()),
        "RERANKING_MODEL_DIR": str(embedding.absolute()),
        "CONTEXT_TOKENIZER_PATH": str(weights.absolute()),
        "LLM_MODEL_PATH": str(weights.absolute()),
    }


def record() -> Path:
    """Lies with the data, so that whoever deletes the data deletes it too."""
    return paths.data_dir() / "handbook.json"


def is_indexed(documents: Sequence[client.Document]) -> bool:
    """Whether this very handbook, page for page, has been indexed."""
    try:
        known = json.loads(record().read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(known == client.fingerprint(documents))


async def index_handbook(
    ingestion: str,
    documents: Sequence[client.Document],
    progress: Callable[[float, str], None],
) -> client.IngestReport:
    """Ingest the handbook and record that it is complete, if it is."""
    report = await client.ingest(ingestion, documents, progress)
    if not report.failed:
        done = {"sha256": client.fingerprint(documents), "documents": report.documents}
        record().write_text(json.dumps(done))
    return report
