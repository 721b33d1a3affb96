"""Builds the ONNX graph of a BERT sentence encoder, in float32 or int8.

Inputs (int64, [batch, tokens]): ``input_ids``, ``attention_mask`` (1 for a token, 0 for padding).
Outputs (float32): ``last_hidden_state`` [batch, tokens, hidden] and ``sentence_embedding``
[batch, hidden], the mean over the tokens, L2-normalised.

The int8 form quantises weights per output column and activations *per token* (ZeroQuant, Yao et
al. 2022). ONNX Runtime's own dynamic quantisation takes one scale for the whole batch, so that a
text's vector would depend on the texts beside it; here it does not, and it is more exact. Weights
keep seven bits: x86 processors without VNNI add pairs of products in 16 bits, which overflows with
eight, so that the same text would get another vector on another machine.

Fused operators are ONNX Runtime's (domain ``com.microsoft``).
"""

from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from workshop.model_conversion.bert import BertWeights, Q4Matrix

Precision = Literal["fp32", "int8"]

_FUSED = "com.microsoft"
_OPSET = 17
_IR_VERSION = 10
_WORDS = "embeddings.word_embeddings.weight"
_WEIGHT_PEAK = np.float32(63.0)
# GELU never falls below -0.17. Shifted up by that much its output fills all of uint8; the shift is
# taken back in the bias of the matrix product that follows.
_GELU_SHIFT = np.float32(0.17)


def build(weights: BertWeights, precision: Precision) -> bytes:
    """The encoder as a serialised ONNX model; the same weights always give the same bytes."""
    model: bytes = _Builder(weights, precision).model().SerializeToString(deterministic=True)
    return model


class _Builder:
    def __init__(self, weights: BertWeights, precision: Precision) -> None:
        self.weights = weights
        self.config = weights.config
        self.precision = precision
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.quantised: dict[str, tuple[str, str]] = {}

    def node(self, op: str, inputs: list[str], output: str, domain: str = "", **attrs: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], output, domain=domain, **attrs))
        return output

    def constant(self, name: str, value: NDArray[Any]) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def tensor(self, name: str) -> str:
        return self.constant(name, self.weights.tensors[name])

    def model(self) -> onnx.ModelProto:
        mask = self.node("Cast", ["attention_mask"], "mask", to=TensorProto.INT32)
        state = self.embeddings()
        for layer in range(self.config.num_hidden_layers):
            last = layer == self.config.num_hidden_layers - 1
            state = self.layer(
                f"encoder.layer.{layer}.", state, mask, "last_hidden_state" if last else f"h{layer}"
            )
        self.pooling(state)

        tokens, hidden = ["batch", "tokens"], self.config.hidden_size
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            f"bert-{self.precision}",
            [value(name, TensorProto.INT64, tokens) for name in ("input_ids", "attention_mask")],
            [
                value("last_hidden_state", TensorProto.FLOAT, [*tokens, hidden]),
                value("sentence_embedding", TensorProto.FLOAT, ["batch", hidden]),
            ],
            list(self.constants.values()),
        )
        return helper.make_model(
            graph,
            ir_version=_IR_VERSION,
            opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid(_FUSED, 1)],
            producer_name="rag-workshop",
        )

    def embeddings(self) -> str:
        words = self.words("input_ids")
        # There is one token type, so its vector is added to every position ahead of time.
        types = self.weights.tensors["embeddings.token_type_embeddings.weight"]
        positions = self.weights.tensors["embeddings.position_embeddings.weight"] + types[0]
        length = self.node("Shape", ["input_ids"], "length", start=1, end=2)
        start = self.constant("zero", np.array([0], np.int64))
        used = self.node("Slice", [self.constant("positions", positions), start, length], "used")
        return self.node(
            "LayerNormalization",
            [
                self.node("Add", [words, used], "embedded"),
                self.tensor("embeddings.LayerNorm.weight"),
                self.tensor("embeddings.LayerNorm.bias"),
            ],
            "embeddings",
            axis=-1,
            epsilon=self.config.layer_norm_eps,
        )

    def words(self, ids: str) -> str:
        """Word vectors: float32, the 4-bit blocks they came in, or int8 with a scale a row."""
        if self.precision == "fp32":
            return self.node("Gather", [self.tensor(_WORDS), ids], "words")
        if _WORDS in self.weights.q4:
            blocks = self.weights.q4[_WORDS]
            rows, count = blocks.scales.shape
            return self.node(
                "GatherBlockQuantized",
                [
                    # Two weights a byte, the earlier one in the low half.
                    self.constant(
                        "words.q4", blocks.nibbles[:, 0::2] | (blocks.nibbles[:, 1::2] << 4)
                    ),
                    ids,
                    self.constant("words.scale", blocks.scales),
                    self.constant("words.zero", np.full((rows, (count + 1) // 2), 0x88, np.uint8)),
                ],
                "words",
                _FUSED,
                bits=4,
                block_size=Q4Matrix.BLOCK,
                gather_axis=0,
                quantize_axis=1,
            )
        table = self.weights.tensors[_WORDS]
        scale = _scales(table, np.float32(127.0))[:, None]
        rounded = self.constant("words.q8", np.rint(table / scale).astype(np.int8))
        picked = self.node("Gather", [rounded, ids], "words.picked")
        as_float = self.node("Cast", [picked], "words.float", to=TensorProto.FLOAT)
        row_scale = self.node("Gather", [self.constant("words.scale", scale), ids], "words.row")
        return self.node("Mul", [as_float, row_scale], "words")

    def layer(self, prefix: str, state: str, mask: str, output: str) -> str:
        context = self.attention(prefix, state, mask)
        projected = self.linear([prefix + "attention.output.dense"], context)
        attended = self.skip_norm(
            prefix + "attention.output", projected, state, prefix + "attended"
        )
        inner = self.linear([prefix + "intermediate.dense"], attended)
        bias = self.tensor(prefix + "intermediate.dense.bias")
        active = self.node("BiasGelu", [inner, bias], prefix + "gelu", _FUSED)
        outer = self.linear([prefix + "output.dense"], active, shift=_GELU_SHIFT)
        return self.skip_norm(prefix + "output", outer, attended, output)

    def skip_norm(self, prefix: str, new: str, old: str, output: str) -> str:
        bias = prefix + ".dense.bias"
        norm = prefix + ".LayerNorm"
        return self.node(
            "SkipLayerNormalization",
            # A bias that takes back a shift was put there under this name by ``linear``.
            [
                new,
                old,
                self.tensor(norm + ".weight"),
                self.tensor(norm + ".bias"),
                self.tensor(bias),
            ],
            output,
            _FUSED,
            epsilon=self.config.layer_norm_eps,
        )

    def attention(self, prefix: str, state: str, mask: str) -> str:
        parts = [prefix + "attention.self." + name for name in ("query", "key", "value")]
        bias = self.constant(
            prefix + "qkv.bias",
            np.concatenate([self.weights.tensors[part + ".bias"] for part in parts]),
        )
        heads, output = self.config.num_attention_heads, prefix + "context"
        if self.precision == "fp32":
            inputs = [state, self.matrix(parts, prefix + "qkv"), bias, mask]
            return self.node("Attention", inputs, output, _FUSED, num_heads=heads)
        projected = [self.linear([part], state) for part in parts]
        return self.node(
            "MultiHeadAttention", [*projected, bias, mask], output, _FUSED, num_heads=heads
        )

    def matrix(self, parts: list[str], name: str) -> str:
        joined = np.concatenate([self.weights.tensors[part + ".weight"] for part in parts])
        return self.constant(name + ".weight", joined.T)

    def linear(self, parts: list[str], state: str, shift: np.float32 | None = None) -> str:
        """``state`` times a matrix; its bias is added by the operator that follows.

        With ``shift``, ``state`` is known to lie above ``-shift``.
        """
        (name,) = parts
        if self.precision == "fp32":
            return self.node("MatMul", [state, self.matrix(parts, name)], name)
        matrix = self.weights.tensors[name + ".weight"]
        scales = _scales(matrix, _WEIGHT_PEAK)
        values = np.rint(matrix / scales[:, None]).astype(np.int8)
        if shift is not None:
            # Summed as integers: float sums may differ in the last bit between processors.
            used = values.sum(axis=1, dtype=np.int64) * scales.astype(np.float64)
            bias = self.weights.tensors[name + ".bias"] - np.float64(shift) * used
            self.constant(name + ".bias", bias.astype(np.float32))
        rounded, row_scale = self.per_token(state, shift)
        product = self.node(
            "MatMulIntegerToFloat",
            [
                rounded,
                self.constant(name + ".weight", values.T),
                self.constant("one", np.array(1, np.float32)),
                self.constant(name + ".scale", scales),
                self.zero_point(shift),
            ],
            name + ".product",
            _FUSED,
        )
        return self.node("Mul", [product, row_scale], name)

    def zero_point(self, shift: np.float32 | None) -> str:
        if shift is None:
            return self.constant("zero.signed", np.array(128, np.uint8))
        return self.constant("zero.positive", np.array(0, np.uint8))

    def per_token(self, state: str, shift: np.float32 | None) -> tuple[str, str]:
        """(uint8 [batch, tokens, n], scale [batch, tokens, 1]) of a state."""
        if state in self.quantised:
            return self.quantised[state]
        if shift is None:
            source, levels = state, 127.0
            sized = self.node("Abs", [state], state + ".abs")
        else:
            source = self.node(
                "Add", [state, self.constant("gelu.shift", np.array(shift))], state + ".shifted"
            )
            sized, levels = source, 255.0
        peak = self.node("ReduceMax", [sized], state + ".peak", axes=[-1], keepdims=1)
        step = self.constant(f"step.{levels:.0f}", np.array(1.0 / levels, np.float32))
        floor = self.constant("scale.floor", np.array(1e-12, np.float32))
        scale = self.node(
            "Max", [self.node("Mul", [peak, step], state + ".step"), floor], state + ".scale"
        )
        scaled = self.node("Div", [source, scale], state + ".scaled")
        # A scale of one makes QuantizeLinear a fast round, shift and saturate.
        one = self.constant("one", np.array(1, np.float32))
        rounded = self.node("QuantizeLinear", [scaled, one, self.zero_point(shift)], state + ".q8")
        self.quantised[state] = rounded, scale
        return rounded, scale

    def pooling(self, state: str) -> None:
        weights = self.node("Cast", ["attention_mask"], "mask.float", to=TensorProto.FLOAT)
        axis = self.constant("pool.axis", np.array([1], np.int64))
        row = self.node("Unsqueeze", [weights, axis], "mask.row")
        # [batch, 1, tokens] x [batch, tokens, hidden] is the sum over the tokens. Dividing by
        # their number would change nothing: the L2 norm removes it.
        total = self.node("MatMul", [row, state], "pooled.row")
        pooled = self.node("Squeeze", [total, axis], "pooled")
        norm = self.node("ReduceL2", [pooled], "pooled.norm", axes=[1], keepdims=1)
        floor = self.constant("norm.floor", np.array(1e-12, np.float32))
        self.node("Div", [pooled, self.node("Max", [norm, floor], "norm")], "sentence_embedding")


def _scales(matrix: NDArray[np.float32], peak: np.float32) -> NDArray[np.float32]:
    """One scale a row, so that the row's largest weight becomes ``peak``."""
    return np.maximum(np.abs(matrix).max(axis=1), np.float32(1e-12)) / peak
