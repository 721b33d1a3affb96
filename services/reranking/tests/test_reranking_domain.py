import numpy as np
import pytest

from services.reranking.domain import Pace, TimeLeft, rank, sigmoid
from services.reranking.late_interaction import max_sim
from services.reranking.store import PassageStore, TokenVectors


class FixedScores:
    kind, model = "fixed", "fixed"

    def __init__(self, *scores):
        self.scores = scores

    def score(self, query, texts, time_left):
        return list(self.scores)


def test_the_best_score_is_first_and_ties_keep_the_incoming_order():
    ranking = rank(FixedScores(0.2, 0.9, 0.2, 0.5), "q", ["a", "b", "c", "d"], TimeLeft(1))
    assert [item.index for item in ranking.results] == [1, 3, 0, 2]
    assert ranking.complete


def test_what_was_not_scored_follows_in_its_incoming_order():
    ranking = rank(FixedScores(0.1, None, 0.9, None), "q", ["a", "b", "c", "d"], TimeLeft(1))
    assert [item.index for item in ranking.results] == [2, 0, 1, 3]
    assert [item.score for item in ranking.results] == [0.9, 0.1, 0.0, 0.0]
    assert (ranking.ranked, ranking.complete) == (2, False)


class Clock:
    """A model that takes `per_token` seconds for each token, and a clock that it moves on."""

    def __init__(self, per_token):
        self.now, self.per_token = 0.0, per_token

    def rows_run(self, lengths, seconds, pace, batch_tokens=10**9):
        """One request's batches."""
        found = []
        for rows in TimeLeft(seconds, pace, clock=lambda: self.now).runs(lengths, batch_tokens):
            found.append(rows)
            self.now += max(lengths[row] for row in rows) * len(rows) * self.per_token
        return found


def test_a_deadline_learns_what_still_fits():
    pace, model = Pace(), Clock(per_token=0.001)
    assert model.rows_run([1000] * 9, 1.0, pace) == [list(range(9))]  # nothing was known yet
    assert pace.seconds_per_token == pytest.approx(0.001)
    assert model.rows_run([300] * 9, 1.0, pace) == [[0, 1, 2]]
    assert model.rows_run([300], 0.0, pace) == []


def test_a_batch_is_no_larger_than_the_time_for_it():
    pace = Pace()
    pace.learn(1, 0.001)
    assert Clock(0.001).rows_run([100] * 20, 0.45, pace, batch_tokens=1000) == [[0, 1, 2, 3]]


def test_what_one_busy_moment_taught_keeps_nothing_from_running_for_good():
    pace, model = Pace(), Clock(per_token=0.001)
    pace.learn(100, 10.0)  # a hundred times slower
    before = [model.rows_run([200], 1.0, pace) for _ in range(20)]
    assert before[0] == []
    assert before[-1] == [[0]]
    assert model.rows_run([200], 1.0, pace) == [[0]]


def test_sigmoid_is_monotone_within_zero_and_one_and_never_overflows():
    values = [sigmoid(x) for x in (-1e4, -3.0, 0.0, 3.0, 1e4)]
    assert values == sorted(values)
    assert values[0] == 0.0
    assert values[2] == 0.5
    assert values[-1] == 1.0


def packed(*rows):
    return TokenVectors.pack(np.array(rows, np.float32).reshape(len(rows), -1))


def test_max_sim_is_the_mean_of_each_query_tokens_best_cosine():
    query = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    both, one = packed([0.0, 1.0], [1.0, 0.0]), packed([1.0, 0.0])
    slanted = packed([0.6, 0.8])
    assert max_sim(query, [both, one, slanted]) == pytest.approx([1.0, 0.5, 0.7], abs=0.01)


def test_max_sim_without_tokens_is_the_least_score():
    query = np.array([[1.0, 0.0]], np.float32)
    empty = TokenVectors.pack(np.zeros((0, 2), np.float32))
    assert max_sim(query, [empty, packed([1.0, 0.0])]) == pytest.approx([-1.0, 1.0])
    assert max_sim(np.zeros((0, 2), np.float32), [packed([1.0, 0.0])]) == [-1.0]


def test_packing_keeps_each_component_within_half_a_step():
    vectors = np.random.default_rng(3).normal(size=(40, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kept = TokenVectors.pack(vectors)
    again = TokenVectors.from_bytes(kept.to_bytes(), 16)
    step = np.abs(vectors).max(axis=1, keepdims=True) / 127
    assert np.all(np.abs(again.unpack() - vectors) <= step / 2 + 1e-7)
    assert kept.nbytes == len(kept.to_bytes()) == 40 * (16 + 4)


def test_batches_keep_the_order_and_the_token_budget():
    lengths = [10, 30, 5, 50, 200, 4, 4]
    found = list(TimeLeft(60.0).runs(lengths, 100))
    assert [row for batch in found for row in batch] == list(range(7))
    assert found == [[0, 1, 2], [3], [4], [5, 6]]


@pytest.fixture
def open_store(tmp_path):
    opened = []

    def make(memory_bytes=10_000, disk_bytes=10_000, fingerprint="m1"):
        store = PassageStore(
            tmp_path,
            fingerprint=fingerprint,
            dimension=2,
            memory_bytes=memory_bytes,
            disk_bytes=disk_bytes,
        )
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


def test_what_was_put_is_there_after_a_restart(open_store):
    store = open_store()
    store.put({"a": packed([1.0, 0.0]), "b": packed([0.0, 1.0], [0.6, 0.8])})
    store.close()
    again = open_store()
    assert again.missing(["a", "c", "b"]) == ["c"]
    np.testing.assert_allclose(again.get(["b"])["b"].unpack(), [[0, 1], [0.6, 0.8]], atol=0.01)


def test_vectors_of_two_models_never_meet(open_store):
    open_store(fingerprint="m1").put({"a": packed([1.0, 0.0])})
    assert open_store(fingerprint="m2").missing(["a"]) == ["a"]


def test_memory_is_bounded_and_the_rest_comes_from_disk(open_store):
    store = open_store(memory_bytes=20)  # room for three passages of one token
    texts = [f"passage {number}" for number in range(9)]
    store.put({text: packed([1.0, 0.0]) for text in texts})
    assert store._in_memory <= 20
    assert set(store.get(texts)) == set(texts)
    assert store._in_memory <= 20


def test_the_disk_is_bounded_and_the_oldest_go_first(open_store):
    store = open_store(disk_bytes=18)
    for text in "abcd":
        store.put({text: packed([1.0, 0.0])})
    assert store.missing(list("abcd")) == ["a"]
    assert len(store) == 3
