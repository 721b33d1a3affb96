# %% [markdown]
# # 04 · Sparse retrieval: BM25, word by word
#
# | level | minutes | before this | the service |
# |---|---|---|---|
# | intermediate | 40 | `00_start_here` | `sparse_retrieval` |
#
# **Goal.** Keyword search is the oldest part of the pipeline. On this handbook it beats the vectors, and you
# will measure where. After this lesson you can
#
# 1. compute a BM25 score by hand, and write its two parts;
# 2. explain what rarity, saturation and length do to a ranking;
# 3. show with real questions when keywords beat vectors, and when they do not.
#
# **The step.** In the monolith, BM25 is an object in memory, built anew at each start. Here it is a
# service, `sparse_retrieval`, that owns its index on disk. You write how it scores.
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

# %% [markdown]
# ## Five sentences
#
# Small enough to check by eye. Somebody searches for **breaker call**. The simplest score counts how
# often the words of the query occur.

# %%
sentences = {
    "A": "the breaker opens after five failures",
    "B": "the breaker closes after a successful call and the breaker forgets the failures",
    "C": "a timeout ends a slow call",
    "D": "the gateway counts every call",
    "E": "retry a failed call after the timeout",
}
query = ["breaker", "call"]
words = {name: text.split() for name, text in sentences.items()}
for name, found in words.items():
    print(name, len(found), "words", {word: found.count(word) for word in query})

# %% [markdown]
# **Predict.** By counting, A, C, D and E tie: one word of the query each. Should they? Which of the two words says
# more about what is wanted?
#
# <details><summary>Answer</summary>
#
# "breaker". Two sentences hold it, and four hold "call". A word that almost every sentence holds tells
# little, so A should stand before C, D and E.
# </details>
#
# ## Rarity
#
# **Inverse document frequency** (Spärck Jones, 1972) makes a number of this. With N passages, n of
# which hold the word, BM25 in today's engines uses
#
# $$\mathrm{idf} = \ln\left(1 + \frac{N - n + 0.5}{n + 0.5}\right)$$
#
# By hand, for "breaker": N = 5 and n = 2, so ln(1 + 3.5 / 2.5) = ln 2.4 ≈ 0.875. For "call": n = 4, so
# ln(1 + 1.5 / 4.5) ≈ 0.288. One "breaker" is worth three times a "call".
#
# ## Exercise 04.1: idf
#
# Write the formula as a function.
#
# <details><summary>Hint 1: which logarithm</summary>
#
# `math.log` with one argument is the natural one.
# </details>
#
# <details><summary>Hint 2: why the 1</summary>
#
# Without it, a word that more than half of the passages hold gets a negative weight, and a passage would
# lose by containing a word that was asked for.
# </details>

# %%
workshop.save_cell("sparse_retrieval", "rarity.py")
import math


def inverse_document_frequency(passages, holding):
    """Weight of a word that `holding` of all `passages` hold, natural logarithm."""
    # BEGIN SOLUTION 04.1: compute the idf from N = passages and n = holding
    return math.log(1 + (passages - holding + 0.5) / (holding + 0.5))
    # END SOLUTION


# %% tags=["check"]
workshop.check("04.1")

# %%
holding = {word: sum(word in found for found in words.values()) for word in ("the", *query)}
for word, n in holding.items():
    print(f"{word:<8} in {n} of 5  idf {inverse_document_frequency(5, n):.3f}")

# %% [markdown]
# ## Saturation and length
#
# How often a word occurs counts too, but not without limit. And a long passage has more room for
# every word. BM25's second part answers both (Robertson and Zaragoza, 2009):
#
# $$\frac{count \cdot (k_1 + 1)}{count + k_1 \cdot (1 - b + b \cdot length / average)}$$
#
# *count* is how often the passage holds the word, *length* how many words it has, *average* how many a
# passage has on average. `k1` (1.2 here) says how soon repetition stops counting, `b` (0.75) how much a
# long passage pays.
#
# **Predict.** A passage of average length holds the word once. What is the value? What is it for a
# thousand times?
#
# <details><summary>Answer</summary>
#
# Once: 2.2 / (1 + 1.2) = 1. A thousand times: 2200 / 1001.2, just below 2.2. The limit is k1 + 1: who
# repeats a word a thousand times gains little more than a factor of two.
# </details>
#
# ## Exercise 04.2: how often, in how long a passage
#
# Write this formula as a function, too.
#
# <details><summary>Hint</summary>
#
# Write the length factor first: `1 - b + b * length / average`. It is 1 at the average length, more for a
# longer passage. It stands below the line, multiplied by `k1`.
# </details>

# %%
workshop.save_cell("sparse_retrieval", "frequency.py")


def term_frequency(count, length, average, *, k1=1.2, b=0.75):
    """What `count` occurrences are worth in a passage of `length` words, from 0 to k1 + 1."""
    # BEGIN SOLUTION 04.2: saturate the count and make long passages pay
    longer = 1 - b + b * length / average
    return count * (k1 + 1) / (count + k1 * longer)
    # END SOLUTION


# %% tags=["check"]
workshop.check("04.2")

# %% id="worth-of-a-word"
from matplotlib import pyplot as plt

counts = range(16)
for length, name in ((50, "half the average"), (100, "average"), (200, "twice the average")):
    plt.plot(counts, [term_frequency(c, length, 100) for c in counts], label=name)
plt.plot(counts, [term_frequency(c, 100, 100, k1=4) for c in counts], "k:", label="average, k1 = 4")
plt.xlabel("occurrences of the word")
plt.ylabel("worth, by your function")
plt.legend(title="length of the passage")
plt.show()

# %% [markdown]
# ## By hand, then the library
#
# A score is the sum over the words of the query: idf times the second part.
#
# **Predict.** B holds "breaker" twice and "call" once, but it is the longest. Is it first?
#
# <details><summary>Answer</summary>
#
# Yes. It holds both words, which outweighs its length. A follows for its rare word. C, D and E hold the
# same word once and differ by their length only: the shortest is first.
# </details>

# %%
average = sum(map(len, words.values())) / len(words)
by_hand = {}
for name, found in words.items():
    parts = [
        inverse_document_frequency(5, holding[word])
        * term_frequency(found.count(word), len(found), average)
        for word in query
    ]
    by_hand[name] = sum(parts)
    print(name, " + ".join(f"{part:.4f}" for part in parts), f"= {by_hand[name]:.4f}")

# %% [markdown]
# Now the library. The service uses tantivy, a search engine written in Rust; `KeywordIndex` is the
# service's domain, without HTTP.

# %%
from services.sparse_retrieval.domain import KeywordIndex


def passage(name, text):
    parts = {"document": "five", "title": "", "heading": "", "position": 0, "language": "en"}
    return {"id": name, "tags": [], "text": text, **parts}


engine = KeywordIndex()
engine.put([passage(name, text) for name, text in sentences.items()])
library = {hit.id: hit.score for hit in engine.search("breaker call", language="en")}
assert all(math.isclose(library[name], by_hand[name], rel_tol=1e-5) for name in by_hand)
print({name: round(score, 4) for name, score in library.items()}, "- the same scores")

# %% [markdown]
# The engine adds three things to your formula:
#
# - **an inverted index**: for each word, the list of passages that hold it. You went through all five
#   sentences; the engine reads two short lists;
# - **analysis**: text becomes terms, lower case, stemmed, accents folded, the same for passage and query;
# - **durability**: a write is on disk before it is acknowledged.
#
# **Predict.** Does "Breakers calling" find anything by your `split()`? And by the engine?
#
# <details><summary>Answer</summary>
#
# `split()` finds nothing: to it, "Breakers" and "breaker" are two words. The stemmer cuts both to one term.
# </details>

# %%
asked = "Breakers calling"
print("split: ", [name for name, found in words.items() if set(asked.split()) & set(found)])
print("engine:", [hit.id for hit in engine.search(asked, language="en")])

# %% [markdown]
# ## Your service
#
# `create_app` takes your two functions as arguments. tantivy still finds the passages that hold a word,
# and says how often they hold it, how long they are and how many there are; **your functions make the
# score**. First your service runs alone, with an index of its own that holds the five sentences. Over
# HTTP, the scores must be the same. The **contract** is what every `sparse_retrieval` must keep, whoever
# wrote it; the same tests hold the reference.

# %%
import json
import urllib.request


def call(method, url, body=None):
    request = urllib.request.Request(url, json.dumps(body).encode(), method=method)
    request.add_header("content-type", "application/json")
    return json.load(urllib.request.urlopen(request, timeout=10))


with workshop.serve("sparse_retrieval") as url:
    five = [passage(name, text) for name, text in sentences.items()]
    print(call("PUT", url + "/v1/passages", {"passages": five}))
    mine = call("POST", url + "/v1/search", {"query": "breaker call", "language": "en"})["hits"]
    print(call("DELETE", url + "/v1/passages?document=five"))
print({hit["id"]: round(hit["score"], 4) for hit in mine})

# %% tags=["check"]
assert all(math.isclose(hit["score"], by_hand[hit["id"]], rel_tol=1e-5) for hit in mine)
workshop.check("04")

# %% [markdown]
# ## The step, and the proof
#
# Now yours takes the reference's place: same port, same index on disk. Then the twenty questions again.

# %%
workshop.swap("sparse_retrieval")

# %%
after = workshop.fixed_answers()
workshop.same(before, after)

# %% [markdown]
# ## The bill
#
# **Predict.** Your formula is the engine's, but it runs in Python. What does a search cost in your
# service, and what in the reference?
#
# <details><summary>Answer</summary>
#
# Yours takes more time and more memory, for the same answers. It reads every passage that holds a word, and
# keeps the counts of its words in memory. The engine reads compressed lists that hold those counts
# already. That is why the lesson's code is yours and the product's is a library's.
# </details>

# %% tags=["nbval-ignore-output"]
own_bill = workshop.bill("sparse_retrieval")
workshop.restore("sparse_retrieval")
bill = workshop.bill("sparse_retrieval")
print(f"yours\n{own_bill}\n\nthe reference\n{bill}")
bill.plot()

# %% tags=["check"]
(own,), (reference,) = own_bill.lines, bill.lines
assert own.inside > reference.inside > 0
assert own.memory > reference.memory > 1_000_000
assert reference.received > reference.sent > 0
print("the same answers take your service more time and more memory")

# %% [markdown]
# ## When keywords beat vectors
#
# **Predict.** The handbook's test questions come in kinds. *Plain* ones mostly use the handbook's words,
# *paraphrases* avoid them, *misspelled* ones have typing errors. Where do keywords win over vectors, and
# where do they not?
#
# <details><summary>Answer</summary>
#
# They win on plain questions in both languages, and in English on paraphrases and on questions that need two
# passages. On misspelled ones no difference can be shown: `query_preprocessing` corrects spelling before
# both searches. **On Portuguese paraphrases BM25 does not help**: the interval holds zero, and both are
# weak. The vectors win no group, but they win single questions.
# </details>
#
# Both lists are asked of the running system; the vectors are those of the bilingual model. The table shows
# **nDCG@10** of both in each group: 1 where the right sections lead the list, less the lower they stand, 0
# where none is among ten. Then comes the mean difference with its 95 % interval (paired bootstrap over
# the questions). "same" means that the interval holds zero: no finding. Small groups have wide intervals.

# %%
judged = workshop.judged("test")
found = judged.lists(("sparse", "dense"))
queries = {query.id: query for query in judged.queries}
sparse, dense = (
    judged.ndcg({q: [p for p, _ in lists[name]] for q, lists in found.items()})
    for name in ("sparse", "dense")
)
kinds = sorted({(query.kind, query.language) for query in judged.queries})
print(len(queries), "judged questions,", len(kinds), "groups of kind and language")

# %% tags=["nbval-ignore-output"]
from workshop.evaluation.intervals import bootstrap

gain = {}
for kind in kinds:
    ids = [q for q, query in queries.items() if (query.kind, query.language) == kind]
    gain[kind] = bootstrap([sparse[q] - dense[q] for q in ids])
    means = [sum(scores[q] for q in ids) / len(ids) for scores in (sparse, dense)]
    print(
        f"{' '.join(kind):<18} {len(ids):>3}  BM25 {means[0]:.2f}  vectors {means[1]:.2f}", end=""
    )
    print("  {0.mean:+.2f} [{0.low:+.2f}, {0.high:+.2f}]  {0.verdict}".format(gain[kind]))

# %% tags=["check"]
for kind in (("plain", "en"), ("plain", "pt"), ("paraphrase", "en")):
    assert gain[kind].verdict == "better", kind
assert gain["paraphrase", "pt"].verdict == "same"
assert "worse" not in {interval.verdict for interval in gain.values()}
print("keywords win plain questions and English paraphrases, not Portuguese paraphrases")

# %% id="gain-by-kind"
names = [" ".join(kind) for kind in kinds]
means = [each.mean for each in gain.values()]
around = [[g.mean - g.low for g in gain.values()], [g.high - g.mean for g in gain.values()]]
plt.figure(figsize=(6, 3.5))
plt.errorbar(means, names, xerr=around, fmt="o")
plt.axvline(0, color="gray", linewidth=0.8)
plt.xlabel("nDCG@10, BM25 minus vectors")
plt.tight_layout()
plt.show()


# %% tags=["nbval-ignore-output"]
def place(question, name):
    """Rank of the first right passage; None if it is not among the list's fifty."""
    units = enumerate(judged.collection.units(found[question][name]), start=1)
    return next((n for n, unit in units if unit in judged.collection.qrels[question]), None)


for question in ("C-077", "D-040", "D-011", "B-041"):
    places = [place(question, name) or "-" for name in ("sparse", "dense")]
    print("BM25 {:>2}, vectors {:>2} ".format(*places), queries[question].text)

# %% tags=["check"]
for question in ("C-077", "D-040"):
    assert place(question, "sparse") < (place(question, "dense") or 51)
for question in ("D-011", "B-041"):
    assert place(question, "dense") < (place(question, "sparse") or 51)
print("two questions each way")

# %% [markdown]
# These were single questions, with the place of the first right passage; "-" means not among fifty. The
# first two name a thing: 401 and 403, "the power of two choices". The last two describe one in words of
# their own. So look at the terms that a question shares with the right passage.

# %%
from services.sparse_retrieval.analysis import analyzer
from services.sparse_retrieval.domain import index_text

unit, qrels = judged.collection.unit, judged.collection.qrels


def shared(query):
    """Terms of a question without function words, and those that a right passage holds."""
    terms = set(analyzer(query.language, stopwords=False).analyze(query.text))
    own = [p for p in judged.collection.passages if p["language"] == query.language]
    right = " ".join(index_text(p) for p in own if unit[p["id"]] in qrels[query.id])
    return terms, terms & set(analyzer(query.language).analyze(right))


# %%
for question in ("C-077", "D-040", "D-011", "B-041"):
    terms, held = shared(queries[question])
    print(question, len(held), "of", len(terms), "terms:", *sorted(held))
for kind in (("plain", "en"), ("plain", "pt"), ("paraphrase", "en"), ("paraphrase", "pt")):
    pairs = [shared(query) for query in judged.queries if (query.kind, query.language) == kind]
    share = sum(len(held) / len(terms) for terms, held in pairs) / len(pairs)
    print(f"{' '.join(kind):<14} {share:.0%} of the terms are in the right passage")

# %% [markdown]
# The share falls from plain questions to paraphrases, and BM25 falls with it: a word that is not there
# cannot be found. A name or a number that *is* there is found exactly, where vectors are known to be
# weak (for names: Sciavolino et al., EMNLP 2021). These questions were written by people who knew the handbook;
# if your users do not know your documents' words, measure on their questions.
#
# ## What moved, what it cost, what it bought
#
# - **Moved:** the keyword index. The service owns it, on disk; nobody else opens it.
# - **Cost:** the columns *on the way* and *memory* of the reference's bill, and an analysis that must be the
#   same for passages and queries.
# - **Bought:** an index that outlives a restart, and a scorer that you have just replaced without touching
#   what finds, stores or deletes passages.
# - **Not bought:** better answers from your own formula. It is the library's formula, and slower.
# - **Does not help:** on Portuguese paraphrases. Lesson 05 fuses both lists.
#
# **Next:** lesson 05, `hybrid_search`, makes one list of two. `workshop.progress()` shows the board.
