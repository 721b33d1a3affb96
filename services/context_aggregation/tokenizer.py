"""The tokenizer of the model that will read the context, loaded from the model's own files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from .gguf import NotGguf, read_metadata


class Tokenizer(Protocol):
    """Counts tokens as the model sees them, special tokens of the chat template left out."""

    def count(self, text: str) -> int: ...


class TokenizerMissing(Exception):
    """No tokenizer could be loaded; the message says what to do."""


class _Counting:
    def __init__(self, encode: Callable[[str], list[int]]) -> None:
        self._encode = encode

    def encode(self, text: str) -> list[int]:
        """Token ids."""
        return self._encode(text)

    def count(self, text: str) -> int:
        return len(self._encode(text))


def load_tokenizer(path: Path) -> _Counting:
    """The tokenizer in `path`: a `.gguf` file, a `tokenizer.json`, or a folder with one of them.

    Byte-level BPE of a GGUF file (GPT-2, Qwen2, Llama 3, SmolLM) runs on tiktoken: the same ids
    as the model's own tokenizer at a tenth of the memory of the general library. Any other kind
    needs its `tokenizer.json`. Raises TokenizerMissing.
    """
    file = _find(path)
    if file.suffix == ".gguf":
        return _from_gguf(file)
    from tokenizers import Tokenizer as HubTokenizer

    try:
        loaded = HubTokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception for a bad file
        raise TokenizerMissing(f"{file} is not a tokenizer.json: {error}") from error
    loaded.no_truncation()
    loaded.no_padding()
    return _Counting(lambda text: loaded.encode(text, add_special_tokens=False).ids)


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    if path.is_dir():
        for found in (path / "tokenizer.json", *sorted(path.glob("*.gguf"))):
            if found.is_file():
                return found
    raise TokenizerMissing(
        f"no .gguf and no tokenizer.json at {path}; fetch the language model with "
        "`workshop models fetch`, or set CONTEXT_TOKENIZER_PATH to the file of the model you use"
    )


# How text is cut into pieces before byte-level BPE, by the name that llama.cpp writes into
# `tokenizer.ggml.pre` (llama.cpp, src/llama-vocab.cpp).
_GPT2 = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SMOLLM = r"\p{N}|'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
_MODERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = {
    "gpt-2": _GPT2,
    "smollm": _SMOLLM,
    "qwen2": _MODERN.format(digits=""),
    "llama-bpe": _MODERN.format(digits="{1,3}"),
    "llama3": _MODERN.format(digits="{1,3}"),
}
_NORMAL = 1  # tokenizer.ggml.token_type of a token that BPE can produce


def _from_gguf(file: Path) -> _Counting:
    import tiktoken

    key = "tokenizer.ggml."
    try:
        found = read_metadata(
            file, {key + name for name in ("model", "pre", "tokens", "token_type")}
        )
    except NotGguf as error:
        raise TokenizerMissing(f"{error}; fetch the model again") from error
    pattern = _PATTERNS.get(found.get(key + "pre", ""))
    if found.get(key + "model") != "gpt2" or pattern is None:
        raise TokenizerMissing(
            f"{file.name} has a tokenizer of kind {found.get(key + 'model')}/"
            f"{found.get(key + 'pre')}, which is not known here; set CONTEXT_TOKENIZER_PATH to "
            "the tokenizer.json of the model"
        )
    byte_of = _bytes_of_letters()
    ranks = {
        bytes(byte_of[letter] for letter in token): rank
        for rank, (token, kind) in enumerate(
            zip(found[key + "tokens"], found[key + "token_type"], strict=True)
        )
        if kind == _NORMAL
    }
    encoding = tiktoken.Encoding(
        file.name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={}
    )
    ranks.clear()  # the encoding has its own copy; this one is 20 MB
    return _Counting(encoding.encode_ordinary)


def _bytes_of_letters() -> dict[str, int]:
    """GPT-2's spelling of the 256 bytes as printable letters (Radford et al., 2019), reversed."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return letters | {chr(256 + position): byte for position, byte in enumerate(others)}
