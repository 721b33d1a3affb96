"""The engine that the settings ask for."""

from __future__ import annotations

from .cross_encoder import HubCrossEncoder, OnnxCrossEncoder
from .domain import Engine, TimeLeft
from .late_interaction import LateInteraction, TokenEncoder
from .settings import Settings
from .store import PassageStore


def load_engine(settings: Settings) -> Engine:
    """Load and warm the engine. Raises ModelNotUsable with the reason."""
    engine = _load(settings)
    # The first run allocates what later runs reuse: no caller should wait for that.
    engine.score("warm-up", ["warm-up"], TimeLeft(60.0))
    return engine


def _load(settings: Settings) -> Engine:
    if settings.engine == "late-interaction":
        encoder = TokenEncoder(
            settings.model_dir,
            threads=settings.threads,
            max_tokens=settings.max_tokens,
            max_query_tokens=settings.max_query_tokens,
        )
        store = PassageStore(
            settings.home,
            fingerprint=encoder.fingerprint,
            dimension=encoder.dimension,
            memory_bytes=settings.memory_mb * 1_000_000,
            disk_bytes=settings.disk_mb * 1_000_000,
        )
        return LateInteraction(encoder, store, batch_tokens=settings.batch_tokens)
    if settings.cross_encoder is not None:
        return HubCrossEncoder(
            settings.cross_encoder,
            threads=settings.threads,
            max_tokens=settings.max_tokens,
            batch_tokens=settings.batch_tokens,
        )
    return OnnxCrossEncoder(
        settings.cross_encoder_dir,
        threads=settings.threads,
        max_tokens=settings.max_tokens,
        batch_tokens=settings.batch_tokens,
    )
