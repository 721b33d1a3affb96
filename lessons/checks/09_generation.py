"""The checks of lesson 09."""

from __future__ import annotations

import asyncio
import inspect
import json
import random

from services.generation import routing
from services.generation.reading import BrokenOff
from services.generation.routing import Failure
from workshop.exercises import check


def text(said):
    return {"model": "m", "choices": [{"delta": {"content": said}, "finish_reason": None}]}


STOP = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
USAGE = {"choices": [], "usage": {"total_tokens": 9}}


def read(reading, *data, gaps=None):
    """The pieces that `read_answer` makes of `data`; `gaps` gets what was sent at each piece."""
    sent = []

    async def events():
        for item in data:
            sent.append(item)
            yield item if isinstance(item, str) else json.dumps(item)
            await asyncio.sleep(0)

    async def run():
        found = reading.read_answer(events())
        if inspect.isawaitable(found):
            found = await found
        assert hasattr(found, "__aiter__"), "make it a generator: give each piece on with `yield`"
        pieces = []
        async for piece in found:
            pieces.append(piece)
            if gaps is not None:
                gaps.append(len(sent))
        return pieces

    return asyncio.run(asyncio.wait_for(run(), 5))


@check("09.1", "generation", "reading.py")
def the_text_comes_in_order(reading):
    """Each event becomes a piece, in order."""
    pieces = read(reading, text("After"), text(" five"), STOP, "[DONE]")
    said = "".join(piece.text for piece in pieces)
    assert said == "After five", f"got {said!r}: one piece for each event, in order"


@check("09.1", "generation", "reading.py")
def each_piece_comes_at_once(reading):
    """A piece is given on before the next event is awaited."""
    gaps = []
    read(reading, text("After"), text(" five"), STOP, "[DONE]", gaps=gaps)
    assert gaps, "no piece came"
    assert gaps[0] == 1, (
        f"{gaps[0]} events had been read when the first piece came: yield inside of the loop, or "
        "the reader waits for the last token"
    )


@check("09.1", "generation", "reading.py")
def the_reason_and_the_usage_come_through(reading):
    """The finish reason is given on, and the usage that comes after it."""
    pieces = read(reading, text("Yes"), STOP, USAGE, "[DONE]")
    reasons = [piece.finish_reason for piece in pieces if piece.finish_reason]
    assert reasons == ["stop"], "the piece with the finish reason has no text; give it on as well"
    usages = [piece.usage for piece in pieces if piece.usage]
    assert usages == [{"total_tokens": 9}], "the usage comes after the finish reason: read on"


@check("09.1", "generation", "reading.py")
def done_is_the_end(reading):
    """`[DONE]` is no JSON, and nothing after it is read."""
    pieces = read(reading, text("Yes"), STOP, "[DONE]", "not read")
    assert len(pieces) == 2, f"{len(pieces)} pieces from two events and [DONE]"
    assert read(reading, text("Yes"), "[DONE]"), "[DONE] alone ends an answer, too"


@check("09.1", "generation", "reading.py")
def a_reason_without_done_is_whole(reading):
    """A stream that ends after its finish reason is whole, with or without `[DONE]`."""
    try:
        pieces = read(reading, text("Yes"), STOP, USAGE)
    except BrokenOff as error:
        raise AssertionError("a finish reason had come: some servers send no [DONE]") from error
    assert len(pieces) == 3, f"{len(pieces)} pieces from three events"


@check("09.1", "generation", "reading.py")
def half_an_answer_is_none(reading):
    """A stream that ends without either raises BrokenOff, after its pieces."""
    for data in ([text("After five")], []):
        try:
            read(reading, *data)
        except BrokenOff:
            continue
        raise AssertionError(
            "the stream ended with neither [DONE] nor a finish reason, and it was taken for whole"
        )


@check("09.1", "generation", "reading.py")
def an_error_event_is_let_through(reading):
    """An error event in mid-answer ends it with BrokenOff."""
    try:
        read(reading, text("After"), {"error": {"message": "out of memory"}}, "[DONE]")
    except BrokenOff as error:
        said = str(error)
    else:
        raise AssertionError("the server said that it failed, and nobody was told: use piece_of")
    assert "out of memory" in said, "let the error of piece_of through as it is"


def step(module, **failure):
    found = module.next_step(Failure(**failure))
    assert isinstance(found, routing.Step), f"return a Step, not {found!r}"
    assert found.action in ("again", "elsewhere", "give up"), f"no such action: {found.action!r}"
    return found


def expect(module, action, why, **failure):
    found = step(module, **failure)
    told = ", ".join(f"{name}={value}" for name, value in failure.items())
    assert found.action == action, f"{told}: {found.action!r}, not {action!r}. {why}"


@check("09.2", "generation", "routing.py")
def what_passes_is_tried_again(module):
    """429, 5xx and a refused connection are tried again."""
    for status in (429, 500, 502, 503, None):
        expect(module, "again", "This may pass in a moment.", status=status, attempt=1, retries=1)


@check("09.2", "generation", "routing.py")
def a_wrong_request_is_wrong_everywhere(module):
    """A request that is wrong is neither repeated nor sent elsewhere."""
    for status in (400, 413, 422):
        why = "The same request fails in the same way, at every model."
        expect(module, "give up", why, status=status, others=0)
        expect(module, "give up", why, status=status, others=2)


@check("09.2", "generation", "routing.py")
def a_model_s_own_trouble_is_left_there(module):
    """401, 403, 404 and 504: not again, but elsewhere if there is another model."""
    for status in (401, 403, 404, 504):
        why = "Asking this model again helps nothing; another one may do."
        expect(module, "elsewhere", why, status=status, others=1)
        expect(module, "give up", "There is no other model.", status=status, others=0)


@check("09.2", "generation", "routing.py")
def nothing_after_the_first_token(module):
    """Once a part has gone to the caller, nothing is tried again, anywhere."""
    why = "The caller has read the beginning; another attempt writes other words behind it."
    for status in (503, 429, None, 401):
        expect(module, "give up", why, status=status, begun=True, retries=5, others=2)


@check("09.2", "generation", "routing.py")
def retries_are_counted(module):
    """`retries` further calls, and not one more."""
    expect(module, "give up", "No retries, no second call.", status=503, attempt=1, retries=0)
    expect(module, "again", "The second of three.", status=503, attempt=2, retries=2)
    expect(module, "give up", "Three calls were made.", status=503, attempt=3, retries=2)
    why = "The retries are used up; another model is left."
    expect(module, "elsewhere", why, status=503, attempt=3, retries=2, others=1)


@check("09.2", "generation", "routing.py")
def not_called_is_not_repeated(module):
    """A breaker that is open, or a model without a free place, is passed by."""
    why = "Nobody was asked, and nobody will be a moment later: do not wait for it."
    expect(module, "elsewhere", why, status=None, called=False, others=1)
    expect(module, "give up", why, status=None, called=False, others=0)


@check("09.2", "generation", "routing.py")
def the_deadline_holds(module):
    """No wait passes the deadline, and without time nothing is tried."""
    why = "The wait does not fit into the time that is left."
    expect(module, "give up", why, status=503, left=0.01)
    expect(module, "elsewhere", why, status=503, left=0.01, others=1)
    expect(module, "give up", "No time is left.", status=503, left=0.0, others=1)
    expect(module, "give up", "No time is left.", status=504, left=0.0, others=1)


@check("09.2", "generation", "routing.py")
def the_model_s_wish_is_kept(module):
    """The wait is never shorter than Retry-After, and Retry-After must fit as well."""
    wait = step(module, status=429, retry_after=3.0, left=60.0).wait
    assert wait >= 3.0, f"waits {wait:.2f} s, and the model asked for 3"
    for _ in range(20):
        wait = step(module, status=429, attempt=6, retries=9, retry_after=0.5, left=60.0).wait
        assert wait >= 1.6, f"waits {wait:.2f} s: the larger of the two, not always Retry-After"
    expect(module, "give up", "30 s do not fit into 20.", status=429, retry_after=30.0, left=20.0)
    why = "30 s do not fit into 20, but another model need not be waited for."
    expect(module, "elsewhere", why, status=429, retry_after=30.0, left=20.0, others=1)


@check("09.2", "generation", "routing.py")
def the_wait_doubles_and_is_spread(module):
    """0.1, 0.2, 0.4 … seconds, times a random factor from 0.5 to 1.5."""
    for attempt, middle in ((1, 0.1), (2, 0.2), (3, 0.4), (5, 1.6)):
        draws = [step(module, status=503, attempt=attempt, retries=9).wait for _ in range(300)]
        low, high = min(draws), max(draws)
        assert middle * 0.499 <= low <= high <= middle * 1.501, (
            f"attempt {attempt} waits {low:.2f} to {high:.2f} s, not {middle / 2:.2f} to "
            f"{middle * 1.5:.2f}: 0.1 * 2 ** (attempt - 1), times 0.5 to 1.5"
        )
        assert high > 1.2 * low, "always the same wait: callers that failed together come together"


@check("09.2", "generation", "routing.py")
def same_as_the_reference(module):
    """On two thousand drawn failures it agrees with the reference."""
    draw = random.Random(9)
    for _ in range(2000):
        failure = Failure(
            status=draw.choice([None, 400, 401, 403, 404, 409, 413, 422, 429, 500, 502, 503, 504]),
            called=draw.random() > 0.1,
            begun=draw.random() > 0.8,
            attempt=draw.randint(1, 4),
            retries=draw.randint(0, 3),
            others=draw.randint(0, 2),
            left=draw.choice([0.0, 0.01, 5.0, 60.0]),
            retry_after=draw.choice([None, None, 2.0, 30.0]),
        )
        mine, reference = module.next_step(failure).action, routing.next_step(failure).action
        assert mine == reference, f"{failure}: {mine!r}, the reference says {reference!r}"


ASKED = {
    "model": "default",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
    "temperature": 0.0,
    "seed": 42,
    "max_tokens": 256,
    "prompt": {"template": "answer", "version": None, "language": "en", "variables": {"a": "b"}},
    "stream": False,
    "stream_options": None,
    "user": None,
    "request_id": "a1",
}


def key(module, **other):
    found = module.cache_key(ASKED | other)
    try:
        hash(found)
    except TypeError as error:
        raise AssertionError(f"a {type(found).__name__} cannot be a key: {error}") from error
    return found


def differs(module, why, **other):
    assert key(module, **other) != key(module), f"another {', '.join(other)}, the same key: {why}"


@check("09.3", "generation", "cache.py")
def equal_requests_have_one_key(module):
    """The same request twice has the same key, and it has one."""
    assert key(module) is not None, "at temperature 0 the answer may be kept: give it a key"
    assert key(module) == key(module), "the same request has two keys: there is no hit, ever"


@check("09.3", "generation", "cache.py")
def who_asks_does_not_matter(module):
    """Another request id, user, or way of sending is the same answer."""
    for other in (
        {"request_id": "b2"},
        {"user": "somebody"},
        {"stream": True},
        {"stream": True, "stream_options": {"include_usage": True}},
    ):
        assert key(module, **other) == key(module), (
            f"{', '.join(other)} changed the key, and no answer: that request is never a hit"
        )


@check("09.3", "generation", "cache.py")
def the_model_enters(module):
    """Two models, two keys."""
    differs(module, "one model's words would be given out as another's.", model="big")


@check("09.3", "generation", "cache.py")
def the_version_of_the_prompt_enters(module):
    """The same template name, rendered by another version, is another answer."""
    newer = [{"role": "system", "content": "Answer in one sentence."}, ASKED["messages"][1]]
    differs(
        module,
        "version None was v1 yesterday and is v2 today. The rendered messages say what was sent.",
        messages=newer,
    )
    one = key(module, prompt=None)
    other = key(module, prompt=None, messages=newer)
    assert one != other, "without a template, the messages alone tell two requests apart"


@check("09.3", "generation", "cache.py")
def every_message_enters(module):
    """Roles, order and borders of the messages count."""
    system, user = ASKED["messages"]
    swapped = [system | {"role": "user"}, user | {"role": "system"}]
    differs(module, "the roles are exchanged.", messages=swapped)
    differs(module, "the order is another.", messages=[user, system])
    glued = [system | {"content": "Be brief.W"}, user | {"content": "hy?"}]
    differs(module, "texts that are glued together lose their borders.", messages=glued)


@check("09.3", "generation", "cache.py")
def every_limit_enters(module):
    """Seed, max_tokens, and a field that nobody thought of."""
    differs(module, "an answer that was cut short is not the long one.", max_tokens=5)
    differs(module, "the caller asked for another draw.", seed=7)
    why = "leave out what does not matter, and keep all the rest, known or not."
    differs(module, why, stop=["."])
    differs(module, why, response_format={"type": "json_object"})


@check("09.3", "generation", "cache.py")
def the_order_of_a_dictionary_does_not_matter(module):
    """Fields in another order are the same request, in the messages too."""
    messages = [dict(reversed(message.items())) for message in ASKED["messages"]]
    turned = dict(reversed((ASKED | {"messages": messages}).items()))
    assert module.cache_key(turned) == key(module), "sort the fields: json.dumps has sort_keys"


@check("09.3", "generation", "cache.py")
def what_may_differ_is_not_kept(module):
    """Above temperature 0 there is no key."""
    for temperature in (0.1, 1.0):
        found = key(module, temperature=temperature)
        assert found is None, f"at temperature {temperature} two answers may differ: return None"


@check("09.3", "generation", "cache.py")
def what_was_asked_stays_as_it_is(module):
    """The request itself is not changed."""
    asked = json.loads(json.dumps(ASKED))
    module.cache_key(asked)
    assert asked == ASKED, "the request still has to be sent: copy it, do not delete from it"
