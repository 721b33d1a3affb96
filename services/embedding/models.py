"""Which models this service runs, and under which aliases."""

from __future__ import annotations

from pathlib import Path

from .domain import Encoder, ModelNotUsable, Pool, TextEncoder
from .reference import SentenceTransformersEncoder
from .settings import Settings


def load_encoders(
    settings: Settings, pool: Pool | None = None
) -> list[tuple[TextEncoder, tuple[str, ...]]]:
    """The default model first, with its aliases. Raises ModelNotUsable if that one is missing.

    `pool` takes the place of the pooling inside of the ONNX models.
    """
    default = _load(settings, settings.model or str(settings.model_dir), pool)
    if not settings.english_model_dir.is_dir():
        return [(default, ("bilingual",))]
    if settings.english_model_dir.name == default.name:
        return [(default, ("bilingual", "english"))]
    return [
        (default, ("bilingual",)),
        (_load(settings, str(settings.english_model_dir), pool), ("english",)),
    ]


def _load(settings: Settings, model: str, pool: Pool | None) -> TextEncoder:
    if settings.runtime == "sentence-transformers":
        encoder: TextEncoder = SentenceTransformersEncoder(
            model,
            threads=settings.threads,
            max_tokens=settings.max_tokens,
            query_prefix=settings.query_prefix,
            passage_prefix=settings.passage_prefix,
        )
    else:
        if not Path(model).is_dir():
            raise ModelNotUsable(
                f"the model folder {model} is not there. `make lab` and `workshop up` fetch the "
                "models; a hub name needs EMBEDDING_RUNTIME=sentence-transformers"
            )
        encoder = Encoder.load(
            model,
            threads=settings.threads,
            max_tokens=settings.max_tokens,
            query_prefix=settings.query_prefix,
            passage_prefix=settings.passage_prefix,
            pool=pool,
        )
    # The first run allocates what later runs reuse: no caller should wait for that.
    encoder.run(encoder.prepare(["warm-up"], "query"))
    return encoder
