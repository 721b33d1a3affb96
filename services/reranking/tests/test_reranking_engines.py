import itertools
import time

import pytest

from services.reranking.cross_encoder import OnnxCrossEncoder
from services.reranking.domain import ModelNotUsable, Pace, TimeLeft
from services.reranking.late_interaction import LateInteraction, TokenEncoder
from services.reranking.store import PassageStore

TEXTS = ["x y z", "a b c", "c d e", "b q r s"]


@pytest.fixture
def late(token_model, tmp_path):
    encoder = TokenEncoder(token_model, threads=1, max_tokens=24)
    store = PassageStore(
        tmp_path,
        fingerprint=encoder.fingerprint,
        dimension=encoder.dimension,
        memory_bytes=100_000,
        disk_bytes=100_000,
    )
    yield LateInteraction(encoder, store, batch_tokens=32)
    store.close()


@pytest.fixture
def cross(cross_encoder_folder):
    return OnnxCrossEncoder(cross_encoder_folder, threads=1, batch_tokens=32)


@pytest.fixture(params=["late", "cross"])
def engine(request):
    return request.getfixturevalue(request.param)


def test_passages_that_share_more_with_the_query_score_higher(engine):
    scores = engine.score("a b c", TEXTS, TimeLeft(10))
    assert max(range(4), key=scores.__getitem__) == 1
    assert scores[1] > scores[2]
    assert all(0 <= score <= 1 for score in scores)


def test_a_score_does_not_depend_on_the_other_passages(engine):
    together = engine.score("a b", TEXTS, TimeLeft(10))
    alone = [engine.score("a b", [text], TimeLeft(10))[0] for text in TEXTS]
    assert together == pytest.approx(alone, abs=1e-6)


def test_the_first_passages_are_scored_when_the_time_is_short(engine):
    ticks = itertools.count(step=0.1)  # each look at the clock takes a tenth of a second
    time_left = TimeLeft(0.25, clock=lambda: next(ticks))
    scores = engine.score("a b", [f"{letter} b c d e f" for letter in "qrstuvwxyz"], time_left)
    known = [score is not None for score in scores]
    assert known == sorted(known, reverse=True)
    assert 0 < sum(known) < 10


def test_repeated_passages_get_the_same_score(engine):
    scores = engine.score("a b", ["a c", "x", "a c"], TimeLeft(10))
    assert scores[0] == scores[2] != scores[1]


def test_a_long_passage_is_cut(engine):
    cut, whole = engine.score("a", ["b " * 100 + "a", "a"], TimeLeft(10))
    assert cut < whole


def test_prefix_and_special_tokens_have_no_vectors(late):
    (vectors,) = late.encoder.encode(["a b c"], "passage")
    assert vectors.shape == (3, late.encoder.dimension)


def test_punctuation_counts_in_passages_and_not_in_queries(late):
    def tokens(text, kind):
        return len(late.encoder.encode([text], kind)[0])

    assert (tokens("a , b ?", "passage"), tokens("a , b ?", "query")) == (4, 2)
    assert tokens("? !", "query") == 2  # nothing else to go by


def test_passages_are_encoded_once(late):
    assert late.put(["a b", "c d", "a b"]) == (2, 0)
    assert late.put(["c d", "e f"]) == (1, 1)
    runs = []
    run = late.encoder.session.run
    late.encoder.session = type(
        "Counted", (), {"run": lambda _, *a: (runs.append(a), run(*a))[1]}
    )()
    late.score("a", ["a b", "c d", "e f"], TimeLeft(10))
    assert len(runs) == 1  # the query


def test_known_passages_are_ranked_even_with_no_time_to_encode_others(late):
    late.put(["a b", "c d"])
    pace = Pace()
    pace.learn(1, 10.0)
    scores = late.score("a", ["x y", "a b", "c d"], TimeLeft(1.0, pace))
    assert [score is None for score in scores] == [True, False, False]


def test_another_token_limit_is_another_fingerprint(token_model):
    one, other = (TokenEncoder(token_model, max_tokens=limit).fingerprint for limit in (24, 16))
    assert one != other


def test_a_folder_without_a_model_says_what_to_do(tmp_path):
    with pytest.raises(ModelNotUsable, match=r"no model\.onnx.*fetch the models"):
        TokenEncoder(tmp_path)
    with pytest.raises(ModelNotUsable, match="train-reranker"):
        OnnxCrossEncoder(tmp_path)


@pytest.mark.slow
def test_real_token_vectors_find_the_answer_in_both_languages(fetched_model, tmp_path):
    encoder = TokenEncoder(fetched_model)
    store = PassageStore(
        tmp_path,
        fingerprint=encoder.fingerprint,
        dimension=encoder.dimension,
        memory_bytes=10**7,
        disk_bytes=10**7,
    )
    engine = LateInteraction(encoder, store)
    passages = [
        "BM25 weighs a term by how rare it is in the collection.",
        "A circuit breaker opens after several failures in a row and rejects calls at once.",
        "Um container compartilha o kernel da máquina em que roda.",
    ]
    engine.put(passages)
    started = time.perf_counter()
    breaker = engine.score("When does a breaker reject calls?", passages, TimeLeft(10))
    kernel = engine.score("O container tem um kernel próprio?", passages, TimeLeft(10))
    assert time.perf_counter() - started < 2.0
    store.close()
    assert max(range(3), key=breaker.__getitem__) == 1
    assert max(range(3), key=kernel.__getitem__) == 2
