"""The service over HTTP with its real store; the broker is left out unless a test is about it."""

import asyncio
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from sqlalchemy import NullPool, create_engine, text

from services.chassis.broker import EVENTS, Broker
from services.chassis.testing import nats_server, running
from services.feedback.api import create_app
from services.feedback.settings import Settings

THUMBS_UP = {"request_id": "r1", "kind": "thumbs", "value": 1}


def settings(folder, **more):
    return Settings(data_dir=folder, **({"consume": False} | more))


def rows(url, table):
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as db:
        return [dict(row) for row in db.execute(text(f"SELECT * FROM {table}")).mappings()]


def answer_completed(id, *, days_ago=0, **data):
    at = datetime.now(UTC) - timedelta(days=days_ago)
    known = {
        "question": "what is a breaker?",
        "intent": "question",
        "kind": "generated",
        "degraded": [],
        "groundedness": 0.9,
        "refused": False,
        "timings": [{"stage": "search", "start_ms": 1.0, "ms": 20.0, "status": "ok"}],
    }
    return {
        "id": id,
        "type": "answer.completed",
        "time": at.isoformat(),
        "source": "orchestrator",
        "request_id": f"request-{id}",
        "data": known | data,
    }


@pytest.fixture
async def client(tmp_path, database_url):
    async with running(create_app(settings(tmp_path, database_url=database_url))) as client:
        yield client


async def test_acknowledged_feedback_is_on_disk(client, database_url):
    answer = await client.post("/v1/feedback", json=THUMBS_UP | {"comment": "bom"})
    assert answer.status_code == 201
    assert answer.json()["duplicate"] is False
    (row,) = rows(database_url, "feedback")
    assert row["id"] == answer.json()["id"]
    assert (row["request_id"], row["kind"], row["value"], row["comment"]) == (
        "r1",
        "thumbs",
        "1",
        "bom",
    )


async def test_many_at_once_are_all_stored(client, database_url):
    bodies = [THUMBS_UP | {"request_id": f"r{n}"} for n in range(200)]
    answers = await asyncio.gather(*(client.post("/v1/feedback", json=b) for b in bodies))
    # The chassis sheds what exceeds its places; what was acknowledged must be there.
    ids = {a.json()["id"] for a in answers if a.status_code == 201}
    assert {a.status_code for a in answers} <= {201, 503}
    assert len(ids) >= 64
    assert {row["id"] for row in rows(database_url, "feedback")} == ids


async def test_an_idempotency_key_stores_once(client, database_url):
    sent = [
        client.post("/v1/feedback", json=THUMBS_UP, headers={"idempotency-key": "k"})
        for _ in range(5)
    ]
    answers = [answer.json() for answer in await asyncio.gather(*sent)]
    assert len({answer["id"] for answer in answers}) == 1
    assert sorted(answer["duplicate"] for answer in answers) == [False, True, True, True, True]
    assert len(rows(database_url, "feedback")) == 1


async def test_a_key_for_another_feedback_is_refused(client):
    headers = {"idempotency-key": "k"}
    await client.post("/v1/feedback", json=THUMBS_UP, headers=headers)
    answer = await client.post("/v1/feedback", json=THUMBS_UP | {"value": -1}, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("idempotency-key-reused")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "applause"}, "kind"),
        ({"value": 7}, "value"),
        ({"kind": "stars", "value": 6}, "value"),
        ({"kind": "comment", "value": None}, "comment"),
        ({"request_id": ""}, "request_id"),
        ({"request_id": "a b"}, "request_id"),
        ({"comment": "x" * 10_001}, "comment"),
        ({"comment": "a\x00b"}, "comment"),
        ({"user_email": "a@example.org"}, "user_email"),
    ],
)
async def test_bad_feedback_is_refused_by_its_field(client, change, named):
    answer = await client.post("/v1/feedback", json=THUMBS_UP | change)
    assert answer.status_code == 422
    assert named in answer.text


async def test_a_full_disk_is_never_acknowledged(tmp_path):
    full = settings(tmp_path, max_database_bytes=131_072)
    async with running(create_app(full)) as client:
        stored, refused = set(), 0
        for n in range(100):
            body = THUMBS_UP | {"request_id": f"r{n}", "comment": "x" * 5_000}
            answer = await client.post("/v1/feedback", json=body)
            if answer.status_code == 201:
                stored.add(answer.json()["id"])
            else:
                assert answer.status_code == 503
                assert answer.json()["type"].endswith("not-stored")
                assert answer.headers["retry-after"]
                refused += 1
        assert stored
        assert refused > 10
    assert {row["id"] for row in rows(full.sqlalchemy_url, "feedback")} == stored


async def test_events_are_stored_once_by_id(client):
    events = [answer_completed("a"), answer_completed("b"), answer_completed("a")]
    answer = await client.post("/v1/events", json={"events": events})
    assert answer.json() == {"stored": 2, "duplicates": 1}
    again = await client.post("/v1/events", json={"events": events[:1]})
    assert again.json() == {"stored": 0, "duplicates": 1}


async def test_an_event_the_store_cannot_hold_is_refused(client):
    huge = answer_completed("h", question="x" * 300_000)
    number = answer_completed("n", tokens=2**70)
    for event in (huge, number):
        answer = await client.post("/v1/events", json={"events": [event]})
        assert answer.status_code == 422
    nul = await client.post(
        "/v1/events", json={"events": [answer_completed("z", question="a\x00b")]}
    )
    assert nul.json()["stored"] == 1


async def test_reports_add_up(client):
    events = [
        answer_completed("a", degraded=["reranking"]),
        answer_completed("b", question="What is  a Breaker?", groundedness=0.1, refused=True),
        answer_completed("c", question="fine?", groundedness=1.0, intent="small_talk"),
        answer_completed("old", days_ago=9, intent="follow_up"),
    ]
    await client.post("/v1/events", json={"events": events})
    for vote in (-1, -1, 1):
        body = {"request_id": "request-b", "kind": "thumbs", "value": vote}
        await client.post("/v1/feedback", json=body)
    by_day = (await client.get("/v1/reports/by-day?days=7")).json()
    (today,) = by_day["rows"]
    assert (today["answers"], today["degraded"], today["refused"]) == (3, 1, 1)
    assert (today["thumbs_up"], today["thumbs_down"]) == (1, 2)
    assert today["p50_ms"] == 21.0
    by_stage = (await client.get("/v1/reports/by-stage?days=30")).json()["rows"]
    assert by_stage[0]["stage"] == "search"
    assert by_stage[0]["runs"] == 4
    worst = (await client.get("/v1/reports/worst-questions?days=7")).json()["rows"]
    assert worst[0]["question"] == "what is a breaker?"
    assert (worst[0]["asked"], worst[0]["thumbs_down"]) == (2, 2)
    assert "fine?" not in [row["question"] for row in worst]
    drift = (await client.get("/v1/reports/intent-drift?days=7")).json()
    assert drift["summary"]["divergence"] == 1.0
    assert drift["rows"][0]["small_talk"] == pytest.approx(1 / 3, abs=1e-3)


async def test_a_request_is_shown_and_forgotten(client, database_url):
    await client.post("/v1/events", json={"events": [answer_completed("a"), answer_completed("b")]})
    for kind in ({"kind": "thumbs", "value": -1}, {"kind": "correction", "value": "Four."}):
        body = {"request_id": "request-a"} | kind
        assert (await client.post("/v1/feedback", json=body)).status_code == 201
    kept = (await client.get("/v1/requests/request-a")).json()
    assert [event["id"] for event in kept["events"]] == ["a"]
    assert kept["events"][0]["data"]["groundedness"] == 0.9
    assert [(f["kind"], f["value"]) for f in kept["feedback"]] == [
        ("thumbs", "-1"),
        ("correction", "Four."),
    ]
    gone = await client.delete("/v1/requests/request-a")
    assert gone.json() == {"events": 1, "feedback": 2}
    assert (await client.get("/v1/requests/request-a")).status_code == 404
    assert (await client.delete("/v1/requests/request-a")).json() == {"events": 0, "feedback": 0}
    assert [row["event_id"] for row in rows(database_url, "answers")] == ["b"]
    assert [row["event_id"] for row in rows(database_url, "stages")] == ["b"]


async def test_the_report_uses_the_cores_that_it_was_given(tmp_path):
    seen = []

    def count(acts):
        seen.append([tuple(act) for act in acts])
        return 0, 9

    app = create_app(
        settings(tmp_path), count=count, interval=lambda good, votes: (0.1, votes / 90)
    )
    async with running(app) as client:
        await client.post("/v1/events", json={"events": [answer_completed("a")]})
        body = {"request_id": "request-a", "kind": "thumbs", "value": -1}
        await client.post("/v1/feedback", json=body)
        (row,) = (await client.get("/v1/reports/worst-questions")).json()["rows"]
    assert seen == [[("request-a", "thumbs", "-1")]]
    assert (row["votes"], row["approval_low"], row["approval_high"]) == (9, 0.1, 0.1)
    assert row["finding"] is True


async def test_csv_cannot_run_in_a_spreadsheet(client):
    evil = '=HYPERLINK("http://x","y")'
    await client.post(
        "/v1/events", json={"events": [answer_completed("a", question=evil, groundedness=0.0)]}
    )
    answer = await client.get("/v1/reports/worst-questions?format=csv")
    assert answer.headers["content-type"].startswith("text/csv")
    head, line = answer.text.splitlines()
    assert head.startswith("question,badness")
    assert line.startswith("\"'=HYPERLINK")


async def test_unknown_reports_and_windows_are_refused(client):
    assert (await client.get("/v1/reports/by-moon")).status_code == 422
    assert (await client.get("/v1/reports/by-day?days=0")).status_code == 422
    assert (await client.get("/v1/reports/by-day?format=xml")).status_code == 422


async def test_events_of_the_broker_are_stored_once_and_survive_this_service(
    tmp_path, database_url
):
    """Published while feedback is down, twice; then feedback starts."""
    with nats_server(tmp_path / "nats") as url:
        publisher = Broker(url, client="test", streams=(EVENTS,))
        publisher.start()
        given = answer_completed("g")
        given |= {"type": "feedback.given", "data": THUMBS_UP | {"idempotency_key": "k"}}
        for number, event in enumerate([answer_completed("a"), answer_completed("a"), given]):
            subject = f"events.{event['type']}"
            body = orjson.dumps(event)
            await publisher.publish(EVENTS, subject, body, message_id=f"{number}", headers={})
        await publisher.publish(EVENTS, "events.junk", b"not json", message_id="j", headers={})
        app = create_app(
            settings(tmp_path, consume=True, broker_url=url, database_url=database_url)
        )
        async with running(app) as client:
            for _ in range(500):
                if len(rows(database_url, "events")) == 2:
                    break
                await asyncio.sleep(0.02)
            assert {row["id"] for row in rows(database_url, "events")} == {"a", "g"}
            assert len(rows(database_url, "feedback")) == 1
            same = await client.post(
                "/v1/feedback", json=THUMBS_UP, headers={"idempotency-key": "k"}
            )
            assert same.json()["duplicate"] is True
            kept = (await client.get("/v1/requests/r1")).json()
            assert [event["type"] for event in kept["events"]] == ["feedback.given"]
            assert len(kept["feedback"]) == 1
            for _ in range(100):
                metrics = (await client.get("/metrics")).text
                if 'consumed_total{result="refused"} 1.0' in metrics:
                    break
                await asyncio.sleep(0.02)
            assert 'consumed_total{result="refused"} 1.0' in metrics
            assert 'consumed_total{result="duplicate"} 1.0' in metrics
        await publisher.stop()
