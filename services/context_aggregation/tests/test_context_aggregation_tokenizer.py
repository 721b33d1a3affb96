"""The tokenizer out of the model's own file counts what the model counts."""

import os
import struct
from pathlib import Path

import pytest

from services.context_aggregation.gguf import NotGguf, read_metadata
from services.context_aggregation.settings import DEFAULT_MODEL
from services.context_aggregation.tokenizer import (
    _PATTERNS,
    TokenizerMissing,
    load_tokenizer,
)

MODEL = Path(os.environ.get("CONTEXT_TOKENIZER_PATH", DEFAULT_MODEL))
TEXTS = [
    "[1] Circuit breakers — When it opens\nIt opens after 5 failures in 10.5 s.",
    "O disjuntor abre após cinco falhas — métrica de recuperação, 1.000 ms.\n\n- item\n  - outro",
    "```python\nbreaker = Breaker(threshold=5)  # naïve\n```\n| a | b |\n|---|---|\n",
    "日本語 текст 😀 don't DON'T we'll\t\t tabs   spaces \u00a0 end ",
    "",
]


def string(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf(tokens, *, model="gpt2", pre="qwen2", kinds=None):
    """A GGUF header with a vocabulary, a number that nobody asks for, and no tensors."""
    kinds = kinds or [1] * len(tokens)
    items = [
        ("general.quantization_version", struct.pack("<II", 4, 2)),
        ("skipped.floats", struct.pack("<IIQ3f", 9, 6, 3, 1, 2, 3)),
        ("skipped.texts", struct.pack("<IIQ", 9, 8, 2) + string("a") + string("bc")),
        ("tokenizer.ggml.model", struct.pack("<I", 8) + string(model)),
        ("tokenizer.ggml.pre", struct.pack("<I", 8) + string(pre)),
        (
            "tokenizer.ggml.tokens",
            struct.pack("<IIQ", 9, 8, len(tokens)) + b"".join(map(string, tokens)),
        ),
        (
            "tokenizer.ggml.token_type",
            struct.pack(f"<IIQ{len(kinds)}i", 9, 5, len(kinds), *kinds),
        ),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(items))
    return head + b"".join(string(key) + value for key, value in items)


def byte_letters():
    from services.context_aggregation.tokenizer import _bytes_of_letters

    return list(_bytes_of_letters())


def test_a_small_vocabulary_merges_in_order(tmp_path):
    file = tmp_path / "small.gguf"
    tokens = [*byte_letters(), "th", "the", "Ġthe", "<|end|>"]
    file.write_bytes(gguf(tokens, kinds=[1] * (len(tokens) - 1) + [3]))
    tokenizer = load_tokenizer(file)
    at = {token: number for number, token in enumerate(tokens)}
    assert tokenizer.encode("the the") == [at["the"], at["Ġthe"]]
    assert tokenizer.encode("th\n") == [at["th"], at["Ċ"]]
    # a control token typed by somebody is text, and not one token
    assert tokenizer.count("<|end|>") == 7
    assert load_tokenizer(tmp_path).count("the the") == 2


def test_every_text_can_be_counted(tmp_path):
    for pre in _PATTERNS:
        (tmp_path / f"{pre}.gguf").write_bytes(gguf(byte_letters(), pre=pre))
        tokenizer = load_tokenizer(tmp_path / f"{pre}.gguf")
        for text in TEXTS:
            assert tokenizer.count(text) == len(text.encode())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "does not start"),
        (b"GGML....", "does not start"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (gguf(["a"])[:120], "fetch the model again"),
        (gguf(["a"], model="llama"), "tokenizer.json"),
        (gguf(["a"], pre="unheard-of"), "tokenizer.json"),
    ],
)
def test_a_file_that_will_not_do_says_what_to_do(tmp_path, content, says):
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with pytest.raises(TokenizerMissing, match=says):
        load_tokenizer(file)


def test_a_missing_file_names_the_setting(tmp_path):
    with pytest.raises(TokenizerMissing, match="CONTEXT_TOKENIZER_PATH"):
        load_tokenizer(tmp_path / "nowhere")
    (tmp_path / "x").write_bytes(b"GGUF")
    with pytest.raises(NotGguf):
        read_metadata(tmp_path / "x", {"a"})


def test_a_tokenizer_json_serves_as_well(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.enable_truncation(2)
    made.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).count("a b c a b") == 5
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerMissing, match=r"not a tokenizer\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.skipif(not list(MODEL.glob("*.gguf")) and not MODEL.is_file(), reason="no model here")
def test_the_default_model_s_ids_are_those_of_plain_byte_pair_encoding():
    """The reference: BPE by the model's own merge list, in the Hugging Face library."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    file = MODEL if MODEL.is_file() else next(MODEL.glob("*.gguf"))
    key = "tokenizer.ggml."
    found = read_metadata(file, {key + "tokens", key + "merges", key + "pre"})
    vocabulary = {token: number for number, token in enumerate(found[key + "tokens"])}
    merges = [tuple(line.split(" ")) for line in found[key + "merges"]]
    reference = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    reference.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERNS[found[key + "pre"]]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    ours = load_tokenizer(file)
    pages = [page.read_text("utf-8") for page in sorted(Path("handbook").glob("*/*.md"))[::12]]
    for text in TEXTS + pages:
        assert ours.encode(text) == reference.encode(text).ids
