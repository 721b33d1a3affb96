# %% [markdown]
# # 11 · The gateway and the orchestrator: the one way in
#
# | level | minutes | before this | the services |
# |---|---|---|---|
# | intermediate | 45 | `00_start_here` | `gateway`, `orchestrator` |
#
# **Goal.** Thirteen services, one door. After this lesson you can
#
# 1. say in which order a request is refused, and read the refusal: 401, 404, 422, 429;
# 2. write a token bucket and a key check, and say what each does not protect;
# 3. spend one deadline over six stages, so that a stage that hangs costs itself and not the answer.
#
# **The step.** The monolith has no door: whoever can run it may ask. Here `gateway` decides who may ask,
# how often and what, and `orchestrator` decides how long each stage may take. You write the core
# of both, they take the references' places, and the twenty fixed questions go in through your door.
#
# ## The answers before the step
#
# A split may change the architecture, never the result. So the fixed questions come first. Where the
# language model has to write the answers, because it has not done so since the start, this takes a
# minute or two.

# %%
import workshop

here = workshop.start()
door = here.url("gateway")

# %%
before = workshop.fixed_answers(1, 10)

# %%
before += workshop.fixed_answers(11, 20)

# %% [markdown]
# ## What the door refuses
#
# `call` is a client as anybody could write one. Three of its five requests are wrong.
#
# **Predict.** An empty question goes to `/v2/answer`. Two things are wrong with it. Which does the gateway
# complain about?
#
# <details><summary>Answer</summary>
#
# The version. The order is: version, caller, quota, size of the body, and only then what is in it. The
# cheap checks come first, and a stranger learns nothing about the inside.
# </details>

# %%
import json
from http.client import HTTPConnection


def call(base, path, body=None, method=None, **headers):
    """(status, headers, document). A keyword names a header: `x_api_key` is `x-api-key`."""
    connection = HTTPConnection(base.removeprefix("http://"), timeout=30)
    named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    method = method or ("POST" if body else "GET")
    data = json.dumps(body) if body else None
    connection.request(method, path, data, {"content-type": "application/json", **named})
    response = connection.getresponse()
    text = response.read().decode()
    return response.status, response.headers, json.loads(text) if text[:1] == "{" else text


# %%
asked = [
    ("/v1/answer", {"question": "Which constant does reciprocal rank fusion use by default?"}),
    ("/v1/answer", {"question": "Qual constante a fusão RRF usa por padrão?"}),
    ("/v2/answer", {"question": ""}),
    ("/v1/answer", {"question": ""}),
    ("/v1/answer", {"question": "q", "filter": {"colour": ["red"]}}),
]
for path, body in asked:
    status, headers, document = call(door, path, body)
    fields = [error["field"] for error in document.get("errors", [])]
    print(status, path, document.get("type", "an answer").rpartition(":")[2], *fields)
print(headers["content-type"], "-", document["detail"])

# %% [markdown]
# Each refusal is a **problem document** (RFC 9457): one shape for the errors of all services. A program
# reads `type` and `errors`, which names the field; a person reads `detail`; and its `request_id`
# finds the lines in the log.
#
# The version stands in the path. A new optional field needs no new one. A field that is renamed or
# becomes required breaks somebody, and needs `/v2` beside `/v1` for an announced time (handbook, *API
# gateway*).
#
# ## How often: the hole in the window
#
# The obvious limit counts requests in each calendar minute.
#
# **Predict.** The limit is 100 a minute. A client sends 100 requests in the last second of a minute, and 100 in the
# first second of the next. How many pass within these two seconds?
#
# <details><summary>Answer</summary>
#
# All 200: each minute has its own count. The limit says 100 a minute, and the service behind gets twice
# that in two seconds.
# </details>
#
# ## Exercise 11.1: the token bucket
#
# A **token bucket** has no border to wait for. It holds at most `capacity` tokens, and `rate` tokens a
# second flow in. A request takes one. If there is less than one, it is refused and told how long to wait.
#
# Nothing runs in between: two numbers are kept, `bucket.tokens` and `bucket.at`, the second (of a monotonic
# clock) at which there were so many. When somebody comes at `now`, you work out what has flowed in. Return
# 0 if a token was taken, else the whole seconds until there is one: this is `Retry-After`.
#
# <details><summary>Hint 1: the refill</summary>
#
# What flowed in is `rate` times the time that passed, and the bucket holds no more than `capacity`. Then
# the bucket's time moves on as well, or the same seconds are counted again at the next request.
# </details>
#
# <details><summary>Hint 2: the wait</summary>
#
# `1 - bucket.tokens` is missing, and it comes at `rate` a second. Round up: a client told 0 comes back at
# once, and one told too little is refused again.
# </details>
#
# <details><summary>Hint 3: a clock that lags</summary>
#
# If `now` lies before `bucket.at`, no time has passed. The bucket must neither lose tokens nor turn its
# time back.
# </details>

# %%
workshop.save_cell("gateway", "bucket.py")
import math


def take_token(bucket, now, *, rate, capacity):
    """0: a token was taken from `bucket` (`.tokens`, `.at`); else seconds to wait, 1 or more."""
    # BEGIN SOLUTION 11.1: refill, then take or say how long to wait
    elapsed = max(0.0, now - bucket.at)
    bucket.tokens = min(capacity, bucket.tokens + elapsed * rate)
    bucket.at += elapsed
    if bucket.tokens >= 1:
        bucket.tokens -= 1
        return 0
    return math.ceil((1 - bucket.tokens) / rate)
    # END SOLUTION


# %% tags=["check"]
workshop.check("11.1")

# %%
from services.gateway.domain import Bucket


def through(arrivals, rate, capacity):
    """Whether each arrival passes your bucket, which is full at the first."""
    bucket = Bucket(capacity, arrivals[0])
    return [take_token(bucket, at, rate=rate, capacity=capacity) == 0 for at in arrivals]


rush = [59 + n / 100 for n in range(200)]
in_each_minute = [sum(at // 60 == minute for at in rush) for minute in (0, 1)]
print("counted by the minute:", sum(min(100, n) for n in in_each_minute), "of", len(rush), "pass")
print("through your bucket:  ", sum(through(rush, 100 / 60, 100)), "of", len(rush), "pass")

# %% id="accepted-and-refused"
from matplotlib import pyplot as plt

arrivals = [0.0] * 15 + [10.0] * 15 + [10 + n / 4 for n in range(1, 41)]
passed = through(arrivals, rate=2, capacity=10)
for wanted, label, colour in ((True, "accepted", "tab:blue"), (False, "refused", "tab:red")):
    times = [at for at, ok in zip(arrivals, passed, strict=True) if ok is wanted]
    plt.step(times, range(1, len(times) + 1), where="post", label=label, color=colour)
plt.plot([0, 20], [10, 10 + 2 * 20], "--", color="gray", label="capacity + rate × time")
plt.xlabel("seconds")
plt.ylabel("requests so far")
plt.legend()
plt.show()
print([sum(part) for part in (passed[:15], passed[15:30], passed[30:])], "of [15, 15, 40] pass")

# %% [markdown]
# Here a client sends a burst of 15, is silent, sends 15 again, and then goes on at 4 a second; capacity 10,
# rate 2. The blue line never crosses the dashed one: the bucket lets through at most its capacity and what
# flowed in meanwhile. The second burst met a full bucket. The stream after it got half of what it asked for.
#
# What it does not do: it counts requests, not their cost, and one question to the model may cost a hundred times
# another. And it counts in one process: two gateways give twice the limit, unless they share a store
# (handbook, *Rate limiting*).
#
# ## Who: keys
#
# A key is 32 random bytes. The gateway keeps only its SHA-256, so whoever reads its settings cannot call.
# A slow password hash would add nothing: there is nothing to guess among 2²⁵⁶ keys.
# The other common credential is a signed token (JWT). It is checked without a list of keys, and cannot be
# taken back before it expires; this gateway uses keys.
#
# **Predict.** `==` on two strings stops at the first character that differs. What could a stranger learn from the
# time that a 401 takes?
#
# <details><summary>Answer</summary>
#
# How much of a guess was right, character by character, if the comparison is on something that the stranger
# controls. Hashing first takes most of that away: one changed letter changes the whole hash. The rest is
# taken away by a comparison that always looks at everything, and it costs one word: `hmac.compare_digest`
# (its page in Python's documentation says when to use it).
# </details>
#
# ## Exercise 11.2: whose key
#
# `hashes` maps a name to the SHA-256 of that person's key, in hexadecimal digits. Return the name whose key was
# given, or None. Take as long whichever entry matches: compare **every** entry, by
# `hmac.compare_digest`. A key from outside may hold any character; `str.encode()` takes all of them.
#
# <details><summary>Hint</summary>
#
# Hash the given key once, as `hashlib.sha256(...).hexdigest()`. Go through all names, remember the one that
# matches, and return after the loop. A dictionary from hash to name would be quicker, and its time
# depends on what was given.
# </details>

# %%
workshop.save_cell("gateway", "keys.py")
import hashlib
import hmac


def holder_of(key, hashes):
    """The name whose key this is, or None. `hashes`: name -> SHA-256 in hexadecimal digits."""
    # BEGIN SOLUTION 11.2: compare the key's hash with every entry
    given = hashlib.sha256(key.encode()).hexdigest()
    found = None
    for name, expected in hashes.items():
        if hmac.compare_digest(given, expected):
            found = name
    return found
    # END SOLUTION


# %% tags=["check"]
workshop.check("11.2")

# %% [markdown]
# ## Your gateway, with keys
#
# The running gateway has no keys, so it lets in this machine only. Yours starts beside it with other
# settings: two keys, five requests an hour for each, and one website whose pages may call.
#
# **Predict.** Bob sends one request, Ana eight in a row, and then Bob one more. Which get in?
#
# <details><summary>Answer</summary>
#
# Ana's first five, and both of Bob's. Each key has its own bucket. Requests without a right key take
# nothing from anybody's bucket: who calls is settled first.
# </details>
#
# The third cell plays a browser. Before a page of another site may post JSON, its browser asks `OPTIONS` with
# an `Origin`. This is the **preflight** of CORS. It carries no key, and needs none.

# %%
from services.gateway.keys import key_hash, new_key

ana, bob = new_key(), new_key()
mine = workshop.serve(
    "gateway",
    api_keys=f"ana:{key_hash(ana)} bob:{key_hash(bob)}",
    rate_limit="5/hour",
    cors_origins=["https://app.example"],
)
for given in ({}, {"x_api_key": ana + "x"}, {"authorization": f"Bearer {bob}"}):
    status, headers, _ = call(mine.url, "/v1/models", **given)
    print(status, headers["www-authenticate"])

# %%
print("ana", [call(mine.url, "/v1/models", x_api_key=ana)[0] for _ in range(8)])
status, headers, problem = call(mine.url, "/v1/models", x_api_key=ana)
print("ana", problem["type"].rpartition(":")[2], headers["ratelimit-policy"])
assert 600 < int(headers["retry-after"]) <= 720, "a fifth of an hour, less what has passed"
print("bob", call(mine.url, "/v1/models", x_api_key=bob)[0])

# %%
ask = {"access_control_request_method": "POST", "access_control_request_headers": "x-api-key"}
for origin in ("https://app.example", "https://evil.example"):
    status, headers, _ = call(mine.url, "/v1/answer", method="OPTIONS", origin=origin, **ask)
    print(status, origin, "may read:", headers["access-control-allow-origin"])
status, headers, models = call(mine.url, "/v1/models", x_api_key=bob, origin=origin)
print(status, origin, "got", len(models["data"]), "models;", headers["access-control-allow-origin"])
mine.stop()

# %% [markdown]
# `RateLimit-Policy` and `RateLimit` (an IETF draft) tell a client on every answer how much is left, so that a
# good client never sees a 429. `Retry-After` tells the others when to come back.
#
# The last call came from the wrong origin, and was answered all the same: this client is no browser. CORS keeps
# a browser from handing an answer to a foreign page. It keeps nobody from calling; keys do that.
#
# ## How long: one deadline for all
#
# **Predict.** A request passes four services, one after the other, and each call has a timeout of 2 s. How long
# may the user wait?
#
# <details><summary>Answer</summary>
#
# 8 s, with every timeout kept. Timeouts add up. A **deadline** is one moment for the whole, and
# bounds the sum (handbook, *Deadlines and timeouts*).
# </details>
#
# The time that is left travels in the header `x-deadline-ms`, as a duration, because clocks of two
# machines differ. A caller may ask for less than the gateway's 60 s, never for more.

# %%
question = {"question": "When does a circuit breaker open?"}
status, _, problem = call(door, "/v1/answer", question, x_deadline_ms=1)
print(status, problem["title"])
for text in (question["question"], "Quando um disjuntor abre?", "What is a circuit breaker?"):
    status, _, document = call(door, "/v1/answer", {"question": text}, x_deadline_ms=60_000)
    print(status, document["language"], len(document["timings"]), "stages:", text)

# %% [markdown]
# ## Exercise 11.3: a stage within what is left
#
# A `Stage` has a `cap`, the longest that it may take; a `share`, what the stages before it leave for it;
# and `least`, half of the share: with less it is not worth beginning.
#
# Give the stage `left` minus the shares of all `later` stages, and at most its cap. If that is less than
# its least, do not begin it. Otherwise return what `await work(seconds)` gives. `work` gives up by itself
# after `seconds`, with a `CallFailed`. A stage that is not begun, or whose call failed, returns None and says
# why in `lost[stage.name]`.
#
# <details><summary>Hint 1: what to catch</summary>
#
# `CallFailed`, which has a `reason`, and nothing else. A `KeyError` is a bug, and must be seen. When the
# user leaves, `asyncio.CancelledError` ends the work; who swallows it goes on working for nobody.
# </details>
#
# <details><summary>Hint 2: an example</summary>
#
# 1.2 s are left, the cap is 0.4 s, the shares of the two later stages are 0.1 s and 0.8 s. The stage gets
# min(0.4, 1.2 - 0.9) = 0.3 s.
# </details>

# %%
workshop.save_cell("orchestrator", "stage.py")
from services.chassis import CallFailed


async def run_stage(work, stage, later, left, lost):
    """What `await work(seconds)` gives; or None, and `lost[stage.name]` says why."""
    # BEGIN SOLUTION 11.3: run the stage within its time, or note that it is lost
    seconds = min(stage.cap, left - sum(item.share for item in later))
    if seconds < stage.least:
        lost[stage.name] = "not begun: too little time is left"
        return None
    try:
        return await work(seconds)
    except CallFailed as error:
        lost[stage.name] = error.reason
        return None
    # END SOLUTION


# %% tags=["check"]
workshop.check("11.3")

# %% [markdown]
# Your function on a small pipeline, with a clock that is only counted. Reranking hangs, the user waits 1.2 s.
#
# **Predict.** Reranking has a cap of 0.8 s. After the search, 1.0 s is left; the shares of context and generation
# are 0.2 s and 0.5 s, and they need 0.5 s together. How long does the pipeline wait for reranking, and
# when does the answer come?
#
# <details><summary>Answer</summary>
#
# 1.0 - 0.2 - 0.5 = 0.3 s. Then context and generation take 0.5 s, and the answer comes after 1.0 s. With
# its own timeout alone, reranking takes 0.8 s, and the answer comes after 1.5 s, when the user has left.
# </details>

# %%
from services.orchestrator.stages import Stage

NEEDS = {"search": 0.2, "reranking": 60.0, "context": 0.1, "generation": 0.4}
PLAN = [
    Stage("search", cap=0.8, share=0.3),
    Stage("reranking", cap=0.8, share=0.2),
    Stage("context", cap=0.5, share=0.2),
    Stage("generation", cap=0.8, share=0.5),
]


async def own_timeout(work, stage, later, left, lost):
    """Each stage has its own timeout, and knows nothing of the whole."""
    return await run_stage(work, stage, [], stage.cap + 1, lost)


# %%
async def play(run, total):
    """[(stage, start, seconds)] and what was lost, on a clock that is only counted."""
    rows, lost = [], {}
    for at, stage in enumerate(PLAN):
        start = rows[-1][1] + rows[-1][2] if rows else 0.0

        async def work(seconds, stage=stage, start=start):
            rows.append((stage.name, start, min(seconds, NEEDS[stage.name])))
            if seconds < NEEDS[stage.name]:
                raise CallFailed(stage.name, f"no answer within {seconds:.1f} s")
            return "done"

        await run(work, stage, PLAN[at + 1 :], total - start, lost)
    return rows, lost


# %% id="own-timeout-or-deadline"
plt.figure(figsize=(9, 2.4))
for number, (name, run) in enumerate({"own timeout": own_timeout, "deadline": run_stage}.items()):
    rows, lost = await play(run, 1.2)
    print(f"{name:<11} answer after {sum(rows[-1][1:]):.1f} s, lost: {lost}")
    for stage, start, seconds in rows:
        colour = "tab:orange" if stage in lost else "tab:blue"
        plt.barh(number, seconds, left=start, color=colour, edgecolor="white")
        plt.text(start, number, f" {stage}", va="center", fontsize=8, color="white")
plt.axvline(1.2, color="tab:red")
plt.yticks([0, 1], ["own timeout", "deadline"])
plt.xlabel("seconds; red: the deadline")
plt.show()

# %% [markdown]
# ## In the real pipeline
#
# A server that takes a call and never answers plays the reranking of your orchestrator, for one question.

# %%
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

told = []


class Silent(BaseHTTPRequestHandler):
    def do_POST(self):
        told.append(int(self.headers["x-deadline-ms"]))
        time.sleep(3)


silent = ThreadingHTTPServer(("127.0.0.1", 0), Silent)
threading.Thread(target=silent.serve_forever, daemon=True).start()

# %% id="reranking-hangs"
from workshop.learn import Answer

gone = f"http://127.0.0.1:{silent.server_port}"
with workshop.serve("orchestrator", reranking_url=gone) as url:
    status, _, document = call(url, "/v1/answer", question, x_deadline_ms=4000)
silent.shutdown()
answer = Answer(document)
here.trace(answer)
assert 0 < told[0] <= 1000, "reranking was told its own time, not the caller's"
assert max(stage["start_ms"] + stage["ms"] for stage in answer.timings) < 4000
print(status, "reranking:", answer.timings[2]["status"], "- an answer:", bool(answer.text))
assert "reranking" in answer.degraded

# %% [markdown]
# The answer is there, before the deadline, from the order that search gave; and `degraded` says what is
# missing. If generation is orange as well, the model was not done within what was left of the 4 s, and the
# answer is an extract. What the loss of each stage does is a decision, and stands in the orchestrator's README: without
# search there is no answer (503), without generation it is the best sentences, and text of the model that was not
# checked is never shown.
#
# ## Your services, and the proof
#
# First the contracts: yours are held to the same tests as the references. Then the door itself is exchanged
# while the house is open, and the twenty questions come in through it.

# %% tags=["check"]
workshop.check("11")

# %%
workshop.swap("gateway")

# %%
workshop.swap("orchestrator")
after = workshop.fixed_answers()
workshop.same(before, after)

# %% [markdown]
# ## The bill
#
# **Predict.** The same search is asked of `gateway` and of `hybrid_search` behind it. What does the door add:
# about as much as the search itself, or a small part of it?
#
# <details><summary>Answer</summary>
#
# A few milliseconds: one more HTTP call, JSON once more, the checks. Compare the two lines below; on a
# busy machine the difference may drown in the noise. It hardly grows with the work behind it, so a quick
# search pays relatively more than an answer.
# </details>

# %% tags=["nbval-ignore-output"]
bill = workshop.bill("gateway", "hybrid_search", "orchestrator")
bill

# %% tags=["check"]
outer, search, pipeline = bill.lines
assert all(0 < line.inside <= line.ms for line in bill.lines)
assert min(line.memory for line in bill.lines) > 1_000_000
assert outer.received > search.received, "what was found, and whether it was reranked"
assert pipeline.received < search.received, "an answer is shorter than the passages behind it"
print("measured over", outer.calls, "calls each")

# %%
bill.plot()
workshop.restore("orchestrator")
workshop.restore("gateway")

# %% [markdown]
# ## What moved, what it cost, what it bought
#
# - **Moved:** who may ask, how often and what, into the gateway; the order and the time of the stages, into the
#   orchestrator. No service behind them knows a key or a quota.
# - **Cost:** one hop on every request, two processes, and a single point of failure: when the door is
#   shut, nobody gets in. Run two behind a balancer, and share the counts.
# - **Bought:** one shape of refusal, limits that a client can read, and an answer that comes in time with
#   a part missing, in place of one that comes too late with all of it.
# - **Not bought:** better answers, or quicker ones. A deadline makes nothing faster; it decides what is
#   given up. And a limit that counts requests does not see that one costs a hundred times another.
#
# **Next:** lesson 12, `feedback`, hears what the readers say. `workshop.progress()` shows the board.
