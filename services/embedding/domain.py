"""Texts to vectors: tokenise, bucket by length, run, pool. No web framework.

`Encoder.load(folder).encode(texts, input_type="passage")` is all that a script needs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

InputType = Literal["query", "passage"]
Vectors = NDArray[np.float32]
Pool = Callable[[NDArray[np.float32], NDArray[np.int64]], Vectors]
"""(hidden states [texts, tokens, dimension], mask [texts, tokens]) → vectors of length 1."""


# ONNX Runtime keeps the largest run's memory for the next one; a long batch's is given back.
_SMALL = 256
_SHRINK = ort.RunOptions()
_SHRINK.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")


class ModelNotUsable(Exception):
    """The model folder is missing, incomplete or of another kind; the message says which."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A text ready to run: prefix added, tokenised, cut to the model's limit.

    `ids` counts the special tokens and the prefix, as the model sees them.
    """

    text: str
    ids: Sequence[int]
    truncated: bool

    @property
    def length(self) -> int:
        return len(self.ids)


class TextEncoder(Protocol):
    """A runtime of one model. `run` may be called from one thread at a time."""

    name: str
    dimension: int
    max_tokens: int

    def prepare(self, texts: Sequence[str], input_type: InputType) -> list[Prepared]: ...

    def run(self, batch: Sequence[Prepared]) -> Vectors: ...


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What a sentence-transformers folder says about its own use."""

    max_tokens: int
    prompts: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> ModelConfig:
        limits = _read_json(folder / "sentence_bert_config.json")
        prompts = _read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
        return cls(int(limits.get("max_seq_length") or 512), prompts_by_input_type(prompts))


def prompts_by_input_type(prompts: Mapping[str, str | None]) -> dict[str, str]:
    """sentence-transformers calls a passage's prompt `passage` or `document`."""
    return {
        "query": prompts.get("query") or "",
        "passage": prompts.get("passage") or prompts.get("document") or "",
    }


class Encoder:
    """A sentence encoder in ONNX Runtime.

    The folder holds `model.onnx` (inputs `input_ids`, `attention_mask`; output
    `sentence_embedding`, L2-normalised), `tokenizer.json`, and sentence-transformers' own
    `sentence_bert_config.json` and `config_sentence_transformers.json` for limit and prefixes.
    With `pool`, its output `last_hidden_state` is asked for, and pooled here.
    """

    def __init__(
        self,
        name: str,
        session: ort.InferenceSession,
        tokenizer: Tokenizer,
        *,
        max_tokens: int,
        prompts: dict[str, str],
        pool: Pool | None = None,
    ) -> None:
        self.name = name
        self.pool = pool
        self.max_tokens = max_tokens
        self.prompts = prompts
        self._session = session
        self._tokenizer = tokenizer
        self.dimension = int(session.get_outputs()[-1].shape[-1])

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        threads: int = 2,
        max_tokens: int | None = None,
        query_prefix: str | None = None,
        passage_prefix: str | None = None,
        pool: Pool | None = None,
    ) -> Encoder:
        """Load a model folder. Raises ModelNotUsable with the reason."""
        folder = Path(folder)
        for needed in ("model.onnx", "tokenizer.json"):
            if not (folder / needed).is_file():
                raise ModelNotUsable(
                    f"{folder} has no {needed}; `workshop doctor` says how to fetch the models"
                )
        config = ModelConfig.read(folder)
        prompts = dict(config.prompts)
        if query_prefix is not None:
            prompts["query"] = query_prefix
        if passage_prefix is not None:
            prompts["passage"] = passage_prefix
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Idle threads that spin win microseconds here and take them from the service beside.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            session = ort.InferenceSession(
                str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # both libraries raise bare Exceptions
            raise ModelNotUsable(f"{folder} could not be loaded: {error}") from error
        tokenizer.no_padding()
        limit = min(max_tokens or config.max_tokens, config.max_tokens)
        tokenizer.enable_truncation(limit)
        return cls(folder.name, session, tokenizer, max_tokens=limit, prompts=prompts, pool=pool)

    def prepare(self, texts: Sequence[str], input_type: InputType = "query") -> list[Prepared]:
        """Prefix, tokenise and cut each text."""
        prefixed = [self.prompts[input_type] + text for text in texts]
        return [
            Prepared(text, encoding.ids, bool(encoding.overflowing))
            for text, encoding in zip(
                prefixed, self._tokenizer.encode_batch_fast(prefixed), strict=True
            )
        ]

    def run(self, batch: Sequence[Prepared]) -> Vectors:
        """Vectors of one padded batch: float32 [texts, dimension], each of length 1."""
        width = max(item.length for item in batch)
        ids = np.zeros((len(batch), width), np.int64)
        mask = np.zeros((len(batch), width), np.int64)
        for row, item in enumerate(batch):
            ids[row, : item.length] = item.ids
            mask[row, : item.length] = 1
        output = "sentence_embedding" if self.pool is None else "last_hidden_state"
        (found,) = self._session.run(
            [output],
            {"input_ids": ids, "attention_mask": mask},
            _SHRINK if ids.size > _SMALL else None,
        )
        if self.pool is not None:
            found = np.asarray(self.pool(found, mask), np.float32)
            if found.shape != (len(batch), self.dimension):
                raise ValueError(
                    f"pool gave {found.shape} for {len(batch)} texts of dimension {self.dimension}"
                )
        vectors: Vectors = found
        return vectors

    def encode(
        self,
        texts: Sequence[str],
        *,
        input_type: InputType = "query",
        batch_tokens: int = 2048,
    ) -> Vectors:
        """Vectors of any number of texts: float32 [texts, dimension], in the order given."""
        return encode_all(self, texts, input_type, batch_tokens)


def encode_all(
    encoder: TextEncoder, texts: Sequence[str], input_type: InputType, batch_tokens: int = 2048
) -> Vectors:
    """Encode in batches of similar length, so that little time goes into padding."""
    prepared = encoder.prepare(texts, input_type)
    vectors = np.empty((len(texts), encoder.dimension), np.float32)
    for rows in batches_by_length([item.length for item in prepared], batch_tokens):
        vectors[rows] = encoder.run([prepared[row] for row in rows])
    return vectors


def batches_by_length(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Row numbers in batches of rising length, each at most `batch_tokens` padded tokens."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[row] * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelNotUsable(f"{path} is not valid JSON: {error}") from error
    return value if isinstance(value, dict) else {}
