# %% [markdown]
# # 03 · Dense retrieval: a service that owns its vectors
#
# | level | minutes | before this | the service |
# |---|---|---|---|
# | intermediate | 45 | `00_start_here` | `dense_retrieval` |
#
# **Goal.** A vector database finds the nearest vectors, keeps their passages, and stays right while
# they change. After this lesson you can
#
# 1. make a Qdrant collection, and say what a point, its payload and the distance are;
# 2. repeat an upsert without doubling anything, and delete what has gone stale;
# 3. filter a search by payload, and say what the filter buys;
# 4. measure the recall of HNSW against exact search;
# 5. say what it means that a service owns its data, and what holds that.
#
# **The step.** In the monolith, Qdrant's local mode runs inside of the one process, and nobody else
# can search the vectors. Here they belong to a service. You write what it adds to the engine: ids,
# filter, order.
#
# A split may change the architecture, never the result. So the fixed questions come first. Where the
# language model has to write the answers, this takes a minute or two.

# %%
import workshop

here = workshop.start()

# %%
before = workshop.fixed_answers(1, 10)

# %%
before += workshop.fixed_answers(11, 20)

# %% [markdown]
# ## Six vectors that you can check by eye
#
# The sections below are in the handbook. Their vectors are made by hand, with two numbers, *waiting*
# and *failing*, where a model gives 384. The question is how long a circuit breaker should stay open:
# `[1, 2]`, some waiting and more failing.
#
# | section | English | Portuguese |
# |---|---|---|
# | the three states of a breaker | `[1, 3]` | `[1, 3]` |
# | backoff with jitter | `[2, 2]` | |
# | timeouts add up, a deadline does not | `[6, 3]` | `[3, 1]` |
# | dynamic batching, timer or no timer | `[4, 0]` | |
#
# **Predict.** Which is nearest by the dot product, and which by the cosine of the angle?
#
# <details><summary>Answer</summary>
#
# By the dot product the English deadlines, 1·6 + 2·3 = 12: theirs is the longest vector. By the
# cosine the breaker, whose vector points almost where the question's does. Direction says what a
# vector is about, length only how much of it.
# </details>

# %%
sections = {
    "en/retries-and-circuit-breakers#the-three-states-of-a-breaker": (["resilience"], [1, 3]),
    "pt/retries-and-circuit-breakers#os-tres-estados-do-breaker": (["resilience"], [1, 3]),
    "en/retries-and-circuit-breakers#exponential-backoff-with-jitter": (["resilience"], [2, 2]),
    "en/deadlines-and-timeouts#timeouts-add-up-a-deadline-does-not": (["latency"], [6, 3]),
    "pt/deadlines-and-timeouts#timeouts-se-somam-um-deadline-nao": (["latency"], [3, 1]),
    "en/dynamic-batching#timer-or-no-timer": (["embeddings", "performance"], [4, 0]),
}
for name, (_, vector) in sections.items():
    dot = 1 * vector[0] + 2 * vector[1]
    lengths = (1**2 + 2**2) ** 0.5 * (vector[0] ** 2 + vector[1] ** 2) ** 0.5
    print(f"{name:<65} dot {dot:>2}  cosine {dot / lengths:.3f}")

# %% [markdown]
# ## A collection
#
# Qdrant's unit is the **point**: an id, a vector and a **payload**, a JSON object to filter by and to
# show. Points live in a **collection**, which fixes the length of the vectors and the distance.
# `:memory:` is the client's local mode: the same calls as to a server, without one.
#
# *Upsert* is "insert, or replace where the id exists". It matters because every write may happen
# twice: ingestion takes a message, stores a document, then confirms. If it dies before it confirms,
# the message comes again.
#
# **Predict.** Each point gets a random id, and the six sections are stored twice. How many points are
# there, and which sections are the nearest four?
#
# <details><summary>Answer</summary>
#
# Twelve points: no id existed, so nothing was replaced. The nearest four are the breaker in two
# languages, twice. The other sections are pushed out by copies.
# </details>

# %%
import uuid

from qdrant_client import QdrantClient, models

qdrant = QdrantClient(":memory:")
size = models.VectorParams(size=2, distance=models.Distance.COSINE)
qdrant.create_collection("six", vectors_config=size)


def payload(name, tags):
    return {"id": name, "document": name.split("#")[0], "language": name[:2], "tags": tags}


# %%
def upsert(point_id):
    """Store the six sections; `point_id` makes a point's id from its section's."""
    points = [
        models.PointStruct(id=point_id(name), vector=vector, payload=payload(name, tags))
        for name, (tags, vector) in sections.items()
    ]
    qdrant.upsert("six", points, wait=True)
    return qdrant.count("six").count


print([upsert(lambda name: str(uuid.uuid4())) for _ in range(2)], "points")
for point in qdrant.query_points("six", query=[1, 2], limit=4, with_vectors=True).points:
    print(f"{point.score:.3f}", [round(x, 3) for x in point.vector], point.payload["id"])

# %% [markdown]
# The score is your cosine, and the vector came back with length 1: with `COSINE`, Qdrant normalises
# what it stores, and then a dot product is enough. With `DOT` it would keep the lengths, and the
# deadlines would come first. Many embedding models normalise, but not all. Where none does, only the
# ranking shows it.
#
# ## Exercise 03.1: an id that stays
#
# Qdrant takes 64-bit numbers or UUIDs as ids, not texts such as
# `en/hnsw#memory-of-vectors-and-links`. Make the point's id from the passage's: the **name-based
# UUID**, version 5 (RFC 9562), in `NAMESPACE`, as text. It must be the same in every process and next
# year, because points with such ids are on disk already.
#
# <details><summary>Hint</summary>
#
# The standard library's `uuid` has a function for each version. Python's `hash` will not do: for
# texts it differs from process to process.
# </details>

# %%
workshop.save_cell("dense_retrieval", "points.py")
import uuid

from services.dense_retrieval.domain import NAMESPACE


def point_id(passage_id):
    """The id of a passage's point, as text."""
    # BEGIN SOLUTION 03.1: derive the id from the passage's name
    return str(uuid.uuid5(NAMESPACE, passage_id))
    # END SOLUTION


# %% tags=["check"]
workshop.check("03.1")
qdrant.delete_collection("six")
qdrant.create_collection("six", vectors_config=size)
print([upsert(point_id) for _ in range(2)], "points")

# %% [markdown]
# What may be repeated without a further effect is **idempotent**. A new version of a page needs one
# step more: if it has a section fewer, upsert leaves the old one, and it will be found and cited. So
# ingestion deletes what the new version lacks. Deleting is idempotent by nature.
#
# ## Filters
#
# **Predict.** Somebody wants Portuguese sections only. You search for two and discard the English
# ones. How many are left? And when the condition goes into the search?
#
# <details><summary>Answer</summary>
#
# One: *post-filtering* keeps what happens to be in the top two. With the condition in the search
# there are two, because only points that match are ranked.
# </details>

# %%
portuguese = models.Filter(
    must=[models.FieldCondition(key="language", match=models.MatchAny(any=["pt"]))]
)
two = qdrant.query_points("six", query=[1, 2], limit=2).points
print("discarded after:", [p.payload["id"] for p in two if p.payload["language"] == "pt"])
two = qdrant.query_points("six", query=[1, 2], limit=2, query_filter=portuguese).points
print("in the search:  ", [p.payload["id"] for p in two])

# %% [markdown]
# ## Exercise 03.2: the filter
#
# A search may be limited to `{"language": ["en", "pt"], "tags": ["latency"]}`: names of payload fields,
# and for each the values that are accepted. Build the filter: **every field must match, by any of
# its values**. No fields: no restriction.
#
# The service has two engines to choose from: `qdrant_edge`, Qdrant's own engine inside of the
# process, and `qdrant_client`, which asks a server. Their modules name the classes alike. So use
# `qdrant.Filter`, `qdrant.FieldCondition(key=…, match=…)` and `qdrant.MatchAny(any=[…])` of the module
# that you are given.
#
# <details><summary>Hint</summary>
#
# A `Filter` has `must` (all of these), `should` (at least one) and `must_not`. A payload field may
# hold a list, such as `tags`: it matches when one of its items does.
# </details>

# %%
workshop.save_cell("dense_retrieval", "filters.py")


def build_filter(qdrant, fields):
    """Payload field -> accepted values, to a filter of `qdrant`; None when there are no fields."""
    # BEGIN SOLUTION 03.2: every field must match, by any of its values
    if not fields:
        return None
    conditions = [
        qdrant.FieldCondition(key=name, match=qdrant.MatchAny(any=list(values)))
        for name, values in fields.items()
    ]
    return qdrant.Filter(must=conditions)
    # END SOLUTION


# %% tags=["check"]
workshop.check("03.2")
upsert(point_id)  # the last lines delete all six, and this cell may run again
for fields in ({"tags": ["latency"]}, {"tags": ["latency"], "language": ["en"]}, {}):
    chosen = build_filter(models, fields)
    print(qdrant.count("six", count_filter=chosen).count, "of 6 match", fields)
qdrant.delete("six", models.FilterSelector(filter=models.Filter(should=[])))
print(qdrant.count("six").count, "are left after a delete whose filter has no condition")

# %% [markdown]
# Look at the last line. A filter without a condition lets *everything* pass. In a search that is
# harmless; in a delete, the collection is gone. So `DELETE /v1/passages` refuses a request that names
# nothing, and wants `all=true` from whoever means all.
#
# ## Exercise 03.3: ties
#
# The breaker and its translation have equal scores. Which comes first? The engine promises no order
# among equals, and its limit cuts through them: two copies of the service could give two answers.
#
# `fetch(limit)` gives the nearest `limit` hits, best first, each with its `hit.id` and `hit.score`; fewer
# only when there are no more. Return the first `top_k` **by score, ties by id**. A passage that you did
# not fetch may tie with place `top_k` and have a smaller id. So fetch a few more than you need, and
# more again while the last one still ties. Do not fetch thousands to be safe: every hit brings its
# text.
#
# <details><summary>Hint</summary>
#
# A loop. If fewer came than you asked for, there are no more, and you are done. If the last score is
# lower than that of place `top_k`, you are done too. Otherwise double the limit. Then sort by a pair.
# </details>

# %%
workshop.save_cell("dense_retrieval", "order.py")


def best(fetch, top_k):
    """The first `top_k` hits by score, ties by id. `fetch(limit)`: the nearest, best first."""
    # BEGIN SOLUTION 03.3: fetch past the tie, then sort
    limit = top_k + 8
    while True:
        hits = fetch(limit)
        if len(hits) < limit or hits[-1].score < hits[top_k - 1].score:
            break
        limit *= 2
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:top_k]
    # END SOLUTION


# %% tags=["check"]
workshop.check("03.3")

# %% [markdown]
# ## Exact or approximate
#
# So far every search compared the question with every vector. **HNSW** (hierarchical navigable small
# world; Malkov and Yashunin, 2018) walks a graph instead: it links each vector with `m` near ones, and
# keeps the `ef` best candidates on its way. To find the near ones it searches while it builds, with
# `ef_construct` candidates. `qdrant_edge` builds two graphs here over 10,000 random vectors of length
# 32: a good one, `m` = 16 and `ef_construct` = 100, and a poor one, 4 and 16.
#
# **Predict.** Of the true nearest ten, how many does it find with `ef` = 10 candidates? And with 320?
#
# <details><summary>Answer</summary>
#
# In the good graph about six of ten, and with 320 candidates all. In the poor one far fewer: walking
# longer does not quite make up for links that were never made.
# </details>

# %%
import tempfile

import numpy as np
import qdrant_edge as engine

draw = np.random.default_rng(3)
made = draw.standard_normal((10_100, 32)).astype("float32").tolist()


def configuration(m, ef_construct):
    vectors = {"v": engine.EdgeVectorParams(32, engine.Distance.Cosine)}
    graph = engine.HnswIndexConfig(m=m, ef_construct=ef_construct, full_scan_threshold=10)
    build = engine.EdgeOptimizersConfig(indexing_threshold=10, default_segment_number=1)
    return engine.EdgeConfig(vectors=vectors, hnsw_config=graph, optimizers=build)


# %%
def nearest(shard, **how):
    """Ids of the nearest ten, for each of the last hundred vectors as a question."""
    found = []
    for vector in made[10_000:]:
        query = engine.Query.Nearest(vector, using="v")
        params = engine.SearchParams(**how)
        points = shard.query(engine.QueryRequest(query=query, limit=10, params=params))
        found.append({point.id for point in points})
    return found


# %% tags=["nbval-ignore-output"]
candidates, recalls = (10, 20, 40, 80, 160, 320), {}
for m, ef_construct in ((4, 16), (16, 100)):
    with tempfile.TemporaryDirectory() as folder:
        shard = engine.EdgeShard.create(folder, configuration(m, ef_construct))
        points = [engine.Point(n, {"v": vector}, {}) for n, vector in enumerate(made[:10_000])]
        shard.update(engine.UpdateOperation.upsert_points(points))
        exact = nearest(shard, exact=True)
        shard.optimize()
        pairs = [zip(exact, nearest(shard, hnsw_ef=ef), strict=True) for ef in candidates]
        recalls[m] = [sum(len(a & b) for a, b in pair) / 1000 for pair in pairs]
        shard.close()
    print(f"m = {m:>2}:", dict(zip(candidates, recalls[m], strict=True)))

# %% id="recall" tags=["check"]
from matplotlib import pyplot as plt

assert recalls[16][0] < 0.8
assert recalls[4][-1] < recalls[16][-1] > 0.98
for m, found in recalls.items():
    plt.plot(candidates, found, marker="o", label=f"m = {m}")
    print(f"m = {m}: more candidates find more:", found[0] < found[2] < found[-1])
plt.xlabel("ef: candidates kept during the search")
plt.ylabel("recall of the true nearest ten")
plt.legend()
plt.show()

# %% [markdown]
# More candidates are more comparisons: recall is bought with time. The handbook has fewer than a
# thousand passages, so **here the graph would buy nothing**. Up to `DENSE_EXACT_BELOW` passages,
# 50,000 by default, the service compares with all of them: the result is exact, and there is nothing
# to tune.
#
# ## A service that owns its data
#
# **Predict.** This notebook is a process on the same machine. It opens the service's folder, as a
# helpful script might. What happens?
#
# <details><summary>Answer</summary>
#
# It is refused. The service holds a lock on the collection. Without the lock, two processes would
# write to the same files, and each would trust what it has in memory.
# </details>

# %%
from services.dense_retrieval.domain import StoreLocked, open_store
from workshop import paths

folder = paths.data_dir() / "dense_retrieval"
try:
    open_store("edge", folder)
except StoreLocked as error:
    print(str(error).replace(str(folder), "its folder"))

# %% [markdown]
# The lock holds the rule on one machine. The rule is wider: nobody else knows the layout of the data,
# so the service can change its engine, ids or distance without asking anyone. Others ask through the
# API. A second copy of the service says in `/readyz` what you just read, and waits.
#
# ## Your service
#
# 1. It runs alone, on a free port, with a data folder of its own. The six sections go in twice, and a
#    filter with two fields finds three of them. The API calls the field `tags` of a passage `tag` in a
#    filter; the service turns one name into the other before it calls your function.
# 2. The **contract** is what every `dense_retrieval` must keep, whoever wrote it. The same tests hold
#    the reference.
# 3. Yours takes the reference's place: same port, same folder. The reference closes the collection
#    before yours can open it. Its points have the reference's ids; if yours were others, the next
#    ingestion would store every passage a second time.

# %%
import json
import urllib.request


def call(method, url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)
    return json.load(urllib.request.urlopen(request, timeout=10))


# %%
six = [
    payload(n, tags) | {"title": "By hand", "text": "…", "vectors": {"bilingual": vector}}
    for n, (tags, vector) in sections.items()
]
with workshop.serve("dense_retrieval") as url:
    for _ in range(2):
        call("PUT", url + "/v1/passages", {"models": {"bilingual": "by-hand"}, "passages": six})
    only = {"language": ["en", "pt"], "tag": ["latency", "performance"]}
    hits = call("POST", url + "/v1/search", {"vector": [1, 2], "filter": only})["hits"]
    print("six stored twice:", call("DELETE", url + "/v1/passages?all=true"))
for hit in hits:
    print(f"{hit['score']:.3f}", hit["id"])

# %% tags=["check"]
workshop.check("03")

# %%
workshop.swap("dense_retrieval")
after = workshop.fixed_answers()
workshop.same(before, after)

# %% [markdown]
# ## What a filter and a second vector buy
#
# Each English passage carries two vectors, one of a bilingual model and one of an English one;
# `using` says which is compared. The measure is **nDCG@10** over the handbook's test questions: 1 where
# the right sections lead the list, less the lower they stand, 0 where none is among ten. A section and
# its translation count as one. Each line ends with the mean difference to `bilingual`, its 95 %
# interval (paired bootstrap over the questions) and what follows: "same" where the interval holds zero.
#
# **Predict.** Does it help to search only passages in the question's own language? What happens when
# only the *other* language is searched? Is the English model better on English questions?
#
# <details><summary>Answer</summary>
#
# The filter changes nothing. In the other language the bilingual vectors find less, but most of it.
# The English model is not measurably better on English questions, and fails on Portuguese ones.
# </details>

# %%
judged, other = workshop.judged("test"), {"en": "pt", "pt": "en"}
address = here.url("dense_retrieval") + "/v1/search"
ways = {
    "bilingual": lambda q: {},
    "own language only": lambda q: {"filter": {"language": [q.language]}},
    "other language only": lambda q: {"filter": {"language": [other[q.language]]}},
    "English model": lambda q: {"using": "english"},
}


def ndcg(how):
    bodies = {q.id: {"query": q.text, "top_k": 20, **how(q)} for q in judged.queries}
    hits = {q: call("POST", address, body)["hits"] for q, body in bodies.items()}
    return judged.ndcg({q: [hit["id"] for hit in found] for q, found in hits.items()})


# %% tags=["nbval-ignore-output"]
from workshop.evaluation.intervals import bootstrap

runs, verdicts = {name: ndcg(how) for name, how in ways.items()}, {}
for language in ("en", "pt"):
    ids = [query.id for query in judged.queries if query.language == language]
    for name, run in runs.items():
        gain = bootstrap([run[q] - runs["bilingual"][q] for q in ids])
        verdicts[name, language] = gain.verdict
        print(f"{language}  {name:<20} {sum(run[q] for q in ids) / len(ids):.3f}", end="  ")
        print(f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]  {gain.verdict}")

# %% tags=["check"]
for name in ways:
    print(f"{name:<20}", {language: verdicts[name, language] for language in ("en", "pt")})
assert verdicts["own language only", "en"] == verdicts["own language only", "pt"] == "same"
assert verdicts["other language only", "pt"] == verdicts["English model", "pt"] == "worse"

# %% [markdown]
# So the language filter is no tool for quality here. It is one for people: who reads only Portuguese
# gets only Portuguese. And a second vector for each English passage does not pay by itself. Whether
# it pays as a third list beside the others is a question of fusion, in lesson 05.
#
# ## The bill

# %% tags=["nbval-ignore-output"]
bill = workshop.bill("dense_retrieval")
bill

# %% tags=["check"]
(line,) = bill.lines
assert 0 < line.inside <= line.ms
assert line.received > line.sent > 0
bill.plot()
workshop.restore("dense_retrieval")

# %% [markdown]
# ## What moved, what it cost, what it bought
#
# - **Moved:** the vectors with their passages, and with them the ids, the filter and the order. This
#   service cannot just be copied: it owns data.
# - **Cost:** the columns of your own bill. *Inside* includes the call to `embedding`, which makes the
#   question's vector; the rest is HTTP, and hits that carry their whole text.
# - **Bought:** writes that survive a crash and may be repeated; searches while a write goes on; one
#   owner, who can change the engine without asking. You have just changed its code under a full
#   collection.
# - **Not bought:** better answers. They are the same, to the last passage; on this corpus neither
#   HNSW nor the language filter adds to them.
#
# **Next:** lesson 04, `sparse_retrieval`, searches by words. `workshop.progress()` shows the board.
