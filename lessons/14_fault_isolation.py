# %% [markdown]
# # 14 · Fault isolation: who is hit when a part is gone
#
# | level | minutes | before this | the services |
# |---|---|---|---|
# | intermediate | 45 | `00_start_here` | all of them |
#
# **Goal.** You break the running system, part by part, and say beforehand what its users will see. After this
# lesson you can
#
# 1. tell four ways of being gone apart by what the caller sees: refused, silent, late, unreachable;
# 2. draw the kill matrix of the running system, and hold it to the design;
# 3. write a fallback that cannot fail, and a circuit breaker with one probe at a time;
# 4. say what isolation costs, and which single points of failure are left.
#
# **The step.** In the monolith every part shares one fate: one process, one crash. Here each has its own, and
# what a crash costs is a decision of the caller. You write two of these decisions for `orchestrator`: what
# it says without a language model, and when it stops calling a service that fails.
#
# ## The answers before the step
#
# Ten of the fixed questions come first. If the model has to write their answers, this takes up to a minute.

# %%
import httpx
import workshop

here = workshop.start()
before = workshop.fixed_answers(1, 10)

# %% [markdown]
# ## Four ways to be gone
#
# `ask` is a client that never raises: it gives the status and the document, and status 0 where nobody answered.
# `seconds` is the deadline that it sends along. On a busy machine a healthy stage may be late too; then more than
# `gone` parts are missing, and it asks again, twice at most.

# %%
RRF = "Which constant does reciprocal rank fusion use by default?"


def ask(question, base=None, seconds=30, gone=12, tries=3):
    """(status, document) of the gateway, or of an orchestrator at `base`."""
    path = f"{base or here.url('gateway')}/v1/answer"
    deadline = {"x-deadline-ms": str(int(seconds * 1000))}
    try:
        found = httpx.post(path, json={"question": question}, headers=deadline, timeout=seconds + 5)
    except httpx.TransportError:
        return 0, {"degraded": [], "kind": "none"}
    document = {"degraded": [], "kind": "none"} | found.json()
    again = len(document["degraded"]) > gone and tries > 1
    return ask(question, base, seconds, gone, tries - 1) if again else (found.status_code, document)


# %% [markdown]
# **Predict.** `reranking` is killed, in the sense of `SIGKILL`: no goodbye, no draining. Then it is *paused*: the
# process is frozen with its port open. In which case does the user wait longer, and for how long?
#
# <details><summary>Answer</summary>
#
# When it is paused. A killed process is refused by the kernel within a millisecond: nobody listens on its port. A
# paused one is heard: the kernel takes the connection and keeps the request, and nothing ever comes back. The
# caller cannot tell this from slow work. It waits until its time for the stage is over, here 1 s.
# </details>

# %%
from workshop.learn import Answer

waited = {}
for name, fault in {"killed": workshop.kill, "paused": workshop.pause}.items():
    with fault("reranking"):
        status, document = ask(RRF, gone=1)
    (stage,) = [t for t in document["timings"] if t["stage"] == "reranking"]
    waited[name] = stage["ms"]
    print(f"{name}: {status}, reranking {stage['status']}, degraded: {document['degraded']}")
assert waited["killed"] < 500 <= waited["paused"]
here.trace(Answer(document))

# %% [markdown]
# This is the trace of the paused one. The orange bar is time in which nothing happened. `degraded` is the same for
# both: it says *that* a part was missing, and the trace says what that cost.
#
# **Predict.** Now a service is only *late*. Each call to `reranking` takes 0.3 s longer on its way, and the stage's
# cap is 1 s. Then `dense_retrieval` is *disconnected*: it lives, and its callers do not reach it. What stands in
# `degraded` each time?
#
# <details><summary>Answer</summary>
#
# Nothing in the first: a late answer within its time is an answer, and the user gets all of it a bit later. A fault
# that `degraded` never shows needs another instrument, the trace. In the second, `dense_retrieval`: the answer
# rests on keywords alone. The service itself reports that it is ready, and is right. Ready and
# reachable are two things, and only the caller sees the second.
# </details>

# %%
with workshop.slow("reranking", seconds=0.3):
    status, document = ask(RRF, gone=0)
(stage,) = [t for t in document["timings"] if t["stage"] == "reranking"]
waited["late"] = stage["ms"]
assert stage["ms"] >= 300
print(f"late: {status}, reranking {stage['status']}, degraded: {document['degraded']}")

# %%
with workshop.disconnect("dense_retrieval"):
    status, document = ask(RRF, gone=1)
    ready = httpx.get(f"{here.url('dense_retrieval')}/readyz").status_code
print(f"disconnected: {status}, degraded: {document['degraded']}; itself it says {ready}")

# %% [markdown]
# | the service is | its caller sees | after |
# |---|---|---|
# | killed | a refused connection | a millisecond |
# | paused, hung | nothing | the time of the stage |
# | late | an answer | longer than usual |
# | disconnected | nothing; not even a refusal | the time of the stage |
#
# The clean death is the kindest fault. What hangs is worse than what is gone, because it costs time first
# (handbook, *Deadlines and timeouts*).
#
# How it is done: `kill` and `pause` are signals to a process, or `docker kill` and `docker pause` where the system
# runs in containers. `slow` and `disconnect` put a proxy (`workshop/fault_proxy.py`) between a service and its
# callers, which get its address as a setting; in containers `disconnect` takes the container off its networks.
# The sections with your own code serve it beside the system, which needs the default
# form, processes.
#
# ## The kill matrix
#
# The READMEs of `services/orchestrator` and `services/gateway` say what the user gets without a part. The next cell
# has this design as data: the status, what `degraded` names, and whether the text is an *extract* of the sources
# or the model's.
#
# **Predict.** Each part is killed in turn, and a question is asked. Do not read the next cell yet: how often does
# the user get no answer at all?
#
# <details><summary>Answer</summary>
#
# Four times of fifteen: without the gateway, without the orchestrator, without hybrid search, and when both
# retrievers are gone at once. Each is a single point of failure, or a pair of them: there is nothing that could
# stand in. In all other cases there is an answer, and twice nobody notices at all.
# </details>

# %%
DESIGN = {
    name: (200, [name], "model")
    for name in ("query_preprocessing", "embedding", "dense_retrieval", "sparse_retrieval")
}
DESIGN |= {name: (200, [name], "model") for name in ("reranking", "context_aggregation")}
DESIGN["post_processing"] = (200, ["post_processing"], "extract")
DESIGN["llm_server"] = DESIGN["generation"] = (200, ["generation"], "extract")
DESIGN["feedback"] = DESIGN["ingestion"] = (200, [], "model")
DESIGN["both retrievers"] = DESIGN["hybrid_search"] = (503, [], "none")
DESIGN["orchestrator"], DESIGN["gateway"] = (503, [], "none"), (0, [], "none")

# %% [markdown]
# Two rows need care. The language model's server is asked a question that nobody asked before: `generation`
# remembers its answers, and a remembered answer needs no model. And `generation` is disconnected in place of
# killed. Killing it gives the same row, and costs its memory: all the answers that it remembers would have
# to be written again. **What a process knows and has not written down dies with it.** Ask of every service what
# that is. Here it is a cache; in the lesson on feedback it would be a vote.

# %%
from contextlib import ExitStack

NEW = "What should a half-open breaker do with the second caller?"


def without(*names, fault=workshop.kill, **more):
    """(status, degraded, whose text) of one question while these are gone."""
    with ExitStack() as broken:
        for name in names:
            broken.enter_context(fault(name))
        question = NEW if "llm_server" in names else RRF
        status, document = ask(question, gone=len(names), **more)
    text = {"none": "none", "extractive": "extract"}.get(document["kind"], "model")
    return status, document["degraded"], text


# %%
search = ["embedding", "dense_retrieval", "sparse_retrieval", "hybrid_search"]
found = {name: without(name) for name in ["query_preprocessing", *search]}
found["both retrievers"] = without("dense_retrieval", "sparse_retrieval")
for name, row in found.items():
    print(f"{name:<20}", *row)

# %%
stages = ["reranking", "context_aggregation", "post_processing", "llm_server"]
found |= {name: without(name) for name in stages}
found["generation"] = without("generation", fault=workshop.disconnect, seconds=3)
for name in [*stages, "generation"]:
    print(f"{name:<20}", *found[name])

# %%
edges = ["feedback", "ingestion", "orchestrator", "gateway"]
found |= {name: without(name) for name in edges}
for name in edges:
    print(f"{name:<20}", *found[name])
print("as the design says:", sum(found[name] == DESIGN[name] for name in DESIGN), "of", len(DESIGN))

# %% id="kill-matrix"
from matplotlib import pyplot as plt

colours = {"model": "tab:blue", "extract": "tab:orange", "none": "tab:red"}
plt.figure(figsize=(9, 5), layout="constrained")
for y, (_, parts, text) in enumerate(found.values()):
    for part in parts if text != "none" else ["the answer"]:
        plt.scatter([part], [y], s=150, marker="s", color=colours[text])
plt.yticks(range(len(found)), found)
plt.xticks(rotation=30, ha="right")
plt.gca().invert_yaxis()
plt.title("rows: gone; columns: missing (blue: the model's text, orange: an extract)")
plt.show()
assert found == DESIGN, [name for name, row in found.items() if row != DESIGN[name]]

# %% [markdown]
# Read a row: this was killed, and that was missing. A system without isolation is red in every row. Most of
# the dots stand alone in their column: a part that is lost costs itself. Some rows differ, and each says something.
# `post_processing` is orange: text of the model that nobody has checked is never shown, so the fallback is an
# extract. `llm_server` is named as `generation`: who is named is the service that the caller missed. And two rows
# are empty: votes and new documents travel by events, and no answer waits for those.
#
# One question a row shows *what* happens. That it also holds for every request under load, and how soon the system
# is whole again, is asserted by `tests/faults`.
#
# ## Exercise 14.1: an answer without a model
#
# A **fallback** stands in where a part is gone. It must not need what is gone, so it calls nobody; it must not
# fail, since nothing stands in for it; and it must not pretend, so it cites, and `degraded` says the rest.
#
# `sources` are the numbered passages of the context, the best one first: dictionaries with `number` and `text`. Return
# the first sentence of each of the first `limit` sources *that have one*, each followed by its citation,
# joined by blanks: `"A breaker opens after five failures. [1] It lets one probe through. [3]"`.
#
# <details><summary>Hint 1: why the first sentence</summary>
#
# The context service has already chosen the sentences that bear on the question. Its first one is the best guess
# that needs no further model.
# </details>
#
# <details><summary>Hint 2: sentences</summary>
#
# `sentences(text)` cuts a text, and gives `[]` for a blank one. Do not cut at each full stop: "3.5" has one.
# </details>

# %%
workshop.save_cell("orchestrator", "fallback.py")
from services.orchestrator.domain import sentences


def extractive_answer(sources, limit=2):
    """The first sentence of each of the best `limit` sources that have one, with its citation."""
    # BEGIN SOLUTION 14.1: quote the first sentence of each source, with its number
    found = []
    for source in sources:
        parts = sentences(source["text"])
        if parts and len(found) < limit:
            found.append(f"{parts[0]} [{source['number']}]")
    return " ".join(found)
    # END SOLUTION


# %% tags=["check"]
workshop.check("14.1")

# %% [markdown]
# ## Why a deadline is not enough
#
# A paused service costs every question the time of its stage. Nothing is learnt from one question to the next:
# the thousandth waits as long as the first. And each waiting request holds a place in the caller.
#
# **Predict.** Eight questions a second come in. A service hangs for six seconds, and a call to it is given up
# after one. How many seconds do the users lose together, and how many of them told the caller anything new?
#
# <details><summary>Answer</summary>
#
# 48 questions wait a second each. Perhaps the first five were news; the other 43 seconds bought nothing.
# </details>
#
# A **circuit breaker** (Nygard, *Release It!*, 2007; handbook, *Retries and circuit breakers*) remembers. *Closed*, it
# lets every call through. After five failures in a row it is *open*: calls fail at once, and the fallback answers. After
# a pause it is *half-open*: exactly one call is let through, the **probe**. If the probe is answered the breaker
# closes, and if it fails the pause begins again. (Others open at a share of the last calls that failed; that
# needs a window to count in, and tells a busy service from a dead one better.)
#
# Its whole state is a `Circuit`: `threshold`, `reset` (the pause in seconds), `failures` (in a row), `opened_at` (None
# while closed), and `probing` (a probe is under way).
#
# ## Exercise 14.2: may this call be made?
#
# Return True or False for a call at second `now`. The one that is let through while half-open is the
# probe: note it, so that the next one is not let through as well.
#
# <details><summary>Hint: half-open is no field</summary>
#
# It is open, and `reset` seconds have passed since `opened_at`. No timer is needed: it is worked out when somebody
# asks. Whether it closes is not known yet, so nothing but `probing` changes here.
# </details>

# %%
workshop.save_cell("orchestrator", "admission.py")


def may_call(circuit, now):
    """Whether a call may be made at `now`. Who is let through while half-open is the probe."""
    # BEGIN SOLUTION 14.2: closed: yes; open: no; half-open: one at a time
    if circuit.opened_at is None:
        return True
    if circuit.probing or now - circuit.opened_at < circuit.reset:
        return False
    circuit.probing = True
    return True
    # END SOLUTION


# %% tags=["check"]
workshop.check("14.2")

# %% [markdown]
# ## Exercise 14.3: what its end changes
#
# `record` is called when a call that was let through has ended, at second `now`. (Not if the circuit has opened or
# closed since the call began: what comes so late tells nothing new.) `succeeded` is True, False, or None. None says
# nothing about the service: the user has left, or the request was refused as wrong (4xx).
#
# <details><summary>Hint 1: a failure</summary>
#
# It opens the circuit if it is the `threshold`-th in a row, or if the circuit is open already, because then it was the
# probe. In both cases the pause begins `now`.
# </details>
#
# <details><summary>Hint 2: None</summary>
#
# It counts for nothing. But if this call was the probe, the probe has ended. What happens to a circuit whose
# `probing` stays True?
# </details>

# %%
workshop.save_cell("orchestrator", "outcome.py")


def record(circuit, succeeded, now):
    """Count a call that ended at `now`; `succeeded` is None where its end says nothing."""
    # BEGIN SOLUTION 14.3: close, count or open; and the probe has ended in any case
    circuit.probing = False
    if succeeded:
        circuit.failures, circuit.opened_at = 0, None
    elif succeeded is False:
        circuit.failures += 1
        if circuit.failures >= circuit.threshold or circuit.opened_at is not None:
            circuit.opened_at = now
    # END SOLUTION


# %% tags=["check"]
workshop.check("14.3")

# %% [markdown]
# Your breaker on a clock that is only counted, with the traffic of the prediction: the service hangs from second 2 to
# second 8. To keep it simple, how a call ends is known at once.

# %%
from services.chassis import Circuit

circuit, calls, times = Circuit(), [], [n / 8 for n in range(96)]
for now in times:
    if may_call(circuit, now):
        calls.append(now)
        record(circuit, not 2 <= now < 8, now)
back = min(t for t in calls if t >= 8)
print(f"mended at 8 s; the first call that gets through is made at {back} s")

# %% id="with-and-without-a-breaker"
plt.figure(figsize=(9, 2.4), layout="constrained")
for y, (label, made) in enumerate({"no breaker": times, "yours": calls}.items()):
    hung = [t for t in made if 2 <= t < 8]
    plt.eventplot(made, lineoffsets=y, linelengths=0.6)
    plt.eventplot(hung, lineoffsets=y, linelengths=0.6, colors="tab:red")
    print(f"{label:<10} {len(hung)} calls into the fault, of {len(made)}")
plt.yticks([0, 1], ["no breaker", "yours"])
plt.xlabel("seconds; each line is a call, red where the service hangs")
plt.show()

# %% [markdown]
# Ten calls in place of 48. The price: the service was well again at second 8, and nobody asked it until the pause was
# over. A longer `reset` spares a sick service, and is slower to notice a healthy one.
#
# ## In the real pipeline
#
# Your orchestrator is served beside the running one. It reaches `reranking` and `generation` through proxies, which
# count its calls. Then `reranking` falls silent, and `generation` answers everything with 500.
#
# **Predict.** Questions follow, one after the other, each with a deadline of a second. How many of them reach
# `reranking`, and whose words does the user read?
#
# <details><summary>Answer</summary>
#
# Five, then your breaker is open: the sixth question does not wait for `reranking` at all. And the words are those
# of the handbook: your extract, with its citations.
# </details>

# %%
broken = ExitStack()
reranking = broken.enter_context(workshop.proxied("reranking"))
generation = broken.enter_context(workshop.proxied("generation"))
ways = {"reranking_url": reranking.url, "generation_url": generation.url}
mine = broken.enter_context(workshop.serve("orchestrator", **ways))
print("degraded:", ask(RRF, base=mine, gone=0)[1]["degraded"])

# %%
reranking.silent = generation.failing = True
passed, asked = reranking.requests, 0
while reranking.requests - passed == asked < 12:
    status, document = ask(RRF, base=mine, seconds=1)
    asked += 1
print("calls into the silence:", reranking.requests - passed, "of", asked, "questions")
(stage,) = [t for t in document["timings"] if t["stage"] == "reranking"]
assert stage["ms"] < 300, "the breaker is open: nobody waits"
assert {"reranking", "generation"} <= set(document["degraded"])
print(status, document["kind"], "citing", [one["number"] for one in document["citations"]])

# %%
import time

reranking.silent = generation.failing = False
time.sleep(1.2)
print("mended; degraded:", ask(RRF, base=mine, gone=0)[1]["degraded"])
broken.close()

# %% [markdown]
# Nobody restarted anything. The first question after the pause was the probe, it was answered, and the breakers
# closed.
#
# A breaker protects the caller from waiting, and the sick service from its callers. It does not repair, and it is
# only worth having where a fallback stands behind it: without one, it merely fails sooner. Retries are its
# counterpart: they cure what is brief, the breaker bounds what is not. Only one layer here does both.
#
# ## Your service, and the proof
#
# First the contract: yours is held to the same tests as the reference. Then it takes the reference's place, and the
# questions come again. Nothing is broken now, so your fallback and your breakers have nothing to do. That is what
# must be shown: isolation changes nothing while all is well.

# %% tags=["check"]
workshop.check("14")

# %%
workshop.swap("orchestrator")
after = workshop.fixed_answers(1, 10)
workshop.same(before, after)

# %% [markdown]
# ## The bill
#
# **Predict.** What do the breakers add to a question while all is well?
#
# <details><summary>Answer</summary>
#
# Two function calls for each call of a service, which is nothing beside the HTTP of that call. What isolation costs is
# elsewhere: the hops, the processes, a fallback for each part that somebody has to write, and tests that break things.
# </details>

# %% tags=["nbval-ignore-output"]
bill = workshop.bill("orchestrator")
bill

# %% tags=["check"]
(line,) = bill.lines
assert 0 < line.inside <= line.ms
began = time.perf_counter()
for now in range(10_000):
    may_call(circuit, now)
    record(circuit, True, now)
each = (time.perf_counter() - began) / 10_000 * 1000
assert each < line.inside / 10, "both decisions together, in milliseconds"
print("two decisions of a breaker take less than a tenth of a question that is remembered")
workshop.restore("orchestrator")

# %% [markdown]
# ## What moved, what it cost, what it bought
#
# - **Moved:** what happens when a part is gone, from "whatever the exception does" into functions with names: a
#   fallback and a breaker, in the caller, which alone knows what it can do without.
# - **Cost:** a fallback for each part, and tests for it: code that runs only on bad days is wrong on bad days unless
#   somebody breaks the system on good ones.
# - **Bought:** in eleven of fifteen losses the user has an answer. Nine of these say what was missing; in the other
#   two, `feedback` and `ingestion`, the answer lacks nothing.
# - **Not bought:** the gateway, the orchestrator and hybrid search are still single points of failure here. Against
#   that only a second copy helps. Nor was availability bought for nothing: an extract is a poorer answer than the model's,
#   and keywords alone find less in some questions (lesson 05).
#
# **Next:** lesson 15 runs second copies, and measures what they bring. `workshop.progress()` shows the board.
