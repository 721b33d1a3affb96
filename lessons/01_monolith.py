# %% [markdown]
# # 01 · The monolith: one script, one process
#
# | level | minutes | before this | the service |
# |---|---|---|---|
# | beginner | 45 | `00_start_here` | `monolith` |
#
# **Goal.** Before you take a system apart, you should know it whole, and have numbers. After this lesson
# you can
#
# 1. say what a RAG script does, stage by stage, and how long each stage takes;
# 2. measure the quality of a ranking with nDCG, the metric of all lessons from here on;
# 3. show on the running script what hurts: to change, to break and to scale one stage;
# 4. say what the monolith is better at.
#
# **The step.** There is none yet. Nothing is taken out in this lesson. You measure the script that all
# later lessons take apart, and show that it gives the same answers as the services.

# %%
import time
from statistics import median

import workshop
from workshop.fixed import FixedAnswer, fixed_questions

here = workshop.start()

# %% [markdown]
# ## The answers of the services
#
# The twenty fixed questions first, through the gateway. Where the language model has to write the answers,
# this takes a minute or two.

# %%
before = workshop.fixed_answers(1, 10)

# %%
before += workshop.fixed_answers(11, 20)

# %% [markdown]
# ## Read the script
#
# Open `services/monolith/rag.py`, about 270 lines. LangChain wires the stages: each is a method that
# takes the state so far, a dictionary, and whose result is added to it.
#
# **Predict.** What must happen in this one process before it can answer its first question?
#
# <details><summary>Answer</summary>
#
# It loads two embedding models, the reranker and a tokenizer, and encodes the whole handbook: each passage
# by the embedding models and by the reranker. The vectors go to disk, so a second start is quicker. The
# keyword index is in memory and built anew each time.
# </details>
#
# The script would start a language model too. Here it shares the one that runs already, to spare your memory.
# The handbook goes in by thirds; the first time, each takes up to half a minute.

# %%
import inspect

from services.monolith.rag import HANDBOOK, Rag, load_documents
from workshop import models, paths

source = inspect.getsource(Rag.__init__)
print(source[source.index("assign(asked") : source.index("self.connect")])
llm_url = here.url("llm_server") + "/v1"
rag = Rag(paths.home(), models.models_folder(), llm_url, documents=[])
documents = load_documents(HANDBOOK)
rag.index(documents[:240])
print(len(rag.passages), "of", len(documents), "passages")

# %%
rag.index(documents[240:520])
print(len(rag.passages), "of", len(documents), "passages")

# %%
rag.index(documents[520:])
print(len(rag.passages), "of", len(documents), "passages")

# %% [markdown]
# ## Exercise 01.1: where the time goes
#
# The services send a trace with each answer, as you saw in lesson 00. The script has none, so write the
# timer. `stages` maps a name to a function of the state. Run them in order; the result of each goes into
# `state` under its name. For each stage, append a row to `timings`:
#
# `{"stage": name, "start_ms": …, "ms": …, "status": "ok"}`
#
# `start_ms` counts from the first stage's start. Times come from `clock()`, in seconds. If a stage raises, its
# row says `"failed"`, and the exception goes on to the caller: a timer must not hide an error.
#
# <details><summary>Hint</summary>
#
# `try` … `finally`: what stands in `finally` runs whether the stage raised or not, and the exception goes on by
# itself. Set the status to `"failed"` before the stage, and to `"ok"` after it.
# </details>

# %%
workshop.save_cell("monolith", "timer.py")
import time


def run_stages(stages, state, timings, clock=time.perf_counter):
    """Run {name: function of state} in order, a row of times for each; the state at the end."""
    # BEGIN SOLUTION 01.1: run each stage, and write down when and how long
    began = clock()
    for name, stage in stages.items():
        started, status = clock(), "failed"
        try:
            state[name] = stage(state)
            status = "ok"
        finally:
            row = {"stage": name, "start_ms": (started - began) * 1000, "status": status}
            timings.append(row | {"ms": (clock() - started) * 1000})
    return state
    # END SOLUTION


# %% tags=["check"]
workshop.check("01.1")

# %% [markdown]
# **Predict.** Which stage takes the most time? And without that one?
#
# <details><summary>Answer</summary>
#
# Generation, by far: the language model reads the prompt and writes token after token. All other stages
# together are a small part of it. Among them the two that run a model, search (`lists`) and reranking, are
# usually the slowest.
# </details>

# %% id="stages-of-one-question"
from matplotlib import pyplot as plt

stages = {"asked": rag.preprocess, "lists": rag.search, "fused": rag.fuse, "reranked": rag.rerank}
stages |= {"context": rag.build_context, "text": rag.generate, "checked": rag.check}
rag.answer("What is a saga?")  # at its first question, the script loads what it has not yet
timings = []
state = run_stages(stages, {"question": "When does a circuit breaker open?"}, timings)
assert max(timings, key=lambda row: row["ms"])["stage"] == "text"
plt.barh([row["stage"] for row in timings], [row["ms"] for row in timings])
plt.gca().invert_yaxis()
plt.xscale("log")
plt.xlabel("ms, each line ten times the one before")
plt.show()

# %% [markdown]
# ## Quality
#
# A ranking is as good as what stands at its top. **nDCG@k** (normalised discounted cumulative gain; Järvelin
# and Kekäläinen, 2002) says this in one number from 0 to 1. A relevant passage at rank r gives
# 1 / log2(r + 1): 1 at rank 1, 0.631 at rank 2, 0.5 at rank 3. The sum over the first k ranks is divided by the
# best sum that is possible: all relevant passages at the top.
#
# By hand: A and B are relevant, the ranking is A, X, B. The sum is 1 + 0.5 = 1.5. The best is 1 + 0.631 =
# 1.631. So nDCG is 1.5 / 1.631 = 0.920.
#
# ## Exercise 01.2: nDCG
#
# `ranking` is a list of ids, best first; `relevant` is a set of ids. Where nothing is relevant, return 0.0.
#
# <details><summary>Hint 1</summary>
#
# `enumerate(ranking[:k], start=1)` gives the ranks. `math.log2` is the logarithm.
# </details>
#
# <details><summary>Hint 2: the best sum</summary>
#
# It depends on how many passages are relevant, and not on how many of them were found. No more than k of
# them fit into the first k ranks.
# </details>

# %%
workshop.save_cell("monolith", "metric.py")
import math


def ndcg(ranking, relevant, k=10):
    """nDCG@k of a list of ids, best first, from 0.0 to 1.0."""
    # BEGIN SOLUTION 01.2: divide what the ranking gains by the best that is possible
    gain = sum(1 / math.log2(r + 1) for r, p in enumerate(ranking[:k], start=1) if p in relevant)
    best = sum(1 / math.log2(r + 1) for r in range(1, min(k, len(relevant)) + 1))
    return gain / best if best else 0.0
    # END SOLUTION


# %% tags=["check"]
workshop.check("01.2")

# %% [markdown]
# Now on the script: twenty plain questions of the handbook and twenty paraphrases, which say things in other
# words than the page. A page and its translation count as one answer, so ids are mapped to **units** first.
#
# **Predict.** Is the same script better on plain questions or on paraphrases, and by how much?
#
# <details><summary>Answer</summary>
#
# Better on plain ones, by a lot. A quality figure belongs to its questions: twenty easy ones flatter any system.
# </details>

# %%
judged = workshop.judged("test")
unit, qrels = judged.collection.unit, judged.collection.qrels
retrieve = {name: stages[name] for name in ("asked", "lists", "fused", "reranked")}
mean = {}
for kind in ("plain", "paraphrase"):
    scores = []
    for query in [query for query in judged.queries if query.kind == kind][:20]:
        found = run_stages(retrieve, {"question": query.text}, [])["reranked"]
        ranking = list(dict.fromkeys(unit.get(p["id"], p["id"]) for p in found))
        scores.append(ndcg(ranking, qrels[query.id]))
    mean[kind] = sum(scores) / len(scores)
    print(f"{kind:<11} {len(scores)} questions, nDCG@10 {mean[kind]:.2f}")

# %% tags=["check"]
library = judged.ndcg({query.id: ranking})
assert abs(library[query.id] - ndcg(ranking, qrels[query.id])) < 1e-9
assert mean["plain"] > mean["paraphrase"] + 0.1
print("your metric agrees with the library's")

# %% [markdown]
# ## What hurts: break one stage
#
# The reranker of the script is taken away, as if its model file were damaged.
#
# **Predict.** What does the user get: from the script, and from the services without *their* reranker?
#
# <details><summary>Answer</summary>
#
# From the script nothing: the exception ends the answer, though search had found its passages. The
# orchestrator goes on with the order of the search and says so in `degraded`. A `try` around the
# stage would save the script from this exception. It would not save it from a crash in native code or from a
# process that the system ends for want of memory: all stages share one process.
# </details>

# %%
reranker, rag.reranker = rag.reranker, None
timings = []
try:
    run_stages(stages, {"question": "What does an API gateway do?"}, timings)
except AttributeError as error:
    print("no answer:", error)
rag.reranker = reranker
print(*(f"{row['stage']}: {row['status']}" for row in timings), sep="\n")

# %%
here.stop("reranking")
without = here.ask("What does an API gateway do?")
here.start("reranking")
assert without.text
assert "reranking" in without.degraded
print("an answer came, and it says that reranking took no part")

# %% [markdown]
# ## What hurts: change or copy one stage
#
# Reranking is too slow, so you want a second one. In the script that means a second copy of everything. The
# store of the vectors belongs to the first process, so the copy gets a copy of the data too.
#
# A change needs a new start as well: the script takes up a changed line when it is started again, with all
# its models. Beside it, `hybrid_search` is restarted, as you would after a change in the fusion.
#
# **Predict.** Which one answers again sooner?
#
# <details><summary>Answer</summary>
#
# The service. It has no model to load, and it imports less. Meanwhile all other services keep what they have
# in memory.
# </details>

# %%
import os
import shutil
import tempfile

from qdrant_client import QdrantClient

vectors, folder = paths.home() / "data" / "monolith", tempfile.mkdtemp()
try:
    QdrantClient(path=str(vectors / "qdrant"))
except RuntimeError as error:
    print(str(error).split(". ")[-1])
shutil.copytree(vectors, f"{folder}/data/monolith")
own = {"WORKSHOP_HOME": folder, "WORKSHOP_MODELS_DIR": str(models.models_folder())}

# %% tags=["nbval-ignore-output"]
import subprocess
import sys

from workshop.measure import proportional_memory

program = "from services.monolith.rag import Rag; rag = Rag(); print('ready', flush=True); input()"
environment = {**os.environ, **own, "MONOLITH_LLM_URL": llm_url}
pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
began = time.perf_counter()
copy = subprocess.Popen([sys.executable, "-c", program], cwd=paths.ROOT, env=environment, **pipes)
assert copy.stdout.readline() == b"ready\n"
script_seconds, script_mb = time.perf_counter() - began, proportional_memory([copy.pid]) / 1e6
copy.communicate(b"\n")
print(f"the script's copy: ready after {script_seconds:.1f} s, {script_mb:.0f} MB")

# %% tags=["check"]
began = time.perf_counter()
here.restart("hybrid_search")
service_seconds = time.perf_counter() - began
shutil.rmtree(folder)
assert copy.returncode == 0
assert script_mb > 100
assert service_seconds < script_seconds
print("one service is up again sooner than the whole script")

# %% [markdown]
# ## Exercise 01.3: how many copies
#
# How many copies does a load need? A part that takes `ms` milliseconds for a question is busy
# `per_second × ms / 1000` seconds in each second: the **utilisation law** (Denning and Buzen, 1978). At 40
# questions a second and 30 ms, that is 1.2: one copy cannot do it, and two would be busy 60 % of the time. A
# part that is busy nearly always makes its callers queue, so none should be busier than `most`.
#
# Return the number of copies of each part: the fewest that keep it at or below `most`, and at least one.
#
# The cells behind the check use it on your own numbers. Ten questions go both ways, timed by your timer
# and by the services' traces. Generation is left out, since both use one language model. `embedding` is
# restarted before, because it remembers the vectors of questions, and the script does not.
#
# <details><summary>Hint</summary>
#
# 1.2 seconds of work in each second, and at most 0.7 of it per copy: 1.2 / 0.7 = 1.71, so 2 copies.
# `math.ceil` rounds up.
# </details>

# %%
workshop.save_cell("monolith", "copies.py")
import math


def copies(busy_ms, per_second, most=0.7):
    """{part: copies} for {part: milliseconds a question}, none busier than `most`."""
    # BEGIN SOLUTION 01.3: find the fewest copies that are not too busy
    needed = {part: per_second * ms / 1000 / most for part, ms in busy_ms.items()}
    return {part: max(1, math.ceil(load)) for part, load in needed.items()}
    # END SOLUTION


# %% tags=["check"]
workshop.check("01.3")

# %%
here.restart("embedding")
totals, traces = [], []
for row in fixed_questions(1, 10):
    answer, timings = here.ask(row["question"]), []
    state = {"question": row["question"], "text": answer.text}
    run_stages({name: stages[name] for name in stages if name != "text"}, state, timings)
    totals.append(sum(timed["ms"] for timed in timings))
    traces.append({t["stage"]: t["ms"] for t in answer.timings if t["stage"] != "generation"})
script_ms = median(totals)
service_ms = {stage: median(trace[stage] for trace in traces) for stage in traces[0]}
assert set(service_ms) >= {"query_preprocessing", "hybrid_search", "reranking"}

# %% [markdown]
# **Predict.** At one question a second, who needs more memory: the script or the services? And at 60?
#
# <details><summary>Answer</summary>
#
# At one question a second, mostly the services: each of them is a process with a runtime of its own. It is
# close, since they share the pages of what they all import, and memory that a burst needed goes back to the
# system. With the load, the script's line rises in steps of everything, the services' in steps of the stage
# that is short. Whether and where the lines cross depends on your numbers; look at your figure.
# </details>
#
# A stage is counted with the services that only it calls: search with `dense_retrieval`, `sparse_retrieval` and
# `embedding`. All services that are no stage are counted once. It is a calculation with measured numbers: it
# assumes enough cores, and a process that works on one question at a time.

# %%
from workshop.catalogue import SERVICES

memory = {name: here.memory(name) / 1e6 for name in SERVICES}
group = {stage: memory[stage] for stage in service_ms}
for name in ("dense_retrieval", "sparse_retrieval", "embedding"):
    group["hybrid_search"] += memory[name]
once = sum(memory.values()) - sum(group.values())
rates, script_line, services_line = range(1, 101), [], []
for rate in rates:
    script_line.append(script_mb * copies({"script": script_ms}, rate)["script"])
    needed = copies(service_ms, rate)
    services_line.append(once + sum(group[stage] * n for stage, n in needed.items()))

# %% id="memory-over-load"
assert script_line[-1] / script_line[0] > services_line[-1] / services_line[0]
plt.step(rates, script_line, where="post", label=f"script, {script_ms:.0f} ms a question")
plt.step(rates, services_line, where="post", label=f"services, {sum(service_ms.values()):.0f} ms")
plt.xlabel("questions a second")
plt.ylabel("memory, MB, without the language model")
plt.ylim(0)
plt.legend()
plt.show()

# %% [markdown]
# ## The proof
#
# The script and the services must give the same answers. For the text this needs care. A language model adds its
# numbers in another order when part of a prompt is in its cache, and where two words are nearly equal, the other one
# may win. So for the proof the script asks `generation`, which remembers answers by the hash of the whole
# request. An answer that it remembers says: **the script's prompt was the services' prompt, byte for byte**. You
# count those. (`tests/integration/test_equivalence.py` compares answers written anew, on a model that has
# read each prompt before.)

# %%
import urllib.request


def remembered():
    text = urllib.request.urlopen(here.url("generation") + "/metrics").read().decode()
    return float(text.split('result="hit"} ')[1].split()[0])


rag.connect(here.url("generation") + "/v1")
known, after = remembered(), []
for row in fixed_questions():
    answer = rag.answer(row["question"])
    passages = tuple(p for source in answer["sources"] for p in source["passages"])
    after.append(FixedAnswer(row["id"], passages, answer["answer"]))
workshop.same(before, after)
print(f"{remembered() - known:.0f} prompts were equal to the byte")

# %% [markdown]
# ## The bill
#
# What the script does not pay: between its stages, results are passed on as they are in memory. The services
# write them as JSON, send them and read them again. Three of them as an example:

# %% tags=["nbval-ignore-output"]
bill = workshop.bill("hybrid_search", "sparse_retrieval", "context_aggregation")
print(f"services {sum(memory.values()):.0f} MB, script {script_mb:.0f} MB")
bill

# %% tags=["check"]
assert all(line.on_the_way < line.ms and line.received > 0 for line in bill.lines)
assert min(memory.values()) > 1
rag.qdrant.close()
workshop.check("01")

# %% [markdown]
# ## What moved, what it cost, what it bought
#
# - **Moved:** nothing. You know the script, and you have its numbers.
# - **The script is better at:** no bytes and no waiting between stages, one program to start, one log to
#   read, and mostly memory at a small load. If your load is small and one team changes it, keep it. "Monolith first"
#   (Fowler, 2015) is sound advice.
# - **It hurts:** when one stage fails, since nothing else is left to answer; when one stage changes, since
#   everything starts again; when one stage is short, since everything is copied, with its data.
# - **A split will not bring:** better answers. They are equal, and the next lessons keep them so.
#
# **Next:** lesson 02 takes out the first stage: `embedding`. `workshop.progress()` shows the board.
