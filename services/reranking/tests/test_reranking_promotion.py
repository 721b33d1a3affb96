import json
import math

import numpy as np
import pytest

from services.chassis.testing import running
from services.reranking.api import create_app
from services.reranking.domain import ModelNotUsable
from services.reranking.late_interaction import LateInteraction, TokenEncoder, max_sim
from services.reranking.promotion import Decision, Evidence, Registry, decide
from services.reranking.settings import Settings
from services.reranking.store import PassageStore, TokenVectors
from services.reranking.weighting import TermWeights

QUESTIONS = [f"q{n}" for n in range(60)]
LANGUAGES = {question: "en" if n % 2 else "pt" for n, question in enumerate(QUESTIONS)}


def scores(change):
    """(serving, candidate): the candidate differs by `change(number)`."""
    draw = np.random.default_rng(1)
    serving = {question: float(draw.uniform(0.2, 0.8)) for question in QUESTIONS}
    return serving, {q: serving[q] + change(n) for n, q in enumerate(QUESTIONS)}


def evidence(change):
    serving, candidate = scores(change)
    return Evidence("the order of arrival", serving, candidate, LANGUAGES)


GOOD = evidence(lambda n: 0.03 + 0.01 * (n % 3))
NOISE = evidence(lambda n: 0.3 if n % 7 == 0 else -0.04)


# -- the gate -----------------------------------------------------------------------------


def test_a_small_steady_gain_is_promoted_because_questions_are_paired():
    decision = decide(*scores(lambda n: 0.01 + 0.005 * (n % 2)), LANGUAGES)
    assert decision.promoted
    assert 0.01 < decision.low < decision.mean < decision.high < 0.015


def test_a_mean_gain_whose_interval_holds_zero_is_refused():
    decision = decide(NOISE.serving, NOISE.candidate, LANGUAGES)
    assert decision.low < 0 < decision.mean < decision.high
    assert not decision.promoted
    assert "does not leave out zero" in str(decision)


def test_equal_and_worse_are_refused():
    assert not decide(*scores(lambda n: 0.0), LANGUAGES).promoted
    worse = decide(*scores(lambda n: -0.05), LANGUAGES)
    assert not worse.promoted
    assert "worse" in worse.reason


def test_a_language_that_loses_stops_a_promotion():
    serving, candidate = scores(lambda n: 0.2 if n % 2 else -0.03)
    decision = decide(serving, candidate, LANGUAGES)
    assert decision.low > 0
    assert not decision.promoted
    assert decision.reason == "pt loses 0.030"


def test_pairs_are_made_by_question_not_by_place():
    serving, candidate = scores(lambda n: 0.02)
    turned = dict(reversed(candidate.items()))
    assert decide(serving, turned, LANGUAGES).low == pytest.approx(0.02)


def test_other_questions_or_none_are_an_error():
    with pytest.raises(ValueError, match="same questions"):
        decide({"a": 1.0}, {"b": 1.0}, {})
    with pytest.raises(ValueError, match="at least one"):
        decide({}, {}, {})


# -- the weights --------------------------------------------------------------------------


def test_a_rarer_token_weighs_more_by_its_inverse_document_frequency():
    weights = TermWeights.count("e", [[1, 2, 2], [1], [1, 3]], rarity=1.0)
    assert (weights.passages, weights.holding) == (3, {1: 3, 2: 1, 3: 1})
    assert weights.of([2, 9, 1]) == pytest.approx(
        [math.log(4 / 1.5), math.log(4 / 0.5), 0.1335], 1e-3
    )
    squared = TermWeights("e", 2.0, 3, weights.holding).of([2])
    assert squared == pytest.approx([math.log(4 / 1.5) ** 2])
    assert TermWeights("e").of([1, 2]) is None


def test_the_artefact_is_read_back_and_equal_weights_have_equal_bytes():
    weights = TermWeights("e", 0.5, 2, {7: 1, 3: 2})
    assert TermWeights.from_bytes(weights.to_bytes()) == weights
    assert TermWeights("e", 0.5, 2, {3: 2, 7: 1}).to_bytes() == weights.to_bytes()


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"kind": "cross-encoder"}', b'{"holding": 3}'])
def test_another_file_is_no_artefact(raw):
    with pytest.raises(ModelNotUsable, match="no weights"):
        TermWeights.from_bytes(raw)


def test_weights_are_those_of_the_mean():
    query = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    passages = [TokenVectors.pack(np.array([row], np.float32)) for row in ([1.0, 0.0], [0.0, 1.0])]
    assert max_sim(query, passages, np.array([3.0, 1.0])) == pytest.approx([0.75, 0.25], abs=0.01)


# -- the registry -------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "registry")


def test_a_candidate_serves_only_after_the_gate(registry):
    assert registry.promoted() is None
    assert registry.load() is None
    refused = registry.add(TermWeights("e", 1.0, 1, {5: 1}), NOISE)
    assert not registry.promote(refused).promoted
    assert registry.load() is None
    version = registry.add(TermWeights("e", 0.5), GOOD)
    assert registry.promote(version).promoted
    assert registry.load() == (version, TermWeights("e", 0.5))
    assert not registry.promote(refused).promoted
    assert registry.promoted() == version
    assert registry.evidence(version) == GOOD


def test_withdrawing_and_removing(registry):
    version = registry.add(TermWeights("e"), GOOD)
    registry.promote(version)
    with pytest.raises(ValueError, match="withdraw it first"):
        registry.remove(version)
    registry.withdraw()
    assert registry.load() is None
    registry.remove(version)
    assert not list((registry.folder / "versions").iterdir())


@pytest.mark.parametrize("name", ["weights", "evidence"])
def test_a_changed_file_is_not_the_promoted_one(registry, name):
    version = registry.add(TermWeights("e"), GOOD)
    registry.promote(version)
    path = registry.folder / "versions" / version / f"{name}.json"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ModelNotUsable, match="its hash differs"):
        registry.load()


def test_what_was_promoted_past_the_gate_is_not_loaded(registry):
    version = registry.add(TermWeights("e"), NOISE)
    registry.promote(version, lambda *_: Decision(True, 1.0, 1.0, 1.0, "because"))
    with pytest.raises(ModelNotUsable, match="does not pass the gate"):
        registry.load()


@pytest.mark.parametrize("text", ["", "{}", '{"version": "../../x"}'])
def test_a_pointer_to_nothing_says_so(registry, text):
    registry.folder.mkdir()
    (registry.folder / "promoted.json").write_text(text)
    with pytest.raises(ModelNotUsable, match="names no version"):
        registry.load()


def test_a_version_is_a_hash_and_never_a_path(registry):
    with pytest.raises(ModelNotUsable, match="not the name of a version"):
        registry.evidence("../versions")


# -- in the service -----------------------------------------------------------------------


@pytest.fixture
def settings(token_model, tmp_path):
    return Settings(model_dir=token_model, data_dir=tmp_path, threads=1, max_tokens=24)


@pytest.fixture
def rare(settings):
    """Weights for which only the token of the letter z counts."""
    encoder = TokenEncoder(
        settings.model_dir, threads=1, max_tokens=24, max_query_tokens=settings.max_query_tokens
    )
    (encoding,) = encoder.tokenize(["a"], "passage")
    (common,) = encoder.tokens(encoding, "passage")
    return TermWeights(encoder.fingerprint, 3.0, 1000, {common: 1000})


async def order(client):
    body = {"query": "a a a z", "documents": ["a a", "z"]}
    answer = (await client.post("/v1/rerank", json=body)).json()
    return answer["model"], [result["index"] for result in answer["results"]]


async def test_the_service_loads_what_is_promoted_and_says_so(settings, rare):
    async with running(create_app(settings)) as client:
        assert await order(client) == ("late-interaction/tiny", [0, 1])
    registry = Registry(settings.registry_folder)
    version = registry.add(rare, GOOD)
    async with running(create_app(settings)) as client:
        assert await order(client) == ("late-interaction/tiny", [0, 1])
    registry.promote(version)
    async with running(create_app(settings)) as client:
        assert await order(client) == (f"late-interaction/tiny@{version}", [1, 0])
        (model,) = (await client.get("/v1/models")).json()["data"]
        assert model["id"].endswith(f"@{version}")


async def test_a_model_that_its_gate_refuses_is_never_ready(settings, rare):
    registry = Registry(settings.registry_folder)
    registry.promote(registry.add(rare, GOOD))

    def refuse(*_):
        return Decision(False, 0.0, 0.0, 0.0, "I say no")

    with pytest.raises(RuntimeError, match="I say no"):
        async with running(create_app(settings, gate=refuse)):
            pass


async def test_a_changed_artefact_is_never_ready(settings, rare):
    registry = Registry(settings.registry_folder)
    version = registry.add(rare, GOOD)
    registry.promote(version)
    path = registry.folder / "versions" / version / "weights.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rarity": 9}))
    with pytest.raises(RuntimeError, match="its hash differs"):
        async with running(create_app(settings)):
            pass


async def test_the_service_scores_with_what_it_was_given(settings):
    def backwards(query, passages, weights):
        assert weights is None
        return [-score for score in max_sim(query, passages)]

    async with running(create_app(settings, score=backwards)) as client:
        assert (await order(client))[1] == [1, 0]


async def test_scores_may_be_numpy_s_and_are_held_to_their_range(settings):
    def above_one(query, passages, weights):
        return np.array([1.003, -0.5], np.float32)[: len(passages)]

    async with running(create_app(settings, score=above_one)) as client:
        body = {"query": "a", "documents": ["a", "z"]}
        results = (await client.post("/v1/rerank", json=body)).json()["results"]
        assert [result["relevance_score"] for result in results] == [1.0, 0.25]


def test_weights_of_another_encoder_are_refused(settings, token_model, tmp_path):
    encoder = TokenEncoder(token_model, threads=1, max_tokens=24)
    store = PassageStore(
        tmp_path,
        fingerprint=encoder.fingerprint,
        dimension=encoder.dimension,
        memory_bytes=1000,
        disk_bytes=1000,
    )
    try:
        with pytest.raises(ModelNotUsable, match="another encoder"):
            LateInteraction(encoder, store, promoted=("0" * 12, TermWeights("other")))
    finally:
        store.close()
