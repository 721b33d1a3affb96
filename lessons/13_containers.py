# %% [markdown]
# # 13 · Containers: one service to an image
#
# | level | minutes | before this | the service |
# |---|---|---|---|
# | advanced | 45 | `00_start_here` | `post_processing` |
#
# **Goal.** Thirteen services run here as processes that share one folder of packages and one user. A container
# brings each its own files and its own bounds. After this lesson you can
#
# 1. say what a layer is, and tell before a build which steps of a Dockerfile run again;
# 2. write a Dockerfile for a service: small, quick to rebuild, without rights that it does not need;
# 3. replace a service by a new version while questions go on, and count what was lost.
#
# **The step.** `post_processing` leaves the processes and runs in a container. The other twelve stay where they
# are: whoever calls a service knows an address, not how it runs.
#
# **Docker.** The part from *Your image* to *The bill* needs a Docker engine. Without one the next cell says how to
# get it. Everything else works without: the three exercises, and the last part from *All images* on.

# %%
import workshop

from workshop import images

here = workshop.start()
docker = images.docker()
before = workshop.fixed_answers(1, 10)

# %%
before += workshop.fixed_answers(11, 20)
assert all(answer.passages and answer.text for answer in before)

# %% [markdown]
# ## An image is a stack of layers
#
# A **container** is a process that sees its own files, its own network and its own users, on the kernel of
# the machine. Its files come from an **image**. An image is a stack of **layers**: each holds the files that one step
# of the build added or changed, and is named by the hash of its content. A build, a push and a pull skip the
# layers that are there already.
#
# **Predict.** The image of `post_processing` holds a Debian with Python, the packages, and the service's own code. Which
# share of its bytes is code of this repository?
#
# <details><summary>Answer</summary>
#
# Less than half a percent. The Debian with Python is three quarters, the packages nearly all of the rest. So
# an image that is built again for one changed line should not touch either.
# </details>

# %% tags=["nbval-ignore-output"]
if docker:
    images.build("post_processing", "lesson-13")
    layers = images.layers(docker, "post_processing", "lesson-13")
else:
    layers = images.reported_layers("post_processing")
for layer in layers:
    print(f"{layer.bytes / 1e6:8.2f} MB  {layer.step[:75]}")

# %% tags=["check"]
base, *own = layers
code = sum(layer.bytes for layer in own if "services" in layer.step)
whole = sum(layer.bytes for layer in layers)
assert base.bytes > whole / 2
assert 0 < code < whole / 100
assert whole < 200e6
print(len(own), "layers above the base, and the code is less than 1 % of the bytes")

# %% [markdown]
# ## The builder's cache
#
# The builder goes through the Dockerfile from the top and takes a step's layer from its cache if the layer below is
# the same, the instruction is the same and, for `COPY`, the files that it reads are the same. The first step
# that differs ends that: **all steps after it in the same stage run again**, because each stands on the one before.
#
# A Dockerfile can have several **stages**, each with its own `FROM`. Only the last one becomes the image. Here the
# stage `packages` installs, and the last stage takes the result with `COPY --from=packages`. The `RUN` before that writes
# the byte code of Python's own library: where nothing can be written, each start would compile it anew.

# %%
steps = images.steps(images.dockerfile_of("post_processing"))
for step in steps:
    if step.makes_files:
        print(f"{step.stage:<9}", str(step)[:80])

# %% [markdown]
# **Predict.** Which of these steps run again after you changed `services/post_processing/api.py`? And after you changed
# `requirements.lock`?
#
# <details><summary>Answer</summary>
#
# After `api.py` two: the `COPY` of its folder and the `RUN` after it. After the lock seven: the `COPY` that reads it
# and the installation in the first stage, then `COPY --from=packages` and the four steps after it. What stands before
# stays. (A builder that finds the same bytes in a stage again may spare the `COPY` that takes from it. The
# rule here is cautious.)
# </details>
#
# ## Exercise 13.1: what runs again
#
# Write the rule as a function. A `Step` has a `stage`, the paths that it reads in `sources` (`"."` is everything), and in
# `takes_from` the name of an earlier stage whose files it needs, or `""`. `changed` is a path such as
# `services/post_processing/api.py`. Return the steps that run again, in order, those that only change the
# configuration among them.
#
# <details><summary>Hint 1: what to remember</summary>
#
# Go through the steps once and remember the stages in which a step has run again. There are three reasons: the step's
# own stage is among them, the stage that it takes from is among them, or it reads the file.
# </details>
#
# <details><summary>Hint 2: is a file in a folder?</summary>
#
# `"services/one_more/a.py".startswith("services/one")` is true, and wrong here.
# `PurePosixPath(changed).is_relative_to(source)` compares part by part, and everything is relative to `"."`.
# </details>
#
# When the check is green, your function tells what a change costs before anything is built. The figure behind it asks
# about every image of the workshop: a changed file in each column, an image in each row.

# %%
workshop.save_cell("containers", "cache.py")
from pathlib import PurePosixPath


def runs_again(steps, changed):
    """The steps of a Dockerfile that the cache does not have after the file `changed` changed."""
    # BEGIN SOLUTION 13.1: follow the change through the stages
    stages, again = set(), []
    for step in steps:
        reads = any(PurePosixPath(changed).is_relative_to(source) for source in step.sources)
        if reads or step.stage in stages or step.takes_from in stages:
            stages.add(step.stage)
            again.append(step)
    return again
    # END SOLUTION


# %% tags=["check"]
workshop.check("13.1")

# %%
from matplotlib import pyplot as plt

CHANGES = [f"services/{name}/{name}.py" for name in images.names()]
CHANGES += ["services/chassis/app.py", "requirements.lock"]


def cost(name, changed):
    """0: nothing runs. 1: steps with the code. 2: the packages are installed again."""
    again = [str(step) for step in runs_again(images.steps(images.dockerfile_of(name)), changed)]
    return 0 if not again else 1 + any("install --" in step for step in again)


costs = [[cost(name, changed) for changed in CHANGES] for name in images.names()]

# %%
figure, axes = plt.subplots(figsize=(9, 6))
axes.imshow(costs, cmap=plt.get_cmap("YlOrRd", 3), vmin=-0.5, vmax=2.5)
axes.set_xticks(range(len(CHANGES)), [c.split("/")[-1] for c in CHANGES], rotation=90)
axes.set_yticks(range(len(costs)), images.names())
axes.set_title("pale: nothing, orange: the code, red: the packages")
plt.show()
for changed, column in zip(CHANGES, zip(*costs, strict=True), strict=True):
    if changed.endswith(("/post_processing.py", "app.py", ".lock")):
        print(f"{changed}: {sum(c > 0 for c in column)} images, {column.count(2)} install again")

# %% [markdown]
# One service's file touches that service's image, and the monolith's, which holds all of the code. The last two columns are
# another matter. **What is shared couples the builds**: the chassis, which every service imports, and the lock, one for
# all. The lock is the dear one: each image installs again. A lock for each service would end that, and
# thirteen locks would drift apart; this repository took the one.
#
# ## Exercise 13.2: the Dockerfile
#
# This one works on its author's machine, for its author:
#
# ```dockerfile
# FROM python:3.11-slim-bookworm
# COPY . /app
# WORKDIR /app
# RUN pip install --requirement services/post_processing/requirements.txt
# CMD python -m services.post_processing
# ```
#
# **Predict.** What is wrong with each of its lines? There are at least five things.
#
# <details><summary>Answer</summary>
#
# `COPY . /app` takes every service and the handbook, and any change in them installs all packages again. `pip` takes
# the newest versions, not those of the lock, and stays in the image with its cache. The program is root. A shell
# runs it, and gets the `SIGTERM` in its place. It listens on 127.0.0.1, the container's own, so nobody can
# call it. And nobody can ask whether it is ready.
# </details>
#
# The stage `packages` is given: it is that of the reference. Write the **last stage** as a text:
#
# - from the same base, `${PYTHON_IMAGE}`, and with the folder `/packages` of the stage `packages`;
# - with `/app` as its `WORKDIR`: the code lies under it, and the program starts in it;
# - the code of `post_processing` and of `services/chassis`, and `services/__init__.py`; no other service;
# - environment: `PYTHONPATH=/packages`, and `POST_PROCESSING_HOST=0.0.0.0` so that it can be reached;
# - as user 10001, which nobody has a name for;
# - with a `HEALTHCHECK` that runs `bash services/chassis/probe.sh 8010 /readyz`;
# - and `CMD` as a list, `python -m services.post_processing`.
#
# <details><summary>Hint: the order</summary>
#
# What changes least stands first: base, environment, packages, the chassis, the service. `COPY folder target` copies what is
# *in* the folder, so the target repeats its name. The forms: `ENV NAME=value OTHER=value`, `USER number`,
# `HEALTHCHECK CMD ["bash", "script", "port", "path"]`, `CMD ["program", "argument"]`: in a list each word stands
# alone, in double quotes. 8010 is the port on which `post_processing` listens if nobody says otherwise.
# </details>

# %%
workshop.save_cell("containers", "image.py")


def last_stage():
    """The last stage of the Dockerfile of post_processing; the stage `packages` stands before it."""
    # BEGIN SOLUTION 13.2: write the last stage
    return """FROM ${PYTHON_IMAGE}
ENV PYTHONPATH=/packages POST_PROCESSING_HOST=0.0.0.0
WORKDIR /app
COPY --from=packages /packages /packages
COPY services/__init__.py services/
COPY services/chassis services/chassis
COPY services/post_processing services/post_processing
USER 10001:10001
HEALTHCHECK CMD ["bash", "services/chassis/probe.sh", "8010", "/readyz"]
CMD ["python", "-m", "services.post_processing"]"""
    # END SOLUTION


# %% tags=["check"]
workshop.check("13.2")

# %% [markdown]
# ## Exercise 13.3: replace it while it is in use
#
# A new version shall take the place of the old one, and no caller may notice. Write the order of events:
#
# - `start()` gives a new one; from then on it runs, and nobody calls it yet;
# - `wait_until_ready(one)` returns when it can do its job, or raises;
# - `switch(one)` sends all callers to it, or raises and leaves them where they were;
# - `stop(one)` lets it finish what it has begun, and ends it.
#
# If anything goes wrong before the callers have moved, the old one must go on, the new one must not be left
# running, and the caller of `roll` must get the error. Return the new one.
#
# <details><summary>Hint</summary>
#
# `except BaseException:` with `raise` at its end cleans up and lets the error go on. Ctrl-C is a
# `KeyboardInterrupt`, which is not an `Exception`.
# </details>

# %%
workshop.save_cell("containers", "roll.py")


def roll(old, start, wait_until_ready, switch, stop):
    """Put a new one in the place of `old` without a moment without either; gives the new one."""
    # BEGIN SOLUTION 13.3: start, wait, switch, stop, and go back if something fails
    new = start()
    try:
        wait_until_ready(new)
        switch(new)
    except BaseException:
        stop(new)
        raise
    stop(old)
    return new
    # END SOLUTION


# %% tags=["check"]
workshop.check("13.3")

# %% tags=["check"]
workshop.check("13")

# %% [markdown]
# ## Your image
#
# From here to *The bill* an engine is needed; without one go on at *All images*. It builds your Dockerfile; the
# stage `packages` comes from the cache, since the first cell with an engine built the reference (which takes a
# minute the first time on a machine). Then one line of the service changes, in a copy of the
# folder, and it builds again. Your function from 13.1 says which layers must be new; the engine says, by the
# hashes of their content, which are.

# %%
from workshop import bench_images

docker.ping()
TEXT = images.dockerfile_of("post_processing")
MINE = TEXT[: TEXT.rindex("FROM ")] + last_stage() + "\n"
with bench_images.copy_of_the_tree() as root:
    images.build("post_processing", "lesson-13", dockerfile=MINE, root=root)
    changed = bench_images.change_a_line(root, "post_processing").relative_to(root)
    images.build("post_processing", "lesson-13-new", dockerfile=MINE, root=root)
old, new = (
    images.layers(docker, "post_processing", t, MINE) for t in ("lesson-13", "lesson-13-new")
)

# %% tags=["check"]
differ = [after.step for was, after in zip(old, new, strict=True) if was.digest != after.digest]
again = runs_again(images.steps(MINE), str(changed))
assert differ == [str(step) for step in again if step.makes_files]
assert docker.images.get("rag-workshop/post_processing:lesson-13").attrs["Size"] < 200e6
print("changed:", changed)
print("new layers:", differ)

# %% [markdown]
# ## A container with as little as it needs
#
# The engine can take rights away from a container that the image did not ask for. `post_processing` writes no file, opens no
# low port and changes no user, so it gets a read-only file system with a `/tmp` in memory, no capability of the
# kernel, no way to gain one, and bounds for memory, processors and processes. It is published on 127.0.0.1,
# for this machine alone.
#
# The cell after it asks the container itself: who it is, where it may write, and which capabilities it has (`CapEff`, a
# mask: zeros are none). Then comes the **contract**, the same tests that hold the process. They know an address and
# nothing else.


# %%
def run(tag):
    """A container of that image, on a port of this machine that the engine chooses."""
    bounds = {"mem_limit": "256m", "nano_cpus": 10**9, "pids_limit": 64}
    hardened = {"read_only": True, "tmpfs": {"/tmp": ""}, "cap_drop": ["ALL"]}
    return docker.containers.run(
        f"rag-workshop/post_processing:{tag}", detach=True, remove=True, labels=["lesson-13"],
        security_opt=["no-new-privileges:true"], ports={"8010/tcp": ("127.0.0.1", 0)},
        **bounds, **hardened,
    )  # fmt: skip


# %%
for left in docker.containers.list(filters={"label": "lesson-13"}):
    left.stop()  # of a run that was broken off
container = run("lesson-13")
images.wait_until_ready(container)
for command in ("id -u", "touch /app/x", "touch /tmp/x", "grep CapEff /proc/1/status"):
    code, said = container.exec_run(command)
    print(f"{command:<28} {code}  {said.decode().strip()}")

# %% tags=["check"]
from workshop import exercises

results = exercises.run_contract("post_processing", images.address(container))
assert [str(result) for result in results if not result.green] == []
assert len(results) > 10
container.stop()
print("the contract is green against the container")

# %% [markdown]
# ## The step, and the proof
#
# Your `roll` replaces the process. Callers move by their setting: the orchestrator gets another address of
# `post_processing` and starts again, while its callers wait at its port. In compose a name in a network does that, in
# Kubernetes a Service. Then the twenty questions again.

# %%
from workshop import system


def switch(one):
    moved = {"ORCHESTRATOR_POST_PROCESSING_URL": images.address(one)}
    system.require_running().configure("orchestrator", moved)
    system.require_running().wait("orchestrator")


def stop(one):
    here.stop("post_processing") if one == "the process" else one.stop(timeout=15)


current = roll("the process", lambda: run("lesson-13"), images.wait_until_ready, switch, stop)
after = workshop.fixed_answers()
workshop.same(before, after)

# %% [markdown]
# ## A new version while questions go on
#
# One question after the other is asked, twenty a second at most, while the container is replaced by the one with the
# changed line: first in the order that comes to mind, stop the old and start the new; then with your `roll`.
#
# **Predict.** Which answers does each of the two lose? And what does a lost one look like?
#
# <details><summary>Answer</summary>
#
# Stop first: until the new one has started and callers have moved, `post_processing` is gone. No question fails: the
# orchestrator shows sentences of the sources, and the answer says `degraded`. With `roll` there is a ready one at each
# moment, so none is lost. It costs memory for two while it lasts. The gap in its row is one question that waits
# while the orchestrator starts again with the new address: it is late, and it is answered.
# </details>


# %%
def stop_first(old, start, wait_until_ready, switch, stop):
    stop(old)
    wait_until_ready(new := start())
    switch(new)
    return new


def release(tag, order):
    with here.asking() as asked, bench_images.copy_of_the_tree() as root:
        bench_images.change_a_line(root, "post_processing", f"RELEASE = {tag!r}")
        images.build("post_processing", tag, dockerfile=MINE, root=root)
        built = len(asked)
        new = order(current, lambda: run(tag), images.wait_until_ready, switch, stop)
    return new, asked[:built], asked[built:]


# %% tags=["nbval-ignore-output"]
current, built, naive = release("lesson-13-a", stop_first)
current, built_again, rolled = release("lesson-13-b", roll)
plt.figure(figsize=(9, 2))
for row, (name, asked) in enumerate({"stop first": naive, "roll": rolled}.items()):
    colours = ["tab:orange" if one.lost else "tab:blue" for one in asked]
    plt.scatter([one.at - asked[0].at for one in asked], [row] * len(asked), c=colours)
    print(f"{name}: {sum(bool(one.lost) for one in asked)} of {len(asked)} lost something")
plt.yticks([0, 1], ["stop first", "roll"])
plt.ylim(-0.5, 1.5)
plt.xlabel("seconds; orange: an answer that is degraded")
plt.show()

# %% tags=["check"]
assert {one.lost for one in built + built_again} == {""}
assert {one.lost for one in naive} == {"", "degraded: post_processing"}
assert {one.lost for one in rolled} == {""}
assert (
    current.exec_run("tail -1 services/post_processing/__main__.py").output
    == b"RELEASE = 'lesson-13-b'\n"
)
print("while an image is built nothing is lost; stop first degrades answers, roll does not")

# %% [markdown]
# ## The bill
#
# **Predict.** Against the process: does the container take more memory? And, which is not measured here, more time
# for a call? (The times in the table are those of the process, which is back by then.)
#
# <details><summary>Answer</summary>
#
# Time: the same kernel runs the same program, so *inside* should be the same. The published port adds a hop through the
# engine's network. Memory is more: here processes are forked from one that has the packages loaded, and share
# those pages; a container shares nothing but the kernel.
# </details>

# %% tags=["nbval-ignore-output"]
memory = docker.api.stats(current.id, stream=False, one_shot=True)["memory_stats"]
stats = memory["stats"]
in_container = memory["usage"] - stats.get("inactive_file", stats.get("total_inactive_file", 0))
here.start("post_processing")
workshop.restore("orchestrator")
current.stop()
bill = workshop.bill("post_processing")
print(f"memory: process {bill.lines[0].memory / 1e6:.0f} MB, container {in_container / 1e6:.0f} MB")
bill

# %% tags=["check"]
for tag in ("lesson-13", "lesson-13-new", "lesson-13-a", "lesson-13-b"):
    docker.images.remove(f"rag-workshop/post_processing:{tag}", noprune=True)
assert docker.containers.list(filters={"label": "lesson-13"}) == []
assert in_container > bill.lines[0].memory > 1_000_000
assert here.ask("When does a circuit breaker open?").degraded == []
print("the process is back, and the container needed more memory")

# %% [markdown]
# ## All images
#
# `workshop bench images` builds images three times: all anew, after one changed line, and unchanged. The report in
# `reports/images.json` says on which machine and when; some images were not built anew there. `workshop images` prints
# it as a table.

#
# ## The steps of the course, in compose
#
# `compose/step_NN.yaml` is the system as it stands at lesson NN: what has become a service has a container of its own.
# Of the rest, the script `monolith` does what an answer needs; it has no votes and no quotas, for instance.
# Compose reads a file with all that it extends; that needs no
# engine. With one, `workshop up --containers --step 05` starts it.

# %%
images.plot(images.report())
known = images.report()["images"]
over = [name for name, image in known.items() if image["bytes"] > image["budget"]]
seconds = [i["seconds"] for i in known.values() if "all anew" in i["seconds"]]
ratios = [times["all anew"] / times["one line"] for times in seconds]
assert set(known) == set(images.names())
assert min(ratios) > 2
print("over their budget:", ", ".join(over) or "none")

# %%
from workshop import containers

by_step = {step: containers.configuration(step)["services"] for step in containers.steps()}
rows = [name for name in images.names() if name != "llm_server"]
rows.sort(key=lambda name: -sum(name in found for found in by_step.values()))
grid = [[name in found for found in by_step.values()] for name in rows]
plt.imshow(grid, cmap="Blues", aspect="auto", vmax=2)
plt.xticks(range(len(by_step)), list(by_step))
plt.yticks(range(len(rows)), rows)
plt.xlabel("step; blue: a container of its own")
plt.show()
print("no container at step 05:", [name for name in rows if name not in by_step["05"]])

# %% [markdown]
# ## What moved, what it cost, what it bought
#
# - **Moved:** nothing of the service. The same program runs, with the same settings and the same contract. What is new is
#   a file of ten lines that says what it needs.
# - **Cost:** a build, an engine, and memory that processes would share: see your own run. Every image carries its own
#   copy of the packages, and what all share, the lock and the chassis, rebuilds all.
# - **Bought:** the same files on every machine; bounds that the kernel holds; a version that is replaced, or put back, in
#   seconds while the other services go on.
# - **Not bought:** isolation from the kernel, which all containers share, and from a neighbour that takes the disk or the
#   network. On one machine for one team, processes did all of this with less. And nothing here survives the
#   loss of the machine: that is what a cluster is for.
#
# **Next:** lesson 14, `fault_isolation`, breaks services on purpose. `workshop.progress()` shows the board.
