"""Late interaction: MaxSim over token vectors (Khattab and Zaharia, ColBERT, SIGIR 2020).

Query and passage are encoded apart, so passages are encoded once, ahead of every query. A
passage's score is the mean, over the query's tokens, of the best cosine with one of its tokens.
The token vectors are those of a sentence encoder: it was trained through their mean, which is
enough to make them comparable one by one. The mean may be weighted (`TermWeights`).
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]
from tokenizers import Tokenizer

from .domain import ModelNotUsable, TimeLeft
from .store import PassageStore, TokenVectors
from .weighting import TermWeights

# ONNX Runtime keeps the largest run's memory for the next one; a long batch's is given back.
_SMALL = 256
_SHRINK = ort.RunOptions()
_SHRINK.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")


MaxSim = Callable[
    [NDArray[np.float32], Sequence[TokenVectors], "NDArray[np.float64] | None"], list[float]
]
"""What `max_sim` is: (query, passages, weights) → a score in -1..1 for each passage."""


class TokenEncoder:
    """Texts to token vectors of length 1, in ONNX Runtime.

    The folder is a sentence encoder's: `model.onnx` with the output `last_hidden_state`,
    `tokenizer.json`, and the prompts of `config_sentence_transformers.json`.
    """

    def __init__(
        self, folder: Path, *, threads: int = 2, max_tokens: int = 256, max_query_tokens: int = 64
    ) -> None:
        for needed in ("model.onnx", "tokenizer.json"):
            if not (folder / needed).is_file():
                raise ModelNotUsable(
                    f"{folder} has no {needed}. `make lab` and `workshop up` fetch the models"
                )
        self.name = folder.name
        self.session = open_session(folder / "model.onnx", threads)
        outputs = [output.name for output in self.session.get_outputs()]
        if "last_hidden_state" not in outputs:
            raise ModelNotUsable(f"{folder} gives {', '.join(outputs)}, not last_hidden_state")
        self.dimension = int(
            self.session.get_outputs()[outputs.index("last_hidden_state")].shape[-1]
        )
        prompts = _read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
        limit = _read_json(folder / "sentence_bert_config.json").get("max_seq_length") or 512
        self._prompts = {
            "query": prompts.get("query") or "",
            "passage": prompts.get("passage") or prompts.get("document") or "",
        }
        # One for both kinds: a vocabulary of this size takes 35 MB.
        self._tokenizer = open_tokenizer(folder, int(limit))
        self._max_tokens = {
            "query": min(max_query_tokens, int(limit)),
            "passage": min(max_tokens, int(limit)),
        }
        self._tokenizing = threading.Lock()

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes a stored vector."""
        digest = hashlib.sha256()
        with self._tokenizing:
            self._tokenizer.no_truncation()
            digest.update(self._tokenizer.to_str().encode())
        digest.update(json.dumps(self._max_tokens).encode())
        digest.update(json.dumps(self._prompts).encode())
        probe = self.encode(["one passage to tell models apart"], "passage")
        digest.update(np.round(next(iter(probe)), 2).tobytes())
        return digest.hexdigest()[:16]

    def tokenize(self, texts: Sequence[str], kind: str) -> list[Any]:
        prompt = self._prompts[kind]
        with self._tokenizing:
            self._tokenizer.enable_truncation(self._max_tokens[kind])
            encodings: list[Any] = self._tokenizer.encode_batch([prompt + text for text in texts])
        return encodings

    def encode(self, texts: Sequence[str], kind: str) -> list[NDArray[np.float32]]:
        return self.run(self.tokenize(texts, kind), kind)

    def tokens(self, encoding: Any, kind: str) -> list[int]:
        """The token numbers that count, one for each vector of `run`."""
        kept = _kept(encoding, len(self._prompts[kind]), words_only=kind == "query")
        return [encoding.ids[at] for at in kept]

    def run(self, encodings: Sequence[Any], kind: str) -> list[NDArray[np.float32]]:
        """Vectors of one padded batch: a float32 [tokens kept, dimension] for each text."""
        ids, mask = pad([encoding.ids for encoding in encodings])
        (states,) = self.session.run(
            ["last_hidden_state"],
            {"input_ids": ids, "attention_mask": mask},
            _SHRINK if ids.size > _SMALL else None,
        )
        return self.select(states, encodings, kind)

    def select(
        self, states: NDArray[np.float32], encodings: Sequence[Any], kind: str
    ) -> list[NDArray[np.float32]]:
        """The rows of `last_hidden_state` that count, each scaled to length 1, text by text."""
        skipped = len(self._prompts[kind])
        vectors = []
        for state, encoding in zip(states, encodings, strict=True):
            kept = state[_kept(encoding, skipped, words_only=kind == "query")]
            norms = np.linalg.norm(kept, axis=1, keepdims=True)
            vectors.append(kept / np.maximum(norms, 1e-12))
        return vectors


def _kept(encoding: Any, skipped: int, *, words_only: bool) -> list[int]:
    """The tokens that count: no special ones, none of the prefix (`skipped` characters long).

    Of a query no punctuation either: a question mark has a best match in every passage, and
    says nothing about any.
    """
    text = [
        at
        for at, (special, (_, end)) in enumerate(
            zip(encoding.special_tokens_mask, encoding.offsets, strict=True)
        )
        if not special and end > skipped
    ]
    if not words_only:
        return text
    return [at for at in text if any(map(str.isalnum, encoding.tokens[at]))] or text


class LateInteraction:
    """Reranks with token vectors, and keeps those of passages it has seen.

    `compare` is `max_sim` or stands in for it; `promoted` is a (version, weights) of the registry.
    """

    kind = "late-interaction"

    def __init__(
        self,
        encoder: TokenEncoder,
        store: PassageStore,
        *,
        batch_tokens: int = 1024,
        compare: MaxSim | None = None,
        promoted: tuple[str, TermWeights] | None = None,
    ) -> None:
        self.encoder = encoder
        self.store = store
        self.batch_tokens = batch_tokens
        self._compare = compare or max_sim
        self.model = f"late-interaction/{encoder.name}"
        self._weights: TermWeights | None = None
        if promoted is not None:
            version, self._weights = promoted
            self.model += f"@{version}"
            if self._weights.encoder != encoder.fingerprint:
                raise ModelNotUsable(
                    f"version {version} was made for another encoder than {encoder.name}. "
                    "Tune it again, or withdraw it"
                )

    def put(self, texts: Sequence[str]) -> tuple[int, int]:
        """Encode what is not known yet; (newly encoded, known before), counting each text once."""
        wanted = dict.fromkeys(texts)
        missing = self.store.missing(list(wanted))
        # Of like length, so that little of a batch is padding.
        self._encode(sorted(missing, key=len), TimeLeft(3600.0))
        return len(missing), len(wanted) - len(missing)

    def score(self, query: str, texts: Sequence[str], time_left: TimeLeft) -> list[float | None]:
        """(1 + mean MaxSim) / 2 for each text; unknown ones are encoded while there is time."""
        encodings = self.encoder.tokenize([query], "query")
        (question,) = self.encoder.run(encodings, "query")
        known = self.store.get(texts)
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            known |= self._encode(missing, time_left)
        found = [text for text in dict.fromkeys(texts) if text in known]
        weights = None
        if self._weights is not None:
            weights = self._weights.of(self.encoder.tokens(encodings[0], "query"))
        # A product this small takes a millisecond on one thread. On two it takes the time until
        # both have run, which on busy cores is dozens of milliseconds.
        with _blas().limit(limits=1, user_api="blas"):
            cosines = self._compare(question, [known[text] for text in found], weights)
        # A `compare` of somebody's own may give numpy's numbers, and above 1 by a rounding.
        scores = {
            text: min(max((1 + float(cosine)) / 2, 0.0), 1.0)
            for text, cosine in zip(found, cosines, strict=True)
        }
        return [scores.get(text) for text in texts]

    def _encode(self, texts: Sequence[str], time_left: TimeLeft) -> dict[str, TokenVectors]:
        """Encode and keep `texts` in the order given, until they are done or time is short."""
        encodings = self.encoder.tokenize(texts, "passage")
        done: dict[str, TokenVectors] = {}
        lengths = [len(encoding.ids) for encoding in encodings]
        for rows in time_left.runs(lengths, self.batch_tokens):
            vectors = self.encoder.run([encodings[row] for row in rows], "passage")
            done |= {
                texts[row]: TokenVectors.pack(vector)
                for row, vector in zip(rows, vectors, strict=True)
            }
        self.store.put(done)
        return done


def max_sim(
    query: NDArray[np.float32],
    passages: Sequence[TokenVectors],
    weights: NDArray[np.float64] | None = None,
) -> list[float]:
    """Mean over the query's tokens of the best cosine among each passage's tokens.

    `query` is float32 [tokens, dimension], rows of length 1; `weights` are those of the mean, one
    for each token, None: all alike. Where query or passage has no token the score is -1, the
    least that a cosine can be.
    """
    filled = [passage for passage in passages if len(passage.scales)]
    if not filled or not len(query):
        return [-1.0] * len(passages)
    tokens = np.concatenate([passage.values for passage in filled]).astype(np.float32)
    scales = np.concatenate([passage.scales for passage in filled]).astype(np.float32)
    cosines = (query @ tokens.T) * scales
    starts = np.cumsum([0] + [len(passage.scales) for passage in filled[:-1]])
    best = np.average(np.maximum.reduceat(cosines, starts, axis=1), axis=0, weights=weights)
    scores = iter(np.clip(best, -1.0, 1.0).tolist())
    return [next(scores) if len(passage.scales) else -1.0 for passage in passages]


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def pad(ids: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token numbers and mask, int64 [texts, longest]. What is masked may hold any number."""
    width = max(map(len, ids))
    padded = np.zeros((len(ids), width), np.int64)
    mask = np.zeros((len(ids), width), np.int64)
    for row, one in enumerate(ids):
        padded[row, : len(one)] = one
        mask[row, : len(one)] = 1
    return padded, mask


def open_session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle threads that spin win microseconds here and take them from the service beside.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises bare Exceptions
        raise ModelNotUsable(f"{path} could not be loaded: {error}") from error


def open_tokenizer(folder: Path, max_tokens: int) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # so does tokenizers
        raise ModelNotUsable(f"{folder}/tokenizer.json could not be read: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelNotUsable(f"{path} is not valid JSON: {error}") from error
    return value if isinstance(value, dict) else {}
