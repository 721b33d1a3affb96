"""The checks of lesson 02."""

from __future__ import annotations

import numpy as np

from workshop.exercises import check

TWO_TOKENS = np.array([[[6.0, 0.0], [0.0, 8.0], [9.0, 1.0]]], np.float32)
MASK = np.array([[1, 1, 0]], np.int64)


def pooled(module, hidden, mask):
    found = module.mean_pool(hidden.copy(), mask.copy())
    assert found is not None, "the function returns nothing: is there a return?"
    return np.asarray(found, np.float64)


def random_batch(lengths, dimension=5):
    hidden = np.random.default_rng(3).normal(size=(len(lengths), max(lengths), dimension))
    mask = np.array([[1] * n + [0] * (max(lengths) - n) for n in lengths], np.int64)
    return hidden.astype(np.float32), mask


@check("02.1", "embedding", "pooling.py")
def by_hand(pooling):
    """Two tokens, (6, 0) and (0, 8), give (0.6, 0.8)."""
    found = pooled(pooling, TWO_TOKENS, MASK)
    assert found.shape == (1, 2), f"got the shape {found.shape}: one vector a text is [1, 2]"
    assert not np.allclose(found, [[3, 4]]), "that is the mean (3, 4): bring it to length 1"
    assert not np.allclose(found, np.array([[5, 3]]) / np.sqrt(34), atol=1e-3), (
        "the padding (9, 1) is in the mean: multiply by the mask before you add up"
    )
    assert np.allclose(found, [[0.6, 0.8]], atol=1e-5), (
        f"got {found.round(3).tolist()}: the mean is (3, 4), its length 5, so (0.6, 0.8)"
    )


@check("02.1", "embedding", "pooling.py")
def every_row_has_length_one(pooling):
    """Each vector of a batch has length 1."""
    hidden, mask = random_batch([3, 7, 5])
    lengths = np.linalg.norm(pooled(pooling, hidden * 10, mask), axis=1)
    assert lengths.shape == (3,), "three texts give three vectors"
    assert np.allclose(lengths, 1, atol=1e-4), (
        f"the lengths are {lengths.round(2).tolist()}: divide each row by its own length, "
        "with axis=1"
    )


@check("02.1", "embedding", "pooling.py")
def padding_is_not_seen(pooling):
    """What stands in the padding changes nothing."""
    hidden, mask = random_batch([3, 7])
    first = pooled(pooling, hidden, mask)
    hidden[mask == 0] = 1000.0
    assert np.allclose(pooled(pooling, hidden, mask), first, atol=1e-5), (
        "the vector changes with the numbers in the padding: a position with mask 0 must not count"
    )


@check("02.1", "embedding", "pooling.py")
def alone_as_together(pooling):
    """A text alone has the vector that it has beside a longer one."""
    hidden, mask = random_batch([3, 7])
    together = pooled(pooling, hidden, mask)[:1]
    alone = pooled(pooling, hidden[:1, :3], mask[:1, :3])
    assert np.allclose(alone, together, atol=1e-5), (
        "the same text has another vector when a longer one stands beside it: is the mask used?"
    )


@check("02.1", "embedding", "pooling.py")
def every_token_counts_alike(pooling):
    """The mean is over all tokens, each with the same weight."""
    hidden = np.array([[[6.0, 0.0], [0.0, 2.0], [0.0, 4.0]]], np.float32)
    found = pooled(pooling, hidden, np.ones((1, 3), np.int64))
    expected = np.array([[1, 1]]) / np.sqrt(2)
    assert np.allclose(found, expected, atol=1e-5), (
        f"got {found.round(3).tolist()}: (6, 0), (0, 2), (0, 4) have the mean (2, 2). Every token "
        "counts, as long as it is; only the mean is brought to length 1"
    )


def chosen(module, lengths, max_items=32, max_tokens=2048):
    found = module.next_batch(list(lengths), max_items, max_tokens)
    assert found is not None, "the function returns nothing: is there a return?"
    return [int(row) for row in found]


@check("02.2", "embedding", "batching.py")
def the_oldest_and_its_like(batching):
    """Of 10, 100, 12, 90, 9 tokens, rows 0, 2 and 4 run."""
    found = chosen(batching, [10, 100, 12, 90, 9])
    assert found != [10, 12, 9], "these are lengths: return rows, the positions in the list"
    assert found != [0, 1, 2, 3, 4], "10 tokens would be padded to 100: only its own bucket goes"
    assert found == [0, 2, 4], (
        f"got {found}: the oldest has 10 tokens, so bucket 1–16; rows 2 and 4 are of it as well"
    )


@check("02.2", "embedding", "batching.py")
def nobody_waits_for_ever(batching):
    """The oldest text runs, however long it is and however many short ones wait."""
    found = chosen(batching, [300, 5, 5, 5, 5])
    assert 0 in found, f"got {found}: row 0 is the oldest, and must be in the batch"
    assert found == [0], f"got {found}: no other text has 289 to 304 tokens"


@check("02.2", "embedding", "batching.py")
def rows_are_those_of_the_list(batching):
    """The rows name the texts as they wait, whatever order their lengths have."""
    found = chosen(batching, [40, 7, 35, 48, 6])
    assert found == [0, 2, 3], (
        f"got {found}: 40, 35 and 48 tokens are one bucket, 33–48, and stand in rows 0, 2, 3. If you "
        "sort, the rows must still be those of the list: else each text gets another's vector"
    )


@check("02.2", "embedding", "batching.py")
def the_ends_of_a_bucket(batching):
    """16 tokens belong to 1–16, and 17 to 17–32."""
    found = chosen(batching, [16, 17, 1, 32])
    assert found == [0, 2], f"got {found}: 16 is the end of 1–16, so 17 is not with it"
    found = chosen(batching, [17, 16, 32, 33])
    assert found == [0, 2], f"got {found}: the bucket of 17 ends with 32"


@check("02.2", "embedding", "batching.py")
def no_more_than_max_items(batching):
    """At most `max_items`, the oldest first."""
    assert chosen(batching, [5] * 10, max_items=4) == [0, 1, 2, 3], (
        "ten alike and max_items = 4: the four oldest"
    )


@check("02.2", "embedding", "batching.py")
def no_more_than_max_tokens(batching):
    """Padded to the end of the bucket, all together are at most `max_tokens`."""
    found = chosen(batching, [20] * 10, max_tokens=128)
    assert found != [0, 1, 2, 3, 4, 5], (
        "six times 20 is 120, but each is padded to 32: count the padding as well"
    )
    assert found == [0, 1, 2, 3], f"got {found}: four times 32 is 128"


@check("02.2", "embedding", "batching.py")
def too_long_runs_alone(batching):
    """A text that is longer than `max_tokens` runs, alone."""
    found = chosen(batching, [600, 600], max_tokens=512)
    assert found, "an empty batch: this text would wait for ever, and all behind it"
    assert found == [0], f"got {found}: a text that is too long runs alone"
