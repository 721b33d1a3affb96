"""The batcher over an encoder that the test holds back and lets go."""

import asyncio
import threading

import numpy as np
import pytest

from services.embedding.batching import Batcher, DeadlinePassed, next_batch
from services.embedding.domain import Prepared


class HeldEncoder:
    """Each run waits for `gate`; the vector of a text is its length. Keeps the batches it ran."""

    name, dimension, max_tokens = "held", 1, 512

    def __init__(self):
        self.gate = threading.Semaphore(0)
        self.started = threading.Semaphore(0)
        self.batches = []

    def prepare(self, texts, input_type):
        return [Prepared(text, range(len(text)), False) for text in texts]

    def run(self, batch):
        self.batches.append([item.text for item in batch])
        self.started.release()
        assert self.gate.acquire(timeout=5), "the test never let this batch go"
        if any("!" in item.text for item in batch):
            raise ValueError("a text the model cannot take")
        return np.array([[item.length] for item in batch], np.float32)


@pytest.fixture
def encoder():
    return HeldEncoder()


@pytest.fixture
async def batcher(encoder):
    batcher = Batcher(encoder, max_items=4, bulk_tokens=32, interactive_items=2)
    yield batcher
    encoder.gate.release(1000)
    await batcher.aclose()


async def started(encoder):
    assert await asyncio.to_thread(encoder.started.acquire, timeout=5)


def ask(batcher, encoder, *texts, **options):
    return asyncio.create_task(batcher.submit(encoder.prepare(texts, "query"), **options))


async def test_what_queues_while_the_model_is_busy_is_one_batch(batcher, encoder):
    first = ask(batcher, encoder, "aa")
    await started(encoder)
    rest = [ask(batcher, encoder, "b" * n) for n in (3, 4, 5)]
    await asyncio.sleep(0)
    encoder.gate.release(2)
    answers = await asyncio.gather(first, *rest)
    assert encoder.batches == [["aa"], ["bbb", "bbbb", "bbbbb"]]
    assert [vectors[0, 0] for vectors in answers] == [2, 3, 4, 5]


async def test_a_batch_has_texts_of_one_length_bucket_and_a_bounded_size(batcher, encoder):
    asked = [ask(batcher, encoder, "a")]
    await started(encoder)
    asked += [ask(batcher, encoder, text) for text in ("b", "c" * 30, "d", "e", "f", "g")]
    await asyncio.sleep(0)
    encoder.gate.release(9)
    await asyncio.gather(*asked)
    assert encoder.batches[1:] == [["b", "d", "e", "f"], ["c" * 30], ["g"]]


async def test_a_query_overtakes_a_long_list_that_still_gets_its_turns(batcher, encoder):
    listed = ask(batcher, encoder, *[letter * 10 for letter in "abcdefgh"])
    await started(encoder)
    query = ask(batcher, encoder, "q")
    await asyncio.sleep(0)
    encoder.gate.release(2)
    assert (await query)[0, 0] == 1
    assert encoder.batches[:2] == [["a" * 10, "b" * 10], ["q"]]
    assert not listed.done()

    # Queries keep coming, one after every run: the list is still worked off.
    for _ in range(30):
        await started(encoder)
        following = ask(batcher, encoder, "q")
        await asyncio.sleep(0)
        encoder.gate.release()
        if listed.done():
            break
        del following
    assert listed.done()
    assert (await listed)[:, 0].tolist() == [10] * 8


async def test_a_failing_batch_fails_its_own_callers_only(batcher, encoder):
    encoder.gate.release(2)
    bad = ask(batcher, encoder, "!")
    with pytest.raises(ValueError, match="cannot take"):
        await bad
    assert (await ask(batcher, encoder, "fine"))[0, 0] == 4


async def test_a_text_whose_time_ran_out_is_not_run(batcher, encoder):
    first = ask(batcher, encoder, "a")
    await started(encoder)
    late = ask(batcher, encoder, "late", seconds=0.0)
    await asyncio.sleep(0)
    encoder.gate.release(2)
    await first
    with pytest.raises(DeadlinePassed):
        await late
    assert encoder.batches == [["a"]]


async def test_a_caller_that_left_costs_no_run(batcher, encoder):
    first = ask(batcher, encoder, "a")
    await started(encoder)
    gone = ask(batcher, encoder, "gone")
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    encoder.gate.release(3)
    await first
    await ask(batcher, encoder, "next")
    assert encoder.batches == [["a"], ["next"]]


async def test_the_metrics_hook_is_told_size_tokens_and_waits(encoder):
    told = []
    batcher = Batcher(encoder, on_batch=lambda *values: told.append(values))
    encoder.gate.release()
    await batcher.submit(encoder.prepare(["abc", "de"], "query"))
    await batcher.aclose()
    ((texts, tokens, waits),) = told
    assert (texts, tokens, len(waits)) == (2, 5, 2)
    assert all(0 <= wait < 5 for wait in waits)


@pytest.mark.parametrize(
    ("lengths", "items", "tokens", "expected"),
    [
        ([5, 5, 5], 2, 512, [0, 1]),
        ([5, 40, 16, 17, 1], 8, 512, [0, 2, 4]),  # one bucket: 1 to 16 tokens
        ([20, 20, 20], 8, 64, [0, 1]),  # padded to 32 each
        ([600, 5], 8, 512, [0]),  # too long for the budget, and run all the same
        ([16, 17], 8, 512, [0]),
    ],
)
def test_the_next_batch_is_the_oldest_text_and_those_like_it(lengths, items, tokens, expected):
    assert next_batch(lengths, items, tokens) == expected


async def test_another_choice_is_followed(encoder):
    seen = []

    def longest_first(lengths, max_items, max_tokens):
        seen.append((list(lengths), max_items, max_tokens))
        return [max(range(len(lengths)), key=lengths.__getitem__)]

    batcher = Batcher(encoder, max_items=4, bulk_tokens=32, choose=longest_first)
    encoder.gate.release(3)
    vectors = await batcher.submit(encoder.prepare(["a", "ccc", "bb"], "query"))
    assert encoder.batches == [["ccc"], ["bb"], ["a"]]
    assert vectors[:, 0].tolist() == [1, 3, 2]
    assert seen[0] == ([1, 3, 2], 4, 128)
    await batcher.aclose()


@pytest.mark.parametrize("rows", [[], [7], [-1], None])
async def test_a_choice_that_is_none_fails_its_caller_and_the_queue_goes_on(encoder, rows):
    answers = [rows]
    batcher = Batcher(encoder, choose=lambda lengths, *_: answers.pop() if answers else [0])
    encoder.gate.release(9)
    with pytest.raises((ValueError, IndexError, TypeError)):
        await batcher.submit(encoder.prepare(["first", "second"], "query"))
    assert (await batcher.submit(encoder.prepare(["next"], "query")))[0, 0] == 4
    assert encoder.batches == [["next"]]
    await batcher.aclose()
