"""The pipeline against one HTTP server that plays the six services it asks."""

import asyncio
import json
import sqlite3

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.chassis.testing import free_port, running
from services.orchestrator.api import create_app
from services.orchestrator.settings import Settings

NAMES = {
    "preprocess": "query_preprocessing",
    "search": "hybrid_search",
    "rerank": "reranking",
    "context": "context_aggregation",
    "generate": "generation",
    "postprocess": "post_processing",
}


def hit(name, rank):
    return {
        "id": name,
        "score": 1 / rank,
        "provenance": {},
        "passage": {
            "id": name,
            "document": name,
            "title": name.upper(),
            "heading": "",
            "position": 0,
            "language": "en",
            "tags": [],
            "text": f"{name} opens after five failures. It closes later.",
        },
    }


class World:
    """Every service behind the orchestrator. `status`, `hang`, `resets` (how many connections) and
    `reply` change one of them."""

    def __init__(self):
        self.asked, self.status, self.hang, self.reply = {}, {}, set(), {}
        self.pause, self.resets = {}, {}
        self.tokens = ["Five ", "failures [1]."]
        self.die_mid_stream = False
        self.generation_cancelled = asyncio.Event()
        app = web.Application()
        for name in NAMES:
            app.router.add_post(f"/{name}/v1/{{rest:.*}}", getattr(self, name))
        self.server = TestServer(app, handler_cancellation=True)

    async def _note(self, name, request):
        self.asked.setdefault(name, []).append(await request.json())
        if name in self.hang:
            await asyncio.sleep(30)
        await asyncio.sleep(self.pause.get(name, 0))
        if self.resets.get(name, 0) > 0:
            self.resets[name] -= 1
            request.transport.abort()
        if name in self.status:
            raise _Status(self.status[name])

    async def _json(self, name, request, body):
        try:
            await self._note(name, request)
        except _Status as error:
            return web.json_response({"detail": "no"}, status=error.code)
        return web.json_response(body | self.reply.get(name, {}))

    async def preprocess(self, request):
        return await self._json(
            "preprocess",
            request,
            {
                "search_query": "when does it open",
                "language": "en",
                "intent": "question",
                "suggestion": None,
            },
        )

    async def search(self, request):
        hits = [hit(name, rank) for rank, name in enumerate(["a", "b", "c"], 1)]
        return await self._json("search", request, {"hits": hits, "degraded": []})

    async def rerank(self, request):
        results = [{"index": index, "relevance_score": 0.5} for index in (2, 0, 1)]
        return await self._json("rerank", request, {"results": results, "meta": {"complete": True}})

    async def context(self, request):
        passages = self.asked_passages = (await request.json())["passages"]
        sources = [
            {
                "number": number,
                "passages": [item["id"]],
                **{k: item[k] for k in ("id", "document", "title", "heading", "language", "text")},
            }
            for number, item in enumerate(passages, 1)
        ]
        return await self._json(
            "context", request, {"sources": sources, "context": "[1] …", "tokens": 3, "dropped": []}
        )

    async def generate(self, request):
        try:
            await self._note("generate", request)
        except _Status as error:
            return web.json_response({"detail": "no"}, status=error.code)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            for token in self.tokens:
                chunk = {"choices": [{"delta": {"content": token}}]}
                await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
                await asyncio.sleep(0.01)
            if self.die_mid_stream:
                await response.write(b'data: {"error": {"message": "the model died"}}\n\n')
                return response
            usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
            await response.write(f"data: {json.dumps(usage)}\n\ndata: [DONE]\n\n".encode())
        except (asyncio.CancelledError, ConnectionError):
            self.generation_cancelled.set()
            raise
        return response

    async def postprocess(self, request):
        body = await request.json()
        return await self._json(
            "postprocess",
            request,
            {
                "answer": body["answer"] + " ✓",
                "citations": [],
                "groundedness": 0.9,
                "refused": False,
                "decisions": [],
            },
        )


class _Status(Exception):
    def __init__(self, code):
        self.code = code


@pytest.fixture
async def world():
    world = World()
    async with world.server:
        yield world


def settings_for(world, folder, **more):
    url = str(world.server.make_url("")).rstrip("/")
    return Settings(
        data_dir=folder,
        preprocessing_url=f"{url}/preprocess",
        hybrid_url=f"{url}/search",
        reranking_url=f"{url}/rerank",
        context_url=f"{url}/context",
        generation_url=f"{url}/generate",
        post_processing_url=f"{url}/postprocess",
        broker_url="nats://127.0.0.1:9",  # nobody is there
        **more,
    )


@pytest.fixture
async def client(world, tmp_path):
    settings = settings_for(world, tmp_path, reranking_timeout=0.2)
    async with running(create_app(settings)) as client:
        yield client


@pytest.fixture
async def slow(world, tmp_path):
    """Every stage may take longer than the whole answer: only the deadline bounds them. What is
    kept for the stage behind one that hangs is generous, for machines that are busy."""
    names = ("preprocessing", "reranking", "context", "generation", "post_processing")
    caps = {f"{name}_timeout": 30.0 for name in names}
    shares = {f"{name}_share": 0.3 for name in names}
    async with running(create_app(settings_for(world, tmp_path, **caps, **shares))) as client:
        yield client


async def ask(client, **body):
    response = await client.post("/v1/answer", json={"question": "when?"} | body)
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_question_goes_through_every_stage_in_order(client, world):
    answer = await ask(client)
    assert answer["answer"] == "Five failures [1]. ✓"
    assert answer["kind"] == "generated"
    assert answer["degraded"] == []
    assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 3}
    assert [item["stage"] for item in answer["timings"]] == [
        "query_preprocessing",
        "hybrid_search",
        "reranking",
        "context_aggregation",
        "generation",
        "post_processing",
    ]
    assert [item["id"] for item in world.asked_passages] == ["c", "a", "b"]
    assert world.asked["search"][0]["query"] == "when does it open"
    assert 0 < answer["first_token_ms"] < 5000


@pytest.mark.parametrize(
    ("gone", "kind", "order"),
    [
        ("preprocess", "generated", "cab"),
        ("rerank", "generated", "abc"),
        ("context", "generated", "cab"),
        ("generate", "extractive", "cab"),
        ("postprocess", "extractive", "cab"),
    ],
)
@pytest.mark.parametrize("status", [500, 503, 422])
async def test_a_service_that_fails_is_stood_in_for_and_named(
    client, world, gone, kind, order, status
):
    world.status[gone] = status
    answer = await ask(client)
    assert answer["degraded"] == [NAMES[gone]]
    assert answer["kind"] == kind
    assert [source["id"] for source in answer["sources"]] == list(order)
    stages = {item["stage"]: item["status"] for item in answer["timings"]}
    assert stages[NAMES[gone]] == "degraded"


async def test_an_answer_is_told_to_the_outbox_even_without_a_broker(client, tmp_path):
    answer = await ask(client)
    database = sqlite3.connect(tmp_path / "orchestrator" / "outbox.sqlite")
    for _ in range(100):
        rows = database.execute("SELECT * FROM outbox").fetchall()
        if rows:
            break
        await asyncio.sleep(0.02)
    told = str(rows)
    assert len(rows) == 1
    assert "answer.completed" in told
    assert answer["id"] in told


async def test_without_preprocessing_the_question_is_searched_as_typed(client, world):
    world.status["preprocess"] = 503
    await ask(client, question="As typed?")
    assert world.asked["search"][0]["query"] == "As typed?"


async def test_model_text_is_never_shown_unchecked(client, world):
    world.status["postprocess"] = 500
    answer = await ask(client)
    assert "Five failures" not in answer["answer"]
    assert answer["answer"].startswith("c opens after five failures. [1]")
    assert [citation["number"] for citation in answer["citations"]] == [1, 2]


async def test_a_model_that_dies_mid_stream_leads_to_the_extractive_answer(client, world):
    world.die_mid_stream = True
    answer = await ask(client)
    assert answer["kind"] == "extractive"
    assert answer["degraded"] == ["generation"]
    assert "Five" not in answer["answer"]


async def test_no_search_no_answer_and_it_says_so_at_once(client, world):
    world.status["search"] = 503
    response = await client.post("/v1/answer", json={"question": "when?"})
    assert response.status_code == 503
    assert response.json()["type"].endswith("search-unavailable")
    assert "generate" not in world.asked


async def test_what_search_lost_is_handed_on(client, world):
    world.reply["search"] = {"degraded": ["embedding"]}
    answer = await ask(client)
    assert answer["degraded"] == ["embedding"]


async def test_a_reranker_that_hangs_costs_no_more_than_its_share(client, world):
    world.hang.add("rerank")
    loop = asyncio.get_running_loop()
    started = loop.time()
    answer = await ask(client)
    assert loop.time() - started < 1.5
    assert answer["degraded"] == ["reranking"]


async def ask_within(client, ms):
    return await client.post(
        "/v1/answer", json={"question": "when?"}, headers={"x-deadline-ms": str(ms)}
    )


@pytest.mark.parametrize("gone", ["preprocess", "rerank", "context", "generate", "postprocess"])
async def test_a_stage_that_hangs_leaves_the_later_ones_their_time(slow, world, gone):
    world.hang.add(gone)
    loop = asyncio.get_running_loop()
    started = loop.time()
    response = await ask_within(slow, 2000)
    assert response.status_code == 200, response.text
    assert loop.time() - started < 2.0
    assert response.json()["degraded"] == [NAMES[gone]]


async def test_what_could_not_end_in_time_is_not_begun(world, tmp_path):
    settings = settings_for(world, tmp_path, reranking_share=4.0)
    async with running(create_app(settings)) as client:
        answer = (await ask_within(client, 1500)).json()
    assert answer["degraded"] == ["query_preprocessing", "reranking"]
    assert "preprocess" not in world.asked
    assert "rerank" not in world.asked
    assert answer["kind"] == "generated"


async def test_the_pipeline_runs_its_stages_by_what_it_was_given(world, tmp_path):
    async def never(work, stage, later, left, lost):
        if stage.name == "hybrid_search":
            return await work(left)
        lost[stage.name] = "not today"
        return None

    async with running(create_app(settings_for(world, tmp_path), run=never)) as client:
        answer = await ask(client)
    assert answer["degraded"] == [name for name in NAMES.values() if name != "hybrid_search"]
    assert list(world.asked) == ["search"]


async def test_too_little_time_for_a_search_is_not_a_lost_search(client, world):
    response = await ask_within(client, 120)
    assert response.status_code == 504
    assert response.json()["type"].endswith("deadline-passed")
    assert world.asked == {}


async def test_the_time_of_a_stage_holds_for_its_retry_as_well(client, world):
    world.status["rerank"] = 500
    world.pause["rerank"] = 0.15
    started = asyncio.get_running_loop().time()
    answer = await ask(client)
    assert answer["degraded"] == ["reranking"]
    assert asyncio.get_running_loop().time() - started < 0.28 + 0.15
    stages = {item["stage"]: item["ms"] for item in answer["timings"]}
    assert stages["reranking"] < 280


async def test_an_answer_of_500_is_tried_once_more_within_the_budget(client, world):
    world.status["rerank"] = 500
    for _ in range(12):
        await ask(client)
    # Five retries saved up and a tenth per call; the breaker then stops both.
    assert len(world.asked["rerank"]) <= 12


@pytest.mark.parametrize(("resets", "lost"), [(1, []), (2, ["generation"])])
async def test_a_stream_whose_connection_broke_before_it_began_is_tried_once_more(
    client, world, resets, lost
):
    world.resets["generate"] = resets
    answer = await ask(client)
    assert answer["degraded"] == lost
    assert len(world.asked["generate"]) == 2


@pytest.mark.parametrize("status", [500, 502])
async def test_what_generation_has_tried_again_itself_is_not_tried_again(client, world, status):
    world.status["generate"] = status
    answer = await ask(client)
    assert answer["degraded"] == ["generation"]
    assert len(world.asked["generate"]) == 1


async def test_an_overloaded_service_is_not_asked_again(client, world):
    world.status["rerank"] = 503
    await ask(client)
    assert len(world.asked["rerank"]) == 1


@pytest.mark.parametrize(("intent", "kind"), [("small_talk", "small_talk"), ("harmful", "blocked")])
async def test_small_talk_and_harm_need_no_search(client, world, intent, kind):
    world.reply["preprocess"] = {"intent": intent, "language": "pt"}
    answer = await ask(client)
    assert answer["kind"] == kind
    assert answer["language"] == "pt"
    assert "search" not in world.asked


async def test_nothing_found_is_a_refusal(client, world):
    world.reply["search"] = {"hits": []}
    answer = await ask(client)
    assert answer["kind"] == "refusal"
    assert answer["refused"] is True


async def events_of(client, **body):
    events = []
    async with client.stream(
        "POST", "/v1/answer", json={"question": "when?", "stream": True} | body
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        name = None
        async for line in response.aiter_lines():
            if line.startswith("event:"):
                name = line[7:]
            elif line.startswith("data:"):
                events.append((name, json.loads(line[5:])))
    return events


async def test_events_come_in_the_order_a_reader_needs_them(client):
    names = [name for name, _ in await events_of(client)]
    assert names == [
        *["stage"] * 4,
        "sources",
        "token",
        "token",
        *["stage"] * 2,
        "answer",
    ]


async def test_a_failure_after_the_start_is_an_error_event(client, world):
    world.status["search"] = 503
    events = await events_of(client)
    assert events[-1][0] == "error"
    assert events[-1][1]["status"] == 503


async def test_a_conversation_is_kept_and_its_questions_reach_preprocessing(client, world):
    first = await ask(client, question="one?")
    await ask(client, question="two?", conversation_id=first["conversation_id"])
    assert world.asked["preprocess"][1]["history"] == ["one?"]
    path = f"/v1/conversations/{first['conversation_id']}"
    turns = (await client.get(path)).json()["turns"]
    assert [turn["question"] for turn in turns] == ["one?", "two?"]
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "question"),
        ({"question": "   "}, "question"),
        ({"question": ["a"]}, "question"),
        ({"question": "x" * 2001}, "question"),
        ({"question": "q", "conversation_id": "../etc"}, "conversation_id"),
        ({"question": "q", "language": "es"}, "language"),
        ({"question": "q", "temperature": 1}, "temperature"),
    ],
)
async def test_bad_input_names_the_field(client, body, field):
    response = await client.post("/v1/answer", json=body)
    assert response.status_code == 422
    assert field in [error["field"] for error in response.json()["errors"]]


async def until(true):
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen in 10 s")


async def test_a_client_that_leaves_an_answer_stops_its_generation(world, tmp_path):
    """Over a real socket, which an in-process client does not have."""
    import uvicorn

    world.tokens = ["word "] * 500
    app = create_app(settings_for(world, tmp_path))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    task = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started and app.state.readiness.ok)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port}/v1/answer"
            call = asyncio.create_task(session.post(url, json={"question": "When?"}))
            await until(lambda: "generate" in world.asked)
            call.cancel()
            await asyncio.wait_for(world.generation_cancelled.wait(), 2)
    finally:
        server.should_exit = True
        await task


async def test_two_replicas_on_one_database_share_a_conversation(world, tmp_path, database_url):
    settings = [
        settings_for(world, tmp_path / name, database_url=database_url, conversation_timeout=10.0)
        for name in ("one", "other")
    ]
    async with (
        running(create_app(settings[0])) as one,
        running(create_app(settings[1])) as other,
    ):
        first = await ask(one, question="one?")
        second = await ask(other, question="two?", conversation_id=first["conversation_id"])
        assert world.asked["preprocess"][1]["history"] == ["one?"]
        path = f"/v1/conversations/{first['conversation_id']}"
        assert len((await one.get(path)).json()["turns"]) == 2
        assert (first["degraded"], second["degraded"]) == ([], [])


async def test_an_answer_does_not_depend_on_the_database_of_conversations(world, tmp_path):
    nobody = f"postgresql+psycopg://u:secret@127.0.0.1:{free_port()}/d"
    async with running(create_app(settings_for(world, tmp_path, database_url=nobody))) as client:
        body = await ask(client, question="two?", conversation_id="c")
        assert body["degraded"] == ["conversations"]
        assert body["answer"]
        assert world.asked["preprocess"][0]["history"] == []
        # What the caller brings along needs no database; only the turn cannot be kept.
        body = await ask(client, question="two?", history=["one?"])
        assert world.asked["preprocess"][1]["history"] == ["one?"]
        assert body["degraded"] == ["conversations"]
        for call in (client.get, client.delete):
            response = await call("/v1/conversations/c")
            assert response.status_code == 503
            assert response.json()["type"].endswith("conversations-unavailable")
            assert response.headers["retry-after"] == "1"
            assert "secret" not in response.text


async def test_the_core_that_a_learner_writes_is_what_runs(world, tmp_path):
    world.status["generate"] = world.status["postprocess"] = 500
    recorded = []
    app = create_app(
        settings_for(world, tmp_path),
        extract=lambda sources: f"Mine [{sources[1]['number']}].",
        may_call=lambda circuit, now: True,
        record=lambda circuit, succeeded, now: recorded.append(succeeded),
    )
    async with running(app) as client:
        answer = await ask(client)
    assert answer["answer"] == "Mine [2]."
    assert [one["number"] for one in answer["citations"]] == [2]
    assert recorded.count(True) == 4
    assert False in recorded


async def test_no_stage_is_called_that_its_breaker_does_not_let_through(world, tmp_path):
    app = create_app(settings_for(world, tmp_path), may_call=lambda circuit, now: False)
    async with running(app) as client:
        response = await client.post("/v1/answer", json={"question": "when?"})
    assert response.status_code == 503
    assert world.asked == {}
