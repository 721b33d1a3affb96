"""The engine that the settings ask for."""

from __future__ import annotations

from .cross_encoder import HubCrossEncoder, OnnxCrossEncoder
from .domain import Engine, TimeLeft
from .late_interaction import LateInteraction, MaxSim, TokenEncoder, max_sim
from .promotion import Gate, Registry, decide
from .settings import Settings
from .store import PassageStore


def load_engine(settings: Settings, *, score: MaxSim = max_sim, gate: Gate = decide) -> Engine:
    """Load and warm the engine. Raises ModelNotUsable with the reason.

    `score` compares token vectors; `gate` says whether what is promoted may serve.
    """
    engine = _load(settings, score, gate)
    # The first run allocates what later runs reuse: no caller should wait for that.
    engine.score("warm-up", ["warm-up"], TimeLeft(60.0))
    return engine


def _load(settings: Settings, score: MaxSim, gate: Gate) -> Engine:
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
        try:
            return LateInteraction(
                encoder,
                store,
                batch_tokens=settings.batch_tokens,
                compare=score,
                promoted=Registry(settings.registry_folder).load(gate),
            )
        except BaseException:
            store.close()
            raise
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
