# %% [markdown]
# # 15 · Scale: more copies, and where that ends
#
# | level | minutes | before this | the service |
# |---|---|---|---|
# | advanced | 45 | `00_start_here`, `01_monolith` | `embedding` |
#
# **Goal.** A service that owns no data can be copied. After this lesson you can
#
# 1. read a load test, and see when it hides the calls that were never sent;
# 2. choose a copy for each call, and say why two choices are better than one;
# 3. say from measured slopes where more copies stop to help, and why;
# 4. work out the machines for a million users and a billion passages, and name what you assumed.
#
# **The step.** `embedding` is the service that every question needs and that keeps a core busy. It gets
# copies, and in front of them a balancer with your choice in it. Callers keep their one address.

# %%
import workshop

here = workshop.start()

# %%
before = workshop.fixed_answers(1, 10)

# %%
before += workshop.fixed_answers(11, 20)
assert all(answer.passages and answer.text for answer in before)

# %% [markdown]
# ## What a load test can hide
#
# `workshop.load` runs [Locust](https://locust.io), a load tool, in a process of its own. It has users. In a **closed
# loop** each of them asks again when it has its answer, so a slow service gets fewer calls. In an **open
# loop** calls come when they are due, whether the service keeps up or not. Real users do not know each
# other, so together they are an open loop.
#
# Four users have a call due every 0.1 s each. After a second, `embedding` stands still for one second.
#
# **Predict.** How many calls are sent in that second, and how many were due?
#
# <details><summary>Answer</summary>
#
# Each user sends one call and waits, so four are sent. Forty were due. A tool that starts its watch when a
# call is *sent* sees four slow calls; the other thirty-six come late and look quick.
# </details>

# %%
import time


def stand_still():
    with workshop.pause("embedding"):
        time.sleep(1)


calls = workshop.load("embedding", users=4, seconds=4, every=0.1, during=stand_still)
assert all(call.due <= call.sent <= call.done for call in calls)
print(*calls[0]._fields)

# %% [markdown]
# Each row has the times, in seconds, at which a call was `due`, `sent` and `done`, and whether it was `ok`.
#
# ## Exercise 15.1: a report that hides nothing
#
# Return a dictionary:
#
# - `per_second`: calls that were answered, divided by `seconds`. A refusal is no answer.
# - `failed`: the share of all calls that were not.
# - `p50`, `p95`, `p99`: percentiles of the waiting times of answered calls, in milliseconds. A user waits
#   **from the time the call was due**: to leave out the wait before it was sent is called *coordinated
#   omission* (Tene, 2013), because service and tool agree, as it were, to leave out the bad times.
#
# Take the **nearest rank**: p95 of 40 values is the 38th smallest one, since 95 % of 40 is 38. Where that is
# no whole number, round up. At least one call is answered.
#
# <details><summary>Hint</summary>
#
# Sort the waiting times. The n-th smallest value has the index n - 1. `math.ceil(len(times) * 95 / 100)` is n;
# keep to whole numbers as long as you can, since `0.95 * 40` may be a little above 38.
# </details>

# %%
workshop.save_cell("scale", "report.py")
import math


def report(calls, seconds):
    """{"per_second": .., "failed": share, "p50": ms, "p95": ms, "p99": ms} of rows of a load."""
    # BEGIN SOLUTION 15.1: say what the users had
    answered = [call for call in calls if call.ok]
    waits = sorted((call.done - call.due) * 1000 for call in answered)
    found = {"per_second": len(answered) / seconds, "failed": 1 - len(answered) / len(calls)}
    for percent in (50, 95, 99):
        found[f"p{percent}"] = waits[math.ceil(len(waits) * percent / 100) - 1]
    return found
    # END SOLUTION


# %% tags=["check"]
workshop.check("15.1")

# %% [markdown]
# Now the same run both ways: once as the users had it, and once as a tool reports that counts from the
# sending. The dotted line is p95. The few calls at the right where the orange line jumps are those that were sent
# into the pause. Where the blue line has left the floor are all that were due in it, and some after it, while
# the users caught up.

# %%
from matplotlib import pyplot as plt

as_sent = [call._replace(due=call.sent) for call in calls]
plt.figure(figsize=(8, 3.6))
for rows, text in ((calls, "since it was due"), (as_sent, "since it was sent")):
    waits = sorted(call.done - call.due for call in rows)
    plt.plot([100 * n / len(waits) for n in range(len(waits))], waits, label=text)
plt.axvline(95, color="gray", linestyle=":")
plt.xlabel("percent of the calls")
plt.ylabel("at most so many seconds")
plt.legend()
plt.show()

# %% tags=["check"]
honest, flattering = report(calls, 4), report(as_sent, 4)
late = sum(call.done - call.due > 0.3 for call in calls)
assert honest["failed"] == flattering["failed"] == 0
assert late > 20
assert sum(call.done - call.sent > 0.3 for call in calls) < late
assert honest["p95"] > 300
print("more than twenty calls were late; counted from the sending, fewer")

# %% [markdown]
# ## A choice for each call
#
# Copies need somebody who chooses. Docker's DNS, a Kubernetes Service and the kernel choose when a
# **connection** opens. A caller that keeps its connection open stays with the copy that it got, and a new copy
# stays idle. (So our services open a new connection after every fifty calls, and after every ten where a name has
# several addresses, as with `docker compose --profile scale`, which adds a second `embedding` behind Docker's
# DNS. The shares even out with time only: `compose/README.md` counts 43 calls and 12 soon after it came.) A
# balancer that reads HTTP can choose for each **call**. `workshop/balancer.py` is one, some 130 lines; Envoy
# and nginx are what you would run.
#
# **Predict.** A thousand calls go to a hundred copies, each to a copy drawn at random. The mean is ten. How
# many does the busiest copy get?
#
# <details><summary>Answer</summary>
#
# About twenty. Chance is not even. With two copies drawn and the less busy one taken, it is eleven or
# twelve: "the power of two choices" (Mitzenmacher, 2001). To look at all copies would be no better in practice:
# balancers know each other's calls late, or not at all, and all would send to the same idle copy.
# </details>
#
# ## Exercise 15.2: two choices
#
# `in_flight` holds the number of open calls of each copy that is up. `draw` is a `random.Random`. Draw two
# **different** copies, and return the place of the less busy one. If there is one copy, return 0.
#
# <details><summary>Hint</summary>
#
# `draw.sample(range(5), 2)` gives two different numbers below 5, in the order in which they were drawn; it fails
# where there is only one. If both copies are equally busy, take the first drawn, so that no copy is preferred.
# </details>

# %%
workshop.save_cell("scale", "pick.py")


def pick(in_flight, draw):
    """Place of the copy that gets the next call."""
    # BEGIN SOLUTION 15.2: draw two copies, take the less busy one
    places = range(len(in_flight))
    return min(draw.sample(places, min(2, len(places))), key=lambda place: in_flight[place])
    # END SOLUTION


# %% tags=["check"]
workshop.check("15.2")

# %%
import random

draw = random.Random(15)
ways = {"at random": lambda in_flight, draw: draw.randrange(len(in_flight)), "two choices": pick}
for name, way in ways.items():
    copies = [0] * 100
    for _ in range(1000):
        copies[way(copies, draw)] += 1
    print(f"{name:<12} the busiest has {max(copies)}, the idlest {min(copies)}, the mean is 10")

# %% [markdown]
# ## Copies of `embedding`
#
# Each copy gets one thread, no cache and no batches here, so that one call is one run of the model and one
# copy can use one core. (Batches are the cheaper way to more throughput, so take them first: lesson 02, and
# `workshop bench batching`.) Eight users ask in a closed loop, as fast as they get answers.
#
# `arm` returns your report and, as `core_ms`, the core time that a call costs in the copies and the balancer.
#
# **Predict.** How many cores has this machine? (`os.cpu_count()` says it; the solution was run on two.) How does the
# throughput change from one copy to two?
#
# <details><summary>Answer</summary>
#
# On two cores it grows to less than twice as much: the second core also runs the balancer, the load tool and
# everything else.
# </details>


# %%
import os


def arm(copies):
    workshop.scale("embedding", copies, pick=True, threads=1, cache_size=0, max_batch=1)
    used = here.cpu("embedding")
    calls = workshop.load("embedding", users=8, seconds=3)
    used = here.cpu("embedding") - used
    shares = [copy["calls"] for copy in here.copies("embedding")]
    assert min(shares) > 0.2 * sum(shares) / copies, shares
    found = report(calls, max(call.done for call in calls))
    mean_s = sum(call.done - call.due for call in calls) / len(calls)
    return found | {"core_ms": used * 1000 / sum(shares), "mean_s": mean_s}


runs = {1: arm(1)}

# %%
runs[2] = arm(2)

# %% [markdown]
# **Predict.** And from two copies to three? A call costs `core_ms` milliseconds of a core, measured in each run.
#
# <details><summary>Answer</summary>
#
# On two cores it does not grow, and may fall: they give 2,000 ms of work in each second, and no more than
# 2,000 / `core_ms` calls fit into that. A third copy only waits for a core, and switching between processes
# makes each call a bit dearer: the dotted line sinks. With more cores than copies, the throughput grows on.
# </details>

# %%
runs[3] = arm(3)

# %% id="throughput-of-copies"
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
left.plot(list(runs), [run["per_second"] for run in runs.values()], "o-", label="measured")
allowed = [os.cpu_count() * 1000 / run["core_ms"] for run in runs.values()]
left.plot(list(runs), allowed, "x:", label="what the cores allow")
left.set_ylabel("calls a second")
for name in ("p50", "p95"):
    right.plot(list(runs), [run[name] for run in runs.values()], "o-", label=name)
right.set_ylabel("ms since the call was due")
for axes in (left, right):
    axes.set(xlabel="copies", xticks=list(runs), ylim=(0, None))
    axes.legend()
plt.show()

# %% tags=["check"]
for run, most in zip(runs.values(), allowed, strict=True):
    assert run["failed"] == 0
    assert run["per_second"] < 1.15 * most
    assert 4 < run["per_second"] * run["mean_s"] < 8.01
quiet = os.cpu_count() > 1 and os.getloadavg()[0] < 2 * os.cpu_count()
assert runs[2]["per_second"] > runs[1]["per_second"] or not quiet, "see the figure"
print("no call failed, and no run did more than the cores allow")
print("calls a second times seconds a call: about eight, the number of users")

# %% [markdown]
# Did the throughput not grow from one copy to two? Then there is one core, or other programs had the second one.
#
# The last line is **Little's law** (1961): the calls in flight are the calls a second times the seconds of each.
# It holds for every stable system, so it also checks a load test: if the three do not fit, one is wrong. It
# says too why the waiting times stop falling when the throughput stops growing: eight users share what there
# is. (More on this in the handbook's page *Scaling*.)
#
# ## The proof, with one copy killed
#
# Two copies with the usual settings now stand behind the address. After the first ten questions one copy is
# killed. The next ten are answered by the other one, until the killed one is up again.
#
# **Predict.** Do the answers change? What would be different if `dense_retrieval` had been copied?
#
# <details><summary>Answer</summary>
#
# They do not: any copy gives the same vector for the same text. `dense_retrieval` owns a collection, so a copy
# of it would need a copy of the data, and each write would have to reach both. `workshop.scale` refuses that.
# Data is divided into shards and copied by the store, here Qdrant; that is its trade.
# </details>

# %%
workshop.scale("embedding", 2, pick=True)
after = workshop.fixed_answers(1, 10)

# %%
import signal

os.kill(here.copies("embedding")[0]["pid"], signal.SIGKILL)
while all(copy["up"] for copy in here.copies("embedding")):
    time.sleep(0.05)
after += workshop.fixed_answers(11, 20)
workshop.same(before, after)

# %%
from workshop.errors import WorkshopError

try:
    workshop.scale("dense_retrieval", 2)
except WorkshopError as error:
    print(error.what)
workshop.scale("embedding", 1)

# %% [markdown]
# ## What a question costs
#
# To say how many machines are needed, you need the cost of one question. `capacity.measure` asks three questions that no
# cache knows, and reads the core time of each process before and after; the medians count. `generation` is looked at apart: it
# waits for the model.

# %% tags=["nbval-ignore-output"]
from workshop import capacity, system

used, started = here.cpu("generation"), time.perf_counter()
slopes = capacity.measure(system.require_running(), questions=3)
used, waited = here.cpu("generation") - used, time.perf_counter() - started
print(f"core time: {slopes.services_ms:.0f} ms services, {slopes.model_ms:.0f} ms model")
print(f"generation worked {used * 1000:.0f} ms while answers took {waited:.1f} s")
bill = workshop.bill("embedding")
bill

# %% tags=["check"]
(line,) = bill.lines
assert 0 < line.inside <= line.ms
assert slopes.services_ms > 0
assert slopes.model_ms > slopes.services_ms
assert used < 0.2 * waited
print("the model costs more than all services together; generation mostly waits")

# %% [markdown]
# A service that waits is not short of a core. One process of `generation` can wait for hundreds of answers, so
# copies of it buy survival and no throughput. What is short is the model behind it.
#
# ## Exercise 15.3: machines
#
# How many machines do `users` need who are there at the same time? Each reads and thinks for `think_s` seconds and then
# waits `answer_s` seconds for an answer, so each asks once in that time together. A question costs `core_ms`
# milliseconds of a core. A machine has `cores`, of which a share of at most `busy` may work: above it, queues grow.
# `spare` machines come on top, since one may be gone (N+1).
#
# <details><summary>Hint</summary>
#
# 320 users, 30 s and 2 s: 10 questions a second. At 3,000 ms each that is 30 cores. A machine with 16 cores
# may use 9.6 of them: 3.1 machines, so 4, and one to spare: 5. Round once, at the end.
# </details>

# %%
workshop.save_cell("scale", "machines.py")
import math


def machines(users, think_s, answer_s, core_ms, cores, busy=0.6, spare=1):
    """Machines for so many users at once, one of them to spare."""
    # BEGIN SOLUTION 15.3: from users to questions, to cores, to machines
    per_second = users / (think_s + answer_s)
    working = per_second * core_ms / 1000
    return math.ceil(working / (cores * busy)) + spare
    # END SOLUTION


# %% tags=["check"]
workshop.check("15.3")

# %% [markdown]
# ## The capacity sheet
#
# Your function, your slopes, and these **assumptions**: a user thinks 30 s; a machine has 16 cores like those of this
# machine, and 64 GB, 70 % of it for vectors; each passage is on three machines. Memory and search time for each
# passage come from `reports/bench.json`, where the store grew to 100,000 passages. Its slope agrees with
# the rule in Qdrant's documentation (Capacity Planning): vectors × dimensions × 4 bytes × 1.5, so 2,304 bytes.
#
# **Predict.** For what are the most machines needed, and how many are they?
#
# <details><summary>Answer</summary>
#
# For the model, with a million users: more than ten thousand on most machines. All services together need
# hundreds, and a billion passages fewer than two hundred. But one exact search over these takes more than a
# minute of a core.
# </details>

# %% tags=["nbval-ignore-output"]
sheet = capacity.sheet(slopes, machines=machines)
print(sheet)
capacity.plot(sheet)
plt.show()

# %% tags=["check"]
for row in sheet.users:
    assert row["model"] >= row["services"] >= 2
assert sheet.users[-1]["model"] > 100 * sheet.users[0]["model"]
assert 1536 < slopes.passage_bytes < 1.25 * 2304
assert [row["machines, 3 copies"] for row in sheet.passages][:2] == [3, 3]
assert sheet.passages[-1]["exact search, core s"] > 10
print("ten users: two machines for the services, two for the model, one of each to spare")
print("a million: the model is what you pay for")

# %% [markdown]
# Three things follow. **Users:** a CPU is the wrong machine for the model from some hundred users on. GPUs
# that run many answers in one batch are made for it; to this sheet they are another `core_ms`, which you must measure.
# **Passages:** above `DENSE_EXACT_BELOW` an HNSW graph takes over from the exact search, and its time grows with
# the logarithm (lesson 03). **Memory:** a billion passages need their vectors in 8 bits, a quarter
# of the size (handbook, *Quantisation*), before they need more machines.
#
# ## What one machine cannot show
#
# Machines that fail, networks that split, shards that move: for that there are the manifests in
# `compose/kubernetes`. They carry what you had in your hands here. They were checked against the schemas of Kubernetes and
# rendered, and not run on a cluster.

# %%
import yaml
from workshop import paths

overlay = paths.ROOT / "compose" / "kubernetes" / "overlays" / "production"
autoscaled = list(yaml.safe_load_all((overlay / "autoscaling.yaml").read_text()))
for item in autoscaled:
    if item["metadata"]["name"] in ("embedding", "reranking"):
        enough = item["spec"]["minReplicas"] >= 2
        print(f"{item['metadata']['name']}: {item['kind']}, one to spare: {enough}")
settings = yaml.safe_load((overlay / "kustomization.yaml").read_text())["configMapGenerator"]
(qdrant,) = (entry["literals"] for entry in settings if entry["name"] == "qdrant")
factor = next(int(line.split("=")[1]) for line in qdrant if "REPLICATION_FACTOR" in line)
print("qdrant: each shard on", factor, "machines, as in the sheet:", factor == capacity.COPIES)

# %% tags=["check"]
workshop.check("15")

# %% [markdown]
# ## What moved, what it cost, what it bought
#
# - **Moved:** nothing. Callers of `embedding` kept their address, and did not notice the copies.
# - **Cost:** a process with its own model and its own cache for each copy; a balancer, which is a hop more and must
#   itself not fail; and a choice for each call.
# - **Bought:** throughput up to what the cores allow, and a service that survives the loss of a copy.
# - **Not bought:** a quicker answer for one user. A call takes as long as it takes; copies only shorten the
#   queue in front of it. And nothing where the service waits for another one: look there.
#
# **Next:** this was the last lesson. `workshop.progress()` shows the board; your `my_services/` is the start of a system of your own.
