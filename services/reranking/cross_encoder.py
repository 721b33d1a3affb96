"""Cross-encoders: query and passage read together, one run of the model for each pair."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .domain import ModelNotUsable, TimeLeft, sigmoid
from .late_interaction import open_session, open_tokenizer, pad


class OnnxCrossEncoder:
    """The cross-encoder that `workshop train-reranker` exports.

    The folder holds `model.onnx` (inputs `input_ids`, `attention_mask`, `token_type_ids`; output
    `logits` [pairs, 1]), `tokenizer.json`, and `config.json` with `max_tokens`.
    """

    kind = "cross-encoder"

    def __init__(
        self, folder: Path, *, threads: int = 2, max_tokens: int = 256, batch_tokens: int = 1024
    ) -> None:
        for needed in ("model.onnx", "tokenizer.json", "config.json"):
            if not (folder / needed).is_file():
                raise ModelNotUsable(
                    f"no cross-encoder is promoted: {folder} has no {needed}. "
                    "`workshop train-reranker` makes one; RERANKING_CROSS_ENCODER takes a hub name"
                )
        try:
            limit = int(json.loads((folder / "config.json").read_text())["max_tokens"])
        except (ValueError, KeyError, TypeError) as error:
            raise ModelNotUsable(f"{folder}/config.json names no max_tokens") from error
        self.model = f"cross-encoder/{folder.name}"
        self.batch_tokens = batch_tokens
        self._session = open_session(folder / "model.onnx", threads)
        self.max_tokens = min(limit, max_tokens)
        self._tokenizer = open_tokenizer(folder, self.max_tokens)

    def score(self, query: str, texts: Sequence[str], time_left: TimeLeft) -> list[float | None]:
        """sigmoid(logit) for each text, in the order given, while there is time."""
        encodings = self._tokenizer.encode_batch([(query, text) for text in texts])
        scores: list[float | None] = [None] * len(texts)
        lengths = [len(encoding.ids) for encoding in encodings]
        for rows in time_left.runs(lengths, self.batch_tokens):
            logits = self._run([encodings[row] for row in rows])
            for row, logit in zip(rows, logits.tolist(), strict=True):
                scores[row] = sigmoid(logit)
        return scores

    def _run(self, encodings: Sequence[Any]) -> NDArray[np.float32]:
        ids, mask = pad([encoding.ids for encoding in encodings])
        types, _ = pad([encoding.type_ids for encoding in encodings])
        (logits,) = self._session.run(
            ["logits"], {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        )
        first: NDArray[np.float32] = logits[:, 0]
        return first


class HubCrossEncoder:
    """Any cross-encoder that sentence-transformers loads, by folder or hub name."""

    kind = "cross-encoder"

    def __init__(
        self, name: str, *, threads: int = 2, max_tokens: int = 256, batch_tokens: int = 1024
    ) -> None:
        try:
            import torch
            from sentence_transformers import CrossEncoder
        except ImportError as error:
            raise ModelNotUsable(
                "a hub cross-encoder needs sentence-transformers: pip install sentence-transformers"
            ) from error
        torch.set_num_threads(threads)
        try:
            self._model = CrossEncoder(name, device="cpu", max_length=max_tokens)
        except Exception as error:  # the hub, the disk and torch all raise here
            raise ModelNotUsable(f"{name} could not be loaded: {error}") from error
        self._identity = torch.nn.Identity()
        self.model = f"cross-encoder/{name.rstrip('/').rsplit('/', 1)[-1]}"
        self.max_tokens = max_tokens
        self.batch_tokens = batch_tokens

    def score(self, query: str, texts: Sequence[str], time_left: TimeLeft) -> list[float | None]:
        """sigmoid(logit) for each text, in the order given, while there is time."""
        pairs = [(query, text) for text in texts]
        ids = self._model.tokenizer(
            [query] * len(texts), list(texts), truncation=True, max_length=self.max_tokens
        )["input_ids"]
        scores: list[float | None] = [None] * len(texts)
        for rows in time_left.runs([len(one) for one in ids], self.batch_tokens):
            logits = self._model.predict(
                [pairs[row] for row in rows],
                batch_size=len(rows),
                activation_fn=self._identity,
                show_progress_bar=False,
            )
            for row, logit in zip(rows, np.asarray(logits).reshape(len(rows), -1), strict=True):
                scores[row] = sigmoid(float(logit[-1]))
        return scores
