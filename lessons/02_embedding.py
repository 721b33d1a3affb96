# %% [markdown]
# # 02 · Embedding: a function becomes a service
#
# | level | minutes | before this | the service |
# |---|---|---|---|
# | beginner | 45 | `00_start_here`, `01_monolith` | `embedding` |
#
# **Goal.** The first stage leaves the monolith: the one that turns a text into a vector. It is a good first
# one, because it has a model and no data. After this lesson you can
#
# 1. make one vector of a text from a model's output, with padding left out and length 1;
# 2. say why texts are run in batches, which batches waste nothing, and where batches do not help;
# 3. say what makes a function a service: API, OpenAPI, health, settings, tests;
# 4. compare a standalone model service with a model inside of each application, by memory and by waiting.
#
# **The step.** In the monolith, embedding is an object that two functions share. Here it is a service with
# one job. You write how it pools and how it batches, and the fixed questions show that the answers hold.

# %%
import json
import time
import urllib.request

import numpy as np

import workshop

here = workshop.start()

# %% [markdown]
# ## The answers before the step
#
# Where the language model has to write the answers, this takes a minute or two.

# %%
before = workshop.fixed_answers(1, 10)

# %%
before += workshop.fixed_answers(11, 20)

# %% [markdown]
# ## The function
#
# A text is cut into **tokens**, pieces of words, each with a number. The model gives a vector for each token, its
# **hidden state**, which depends on all tokens of the text. One vector of the whole text comes from
# these by **pooling**. `Encoder` is the service's domain, without HTTP.

# %%
from services.embedding.domain import Encoder
from workshop import models

encoder = Encoder.load(models.path("multilingual-e5-small-enpt"))
texts = ["Sagas.", "What is a circuit breaker?", "O que é um circuit breaker?"]
for item in encoder.prepare(texts, "query"):
    print(f"{item.length:>3} tokens: {item.text}")

# %% [markdown]
# Each text got the prefix `query: `. This model was trained with it, and passages get `passage: ` (Wang et al., 2022).
# The service adds it, so that no caller has to know.
#
# A model computes with rectangles of numbers. Texts of different lengths share one if the shorter ones are filled
# up with **padding**, and a **mask** says which positions count: 1 for a token, 0 for padding. Here is one
# text small enough to check by eye, with two dimensions:
#
# | position | hidden state | mask |
# |---|---|---|
# | token | (6, 0) | 1 |
# | token | (0, 8) | 1 |
# | padding | (9, 1) | 0 |
#
# **Predict.** What is the mean of the two tokens? What length does it have, and what is it at length 1? What
# comes out if the padding is counted too?
#
# <details><summary>Answer</summary>
#
# (6, 0) and (0, 8) have the mean (3, 4). Its length is √(9 + 16) = 5, so at length 1 it is (0.6, 0.8). With the
# padding, the mean is (5, 3): another direction, for no other reason than that a longer text stood
# beside it.
# </details>
#
# ## Exercise 02.1: pool
#
# Take the mean over the tokens that count, and bring each vector to length 1 (L2). `hidden` is
# `[texts, tokens, dimension]`, `mask` is `[texts, tokens]`; return `[texts, dimension]`.
#
# <details><summary>Hint 1: shapes</summary>
#
# `mask[:, :, None]` has the shape `[texts, tokens, 1]`, so it can be multiplied with `hidden`. `axis=1` is that of the
# tokens.
# </details>
#
# <details><summary>Hint 2: the length</summary>
#
# `np.linalg.norm(vectors, axis=1, keepdims=True)` gives the length of each row as a column, which you can divide by.
# </details>

# %%
workshop.save_cell("embedding", "pooling.py")
import numpy as np


def mean_pool(hidden, mask):
    """[texts, dimension]: the mean of each text's tokens, at length 1."""
    # BEGIN SOLUTION 02.1: average the tokens that count, and normalise
    counts = mask[:, :, None]
    mean = (hidden * counts).sum(axis=1) / counts.sum(axis=1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)
    # END SOLUTION


# %% tags=["check"]
workshop.check("02.1")

# %% [markdown]
# The text from above first. Then your function in the place of the model's own pooling, with the three texts
# run together and alone.

# %%
print(mean_pool(np.array([[[6, 0], [0, 8], [9, 1]]]), np.array([[1, 1, 0]])))
own = Encoder.load(models.path("multilingual-e5-small-enpt"), pool=mean_pool)
together = own.encode(texts)
alone = np.vstack([own.encode([text]) for text in texts])
assert np.abs(together - encoder.encode(texts)).max() < 1e-5
assert np.abs(together - alone).max() < 1e-5
print("as the model pools itself, and the same alone as together")
print((together @ together.T).round(2))

# %% [markdown]
# At length 1, the product of two vectors is the **cosine** of their angle. The question and its translation
# are nearest. This model's cosines all lie high; only their order means something.
#
# ## Why batches
#
# **Predict.** All 810 passages of the handbook are run in batches of 32, in the order of the book. How much of the
# model's work goes into padding? And if they are sorted by length first?
#
# <details><summary>Answer</summary>
#
# More than a quarter, and 2 % when sorted. It is worst where short and long texts meet: a question of 20 tokens
# beside a passage of 300 is padded to 300.
# </details>

# %%
judged = workshop.judged("test")
passages = [passage["text"] for passage in judged.collection.passages]
questions = [query.text for query in judged.queries]
prepared = {
    "passages": encoder.prepare(passages, "passage"),
    "questions": encoder.prepare(questions, "query"),
}
pairs = zip(prepared["passages"], prepared["questions"], strict=False)
prepared["in turn"] = [item for pair in pairs for item in pair]


def padding(batches):
    return 1 - sum(map(sum, batches)) / sum(max(batch) * len(batch) for batch in batches)


# %%
for name, items in prepared.items():
    lengths = [item.length for item in items]
    for order, own_lengths in (("as they come", lengths), ("by length", sorted(lengths))):
        cut = [own_lengths[at : at + 32] for at in range(0, len(own_lengths), 32)]
        print(f"{name:<12} {order:<13} {padding(cut):4.0%} padding")

# %% [markdown]
# *In turn* is a passage, a question, a passage and so on, as from two callers. Padding is the price of a batch. What
# does a batch bring? The figure runs eight questions and eight passages in batches of several sizes. It counts CPU
# time, so what else your machine does hardly matters.

# %%
by_length = {name: sorted(items, key=lambda item: item.length) for name, items in prepared.items()}
eight = {"questions": by_length["questions"][100:108], "passages": by_length["passages"][400:408]}
cpu_ms = {}
for _ in range(5):
    for size in (1, 2, 4, 8):
        for name, items in eight.items():
            began = time.process_time()
            for at in range(0, 8, size):
                encoder.run(items[at : at + size])
            spent = (time.process_time() - began) * 1000 / 8
            cpu_ms[name, size] = min(spent, cpu_ms.get((name, size), spent))

# %% id="cpu-a-text"
from matplotlib import pyplot as plt

for name in eight:
    each = {size: ms for (own, size), ms in cpu_ms.items() if own == name}
    plt.plot(list(each), [ms / each[1] for ms in each.values()], "o-", label=name)
assert cpu_ms["questions", 8] < cpu_ms["questions", 1] < cpu_ms["passages", 1]
plt.xlabel("texts in a batch")
plt.ylabel("CPU time a text, against one by one")
plt.ylim(0)
plt.legend()
plt.show()

# %% [markdown]
# Questions gain: each run has a fixed cost, and a batch pays it once. **Passages gain little or nothing on a CPU**: there
# the numbers to compute are the cost, and they do not become fewer. A GPU computes thousands of
# them at once, so there batches pay off for long texts too.
#
# ## Batches without a timer
#
# The texts of a service come when they come. Some servers wait some milliseconds for a batch to fill, which
# every text pays for. This service does not wait: an idle model starts at once, and whatever has come in
# while it was busy is its next batch. So batches grow with the load by themselves (see `dynamic-batching` in the
# handbook).
#
# ## Exercise 02.2: the next batch
#
# `lengths` are those of the waiting texts, in tokens, the **oldest first**. Return the **rows** (positions in
# `lengths`) that run now:
#
# - the oldest text is always one of them, so that nobody waits for ever;
# - only texts of its **bucket** go with it: buckets of 16 tokens are 1–16, 17–32, 33–48, …;
# - each is padded to the end of the bucket (16, 32, 48, …), and all together are at most `max_tokens`; a text that is
#   too long for that runs alone;
# - at most `max_items`, the oldest first.
#
# <details><summary>Hint</summary>
#
# `-(-n // 16)` divides and rounds up: 1 for 1 to 16, 2 for 17 to 32. By this number you know the bucket, its end,
# and how many texts of it fit.
# </details>

# %%
workshop.save_cell("embedding", "batching.py")


def next_batch(lengths, max_items, max_tokens):
    """Rows of `lengths` that run next: the oldest text, and those that are about as long."""
    # BEGIN SOLUTION 02.2: choose the oldest text and those of its bucket, within the limits
    bucket = -(-lengths[0] // 16)
    room = max(1, min(max_items, max_tokens // (bucket * 16)))
    alike = [row for row, length in enumerate(lengths) if -(-length // 16) == bucket]
    return alike[:room]
    # END SOLUTION


# %% tags=["check"]
workshop.check("02.2")

# %%
waiting, batches = [item.length for item in prepared["in turn"]], []
count = len(waiting)
while waiting:
    rows = next_batch(waiting, 32, 2048)
    batches.append([waiting[row] for row in rows])
    waiting = [length for row, length in enumerate(waiting) if row not in set(rows)]
assert sum(map(len, batches)) == count
print(f"{count} texts in {len(batches)} batches, {padding(batches):.0%} padding")

# %% [markdown]
# ## What makes it a service
#
# | part | answers the question | here |
# |---|---|---|
# | API | what can I ask? | `POST /v1/embeddings`, as OpenAI's |
# | OpenAPI | how do I ask it, exactly? | `/openapi.json`, made from the code and kept under version control |
# | health | does it live, and may it get work? | `/healthz`, `/readyz` |
# | settings | what can I change without new code? | environment, prefix `EMBEDDING_` |
# | tests | does it keep its promise? | `services/embedding/tests`, and the contract |
#
# Alive and ready are two things: while the model loads, the service lives and is not ready. Your two functions are in
# `my_services/embedding/`; the rest is the reference's. It runs alone first.


# %%
def call(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=60))


with workshop.serve("embedding") as url:
    print(urllib.request.urlopen(url + "/healthz").read(), end=" ")
    print(urllib.request.urlopen(url + "/readyz").read())
    print(*call(url + "/openapi.json")["paths"])
    answer = call(url + "/v1/embeddings", {"input": texts})
served = np.array([item["embedding"] for item in answer["data"]])
assert np.abs(served - together).max() < 1e-5

# %% [markdown]
# Over HTTP, the same vectors. The **contract** is what every `embedding` must keep, whoever wrote it: length 1, the order
# of the texts, no influence of the texts beside, many callers at once, bad input named. The same tests hold
# the reference.

# %% tags=["check"]
workshop.check("02")

# %% [markdown]
# ## Inside of each application, or a service of its own?
#
# Two ways to give an application a model. **Inside:** the application loads it. **Standalone:** it asks a service. Both
# are in `services/embedding/inside.py`: a light request that needs no model, and a heavy one that wants vectors.
# Two copies of each are started.
#
# **Predict.** How does the memory of ten copies differ? And how long does a light request wait while the heavy one runs?
#
# <details><summary>Answer</summary>
#
# Inside, each copy has a model of its own: ten models. Standalone, ten applications share one. A light request
# waits for the whole batch if the model runs on the event loop, as it does where `async def` calls it
# directly. In a thread it does not, and neither does it beside a service.
# </details>

# %%
import atexit
import socket
import subprocess
import sys

from workshop.paths import ROOT


def start(*way):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "services.embedding.inside", port, *way]
    process = subprocess.Popen(command, cwd=ROOT)
    atexit.register(process.kill)
    return process, f"http://127.0.0.1:{port}"


# %%
import contextlib

model = str(models.path("multilingual-e5-small-enpt"))
ways = {"inside": ("--model", model), "standalone": ("--embedding", here.url("embedding"))}
copies = {name: [start(*way) for _ in range(2)] for name, way in ways.items()}
end = time.monotonic() + 50
for _, url in copies["inside"] + copies["standalone"]:
    light = None
    while light is None and time.monotonic() < end:
        with contextlib.suppress(OSError):
            light = call(url + "/light")
        time.sleep(0.1)
    print(light)

# %% tags=["nbval-ignore-output"]
from workshop.measure import proportional_memory

memory = {
    name: proportional_memory([process.pid for process, _ in own]) / 2e6
    for name, own in copies.items()
}
service = here.memory("embedding") / 1e6
for n in (1, 2, 10):
    inside, standalone = n * memory["inside"], n * memory["standalone"] + service
    print(f"{n:>2} copies: inside {inside:5.0f} MB, standalone {standalone:5.0f} MB")

# %% tags=["check"]
assert memory["inside"] > memory["standalone"] + 20
assert 10 * memory["inside"] > 10 * memory["standalone"] + service
print("with ten copies, one shared model is smaller than ten")

# %%
from concurrent.futures import ThreadPoolExecutor


def light_beside_heavy(url, path):
    batch, waits = [f"{text} {time.time()}" for text in passages[:30]], []
    with ThreadPoolExecutor(1) as pool:
        began, heavy = time.monotonic(), pool.submit(call, url + path, batch)
        while not heavy.done():
            asked = time.monotonic()
            call(url + "/light")
            waits.append((asked - began, (time.monotonic() - asked) * 1000))
            time.sleep(0.02)
        assert heavy.result() == 30
    return waits


# %%
(_, inside), (_, standalone) = copies["inside"][0], copies["standalone"][0]
waits = {
    "inside, on the event loop": light_beside_heavy(inside, "/heavy"),
    "inside, in a thread": light_beside_heavy(inside, "/heavy-in-a-thread"),
    "standalone": light_beside_heavy(standalone, "/heavy"),
}
for process, _ in copies["inside"] + copies["standalone"]:
    process.terminate()
    process.wait(10)
longest = {name: max(ms for _, ms in own) for name, own in waits.items()}
assert longest["inside, on the event loop"] > 3 * longest["standalone"]

# %% id="light-beside-heavy"
for name, own in waits.items():
    plt.plot(*zip(*own, strict=True), "o-", markersize=3, label=name)
plt.yscale("log")
plt.xlabel("s since the heavy request began")
plt.ylabel("ms that a light request waited")
plt.legend()
plt.show()

# %% [markdown]
# So waiting alone is no reason for a service: a thread does for it. The memory of many copies is one, and so is a model
# that is loaded, changed and scaled apart from the application.
#
# ## The step, and the proof

# %%
workshop.swap("embedding")
after = workshop.fixed_answers()
workshop.same(before, after)

# %% [markdown]
# ## The bill
#
# The bill asks the fixed questions, whose vectors the service remembers by now. So it shows what the way costs, without
# the model, which costs the same in a script.

# %% tags=["nbval-ignore-output"]
bill = workshop.bill("embedding")
workshop.restore("embedding")
bill

# %% tags=["check"]
(line,) = bill.lines
assert 0 < line.inside <= line.ms
assert line.received > line.sent > 0
print("a vector of 384 numbers travels in", line.received, "bytes")

# %% [markdown]
# ## What moved, what it cost, what it bought
#
# - **Moved:** the models, their prefixes, pooling and batching. The service owns no data, so it can be copied freely.
# - **Cost:** the column *on the way* of your bill for each new question, some 2 kB for a vector in base64, and a runtime's
#   memory for one more process.
# - **Bought:** one copy of the model for all callers; batches across callers, which no single application could fill; a
#   memory of vectors that all share; a core that you have just replaced under a running system.
# - **Not bought:** speed for one caller. A single question has no batch, and now it has a way to go. If one
#   application uses the model and runs once, leave it inside.
#
# **Next:** lesson 03, `dense_retrieval`, keeps and searches the vectors. `workshop.progress()` shows the board.
