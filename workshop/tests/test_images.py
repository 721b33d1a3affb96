"""Images: Dockerfiles read, layers found in what two builders write, the report, no engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from workshop import bench_images, containers, course, images
from workshop.errors import WorkshopError

TEXT = """\
# a comment
ARG PYTHON_IMAGE=python:3.11

FROM ${PYTHON_IMAGE} AS packages
COPY a.lock services/one/ ./
RUN first \\
    # a comment inside
    && second

from ${PYTHON_IMAGE}
ENV X=1 \\
    Y=2
WORKDIR /app
COPY --from=packages --chown=1:1 /packages /packages
COPY . .
RUN compile
CMD ["run"]
"""


def test_a_dockerfile_is_read_step_by_step() -> None:
    found = images.steps(TEXT)
    assert [(s.line, s.stage, s.instruction) for s in found] == [
        (2, "", "ARG"),
        (4, "packages", "FROM"),
        (5, "packages", "COPY"),
        (6, "packages", "RUN"),
        (10, "1", "FROM"),
        (11, "1", "ENV"),
        (13, "1", "WORKDIR"),
        (14, "1", "COPY"),
        (15, "1", "COPY"),
        (16, "1", "RUN"),
        (17, "1", "CMD"),
    ]
    assert found[2].sources == ("a.lock", "services/one")
    assert found[3].value == "first && second"
    assert (found[7].takes_from, found[7].sources) == ("packages", ())
    assert found[8].sources == (".",)
    assert [s.takes_from for s in images.steps("FROM a AS b\nFROM b\n")] == ["", "b"]


@pytest.mark.parametrize("line", ["FORM python", "RUN", "&& second"])
def test_a_line_that_is_no_instruction_is_named(line: str) -> None:
    with pytest.raises(WorkshopError, match="Line 2 of the Dockerfile is not understood") as error:
        images.steps(f"FROM a\n{line}\n")
    assert line in error.value.what


CLASSIC = [
    ('/bin/sh -c #(nop)  CMD ["run"]', 0),
    ("|1 V=1 /bin/sh -c compile", 40),
    ("/bin/sh -c #(nop) COPY dir:1 in . ", 30),
    ("/bin/sh -c #(nop) COPY dir:2 in /packages ", 20),
    ("/bin/sh -c #(nop) WORKDIR /app", 0),
    ("/bin/sh -c #(nop)  ENV X=1 Y=2", 0),
    ("", 500),
]
BUILDKIT = [
    ('CMD ["run"]', 0),
    ("RUN /bin/sh -c compile # buildkit", 40),
    ("COPY . . # buildkit", 30),
    ("COPY --chown=1:1 /packages /packages # buildkit", 20),
    ("WORKDIR /app", 0),
    ("ENV X=1 Y=2", 0),
    ("CMD bash", 0),
    ("RUN /bin/sh -c apt", 100),
    ("ADD rootfs.tar /", 400),
]


@pytest.mark.parametrize(
    ("history", "below"), [(CLASSIC, ["b"]), (BUILDKIT, ["b", "c"])], ids=["classic", "buildkit"]
)
def test_each_step_that_makes_files_finds_its_layer(
    history: list[tuple[str, int]], below: list[str]
) -> None:
    entries = [{"CreatedBy": by, "Size": size} for by, size in history]
    digests = [*below, "work", "packages", "all", "compiled"]
    image = SimpleNamespace(
        attrs={"Size": 590, "RootFS": {"Layers": digests}}, history=lambda: entries
    )
    client = SimpleNamespace(images=SimpleNamespace(get=lambda tag: image))
    base, *own = images.layers(client, "one", "dev", TEXT)
    assert base == images.Layer("FROM python:3.11", 500, " ".join(below))
    assert [(layer.bytes, layer.digest) for layer in own] == [
        (0, "work"),
        (20, "packages"),
        (30, "all"),
        (40, "compiled"),
    ]
    assert own[-1].step == "RUN compile"


def test_the_report_is_of_the_images_that_there_are() -> None:
    found = images.report()
    assert list(found["images"]) == images.names()
    for name, image in found["images"].items():
        assert image["budget"] == bench_images.budget(name), name
        assert sum(layer["bytes"] for layer in image["layers"]) == image["bytes"]
        own = [s for s in images.steps(images.dockerfile_of(name)) if s.makes_files]
        said = [layer["step"] for layer in image["layers"][1:]]
        assert said == [str(s) for s in own if s.stage == own[-1].stage], (
            f"the Dockerfile of {name} has changed: `workshop bench images {name}`"
        )


def test_a_copied_tree_can_be_changed_and_holds_what_a_build_reads() -> None:
    with bench_images.copy_of_the_tree() as root:
        changed = bench_images.change_a_line(root, "feedback", "X = 1")
        assert changed.relative_to(root).parts == ("services", "feedback", "__main__.py")
        assert changed.read_text().endswith("\nX = 1\n")
        for name in images.names():
            for step in images.steps(images.dockerfile_of(name)):
                assert all((root / source).exists() for source in step.sources), step


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def engine() -> Any:
        raise WorkshopError("No Docker engine answers: refused.", "Start Docker.")

    monkeypatch.setattr(containers, "engine", engine)


def test_without_an_engine_each_use_says_how_to_get_one(
    no_engine: None, capsys: pytest.CaptureFixture[str]
) -> None:
    client = images.docker()
    assert not client
    (line,) = capsys.readouterr().out.splitlines()
    assert "No Docker engine answers: refused." in line
    assert "Start Docker." in line
    with pytest.raises(WorkshopError, match="This needs a Docker engine") as error:
        client.containers.list()
    assert error.value.way_out == "Start Docker."
    with pytest.raises(WorkshopError, match="No Docker engine"):
        images.build("feedback", "dev")


def test_only_what_needs_an_engine_is_left_out(no_engine: None) -> None:
    assert images.missing(course.find("05")) == ""
    assert images.missing(course.find("13")).startswith("13_containers is not run: No Docker")
