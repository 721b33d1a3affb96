"""BERT encoder weights as NumPy arrays: read them, write them as a sentence-transformers folder."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

Array = NDArray[np.float32]


@dataclass(frozen=True)
class BertConfig:
    """The sizes of a BERT encoder (Devlin et al. 2019), by their Hugging Face names."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    pad_token_id: int

    @classmethod
    def from_json(cls, path: Path) -> "BertConfig":
        """Read a Hugging Face ``config.json``; raises ValueError when it is not a GELU BERT."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.get("model_type") != "bert" or raw.get("hidden_act") != "gelu":
            raise ValueError(f"{path.name} does not describe a BERT encoder with GELU")
        return cls(**{name: raw[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Q4Matrix:
    """A matrix in ggml's Q4_0 form: blocks of 32 weights that share one scale.

    ``nibbles`` is uint8 [rows, columns], values 0..15 (weight = (nibble - 8) * scale);
    ``scales`` is float32 [rows, columns / 32].
    """

    nibbles: NDArray[np.uint8]
    scales: Array

    BLOCK = 32

    def dequantised(self) -> Array:
        """The weights as float32 [rows, columns]."""
        rows, columns = self.nibbles.shape
        blocks = self.nibbles.reshape(rows, -1, self.BLOCK).astype(np.float32) - 8.0
        return (blocks * self.scales[:, :, None]).reshape(rows, columns)


@dataclass(frozen=True)
class BertWeights:
    """Weights by their Hugging Face names (no ``bert.`` prefix); matrices are [out, in].

    ``q4`` holds the original 4-bit blocks of those matrices that came quantised.
    """

    config: BertConfig
    tensors: dict[str, Array]
    q4: dict[str, Q4Matrix] = field(default_factory=dict)

    @classmethod
    def from_folder(cls, folder: Path) -> "BertWeights":
        """Read ``config.json`` and ``model.safetensors`` of a Hugging Face folder."""
        tensors = {
            name.removeprefix("bert."): tensor.astype(np.float32)
            for name, tensor in load_file(folder / "model.safetensors").items()
            if tensor.dtype.kind == "f"
        }
        return cls(BertConfig.from_json(folder / "config.json"), tensors)


def layer_names(layer: int) -> Iterator[tuple[str, str]]:
    """The six matrices of a layer as (short name, Hugging Face prefix)."""
    prefix = f"encoder.layer.{layer}."
    yield "q", prefix + "attention.self.query"
    yield "k", prefix + "attention.self.key"
    yield "v", prefix + "attention.self.value"
    yield "ao", prefix + "attention.output.dense"
    yield "fi", prefix + "intermediate.dense"
    yield "fo", prefix + "output.dense"


def write_sentence_transformer(
    folder: Path,
    weights: BertWeights,
    *,
    tokenizer: dict[str, Any],
    tokenizer_config: dict[str, Any],
    max_tokens: int,
    prompts: dict[str, str],
) -> None:
    """Write a folder that ``SentenceTransformer(folder)`` and ``AutoModel`` load.

    Mean pooling and L2 normalisation are declared in ``modules.json``; prompts are the prefixes
    that queries and passages want. The bytes depend on nothing but the arguments.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {name: getattr(weights.config, name) for name in BertConfig.__dataclass_fields__}
    config |= {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "position_embedding_type": "absolute",
        "dtype": "float32",
    }
    _write_json(folder / "config.json", config)
    _write_json(folder / "tokenizer.json", tokenizer)
    _write_json(folder / "tokenizer_config.json", tokenizer_config)
    _write_json(
        folder / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {
                "idx": 1,
                "name": "1",
                "path": "1_Pooling",
                "type": "sentence_transformers.models.Pooling",
            },
            {
                "idx": 2,
                "name": "2",
                "path": "2_Normalize",
                "type": "sentence_transformers.models.Normalize",
            },
        ],
    )
    _write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": weights.config.hidden_size,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    )
    _write_json(
        folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False}
    )
    _write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    hidden = weights.config.hidden_size
    # Mean pooling does not use BERT's pooler; without one transformers warns that it is missing.
    pooler = {
        "pooler.dense.weight": np.zeros((hidden, hidden), np.float32),
        "pooler.dense.bias": np.zeros(hidden, np.float32),
    }
    save_file(weights.tensors | pooler, folder / "model.safetensors", metadata={"format": "pt"})


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")
