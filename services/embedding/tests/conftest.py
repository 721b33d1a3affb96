"""A real, very small ONNX encoder, and the fetched models where they are there."""

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
WORDS = ["<pad>", "<s>", "</s>", "<unk>", "query", "passage", ":", *"abcdefghijklmnopqrstuvwxyz"]
DIMENSION = 8


def write_tiny_model(folder: Path, *, prompts: dict[str, str], max_tokens: int = 16) -> Path:
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

    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": max_tokens}))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    return folder


@pytest.fixture(scope="session")
def bilingual_folder(tmp_path_factory):
    prompts = {"query": "query: ", "passage": "passage: "}
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny-two", prompts=prompts)


@pytest.fixture(scope="session")
def english_folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny-en", prompts={})


@pytest.fixture(scope="session")
def fetched_model():
    """The folder of the real bilingual model."""
    folder = ROOT / ".workshop/models/multilingual-e5-small-enpt"
    if not (folder / "model.onnx").is_file():
        pytest.skip(f"the model is not fetched ({folder}); `make lab` fetches it")
    return folder
