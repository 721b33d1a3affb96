# %% [markdown]
# # 05 · Hybrid search: two lists, one ranking
#
# | level | minutes | before this | the service |
# |---|---|---|---|
# | intermediate | 45 | `00_start_here` | `hybrid_search` |
#
# **Goal.** Two retrievers answer the same question, and each fails on questions that the other
# gets right. After this lesson you can
#
# 1. compute reciprocal rank fusion (RRF) by hand, and write it;
# 2. ask several services at once and survive the loss of one;
# 3. measure what fusion wins and what it loses, with an interval that says how sure you may be.
#
# **The step.** In the monolith, fusion is a function call between two searches. Here it is a
# service, `hybrid_search`. You write its core, and it takes the reference's place in the running system.
#
# **The answers before the step.** A split may change the architecture, never the result. So the twenty
# fixed questions come first, in two halves, and again at the end. Where the language model has to write
# the answers, a half takes up to a minute.

# %%
import workshop

here = workshop.start()

# %%
before = workshop.fixed_answers(1, 10)

# %%
before += workshop.fixed_answers(11, 20)
assert all(answer.passages and answer.text for answer in before)

# %% [markdown]
# ## Two lists that you can check by eye
#
# Dense retrieval returns A, B, C, D for a question. Keyword retrieval returns C, A, E, B. Their
# scores are cosines on one side and BM25 scores on the other:
#
# | place | 1 | 2 | 3 | 4 |
# |---|---|---|---|---|
# | dense | A 0.83 | B 0.82 | C 0.80 | D 0.79 |
# | sparse | C 14.2 | A 9.1 | E 6.0 | B 5.0 |
#
# **Predict.** Which passage should be first in one common list, and which last? Can you add the
# two scores of A?
#
# <details><summary>Answer</summary>
#
# A and C are high in both lists, so one of them comes first. D and E are in one list only, so one
# of them comes last. Adding the scores lets the list with the larger numbers decide alone: BM25 has no
# upper end, and these cosines lie within 0.04 of one another.
# </details>

# %%
lists = {
    "dense": [("A", 0.83), ("B", 0.82), ("C", 0.80), ("D", 0.79)],
    "sparse": [("C", 14.2), ("A", 9.1), ("E", 6.0), ("B", 5.0)],
}
added = {}
for ranked in lists.values():
    for passage, score in ranked:
        added[passage] = added.get(passage, 0) + score
print("added scores:", sorted(added, key=added.get, reverse=True))
print("sparse alone:", [passage for passage, _ in lists["sparse"]])

# %% [markdown]
# The sum gives the order of the keyword list, with D behind it. The cosines had no say.
#
# **Reciprocal rank fusion** (Cormack, Clarke and Büttcher, SIGIR 2009) looks at places only. A
# passage gets `1 / (k + rank)` from each list that holds it. Ranks start at 1, and k is 60 in the
# paper. A list that does not hold the passage gives nothing.

# %%
from fractions import Fraction

by_hand = {
    "A": Fraction(1, 61) + Fraction(1, 62),
    "B": Fraction(1, 62) + Fraction(1, 64),
    "C": Fraction(1, 63) + Fraction(1, 61),
    "D": Fraction(1, 64),
    "E": Fraction(1, 63),
}
for passage in sorted(by_hand, key=by_hand.get, reverse=True):
    print(passage, by_hand[passage], f"= {float(by_hand[passage]):.5f}")

# %% [markdown]
# ## Scores of the real lists
#
# The same holds for the running system. Each hit says in `provenance` which place and which score
# each list gave it.

# %% tags=["nbval-ignore-output"]
hits = here.search("How long should a circuit breaker stay open?", top_k=8)
for hit in hits:
    places = {name: (p["rank"], round(p["score"], 2)) for name, p in hit["provenance"].items()}
    print(f"{hit['id'][:58]:<60}", places)

# %% tags=["check"]
cosines = [h["provenance"]["dense"]["score"] for h in hits if "dense" in h["provenance"]]
bm25 = [h["provenance"]["sparse"]["score"] for h in hits if "sparse" in h["provenance"]]
assert all(-1 <= score <= 1 for score in cosines)
assert max(bm25) > 1
assert [h["score"] for h in hits] == sorted((h["score"] for h in hits), reverse=True)
print("cosines stay below 1, BM25 scores do not")

# %% [markdown]
# ## Exercise 05.1: fuse
#
# Write the function. Lists can have a **weight**: a list that is known to be better counts more,
# and each of its terms is multiplied by the weight. A list without a weight does not count.
#
# Return a list of `Fused(id, score, provenance)`, which can be changed after it is made. Its
# `provenance` is a dictionary from the name of a list to the `Place(rank, score)` there, with the
# list's own score. `Fused(id)` alone begins with 0 and an empty dictionary.
#
# <details><summary>Hint 1: the shape</summary>
#
# One dictionary from passage id to `Fused`. Go through every list, and in it through every passage
# with its rank; `enumerate(ranked, start=1)` gives ranks from 1.
# </details>
#
# <details><summary>Hint 2: two runs must agree</summary>
#
# Exact ties are common: two passages that are each first in one list have the same sum. Order ties
# by id, so that the order of the lists does not matter. A sort key may be a pair.
# </details>
#
# When the check is green, your function fuses the lists from above. Compare with the fractions.

# %%
workshop.save_cell("hybrid_search", "core.py")
from services.hybrid_search.domain import Fused, Place


def reciprocal_rank_fusion(lists, *, weights=None, k=60.0):
    """Best first. `lists`: name -> [(id, score), ...]; `weights`: name -> float, None: all 1."""
    # BEGIN SOLUTION 05.1: fuse the lists by rank
    fused = {}
    for name, ranked in lists.items():
        weight = 1.0 if weights is None else weights.get(name, 0.0)
        for rank, (passage, score) in enumerate(ranked if weight else [], start=1):
            item = fused.setdefault(passage, Fused(passage))
            item.score += weight / (k + rank)
            item.provenance[name] = Place(rank, score)
    return sorted(fused.values(), key=lambda item: (-item.score, item.id))
    # END SOLUTION


# %% tags=["check"]
workshop.check("05.1")

# %%
for item in reciprocal_rank_fusion(lists):
    print(item.id, f"{item.score:.5f}", {name: p.rank for name, p in item.provenance.items()})

# %% [markdown]
# **Predict.** With k = 60, how much more is place 1 worth than place 10? And with k = 1?
#
# <details><summary>Answer</summary>
#
# 70/61, about 15 % more; with k = 1 it is 11/2, so 5.5 times as much. A small k trusts the top of
# each list, a large k trusts what the lists agree on.
# </details>

# %%
from matplotlib import pyplot as plt

ranks = range(1, 31)
for k in (1, 10, 60):
    worth = [(k + 1) / (k + rank) for rank in ranks]
    plt.plot(ranks, worth, label=f"k = {k}")
    print(f"k = {k:>2}: place 1 is worth {(k + 10) / (k + 1):.2f} times place 10")
plt.xlabel("rank")
plt.ylabel("worth, as a share of place 1")
plt.legend()
plt.show()

# %% [markdown]
# ## Ask at once
#
# Fusion needs every list, but no list needs another. For an English question there are three:
# `sparse` is BM25, `dense` the vectors of the bilingual model, and `dense_english` those of a model
# that knows English only. Below, three slow lists with these names take 0.3 s, 0.1 s and 0.2 s, and
# the third one fails.
#
# **Predict.** How long do the three take one after the other, and how long at once?
#
# <details><summary>Answer</summary>
#
# 0.3 + 0.1 + 0.2 = 0.6 s in a row; at once as long as the slowest, 0.3 s. The price comes later:
# if each list is late in 1 % of the calls, at least one of two is late in 1.99 %.
# </details>
#
# ## Exercise 05.2: fan out, and lose one
#
# `ask` is an async function of a list's name. Ask **all names at once** and return `{name: answer}`
# in the order of the names. A list that fails must not take the others with it: its exception
# stands in the place of its answer, and the caller marks the result as degraded.
#
# <details><summary>Hint</summary>
#
# Read about `asyncio.gather` and its parameter `return_exceptions`. `gather` keeps the order of what it
# was given, whatever comes back first.
# </details>
#
# Behind the check come the three slow lists, and then the same in the running service: its `timings_ms` says
# how long each list took.

# %%
workshop.save_cell("hybrid_search", "fan_out.py")
import asyncio


async def ask_together(ask, names):
    """{name: what `await ask(name)` gave, or the exception that it raised}, all at once."""
    # BEGIN SOLUTION 05.2: ask every list at once
    answers = await asyncio.gather(*(ask(name) for name in names), return_exceptions=True)
    return dict(zip(names, answers, strict=True))
    # END SOLUTION


# %% tags=["check"]
workshop.check("05.2")

# %%
import time

SECONDS = {"dense": 0.3, "sparse": 0.1, "dense_english": 0.2}


async def slow_list(name):
    await asyncio.sleep(SECONDS[name])
    if name == "dense_english":
        raise ConnectionError("dense_retrieval is gone")
    return [f"the {name} list"]


# %%
started = time.perf_counter()
answers = await ask_together(slow_list, list(SECONDS))
took = time.perf_counter() - started
for name, answer in answers.items():
    print(f"{name:<14} {answer!r}")
assert 0.25 < took < 0.5, took
print("took as long as the slowest list, not as the sum")

# %% tags=["nbval-ignore-output"]
import json
import urllib.request


def search(url, **body):
    data = json.dumps(body).encode()
    request = urllib.request.Request(url + "/v1/search", data)
    request.add_header("content-type", "application/json")
    return json.load(urllib.request.urlopen(request, timeout=10))


question = {"query": "Why do we need timeouts?", "language": "en", "top_k": 20}
started = time.perf_counter()
found = search(here.url("hybrid_search"), **question)
took = (time.perf_counter() - started) * 1000
print(found["timings_ms"], f"sum {sum(found['timings_ms'].values()):.1f}, whole {took:.1f} ms")

# %% tags=["check"]
assert set(found["timings_ms"]) == {"dense", "dense_english", "sparse"}
assert found["degraded"] == []
assert len(found["hits"]) == 20
print("three lists,", len(found["hits"]), "passages, nothing degraded")

# %% [markdown]
# ## Your service, the step, and the proof
#
# `my_services/hybrid_search/` now holds your two files. The reference's `create_app` takes them as
# arguments, so the API, the settings and the health checks are the same and the core is yours. First
# it runs alone, on a free port, beside the reference. Then `check` holds it to the **contract**: what every
# `hybrid_search` must keep, whoever wrote it; the same tests hold the reference. Last, it takes the
# reference's place, same port, same neighbours, and the twenty questions are asked again.

# %%
with workshop.serve("hybrid_search") as url:
    mine = search(url, **question)
assert [hit["id"] for hit in mine["hits"]] == [hit["id"] for hit in found["hits"]]
print("your service and the reference:", len(mine["hits"]), "passages in the same order")

# %% tags=["check"]
workshop.check("05")

# %%
workshop.swap("hybrid_search")
after = workshop.fixed_answers()
workshop.same(before, after)

# %% [markdown]
# ## What fusion wins, and what it loses
#
# **Predict.** On the handbook's test questions, BM25 alone reaches an nDCG@10 of about 0.82 and the
# bilingual vectors alone about 0.72. Where will the fused list be?
#
# <details><summary>Answer</summary>
#
# Near the better one. Fusion helps where the lists fail on different questions; where one is weak,
# it pulls the other down. Which of the two prevails is a matter of measurement.
# </details>
#
# nDCG@10 is 1 when the passages judged right stand on top, and 0 when none of them is among the first
# ten (lesson 01). Each list is asked once, of the running system; that takes some seconds.
# Everything after that is your function: first with two lists that count the same, then with the lists
# and the weights of the service, which were chosen on the validation questions.
#
# An average hides how far it would move with other questions. The **paired bootstrap** draws the
# questions again and again, with replacement, and looks at the *differences* question by question:
# that some questions are hard for everyone cancels out. The brackets hold 95 % of the means; "same" means
# that zero is among them.

# %%
from services.hybrid_search.settings import Settings

judged = workshop.judged("test")
by_list = judged.lists()
WEIGHTS = Settings().weights
print(len(by_list), "judged questions; weights", WEIGHTS)
languages = {query.id: query.language for query in judged.queries}


def fuse(weights_of):
    """The ranking of each question: passage ids, best first."""
    fused = {q: reciprocal_rank_fusion(ls, weights=weights_of(q)) for q, ls in by_list.items()}
    return {q: [item.id for item in items] for q, items in fused.items()}


# %% tags=["nbval-ignore-output"]
from workshop.evaluation.intervals import bootstrap

sparse = judged.ndcg({q: [p for p, _ in ls["sparse"]] for q, ls in by_list.items()})
dense = judged.ndcg({q: [p for p, _ in ls["dense"]] for q, ls in by_list.items()})
equal = judged.ndcg(fuse(lambda q: {"sparse": 1, "dense": 1}))
weighted = judged.ndcg(fuse(lambda q: WEIGHTS[languages[q]]))
for name, own in {"dense": dense, "equal RRF": equal, "weighted RRF": weighted}.items():
    moved = [own[q] - sparse[q] for q in sparse]
    gain = bootstrap(moved)
    won, lost = sum(d > 0 for d in moved), sum(d < 0 for d in moved)
    print(f"{name:<13} {sum(own.values()) / len(own):.3f}  {won} won, {lost} lost", end="  ")
    print(f"over BM25 {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]  {gain.verdict}")

# %% tags=["check"]
assert set(sparse) == set(dense) == set(weighted)
assert bootstrap([dense[q] - sparse[q] for q in sparse]).verdict == "worse"
assert bootstrap([weighted[q] - sparse[q] for q in sparse]).verdict != "worse"
assert bootstrap([weighted[q] - dense[q] for q in sparse]).verdict == "better"
print("weighted fusion beats the vectors, and is not worse than BM25")

# %% [markdown]
# "Not worse than BM25" is all that this corpus lets you say: the interval of the gain holds zero. On
# another collection the same code may gain more: the quality table in `README.md` has two others, and on
# one of them the gain is certain. A difference whose interval holds zero is not a finding.
#
# The figure shows what the mean hides: questions that fusion loses on the left, questions that it wins on
# the right, and between them those that it leaves as they were.

# %%
for language, colour in (("en", "tab:blue"), ("pt", "tab:orange")):
    gains = sorted(weighted[q] - sparse[q] for q in sparse if languages[q] == language)
    plt.plot([n / len(gains) for n in range(len(gains))], gains, color=colour, label=language)
plt.axhline(0, color="gray", linewidth=0.8)
plt.xlabel("share of the questions")
plt.ylabel("nDCG@10, weighted RRF minus BM25")
plt.legend()
plt.show()

# %%
won = sum(weighted[q] > sparse[q] for q in sparse)
lost = sum(weighted[q] < sparse[q] for q in sparse)
assert won > 10
assert lost > 10
assert won + lost < len(sparse) / 2
print("fusion wins some questions and loses some; most stay as they were")

# %% [markdown]
# ## The bill
#
# In the monolith this was a function call. What does it cost as a service, on this machine, now?

# %% tags=["nbval-ignore-output"]
bill = workshop.bill("hybrid_search")
bill.plot()
bill

# %% tags=["check"]
(line,) = bill.lines
assert 0 < line.inside <= line.ms
assert line.memory > 1_000_000
assert line.received > line.sent > 0
print("time, memory and bytes were measured over", line.calls, "calls")
workshop.restore("hybrid_search")

# %% [markdown]
# ## What moved, what it cost, what it bought
#
# - **Moved:** the fan-out and the fusion. The service owns no data: it can be stopped, copied and
#   replaced at any time.
# - **Cost:** the columns *on the way*, *memory* and *bytes* of your own bill. A list of twenty passages
#   travels whole, and the caller reads most of them only to pass them on.
# - **Bought:** one place that knows the lists and their weights; a search that survives the loss of
#   either retriever and says so; and a core that you have just replaced without a restart of
#   anything else.
# - **Not bought:** better answers. On this corpus the interval of fusion against BM25 holds zero.
#
# **Next:** lesson 06, `query_preprocessing`, stands before both searches. `workshop.progress()` shows the board.
