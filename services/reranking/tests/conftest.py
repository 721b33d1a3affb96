"""Real, very small ONNX models, and the fetched ones where they are there."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

ROOT = Path(__file__).parents[3]
WORDS = [
    *("<pad>", "<s>", "</s>", "<unk>", "query", "passage", ":", ",", "?", "!"),
    *"abcdefghijklmnopqrstuvwxyz",
]
DIMENSION = 8


def tokenizer() -> Tokenizer:
    """One token a word; letters are the only words known."""
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B:1 </s>:1",
        special_tokens=[("<s>", 1), ("</s>", 2)],
    )
    return words


def write_tiny_model(folder: Path, *, prompts: dict[str, str], max_tokens: int = 24) -> Path:
    """Mean of random word vectors, normalised: a sentence encoder without the transformer."""
    folder.mkdir()
    table = np.random.default_rng(7).normal(size=(len(WORDS), DIMENSION)).astype(np.float32)
    constants = {
        "table": table,
        "axis1": np.array([1], np.int64),
        "axis2": np.array([2], np.int64),
    }
    nodes = [
        ("Gather", ["table", "input_ids"], "last_hidden_state", {}),
        ("Cast", ["attention_mask"], "mask", {"to": TensorProto.FLOAT}),
        ("Unsqueeze", ["mask", "axis2"], "column", {}),
        ("Mul", ["last_hidden_state", "column"], "kept", {}),
        ("ReduceSum", ["kept", "axis1"], "total", {"keepdims": 0}),
        ("LpNormalization", ["total"], "sentence_embedding", {"axis": 1, "p": 2}),
    ]
    tokens = ["batch", "tokens"]
    graph = helper.make_graph(
        [helper.make_node(op, inputs, [out], **attrs) for op, inputs, out, attrs in nodes],
        "tiny",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, tokens)
            for name in ("input_ids", "attention_mask")
        ],
        [
            helper.make_tensor_value_info(
                "last_hidden_state", TensorProto.FLOAT, [*tokens, DIMENSION]
            ),
            helper.make_tensor_value_info(
                "sentence_embedding", TensorProto.FLOAT, ["batch", DIMENSION]
            ),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, folder / "model.onnx")

    tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": max_tokens}))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    return folder


def write_tiny_cross_encoder(folder: Path) -> Path:
    """logit = pairs of equal words between query and passage, minus one."""
    folder.mkdir()
    table = np.eye(len(WORDS), dtype=np.float32)
    table[:10] = 0.0  # special tokens and prefix words count nothing
    constants = {
        "table": table,
        "axis1": np.array([1], np.int64),
        "axis2": np.array([2], np.int64),
        "shift": np.array(-1.0, np.float32),
    }
    nodes = [
        ("Gather", ["table", "input_ids"], "words", {}),
        ("Cast", ["attention_mask"], "mask", {"to": TensorProto.FLOAT}),
        ("Cast", ["token_type_ids"], "second", {"to": TensorProto.FLOAT}),
        ("Sub", ["mask", "second"], "first", {}),
        ("Unsqueeze", ["first", "axis2"], "first_column", {}),
        ("Unsqueeze", ["second", "axis2"], "second_column", {}),
        ("Mul", ["words", "first_column"], "query_words", {}),
        ("Mul", ["words", "second_column"], "passage_words", {}),
        ("ReduceSum", ["query_words", "axis1"], "query_counts", {"keepdims": 0}),
        ("ReduceSum", ["passage_words", "axis1"], "passage_counts", {"keepdims": 0}),
        ("Mul", ["query_counts", "passage_counts"], "common", {}),
        ("ReduceSum", ["common", "axis1"], "overlap", {"keepdims": 1}),
        ("Add", ["overlap", "shift"], "logits", {}),
    ]
    tokens = ["batch", "tokens"]
    graph = helper.make_graph(
        [helper.make_node(op, inputs, [out], **attrs) for op, inputs, out, attrs in nodes],
        "tiny",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, tokens)
            for name in ("input_ids", "attention_mask", "token_type_ids")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, folder / "model.onnx")
    tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"max_tokens": 24}))
    return folder


@pytest.fixture(scope="session")
def token_model(tmp_path_factory):
    prompts = {"query": "query: ", "passage": "passage: "}
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny", prompts=prompts)


@pytest.fixture(scope="session")
def cross_encoder_folder(tmp_path_factory):
    return write_tiny_cross_encoder(tmp_path_factory.mktemp("models") / "cross-encoder")


@pytest.fixture(scope="session")
def fetched_model():
    """The folder of the real bilingual model."""
    folder = ROOT / ".workshop/models/multilingual-e5-small-enpt"
    if not (folder / "model.onnx").is_file():
        pytest.skip(f"the model is not fetched ({folder}); `make lab` fetches it")
    return folder
