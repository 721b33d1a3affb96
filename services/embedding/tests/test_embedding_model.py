"""The real bilingual model. Skipped where it is not fetched."""

import re

import numpy as np
import pytest

from services.chassis.testing import running
from services.embedding.api import create_app
from services.embedding.domain import Encoder
from services.embedding.reference import SentenceTransformersEncoder
from services.embedding.settings import Settings

from .conftest import ROOT


@pytest.fixture(scope="module")
def encoder(fetched_model):
    return Encoder.load(fetched_model)


@pytest.fixture(scope="module")
def sections():
    """Forty sections of the handbook, in both languages, of all lengths."""
    texts = [
        section.strip()
        for page in sorted((ROOT / "handbook").glob("*/*.md"))
        for section in re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.M)[1:]
    ]
    return texts[:: max(1, len(texts) // 40)][:40]


def cosines(left, right):
    return (left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


@pytest.mark.slow
def test_it_agrees_with_the_reference_runtime(encoder, sections, fetched_model):
    reference = SentenceTransformersEncoder(str(fetched_model))
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)  # several wait for one another on processors that have other work
    assert reference.dimension == encoder.dimension == 384
    for input_type in ("passage", "query"):
        ours, theirs = (
            runtime.encode(sections, input_type=input_type) for runtime in (encoder, reference)
        )
        assert cosines(ours, theirs).min() >= 0.99


def test_both_runtimes_see_the_same_tokens(encoder, sections, fetched_model):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(fetched_model)
    for text, item in zip(sections, encoder.prepare(sections, "passage"), strict=True):
        theirs = tokenizer("passage: " + text, truncation=True, max_length=encoder.max_tokens)
        assert list(item.ids) == theirs["input_ids"]


def test_a_vector_does_not_depend_on_the_rest_of_the_batch(encoder, sections):
    texts = [*sorted(sections, key=len)[:6], "What is a breaker?", "O que é um disjuntor?"]
    items = encoder.prepare(texts, "passage")
    together = encoder.run(items)
    for item, vector in zip(items, together, strict=True):
        assert np.abs(encoder.run([item])[0] - vector).max() <= 1e-6


def test_a_question_finds_its_answer_across_languages(encoder):
    question = encoder.encode(["Quando um circuit breaker abre?"])[0]
    passages = encoder.encode(
        [
            "A circuit breaker opens after several failures in a row.",
            "BM25 weighs a term by how rare it is in the collection.",
            "A container shares the kernel of its host.",
        ],
        input_type="passage",
    )
    assert int((passages @ question).argmax()) == 0


@pytest.mark.slow
async def test_the_service_runs_sentence_transformers_by_one_setting(fetched_model, tmp_path):
    settings = Settings(
        runtime="sentence-transformers",
        model=str(fetched_model),
        english_model_dir=tmp_path / "absent",
    )
    async with running(create_app(settings), timeout=60) as client:
        answer = (await client.post("/v1/embeddings", json={"input": "What is a breaker?"})).json()
        (model,) = (await client.get("/v1/models")).json()["data"]
    assert (model["dimension"], model["runtime"]) == (384, "sentence-transformers")
    ours = Encoder.load(fetched_model).encode(["What is a breaker?"])
    assert cosines(np.array([answer["data"][0]["embedding"]]), ours)[0] >= 0.99
