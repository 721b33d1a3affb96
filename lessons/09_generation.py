# %% [markdown]
# # 09 · Generation: one API in front of every model
#
# | level | minutes | before this | the service |
# |---|---|---|---|
# | intermediate | 45 | `00_start_here` | `generation` |
#
# **Goal.** A language model is slow, costs money, and is somebody else's computer more often than not. Ten
# callers should not each learn that. After this lesson you can
#
# 1. read a streamed answer, and tell a whole one from one that broke off;
# 2. decide after a failure: ask again, ask another model, or give up;
# 3. say what belongs in the key of a prompt cache, and what must stay out;
# 4. measure the time to the first token against the whole answer, with and without caches.
#
# **The step.** In the monolith one line calls one model. Here it is a service, `generation`, that speaks
# OpenAI's API to its callers and knows the prompts, the models and their failures. You write its
# three decisions.
#
# ## One API
#
# Most model servers and clouds offer the same contract: OpenAI's chat completions. So any client of it works
# here, the official one included. The caller names a model; where it runs, and with which key, is this
# service's business.

# %%
import openai

import workshop

here = workshop.start()
url = here.url("generation")
client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
for model in client.models.list():
    print(model.id, "is answered by", model.owned_by)

# %% [markdown]
# ## Prompts are versioned files
#
# A word moved in a prompt can change every answer. So a prompt is a file with a version:
# `prompts/answer/v2/en.toml`. The service renders it; the caller sends values only.
#
# **Predict.** A language model's server keeps the state of the longest beginning that it has read before. What should
# come first in a prompt, and what last?
#
# <details><summary>Answer</summary>
#
# First what never changes: the instructions. Then the sources, then the question. A date or a request id at
# the top would make each prompt new from its first word on (handbook, *Prompt caching*).
# </details>

# %%
from services.generation.domain import render
from services.generation.evaluate import sections
from workshop import paths

QUESTION = "How does full jitter choose the time to wait?"
SECTION = "en/retries-and-circuit-breakers#exponential-backoff-with-jitter"
source = dict(sections(paths.ROOT / "handbook"))[SECTION]
values = {"question": QUESTION, "context": f"[1] {source}"}
for version in ("v1", "v2"):
    messages = render("answer", "en", values, version)
    words = sum(len(message["content"].split()) for message in messages)
    print(version, len(messages), "messages,", words, "words")

# %% [markdown]
# `v1` has rules and worked examples, `v2` says the same in three sentences. Longer is not better here: with the
# default model `v2` got 12 of 20 plain questions right and `v1` 9 (`services/generation/README.md`, with
# the command that measures it).
#
# ## The first token and the last
#
# **Predict.** The same question three times: with a prompt that the model has never read; with the same prompt
# but another seed; and exactly as the first time. What is quick in the second, and what in the
# third?
#
# <details><summary>Answer</summary>
#
# In the second, the first token: the LLM server has the prompt's state (a *prefix cache*) and only has to
# write. In the third, everything: `generation` kept the answer (an *exact cache*) and no model is asked.
# </details>

# %%
import time


def ask(url, messages, **more):
    """([(seconds since the request, text), ...], the last chunk) of a streamed answer."""
    more |= {"stream": True, "stream_options": {"include_usage": True}}
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    started, pieces, chunk = time.perf_counter(), [], None
    for chunk in client.chat.completions.create(messages=messages, **more):
        if chunk.choices and chunk.choices[0].delta.content:
            pieces.append((time.perf_counter() - started, chunk.choices[0].delta.content))
    return pieces, chunk


# %% tags=["nbval-ignore-output"]
import secrets

stamp = secrets.token_hex(4)  # nobody has read a prompt with it
values = {"question": QUESTION, "context": f"{stamp}\n[1] {source}"}
messages = render("answer", "en", values)
rounds = {"new": ask(url, messages, model="default", max_tokens=60)}
rounds["other seed"] = ask(url, messages, model="default", max_tokens=60, seed=7)
rounds["same again"] = ask(url, messages, model="default", max_tokens=60)
for name, (pieces, last) in rounds.items():
    cached = last.usage.prompt_tokens_details.cached_tokens
    print(f"{name:<11} first {pieces[0][0]:5.2f} s  whole {pieces[-1][0]:5.2f} s", end="  ")
    print(f"{cached} of {last.usage.prompt_tokens} prompt tokens were known to the server")

# %% tags=["check"]
new, other, again = (rounds[name] for name in ("new", "other seed", "same again"))
known = [r[1].usage.prompt_tokens_details.cached_tokens for r in (new, other)]
assert known[0] < 0.5 * new[1].usage.prompt_tokens < 0.9 * known[1] + 0.5
assert "".join(text for _, text in again[0]) == "".join(text for _, text in new[0])
assert again[0][-1][0] < new[0][0][0], "the whole remembered answer before a new one's first token"
print("other seed: the prompt was known; same again: the whole answer was, word for word")

# %% id="first-token"
from matplotlib import pyplot as plt

plt.figure(figsize=(7, 3))
for name, (pieces, _) in rounds.items():
    seconds = [at for at, _ in pieces]
    assert seconds == sorted(seconds)
    plt.step([0, *seconds], range(len(seconds) + 1), where="post", label=name)
plt.xlabel("seconds since the request")
plt.ylabel("pieces of text received")
plt.legend()
plt.show()

# %% [markdown]
# Read the curve of the new prompt from left to right: a flat part in which the model *reads*, then stairs
# in which it *writes*. Streaming shortens nothing; it lets the reader begin at the first stair. (The third usage
# repeats the first: it was remembered with the answer.)
#
# ## What travels
#
# A stream is an HTTP answer in small **server-sent events**: lines that begin with `data:`, and an empty
# line after each. Here are the first event and the last three of a very short answer.

# %%
import json
import urllib.request

body = {"messages": [{"role": "user", "content": "Count from one to ten."}]}
body |= {"max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}}
request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode())
request.add_header("content-type", "application/json")
raw = urllib.request.urlopen(request, timeout=50).read().decode()
events = [event.removeprefix("data: ") for event in raw.split("\n\n") if event]
for event in (json.loads(event) for event in (events[0], *events[-3:-1])):
    print(event["choices"] or f"usage: {event['usage']['completion_tokens']} tokens written")
print(events[-1])

# %% [markdown]
# `length` says that the answer was cut by `max_tokens`; a model that has finished says `stop`. The usage comes
# **after** the reason. Status 200 went out with the first byte, so a failure in mid-answer cannot be
# a status any more.
#
# ## Exercise 09.1: read a stream
#
# `events` gives the `data` of each event that a model server sends, as it comes. Write the async generator
# that makes pieces of them.
#
# - `piece_of(chunk)` turns a decoded chunk into a `Piece` (`text`, `finish_reason`, `usage`). For an error
#   event it raises `BrokenOff`; let that through.
# - Give each piece on at once, those without text too.
# - `[DONE]` is the end. Some servers leave it out: then the answer is whole if a finish reason has come.
# - A stream that ends with neither is **no answer**: raise `BrokenOff`. Otherwise half a sentence is shown
#   as a whole one, and the cache keeps it.
#
# <details><summary>Hint</summary>
#
# `async for data in events:` and `yield`. Keep a flag for the finish reason, and look at it after the loop. A
# `return` in a generator ends it.
# </details>

# %%
workshop.save_cell("generation", "reading.py")
import json

from services.generation.reading import BrokenOff, piece_of


async def read_answer(events):
    """The pieces of an answer, each as soon as its event is there. Raises BrokenOff."""
    # BEGIN SOLUTION 09.1: make pieces of the events
    finished = False
    async for data in events:
        if data == "[DONE]":
            return
        piece = piece_of(json.loads(data))
        finished = finished or piece.finish_reason is not None
        yield piece
    if not finished:
        raise BrokenOff("the answer broke off before its end")
    # END SOLUTION


# %% tags=["check"]
workshop.check("09.1")

# %% [markdown]
# ## After a failure
#
# **Predict.** A model answers 429 with `Retry-After: 30`; the caller waits for 20 more seconds. Another answers
# 400. A third breaks off after "The breaker opens". A second provider stands by. What is to be done
# in each case?
#
# <details><summary>Answer</summary>
#
# 429: thirty seconds do not fit; ask the other provider now. 400: the request is wrong, and it is wrong
# everywhere; give up. Broken off: give up too. The reader has seen the beginning, and another attempt would
# write other words behind it.
# </details>
#
# ## Exercise 09.2: again, elsewhere, or give up
#
# `failure` holds `status` (None: nothing came, the connection was refused or broke), `called` (False: nobody was
# asked, because a breaker is open or every place is taken), `begun`, `attempt` (calls of this
# model so far, 1 is the first), `retries` (how often it may be asked *again*), `others` (models not
# tried yet), `left` (seconds) and `retry_after` (seconds, or None). Return a `Step`:
#
# | when | step |
# |---|---|
# | a part has gone to the caller, no time is left, or the request is wrong (4xx but 401, 403, 404, 429) | `Step("give up")` |
# | it may pass: 429, 5xx but 504, or it was called and nothing came; while retries remain and the wait fits | `Step("again", wait)` |
# | all else: 401, 403, 404 (this model's key, address, name), 504 (too slow), not called, used up | `Step("elsewhere")`, or give up if there is no other |
#
# The wait is `0.1 · 2^(attempt-1)` seconds times a random factor from 0.5 to 1.5 (**jitter**: callers that
# failed together must not come back together), and never less than `retry_after`. It fits if
# it is shorter than `left`.
#
# <details><summary>Hint 1: the order</summary>
#
# Test for "give up" first, then for "again". What is left is the last row. `status or 0` saves a test for
# None.
# </details>
#
# <details><summary>Hint 2: counting</summary>
#
# With `retries = 1` the first failure (`attempt = 1`) may be repeated and the second may not.
# </details>

# %%
workshop.save_cell("generation", "routing.py")
import random

from services.generation.routing import Step


def next_step(failure):
    """What to do after a failed call of a model: a Step."""
    # BEGIN SOLUTION 09.2: decide what to do next
    status = failure.status or 0
    wrong_everywhere = 400 <= status < 500 and status not in (401, 403, 404, 429)
    if failure.begun or failure.left <= 0 or wrong_everywhere:
        return Step("give up")
    pause = 0.1 * 2 ** (failure.attempt - 1) * random.uniform(0.5, 1.5)
    wait = max(pause, failure.retry_after or 0.0)
    passing = failure.called and status not in (401, 403, 404, 504)
    if passing and failure.attempt <= failure.retries and wait < failure.left:
        return Step("again", wait)
    return Step("elsewhere" if failure.others else "give up")
    # END SOLUTION


# %% tags=["check"]
workshop.check("09.2")

# %%
from services.generation.routing import Failure

for failure in (
    Failure(429, others=1, retry_after=30.0, left=20.0),
    Failure(400, others=1),
    Failure(None, others=1, begun=True),
    Failure(503, others=1, attempt=1, retries=1),
    Failure(503, others=1, attempt=2, retries=1),
):
    print(f"{failure.status!s:<5} attempt {failure.attempt}: {next_step(failure).action}")

# %% [markdown]
# ## Exercise 09.3: the key of the prompt cache
#
# At temperature 0 the same request should get the same answer, so it need not be written twice. But what is *the
# same request*? `asked` is a dictionary of all that is known: the `model`, the rendered `messages`,
# `temperature`, `seed`, `max_tokens` and other limits if the caller set them; and also `request_id`,
# `user`, `stream`, `stream_options` and `prompt` (template and version as the caller wrote them; the
# version may be None, and the newest is taken).
#
# Return something hashable that is equal if and only if the answer would be, whatever the order of a
# dictionary's entries. Return None where a second answer may differ: above temperature 0.
#
# <details><summary>Hint 1: leave out, do not pick</summary>
#
# A field that you forget to leave out costs hits. A field that you forget to put in gives somebody the
# wrong answer. So remove the five that do not matter, and keep all others, known or not.
# </details>
#
# <details><summary>Hint 2: dictionaries are not hashable</summary>
#
# `json.dumps(..., sort_keys=True)` writes equal dictionaries equally, nested ones too. Gluing texts
# together does not do: "ab" + "c" is "a" + "bc".
# </details>
#
# **Predict.** Behind the check, all questions of the handbook's question file get a key, each once. How many
# of them would be answered from the cache?
#
# <details><summary>Answer</summary>
#
# None: no two are equal, letter by letter. An exact cache pays for repeated traffic, such as a reload or a
# popular question, and for nothing else.
# </details>

# %%
workshop.save_cell("generation", "cache.py")
import hashlib
import json


def cache_key(asked):
    """A hashable key of the answer to `asked`; None if it must not be kept."""
    # BEGIN SOLUTION 09.3: make the key
    if asked["temperature"] > 0:
        return None
    no_matter = {"request_id", "user", "stream", "stream_options", "prompt"}
    kept = {name: value for name, value in asked.items() if name not in no_matter}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
    # END SOLUTION


# %% tags=["check"]
workshop.check("09.3")

# %%
lines = (paths.ROOT / "handbook" / "questions.jsonl").read_text("utf-8").splitlines()
asked = [{"temperature": 0, "messages": [json.loads(line)["question"]]} for line in lines]
keys = {cache_key(one) for one in asked}
print(len(asked), "questions,", len(asked) - len(keys), "answered from the cache")

# %% [markdown]
# On this corpus the cache helps the second round of the proof, and no first question. What it never does is to
# give out a stale answer: the template's version and every passage are in the key, because their text is in
# the messages.
#
# ## Your service, with two providers
#
# The second provider is another process of the same model server, under the name `spare`. (It runs the same
# weights, so this shows where requests go, not which model is better.) `GENERATION_ROUTES` says where
# `spare` is, and `GENERATION_FALLBACKS` says who stands in for it.

# %%
import os
import socket
import subprocess
import sys
import tempfile

from workshop import first_run, models

folder = tempfile.TemporaryDirectory()
weights = os.path.join(folder.name, "spare.gguf")
os.symlink(models.gguf(first_run.llm()).absolute(), weights)
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]

# %%
import atexit

own = {"LLM_MODEL_PATH": weights, "LLM_PORT": str(port), "LLM_CONTEXT": "1024"}
command = [sys.executable, "-m", "services.llm_server"]
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
spare = subprocess.Popen(command, cwd=paths.ROOT, env=os.environ | own, **quiet)
atexit.register(spare.kill)
spare_url = f"http://127.0.0.1:{port}/v1"
patient = openai.OpenAI(base_url=spare_url, api_key="none", max_retries=10)
hello = [{"role": "user", "content": "Count from one to ten."}]
patient.chat.completions.create(messages=hello, model="spare", max_tokens=1)
print("the second model server answers")

# %%
route = {"provider": "openai", "url": spare_url, "model": "spare"}
os.environ["GENERATION_ROUTES"] = json.dumps({"spare": route})
os.environ["GENERATION_FALLBACKS"] = json.dumps({"spare": ["default"]})
mine = workshop.serve("generation")
pieces, last = ask(str(mine), hello, model="spare", max_tokens=5)
assert pieces
print("asked for spare; answered by", last.model)

# %% [markdown]
# **Predict.** `spare` is killed in the middle of an answer. What does the caller see? And what comes of
# the next request for `spare`?
#
# <details><summary>Answer</summary>
#
# In mid-answer: an error event, and no `[DONE]`; your `read_answer` noticed, and your `next_step` gave up.
# The next request has not begun yet. It is refused, tried again, refused again, and then `default` answers. So
# the service counts one failure after the first token, two before it, and one repetition.
# </details>

# %%
story = [{"role": "user", "content": "Tell me a long story about a ship."}]
client = openai.OpenAI(base_url=f"{mine}/v1", api_key="none", max_retries=0)
stream = client.chat.completions.create(messages=story, model="spare", max_tokens=200, stream=True)
try:
    for _ in stream:
        spare.kill()
except openai.APIError as error:
    print("after the first token:", type(error).__name__)
pieces, last = ask(str(mine), story, model="spare", max_tokens=5)
assert pieces
assert last.model != "spare"
print("before the first token: another model stood in")

# %%
metrics = urllib.request.urlopen(f"{mine}/metrics", timeout=10).read().decode()
for line in metrics.splitlines():
    if line.startswith(("generation_provider_failures_total", "generation_retries_total")):
        print(line)
mine.stop()
spare.wait()
folder.cleanup()
for name in ("GENERATION_ROUTES", "GENERATION_FALLBACKS"):
    del os.environ[name]

# %% [markdown]
# No caller changed a line, and the counters say what happened. If every model is gone, `generation` answers 503,
# and the orchestrator has one more way: it quotes the best sentences of the sources, without any model.
#
# The **contract** is what every `generation` must keep, whoever wrote it.

# %% tags=["check"]
workshop.check("09")

# %% [markdown]
# ## The step, and the proof
#
# This lesson replaces the service that remembers the answers, so the model has to write them again. Even at
# temperature 0 that is not always the same text: llama.cpp adds the same numbers in another order when it reads a
# prompt whole or finds a part of it in its prefix cache, and a near tie between two words may then fall the other
# way (handbook, *LLM inference*). So both rounds begin in the **same state**: `generation` has no answers, and
# the model server is started anew, so it has read nothing. Reading and writing take time, so the proof has
# five of the twenty questions.

# %%
here.restart("generation")
here.restart("llm_server")
before = workshop.fixed_answers(11, 15)
assert all(answer.passages and answer.text for answer in before)

# %%
workshop.swap("generation")

# %%
here.restart("llm_server")
after = workshop.fixed_answers(11, 15)
workshop.same(before, after)

# %% [markdown]
# ## The bill
#
# What does the service cost, the model left out? The request of the bill is asked once and remembered; so what is
# measured is your key, the cache and the way there and back.

# %% tags=["nbval-ignore-output"]
bill = workshop.bill("generation")
bill.plot()
bill

# %% tags=["check"]
(line,) = bill.lines
first_token = 1000 * new[0][0][0]
assert 0 < line.inside < first_token
assert 0 < line.ms < first_token, "the service costs less than a new prompt's first token"
assert line.memory > 1_000_000
assert line.received > line.sent > 0
print("measured over", line.calls, "calls")

# %%
workshop.restore("generation")

# %% [markdown]
# The reference is back. Its memory of answers is empty: the next lesson's first round takes a minute or two.
#
# ## What moved, what it cost, what it bought
#
# - **Moved:** the prompts, the addresses and keys of the models, and the decisions after a failure. No other
#   service knows which model answers.
# - **Cost:** the columns *on the way* and *memory* of your own bill; small against a token. And one more
#   place that must be up: without it every answer is an extract.
# - **Bought:** a provider that dies costs no answer that had not begun. Repeated requests cost nothing. A new prompt
#   is a file, and going back is a setting.
# - **Not bought:** better answers, or quicker ones the first time. Streaming shows the first token early and leaves the
#   last where it was. On this corpus no question is answered from the cache unless somebody asks it
#   again.
#
# **Next:** lesson 10, `post_processing`, checks what the model wrote. `workshop.progress()` shows the board.
