"""A trained cross-encoder as int8 ONNX: the encoder's graph, with a head that gives a logit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .model_conversion.bert import BertWeights
from .model_conversion.onnx_graph import build


def export_int8(trained: Path, folder: Path, *, max_tokens: int) -> Path:
    """Write `model.onnx`, `tokenizer.json` and `config.json`; returns the path of the first.

    `trained` is a Hugging Face folder of a BERT sequence classifier with one label. Inputs of the
    model: `input_ids`, `attention_mask`, `token_type_ids`, int64 [pairs, tokens]; output:
    `logits`, float32 [pairs, 1]. Weights are int8, activations are quantised per token, so a
    pair's logit does not depend on the pairs beside it.
    """
    weights = BertWeights.from_folder(trained)
    model = onnx.load_from_string(build(weights, "int8"))
    _read_token_types(model.graph, weights)
    _add_head(model.graph, weights)
    onnx.checker.check_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    shutil.copyfile(trained / "tokenizer.json", folder / "tokenizer.json")
    (folder / "config.json").write_text(json.dumps({"max_tokens": max_tokens}) + "\n")
    return path


def _read_token_types(graph: onnx.GraphProto, weights: BertWeights) -> None:
    """The encoder adds type 0 to every token; add the difference to those of the passage."""
    types = weights.tensors["embeddings.token_type_embeddings.weight"]
    at, embedded = next(
        (at, node) for at, node in enumerate(graph.node) if node.output[0] == "embedded"
    )
    words = embedded.input[0]
    embedded.input[0] = "typed"
    graph.node.insert(at, helper.make_node("Add", [words, "types"], ["typed"]))
    graph.node.insert(
        at, helper.make_node("Gather", ["types.difference", "token_type_ids"], ["types"])
    )
    graph.initializer.append(numpy_helper.from_array(types - types[0], "types.difference"))
    graph.input.append(
        helper.make_tensor_value_info("token_type_ids", TensorProto.INT64, ["batch", "tokens"])
    )


def _add_head(graph: onnx.GraphProto, weights: BertWeights) -> None:
    """BERT's classifier in place of the pooling: tanh of the first token's state, one logit."""
    last = next(at for at, node in enumerate(graph.node) if node.output[0] == "last_hidden_state")
    del graph.node[last + 1 :]
    del graph.output[:]
    names = ("pooler.dense.weight", "pooler.dense.bias", "classifier.weight", "classifier.bias")
    for name in names:
        graph.initializer.append(numpy_helper.from_array(weights.tensors[name], name))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), "first"))
    pooler, classifier = list(names[:2]), list(names[2:])
    graph.node.extend(
        [
            helper.make_node("Gather", ["last_hidden_state", "first"], ["cls"], axis=1),
            helper.make_node("Gemm", ["cls", *pooler], ["pooled"], transB=1),
            helper.make_node("Tanh", ["pooled"], ["active"]),
            helper.make_node("Gemm", ["active", *classifier], ["logits"], transB=1),
        ]
    )
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1]))
    used = {name for node in graph.node for name in node.input}
    unused = [tensor for tensor in graph.initializer if tensor.name not in used]
    for tensor in unused:
        graph.initializer.remove(tensor)
