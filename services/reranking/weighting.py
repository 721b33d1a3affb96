"""How much each token of a query counts in MaxSim: all alike, or the rarer the more."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .domain import ModelNotUsable

_LEAST = 1e-3


@dataclass(frozen=True, slots=True)
class TermWeights:
    """Weight of a token: its inverse document frequency to the power of `rarity`.

    The frequency is log((N + 1) / (n + 0.5)), for a token that n of N passages hold (Robertson
    and Spärck Jones, 1976, smoothed). With `rarity` 0 all tokens count alike, as in ColBERT.
    `encoder` is the fingerprint of the encoder whose tokens `holding` counts.
    """

    encoder: str
    rarity: float = 0.0
    passages: int = 0
    holding: Mapping[int, int] = field(default_factory=dict)

    def of(self, tokens: Sequence[int]) -> NDArray[np.float64] | None:
        """A weight for each token, float64 [tokens]; None where all count alike."""
        if self.rarity == 0:
            return None
        held = np.array([self.holding.get(token, 0) for token in tokens], np.float64)
        return np.maximum(np.log((self.passages + 1) / (held + 0.5)), _LEAST) ** self.rarity

    @classmethod
    def count(
        cls, encoder: str, passages: Iterable[Sequence[int]], *, rarity: float
    ) -> TermWeights:
        """From the token numbers of each passage of a collection."""
        holding: Counter[int] = Counter()
        number = 0
        for number, tokens in enumerate(passages, 1):  # noqa: B007
            holding.update(set(tokens))
        return cls(encoder, rarity, number, dict(holding))

    def to_bytes(self) -> bytes:
        """The artefact. Equal weights give equal bytes, so their hash names them."""
        value = {
            "kind": "max-sim",
            "encoder": self.encoder,
            "rarity": self.rarity,
            "passages": self.passages,
            "holding": {str(token): self.holding[token] for token in sorted(self.holding)},
        }
        return json.dumps(value, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> TermWeights:
        """Raises ModelNotUsable if `raw` is no such artefact."""
        try:
            value = json.loads(raw)
            holding = {int(token): int(count) for token, count in value["holding"].items()}
            rarity, passages = float(value["rarity"]), int(value["passages"])
            if value["kind"] != "max-sim" or not np.isfinite(rarity) or passages < 0:
                raise ValueError(value["kind"])
            return cls(str(value["encoder"]), rarity, passages, holding)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelNotUsable(f"the file holds no weights for MaxSim: {error!r}") from error
