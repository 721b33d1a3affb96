# %% [markdown]
# # 00 · Start here: one question through thirteen services
#
# | level | minutes | before this | the services |
# |---|---|---|---|
# | beginner | 30 | nothing | all of them |
#
# **Goal.** You see the whole before you take it apart. After this lesson you can
#
# 1. ask the running system and say where each part of an answer comes from;
# 2. read a trace, and name the stage that costs the most;
# 3. say what defines an architecture, and compare monolith, SOA and microservices on this system;
# 4. predict from the map what the loss of one service does, and check it.
#
# **How the lessons work.** Each asks you to *predict* before you run a cell. Make the guess, run,
# then open the answer. Exercises have a stub that you fill in and a check that says what is wrong. The
# stub's first line stays: it saves the cell to a file in `my_services/`, and the check reads that file. So
# after a change run the stub again, then its check. Run the cells in order; *Run All* stops at the first
# check that is red.

# %%
import workshop

here = workshop.start()

# %% [markdown]
# ## Ask
#
# The system answers from the handbook, a textbook about what you will build. Its text is written by a
# small language model on this machine, so two machines may word it differently.

# %% tags=["nbval-ignore-output"]
answer = here.ask("When does a circuit breaker open?")
answer

# %% tags=["check"]
assert answer.degraded == []
assert answer.citations, "an answer without a source is not shown as one"
assert all(citation["id"] in answer.passages for citation in answer.citations)
assert any("circuit" in passage for passage in answer.passages)
print("answered, with a citation, from passages about circuit breakers")

# %% [markdown]
# A number in brackets is a **citation**: the passage that the sentence rests on. Passages are sections of
# handbook pages; their ids say which.
#
# ## Where the time goes
#
# **Predict.** The question went through six stages. Which one took the most time?
#
# <details><summary>Answer</summary>
#
# Generation. A language model makes one token after the other, and each costs a pass through the
# whole model. Searching all passages takes a small part of that. Was generation quick in yours? Then this
# question was asked before, on the page or on the command line: generation remembers its answers.
# </details>

# %%
here.trace(answer)

# %% [markdown]
# This is a **trace**: the stages of one request over time. The orchestrator wrote it down and sent it
# along with the answer.
#
# ## Exercise 00.1: read a trace
#
# `answer.timings` holds the bars of the figure, a list of dictionaries:
#
# `{"stage": "reranking", "start_ms": 24.1, "ms": 21.8, "status": "ok"}`
#
# Return the name of the stage that took the longest, and its share of the whole, from 0 to 1. The whole
# lasts from 0 to the end of the last stage.
#
# <details><summary>Hint</summary>
#
# `max` takes a `key`. A stage ends at `start_ms + ms`. Do not add up all `ms`: stages may overlap.
# </details>

# %%
workshop.save_cell("start_here", "trace.py")


def slowest(timings):
    """(name of the longest stage, its share of the whole)."""
    # BEGIN SOLUTION 00.1: find the slowest stage
    longest = max(timings, key=lambda stage: stage["ms"])
    end = max(stage["start_ms"] + stage["ms"] for stage in timings)
    return longest["stage"], longest["ms"] / end
    # END SOLUTION


# %% tags=["check"]
workshop.check("00.1")

# %%
name, share = slowest(answer.timings)
assert 0 < share <= 1
assert name in {stage["stage"] for stage in answer.timings}
print("the slowest stage takes part of the whole, and your function finds it")

# %% [markdown]
# ## The map
#
# Each stage is a service: a process with its own API, its own port and its own data. Who calls whom is
# the most important picture of a distributed system: every arrow is a thing that can be slow or gone.

# %%
from workshop.catalogue import CATALOGUE, SERVICES

calls = {
    entry.name: sorted({target for target in entry.calls.values() if target in SERVICES})
    for entry in CATALOGUE
    if entry.name in SERVICES
}
for name in sorted(calls, key=here.url):
    print(f"{name:<20} {here.url(name)} -> {', '.join(calls[name]) or 'nothing'}")

# %% [markdown]
# ## What defines an architecture
#
# An architecture is three things (Perry and Wolf, 1992; Fielding, 2000): **components** that do work,
# **connectors** that carry data between them, and **constraints** on how they may be put together. Here
# the components are services, the connectors are HTTP and a message broker, and these are constraints:
#
# - no service imports another or reads another's data;
# - only the gateway talks to the outside;
# - every call carries the time that is left.
#
# A constraint is only one if something holds it. A linter holds the first; contract tests hold the rest.

# %%
import tomllib

from workshop.paths import ROOT

rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
for rule in rules:
    print(rule["name"], "-", rule["type"])

# %% [markdown]
# ## Monolith, SOA, microservices
#
# | | monolith | service-oriented (SOA) | microservices |
# |---|---|---|---|
# | unit of deployment | the whole | a business service, often large | one small service |
# | connectors | function calls | an enterprise bus, shared formats | plain APIs and events |
# | data | one store | often shared stores | each service owns its own |
# | a change of one stage | deploys everything | deploys a service, often the bus | deploys that service |
# | one stage fails | the process fails | its callers, or the bus | its callers, who may go on without it |
#
# All three are here in some form. `services/monolith/rag.py` is the first: the same stages in one process.
# The default system is the third. The second is what the third becomes if services start to share
# a database or put their rules into the broker.
#
# **Predict.** The monolith needs one process. How is the memory of the services spread: evenly, or do few
# of them hold most?
#
# <details><summary>Answer</summary>
#
# Few hold most: those with a model. The rest is a web server each, and the pages that they share are
# counted once. Memory follows the models, not the number of services. The largest model is not even in
# this list: the language model's server is a program of others, and `workshop status` shows what it holds.
# </details>

# %% tags=["nbval-ignore-output"]
memory = {name: here.memory(name) / 1e6 for name in SERVICES}
for name, size in sorted(memory.items(), key=lambda item: -item[1]):
    print(f"{name:<20} {size:6.0f} MB")

# %% tags=["check"]
largest = sorted(memory, key=memory.get, reverse=True)[:4]
assert {"embedding", "reranking"} <= set(largest), largest
assert sum(memory[name] for name in largest) > 0.4 * sum(memory.values())
print("the services with a model are among the four largest")

# %%
from matplotlib import pyplot as plt

order = sorted(memory, key=memory.get)
plt.figure(figsize=(8, 4))
plt.barh(order, [memory[name] for name in order])
plt.xlabel("memory, MB")
plt.tight_layout()
plt.show()

# %% [markdown]
# ## What a loss does
#
# **Predict.** Reranking is stopped. Does the next question fail?
#
# <details><summary>Answer</summary>
#
# No. The orchestrator goes on with the order that the search gave, and the answer says in `degraded`
# what was missing. In the monolith an exception in that stage ends the request, unless somebody thought
# of it. Here it is a rule of the pipeline.
# </details>

# %%
here.stop("reranking")
without = here.ask("What does an API gateway do?")
here.start("reranking")
print("degraded:", without.degraded)

# %% tags=["check"]
assert without.degraded == ["reranking"]
assert without.text
assert without.citations or without.document["kind"] != "generated"
print("an answer came all the same")

# %% [markdown]
# ## Exercise 00.2: who is hit
#
# Before you stop a service, know who will notice. `calls` maps a service to those that it calls. Return
# the set of all services that call `gone`, directly or through others. The service itself is not
# one of them.
#
# <details><summary>Hint</summary>
#
# Start with the direct callers. Then look for the callers of those, until nothing new comes. A service
# that you have seen need not be looked at again; that also ends a circle.
# </details>

# %%
workshop.save_cell("start_here", "impact.py")


def affected(calls, gone):
    """Names of the services that need `gone`, directly or through others."""
    # BEGIN SOLUTION 00.2: find everyone who needs the service
    found, todo = set(), [gone]
    while todo:
        target = todo.pop()
        callers = {name for name, called in calls.items() if target in called}
        todo += callers - found
        found |= callers
    return found - {gone}
    # END SOLUTION


# %% tags=["check"]
workshop.check("00.2")

# %%
for name in ("embedding", "reranking", "feedback"):
    print(f"{name:<10} needed by", ", ".join(sorted(affected(calls, name))))

# %% [markdown]
# "Needed by" is the worst case. Which of them really fail is decided by how each caller handles the loss,
# and you saw that the orchestrator handles reranking's.
#
# ## The proof
#
# A step of this course may change the architecture, never the result. Twenty **fixed questions** are
# asked before and after each step. The answers must be equal: the same passages in the same order,
# and the same text. The first round takes a minute or more, because the model writes twenty answers; so
# it comes in four parts. Generation remembers them, and later rounds are quick.

# %%
before = workshop.fixed_answers(1, 5)

# %%
before += workshop.fixed_answers(6, 10)

# %%
before += workshop.fixed_answers(11, 15)

# %%
before += workshop.fixed_answers(16, 20)

# %% [markdown]
# The step of this lesson is a small one: one service is stopped and started again, while all others
# run on.

# %%
here.restart("hybrid_search")
after = workshop.fixed_answers()
workshop.same(before, after)

# %% [markdown]
# ## The bill
#
# A service costs something that a function call does not. Here is what `hybrid_search` costs on your
# machine: how long a call takes, how much of it is spent on the way, its memory, and what
# travels.

# %% tags=["nbval-ignore-output"]
bill = workshop.bill("hybrid_search")
bill.plot()
bill

# %% tags=["check"]
(line,) = bill.lines
assert 0 < line.inside <= line.ms
assert line.received > line.sent > 0
print("measured over", line.calls, "calls")

# %% tags=["check"]
workshop.check("00")

# %% [markdown]
# ## What you have seen
#
# - **The whole:** a question goes from the gateway to the orchestrator, which asks six services in turn;
#   the trace shows each as a stage.
# - **What it costs:** more processes, more memory, and a few milliseconds for each call.
# - **What it buys:** one stage can be stopped, replaced and measured, while the others go on.
#
# **Next:** lesson 01 is the script that all of this came from. `workshop.progress()` shows the board.
