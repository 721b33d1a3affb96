"""The checks of lesson 13. None of them needs a Docker engine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

from workshop import images
from workshop.exercises import check

ONE_STAGE = images.steps("""\
FROM base
COPY a.txt ./
RUN one
COPY b.txt c.txt ./
ENV X=1
RUN two
""")
TWO_STAGES = images.steps("""\
FROM base AS packages
COPY lock.txt ./
RUN install
FROM base AS tools
RUN fetch
FROM base
WORKDIR /app
COPY --from=packages /packages /packages
COPY services/one services/one
CMD ["run"]
""")
STACKED = images.steps("FROM base AS first\nCOPY a.txt ./\nFROM first\nRUN one\n")
FOLDERS = images.steps("FROM base\nCOPY services/one services/one\nRUN one\n")
ALL = images.steps("FROM base\nCOPY . /app\nRUN one\n")


def again(cache, steps, changed):
    found = cache.runs_again(list(steps), changed)
    assert found is not None, "the function returns nothing: is there a return?"
    assert isinstance(found, list), f"return a list of steps, not {type(found).__name__}"
    assert all(isinstance(step, images.Step) for step in found), "the list holds steps"
    return [str(step) for step in found]


@check("13.1", "containers", "cache.py")
def a_file_that_nobody_reads(cache):
    """A file that no step reads runs nothing again."""
    found = again(cache, ONE_STAGE, "README.md")
    assert found == [], f"got {found}: no COPY reads README.md"


@check("13.1", "containers", "cache.py")
def the_reader_and_all_after_it(cache):
    """The step that reads the file runs again, and every step after it."""
    found = again(cache, ONE_STAGE, "c.txt")
    assert "COPY b.txt c.txt ./" in found, f"got {found}: the second COPY reads c.txt"
    assert found[-1] == "RUN two", f"got {found}: `RUN two` stands on a layer that has changed"
    assert found == [str(step) for step in ONE_STAGE[3:]], (
        f"got {found}: what stands before the COPY comes from the cache"
    )
    found = again(cache, ONE_STAGE, "a.txt")
    assert found == [str(step) for step in ONE_STAGE[1:]], (
        f"got {found}: all but the base is above the first COPY, in the order of the file"
    )


@check("13.1", "containers", "cache.py")
def a_folder_is_read_with_all_that_is_in_it(cache):
    """COPY of a folder reads every file below it, and no other folder."""
    for changed in ("services/one/api.py", "services/one/deep/er.py", "services/one"):
        found = again(cache, FOLDERS, changed)
        assert len(found) == 2, f"got {found}: {changed} is in the folder services/one"
    for changed in ("services/one_more/api.py", "services/two/api.py", "one/api.py"):
        found = again(cache, FOLDERS, changed)
        assert found == [], f"got {found}: {changed} is not in the folder services/one"


@check("13.1", "containers", "cache.py")
def a_dot_is_everything(cache):
    """COPY . reads every file."""
    found = again(cache, ALL, "services/one/api.py")
    assert len(found) == 2, f'got {found}: the source "." is the whole folder'


@check("13.1", "containers", "cache.py")
def stages_are_apart(cache):
    """A stage that takes nothing from the one that changed stays in the cache."""
    found = again(cache, TWO_STAGES, "lock.txt")
    assert "RUN fetch" not in found, f"got {found}: the stage tools takes nothing from packages"
    assert "WORKDIR /app" not in found, (
        f"got {found}: WORKDIR stands before the COPY that takes from packages"
    )


@check("13.1", "containers", "cache.py")
def what_is_taken_from_a_stage_changes_with_it(cache):
    """COPY --from, and FROM, of a stage that ran again run again as well."""
    found = again(cache, TWO_STAGES, "lock.txt")
    taken = "COPY --from=packages /packages /packages"
    assert taken in found, f"got {found}: {taken} takes what the first stage made anew"
    assert found[-1] == 'CMD ["run"]', f"got {found}: and all that stands after it"
    found = again(cache, STACKED, "a.txt")
    assert "FROM first" in found, f"got {found}: the second stage stands on the first"


@check("13.1", "containers", "cache.py")
def a_changed_service_leaves_the_packages(cache):
    """A changed line of a service installs no package again."""
    found = again(cache, TWO_STAGES, "services/one/api.py")
    assert found == ["COPY services/one services/one", 'CMD ["run"]'], (
        f"got {found}: the packages stand below the code"
    )


@check("13.1", "containers", "cache.py")
def the_workshops_own_files(cache):
    """On the Dockerfiles of the services."""
    services = [name for name in images.names() if name != "monolith"]
    for name in services:
        steps = images.steps(images.dockerfile_of(name))
        found = again(cache, steps, f"services/{name}/api.py")
        assert found, f"{name} reads its own api.py"
        assert not any("uv pip install" in step for step in found), f"{name} installs again"
        found = again(cache, steps, "requirements.lock")
        assert any("uv pip install" in step for step in found), f"{name} reads the lock"
        assert any("--from=packages" in step for step in found), f"{name} takes the packages"
        other = services[services.index(name) - 1]
        found = again(cache, steps, f"services/{other}/api.py")
        assert found == [], f"{name} holds nothing of {other}"


# -- the Dockerfile -----------------------------------------------------------------------

REFERENCE = images.dockerfile_of("post_processing")
PACKAGES = REFERENCE[: REFERENCE.rindex("FROM ")]
MINE = "services/post_processing/api.py"


def parts(image):
    """The steps of the learner's stage."""
    text = image.last_stage()
    assert isinstance(text, str), f"return the text of the stage, not {type(text).__name__}"
    found = images.steps(PACKAGES + text.strip() + "\n")
    own = [step for step in found if step.stage == found[-1].stage]
    count = sum(step.instruction == "FROM" for step in found)
    assert count == 2, f"the file has {count} stages: `packages` is there, write one more FROM"
    return own


def reads(step, path):
    return any(PurePosixPath(path).is_relative_to(source) for source in step.sources)


def of(steps, instruction):
    return [step for step in steps if step.instruction == instruction]


@check("13.2", "containers", "image.py")
def the_base_is_the_same(image):
    """Both stages stand on one Python."""
    base = of(parts(image), "FROM")[0].value.split()[0]
    assert base in ("${PYTHON_IMAGE}", "python:3.11-slim-bookworm"), (
        f"got {base}: packages that one Python installed may not fit another, use ${{PYTHON_IMAGE}}"
    )


@check("13.2", "containers", "image.py")
def packages_are_taken_not_installed(image):
    """The packages come from the first stage; its tools stay behind."""
    steps = parts(image)
    taken = [s for s in of(steps, "COPY") if s.takes_from == "packages"]
    assert taken, "take them with COPY --from=packages /packages /packages"
    assert not any("install" in step.value for step in of(steps, "RUN")), (
        "nothing is installed here: the first stage did, and pip's leftovers stay there"
    )
    environment = " ".join(step.value for step in of(steps, "ENV"))
    assert "PYTHONPATH=/packages" in environment, (
        "Python looks for packages in /packages when ENV says PYTHONPATH=/packages"
    )


@check("13.2", "containers", "image.py")
def what_changes_often_comes_last(image):
    """A changed line of the service leaves the packages in the cache."""
    steps = parts(image)
    first_code = next((n for n, step in enumerate(steps) if reads(step, MINE)), None)
    assert first_code is not None, f"no COPY reads {MINE}: the image has no service"
    packages = next((n for n, s in enumerate(steps) if s.takes_from == "packages"), len(steps))
    assert packages < first_code, (
        "the packages must stand before the code: else each changed line brings them anew"
    )


@check("13.2", "containers", "image.py")
def one_service_and_what_it_needs(image):
    """The image holds post_processing, the chassis, and nothing else."""
    steps = parts(image)
    for path in ("services/__init__.py", "services/chassis/probe.sh", MINE):
        assert any(reads(step, path) for step in steps), f"the service cannot run without {path}"
    for path in ("services/embedding/api.py", "handbook/en", "requirements.lock"):
        assert not any(reads(step, path) for step in steps), (
            f"{path} is in the image too: a change there would rebuild it"
        )


@check("13.2", "containers", "image.py")
def the_code_lies_where_python_looks(image):
    """The code lies under the folder in which the program starts."""
    steps = parts(image)
    folders = [n for n, step in enumerate(steps) if step.instruction == "WORKDIR"]
    copies = [n for n, step in enumerate(steps) if reads(step, MINE)]
    alone = [step for step in steps if step.sources == ("services/post_processing",)]
    assert folders, "WORKDIR says where the code goes and where the program starts"
    assert copies, f"no COPY reads {MINE}"
    assert folders[0] < copies[0], "WORKDIR stands after the COPY that it should place"
    for step in alone:
        target = step.value.split()[-1].rstrip("/").removeprefix("./")
        assert target.endswith("services/post_processing"), (
            f"the folder is copied to {target}: a COPY of a folder copies what is in it, so name the "
            "target services/post_processing"
        )


@check("13.2", "containers", "image.py")
def nobody_in_particular(image):
    """The program runs as a user without a name or rights, not as root."""
    steps = parts(image)
    users = [step.value.split(":")[0] for step in of(steps, "USER")]
    assert users, "without USER the program is root inside"
    assert users[-1] not in ("0", "root"), "USER is root"
    assert users[-1].isdigit(), (
        f"got {users[-1]}: give a number such as 10001. The base image knows no such name, and "
        "Kubernetes cannot see that a name is not root"
    )


@check("13.2", "containers", "image.py")
def it_can_be_reached(image):
    """The service listens on all addresses of its container."""
    environment = " ".join(step.value for step in of(parts(image), "ENV"))
    assert "POST_PROCESSING_HOST=0.0.0.0" in environment.replace('"', ""), (
        "its default address is 127.0.0.1, the container's own: a published port would lead nowhere. "
        "Set POST_PROCESSING_HOST=0.0.0.0"
    )


@check("13.2", "containers", "image.py")
def it_says_how_it_is(image):
    """The engine can ask whether the service is ready."""
    checks = of(parts(image), "HEALTHCHECK")
    assert checks, "without HEALTHCHECK nobody can wait until it is healthy"
    assert "/readyz" in checks[-1].value, "ask /readyz: /healthz says only that the process lives"


@check("13.2", "containers", "image.py")
def signals_arrive(image):
    """CMD is a list, so that no shell stands between `docker stop` and the service."""
    commands = of(parts(image), "CMD")
    assert commands, "CMD says what runs"
    try:
        words = json.loads(commands[-1].value)
    except ValueError:
        words = None
    assert isinstance(words, list), (
        f"CMD {commands[-1].value} is run by a shell, which gets the SIGTERM: write it as a list"
    )
    assert words == ["python", "-m", "services.post_processing"], (
        f"got {words}: run the module services.post_processing with python -m"
    )


@check("13.2", "containers", "image.py")
def hadolint_is_content(image):
    """hadolint, the linter for Dockerfiles, finds nothing."""
    beside = Path(sys.executable).with_name("hadolint")
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    assert program, "hadolint is missing: `make install` brings it"
    parts(image)
    done = subprocess.run(
        [program, "--no-color", "-"],
        input=PACKAGES + image.last_stage().strip() + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    first = (done.stdout or done.stderr).strip().splitlines()[:1]
    assert done.returncode == 0, f"it says: {first[0] if first else done.returncode}"


# -- the replacement ----------------------------------------------------------------------


class Broken(Exception):
    pass


class Stage:
    """Containers that write down what is done to them. `fails` names the step that raises."""

    def __init__(self, fails="", error=Broken):
        self.fails, self.error, self.done, self.runs = fails, error, [], {"old"}

    def _do(self, what):
        self.done.append(what)
        if what.split()[0] == self.fails:
            raise self.error(f"{what} failed")

    def start(self):
        self._do("start")
        self.runs.add("new")
        return "new"

    def wait_until_ready(self, one):
        self._do(f"wait {one}")

    def switch(self, one):
        self._do(f"switch {one}")
        assert one in self.runs, f"callers were sent to the {one} one, which does not run"

    def stop(self, one):
        self._do(f"stop {one}")
        assert one in self.runs, f"the {one} one was stopped twice, or before it was started"
        self.runs.remove(one)

    def roll(self, roll):
        return roll.roll("old", self.start, self.wait_until_ready, self.switch, self.stop)


@check("13.3", "containers", "roll.py")
def the_order(roll):
    """Start, wait, switch, and only then stop the old one."""
    stage = Stage()
    stage.roll(roll)
    assert stage.done == ["start", "wait new", "switch new", "stop old"], (
        f"got {', '.join(stage.done)}: at each moment callers need one that is ready"
    )


@check("13.3", "containers", "roll.py")
def it_gives_the_new_one(roll):
    """The new one is given back: it is the next one's old."""
    found = Stage().roll(roll)
    assert found == "new", f"got {found!r}: return what start() gave"


def failed(roll, stage):
    """Whether the error reached the caller."""
    try:
        stage.roll(roll)
    except stage.error:
        return True
    return False


@check("13.3", "containers", "roll.py")
def one_that_never_gets_ready(roll):
    """One that does not get ready is stopped, and the old one goes on."""
    stage = Stage("wait", TimeoutError)
    raised = failed(roll, stage)
    assert "old" in stage.runs, "the old one was stopped, and the new one is not ready"
    assert "switch new" not in stage.done, "callers were sent to one that is not ready"
    assert "new" not in stage.runs, "the new one was left running: nobody will ever stop it"
    assert raised, "the error was swallowed: the caller believes that all went well"


@check("13.3", "containers", "roll.py")
def a_switch_that_fails(roll):
    """If the switch fails, the new one is stopped and the old one goes on."""
    stage = Stage("switch")
    raised = failed(roll, stage)
    assert "old" in stage.runs, "the old one was stopped, and nobody was switched"
    assert "new" not in stage.runs, "the new one was left running"
    assert raised, "the error was swallowed"


@check("13.3", "containers", "roll.py")
def an_interruption(roll):
    """Ctrl-C while it waits leaves the old one alone."""
    stage = Stage("wait", KeyboardInterrupt)
    raised = failed(roll, stage)
    assert "old" in stage.runs, "the old one was stopped"
    assert "new" not in stage.runs, (
        "the new one was left running: KeyboardInterrupt is a BaseException, not an Exception"
    )
    assert raised, "the interruption was swallowed"


@check("13.3", "containers", "roll.py")
def one_that_does_not_start(roll):
    """If the new one does not even start, nothing else is done."""
    stage = Stage("start")
    raised = failed(roll, stage)
    assert stage.done == ["start"], f"got {', '.join(stage.done)}: there is nothing to stop"
    assert raised, "the error was swallowed"
