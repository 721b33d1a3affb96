"""sentence-transformers as the runtime: the reference, and the way to any model of the hub."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .domain import (
    InputType,
    ModelNotUsable,
    Prepared,
    Vectors,
    encode_all,
    prompts_by_input_type,
)


class SentenceTransformersEncoder:
    """The same interface as `domain.Encoder`, over `SentenceTransformer(name)`."""

    def __init__(
        self,
        model: str,
        *,
        threads: int = 2,
        max_tokens: int | None = None,
        query_prefix: str | None = None,
        passage_prefix: str | None = None,
    ) -> None:
        """`model` is a folder or a hub name. Raises ModelNotUsable with the reason."""
        try:
            import torch
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ModelNotUsable(
                "the runtime sentence-transformers is not installed: "
                "pip install sentence-transformers"
            ) from error
        torch.set_num_threads(threads)
        try:
            self._model = SentenceTransformer(model, device="cpu")
        except Exception as error:  # the hub, the disk and torch all raise here
            raise ModelNotUsable(f"{model} could not be loaded: {error}") from error
        self.name = model.rstrip("/").rsplit("/", 1)[-1]
        limit = int(self._model.max_seq_length or 512)
        self.max_tokens = self._model.max_seq_length = min(max_tokens or limit, limit)
        self.dimension = int(self._model.get_embedding_dimension() or 0)
        self.prompts = prompts_by_input_type(self._model.prompts or {})
        if query_prefix is not None:
            self.prompts["query"] = query_prefix
        if passage_prefix is not None:
            self.prompts["passage"] = passage_prefix

    def prepare(self, texts: Sequence[str], input_type: InputType = "query") -> list[Prepared]:
        prefixed = [self.prompts[input_type] + text for text in texts]
        ids = self._model.tokenizer(prefixed, truncation=False, padding=False)["input_ids"]
        return [
            Prepared(text, row[: self.max_tokens], len(row) > self.max_tokens)
            for text, row in zip(prefixed, ids, strict=True)
        ]

    def run(self, batch: Sequence[Prepared]) -> Vectors:
        # The prefix is in the text already; an empty prompt keeps the model from adding its own.
        vectors = self._model.encode(
            [item.text for item in batch],
            prompt="",
            batch_size=len(batch),
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors, np.float32)

    def encode(
        self, texts: Sequence[str], *, input_type: InputType = "query", batch_tokens: int = 2048
    ) -> Vectors:
        """Vectors of any number of texts: float32 [texts, dimension], in the order given."""
        return encode_all(self, texts, input_type, batch_tokens)
