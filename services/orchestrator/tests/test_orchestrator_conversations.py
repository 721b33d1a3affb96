"""The store of conversations on both databases, and what becomes of answers without it."""

import asyncio
import time

import pytest

from services.chassis.testing import free_port
from services.orchestrator.conversations import Conversations, Forgotten


@pytest.fixture
async def stores(database_url):
    """Those of two replicas on one database."""
    both = Conversations(database_url, timeout=10), Conversations(database_url, timeout=10)
    yield both
    for store in both:
        await store.aclose()


async def test_what_one_replica_heard_the_other_knows(stores):
    one, other = stores
    # At once: the first to come make the tables, and no replica may fail over that.
    await asyncio.gather(*(s.add(f"c{n}", "q", "a") for n, s in enumerate(stores)))
    for number, store in enumerate((one, other, one)):
        await store.add("c", f"question {number}", f"answer {number}")
    assert await other.questions("c", 2) == ["question 1", "question 2"]
    turns = await other.turns("c")
    assert [turn["answer"] for turn in turns] == ["answer 0", "answer 1", "answer 2"]
    assert abs(turns[0]["at"] - time.time()) < 60
    assert await other.delete("c") == 3
    assert await one.turns("c") == []
    assert len(await one.turns("c1")) == 1


async def test_any_text_is_kept(stores):
    one, other = stores
    text = "não — “aspas” 日本 \U0001f600 \0 ' \\ \n"
    await one.add("c", text, text)
    assert await other.questions("c", 1) == [text.replace("\0", "\ufffd")]


async def test_a_conversation_is_forgotten_when_nobody_continues_it(database_url, monkeypatch):
    now = 1000.0
    monkeypatch.setattr("services.orchestrator.conversations.time.time", lambda: now)
    store = Conversations(database_url, ttl=100, timeout=10)
    await store.add("old", "q", "a")
    await store.add("kept", "first", "a")
    now = 1050.0
    await store.add("kept", "second", "a")
    now = 1120.0
    await store.add("new", "q", "a")
    assert await store.turns("old") == []
    assert await store.questions("kept", 9) == ["first", "second"]
    assert await store.questions("kept", 1) == ["second"]
    await store.aclose()


@pytest.fixture
async def silent():
    """A server that takes connections and says nothing, as one that hangs does."""
    server = await asyncio.start_server(lambda reader, writer: asyncio.sleep(30), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_a_silent_database_takes_its_time_five_times_and_then_none(silent):
    store = Conversations(f"postgresql+psycopg://u:p@127.0.0.1:{silent}/d", timeout=0.1)
    for _ in range(5):
        begun = time.monotonic()
        with pytest.raises(Forgotten, match="no answer within"):
            await store.questions("c", 3)
        assert 0.1 <= time.monotonic() - begun < 1
    begun = time.monotonic()
    with pytest.raises(Forgotten, match="failed repeatedly"):
        await store.questions("c", 3)
    assert time.monotonic() - begun < 0.05
    await store.aclose()


async def test_a_database_that_comes_back_is_used_again(postgres):
    from sqlalchemy import NullPool, create_engine, text

    url = postgres()
    store = Conversations(url, timeout=10)
    await store.add("c", "q", "a")
    # As a restart of the server does: every connection is cut.
    with create_engine(url, poolclass=NullPool).connect() as other:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        other.execute(text(cut + " AND datname = current_database()"))
    assert await store.questions("c", 3) == ["q"]
    await store.aclose()


async def test_nothing_listens(tmp_path):
    store = Conversations(f"postgresql+psycopg://u:p@127.0.0.1:{free_port()}/d", timeout=5)
    with pytest.raises(Forgotten):
        await store.turns("c")
    await store.aclose()
