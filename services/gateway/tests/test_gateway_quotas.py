"""The token bucket, one by one and for many callers."""

import limits
import pytest

from services.chassis.testing import running
from services.gateway.api import create_app
from services.gateway.domain import Bucket, take_token
from services.gateway.keys import holder_of, key_hash
from services.gateway.quotas import Buckets

TWO = limits.parse("2/minute")


def test_a_full_bucket_gives_its_capacity_at_once_and_then_the_rate():
    bucket = Bucket(3.0, 0.0)
    taken = [take_token(bucket, now, rate=0.5, capacity=3) for now in (0, 0, 0, 0, 1, 2, 2)]
    assert taken == [0, 0, 0, 2, 1, 0, 2]


def test_a_long_silence_fills_the_bucket_and_no_more():
    bucket = Bucket(0.0, 0.0)
    assert take_token(bucket, 1000.0, rate=1.0, capacity=3) == 0
    assert bucket.tokens == 2


def test_no_time_counts_twice_and_none_runs_backwards():
    bucket = Bucket(1.0, 10.0)
    assert take_token(bucket, 4.0, rate=0.5, capacity=3) == 0
    assert (bucket.tokens, bucket.at) == (0.0, 10.0)
    assert take_token(bucket, 10.0, rate=0.5, capacity=3) == 2


def test_who_waits_as_long_as_told_gets_in():
    bucket = Bucket(0.25, 0.0)
    wait = take_token(bucket, 0.0, rate=0.5, capacity=3)
    assert wait == 2
    assert take_token(bucket, float(wait), rate=0.5, capacity=3) == 0


def test_each_caller_has_a_bucket_and_an_idle_one_is_dropped():
    now = 0.0
    buckets = Buckets(clock=lambda: now)
    assert [buckets.hit(TWO, "ana") for _ in range(3)] == [True, True, False]
    assert buckets.hit(TWO, "bob")
    now = 30.0
    assert buckets.hit(TWO, "ana")
    now = 61.0
    assert buckets.hit(TWO, "eva")
    assert set(buckets._buckets) == {"ana", "eva"}


def test_what_is_left_and_when_the_next_token_comes(monkeypatch):
    monkeypatch.setattr("services.gateway.quotas.time.time", lambda: 1000.0)
    buckets = Buckets(clock=lambda: 0.0)
    seen = []
    for _ in range(3):
        buckets.hit(TWO, "ana")
        seen.append(buckets.get_window_stats(TWO, "ana"))
    assert seen == [(1030.0, 1), (1030.0, 0), (1030.0, 0)]


@pytest.mark.parametrize(("key", "holder"), [("a", "ana"), ("b", "bob"), ("c", None), ("é", None)])
def test_a_key_has_one_holder_or_none(key, holder):
    assert holder_of(key, {"ana": key_hash("a"), "bob": key_hash("b")}) == holder


def test_every_entry_is_compared_whichever_matches(monkeypatch):
    compared = []

    def compare(one, other):
        compared.append(other)
        return one == other

    monkeypatch.setattr("services.gateway.keys.hmac.compare_digest", compare)
    hashes = {name: key_hash(name) for name in ("a", "b", "c")}
    assert holder_of("a", hashes) == "a"
    assert compared == list(hashes.values())


async def test_the_service_calls_the_cores_that_it_was_given(make_settings):
    settings = make_settings(api_keys=f"ana:{key_hash('a')}")
    app = create_app(settings, take=lambda *_, **__: 7, holder=lambda key, _: key[:3])
    async with running(app) as client:
        refused = await client.get("/v1/models", headers={"x-api-key": "eva-and-more"})
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "7"
