"""What any feedback service must do, whoever wrote it."""

import uuid

import pytest

KINDS = [
    {"kind": "thumbs", "value": 1},
    {"kind": "thumbs", "value": -1},
    {"kind": "stars", "value": 4},
    {"kind": "comment", "comment": "Bom, mas longo."},
    {"kind": "correction", "value": "It opens after five failures."},
    {"kind": "citation_opened", "value": "en/circuit-breaker"},
    {"kind": "answer_copied"},
    {"kind": "question_reasked"},
]


made = []


def new_id():
    made.append(f"contract-{uuid.uuid4().hex}")
    return made[-1]


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left(http):
    yield
    while made:
        http.delete(f"/v1/requests/{made.pop()}")


def event(**changes):
    return {
        "id": new_id(),
        "type": "contract.checked",
        "time": "2026-01-01T00:00:00Z",
        "source": "contract",
        "request_id": new_id(),
        "data": {},
    } | changes


@pytest.mark.parametrize("body", KINDS, ids=lambda body: f"{body['kind']}-{body.get('value')}")
def test_every_kind_is_accepted(http, body):
    answer = http.post("/v1/feedback", json={"request_id": new_id()} | body)
    assert answer.status_code == 201
    assert answer.json()["id"]
    assert answer.json()["duplicate"] is False


def test_an_idempotency_key_is_stored_once(http):
    body = {"request_id": new_id(), "kind": "thumbs", "value": 1}
    headers = {"idempotency-key": new_id()}
    first = http.post("/v1/feedback", json=body, headers=headers).json()
    second = http.post("/v1/feedback", json=body, headers=headers)
    assert second.status_code == 201
    assert second.json() == {"id": first["id"], "duplicate": True}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "applause"}, "kind"),
        ({"request_id": None}, "request_id"),
        ({"value": "many"}, "value"),
        ({"unknown": 1}, "unknown"),
        ({"comment": ["x"]}, "comment"),
    ],
)
def test_bad_feedback_is_a_problem_that_names_the_field(http, change, named):
    body = {"request_id": new_id(), "kind": "thumbs", "value": 1} | change
    answer = http.post("/v1/feedback", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert named in answer.text
    assert answer.json()["request_id"]


def test_an_event_is_stored_once(http):
    one = event()
    assert http.post("/v1/events", json={"events": [one]}).json() == {"stored": 1, "duplicates": 0}
    again = http.post("/v1/events", json={"events": [one, event()]})
    assert again.json() == {"stored": 1, "duplicates": 1}


@pytest.mark.parametrize("change", [{"id": ""}, {"time": "soon"}, {"type": "No Type"}, {"data": 1}])
def test_a_bad_event_is_refused(http, change):
    assert http.post("/v1/events", json={"events": [event(**change)]}).status_code == 422


@pytest.mark.parametrize("report", ["by-day", "by-stage", "worst-questions", "intent-drift"])
def test_every_report_is_there_in_both_forms(http, report):
    # Something for the report to say.
    from datetime import UTC, datetime

    question = f"What is {new_id()}?"
    data = {
        "question": question,
        "intent": "question",
        "kind": "generated",
        "degraded": [],
        "groundedness": 0.2,
        "refused": False,
        "timings": [{"stage": "search", "start_ms": 0, "ms": 12.5, "status": "ok"}],
    }
    now = datetime.now(UTC).isoformat()
    sent = event(type="answer.completed", time=now, data=data)
    assert http.post("/v1/events", json={"events": [sent]}).status_code == 200
    vote = {"request_id": sent["request_id"], "kind": "thumbs", "value": -1}
    assert http.post("/v1/feedback", json=vote).status_code == 201
    answer = http.get(f"/v1/reports/{report}", params={"days": 1}).json()
    assert answer["report"] == report
    assert answer["rows"]
    text = http.get(f"/v1/reports/{report}", params={"days": 1, "format": "csv"})
    assert text.headers["content-type"].startswith("text/csv")
    assert text.text.splitlines()[0].split(",") == list(answer["rows"][0])


def test_what_is_kept_of_a_request_is_shown_and_forgotten(http):
    sent = event(data={"groundedness": 0.5})
    assert http.post("/v1/events", json={"events": [sent]}).status_code == 200
    vote = {"request_id": sent["request_id"], "kind": "thumbs", "value": -1}
    assert http.post("/v1/feedback", json=vote).status_code == 201
    where = f"/v1/requests/{sent['request_id']}"
    kept = http.get(where).json()
    assert [(e["id"], e["data"]) for e in kept["events"]] == [(sent["id"], sent["data"])]
    assert [(f["kind"], f["value"]) for f in kept["feedback"]] == [("thumbs", "-1")]
    assert http.delete(where).json() == {"events": 1, "feedback": 1}
    assert http.get(where).status_code == 404


def test_a_question_that_most_readers_reject_is_a_finding_and_one_vote_is_none(http):
    from datetime import UTC, datetime

    now = datetime.now(UTC).isoformat()
    questions = {f"Is it {new_id()}?": votes for votes in (1, 6)}
    for question, votes in questions.items():
        for _ in range(votes):
            asked = event(type="answer.completed", time=now, data={"question": question})
            assert http.post("/v1/events", json={"events": [asked]}).status_code == 200
            vote = {"request_id": asked["request_id"], "kind": "thumbs", "value": -1}
            assert http.post("/v1/feedback", json=vote).status_code == 201
            # A second act of the same reader about the same answer is no second vote.
            more = vote | {"kind": "stars", "value": 1}
            assert http.post("/v1/feedback", json=more).status_code == 201
    rows = http.get("/v1/reports/worst-questions", params={"days": 1}).json()["rows"]
    found = {row["question"]: row for row in rows if row["question"] in questions}
    for question, votes in questions.items():
        assert found[question]["votes"] == votes
        assert found[question]["finding"] is (votes == 6)
        assert found[question]["approval_high"] == pytest.approx(
            3.8416 / (votes + 3.8416), abs=1e-3
        )


def test_an_unknown_report_is_a_4xx(http):
    assert 400 <= http.get("/v1/reports/by-moon").status_code < 500
