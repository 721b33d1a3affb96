"""Who gets which tests when two workers share them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from tests import sharing

ROOT = Path(__file__).parents[2]
TESTS = [
    "tests/contract/test_x.py::test_1",
    "tests/notebooks/test_solutions.py::test_2[processes]",
    "tests/containers/test_steps.py::test_3[02]",
    "tests/containers/test_lab.py::test_4",
    "tests/slides/test_demos.py::test_5",
    "services/x/tests/test_x.py::test_6",
    "services/x/tests/test_x.py::test_7",
    "tests/notebooks/test_solutions.py::test_8[docker alone]",
    "tests/faults/test_01_killed.py::test_9[processes]",
    "tests/faults/test_01_killed.py::test_10[containers]",
    "tests/faults/test_08_ingestion.py::test_11[processes]",
    "tests/faults/test_08_ingestion.py::test_12[containers]",
]


class Worker:
    """What the scheduler needs of one. It runs all it is sent but the last, as a real one does."""

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.sent: list[str] = []
        self.shutting_down = False

    def send_runtest_some(self, indices: list[int]) -> None:
        self.sent += [TESTS[index] for index in indices]

    def shutdown(self) -> None:
        self.shutting_down = True


def shared(slow: str = "") -> dict[str, list[int]]:
    """The numbers of the tests that each of two workers ran; `slow` takes five times as long."""
    config = SimpleNamespace(
        getvalue=lambda _: ["2*popen"], option=SimpleNamespace(loadscopereorder=True)
    )
    scheduler = sharing.OneSystemAWorker(config)  # type: ignore[arg-type]
    workers = [Worker("a"), Worker("b")]
    for worker in workers:
        scheduler.add_node(worker)  # type: ignore[arg-type]
    for worker in workers:
        scheduler.add_node_collection(worker, TESTS)  # type: ignore[arg-type]
    scheduler.schedule()
    done = {worker.gateway.id: 0 for worker in workers}
    for turn in range(200):
        for worker in workers:
            name = worker.gateway.id
            if name == slow and turn % 5:
                continue
            left = len(worker.sent) - done[name]
            if left > 1 or (left and worker.shutting_down):
                scheduler.mark_test_complete(worker, TESTS.index(worker.sent[done[name]]))  # type: ignore[arg-type]
                done[name] += 1
    return {
        worker.gateway.id: [
            TESTS.index(test) + 1 for test in worker.sent[: done[worker.gateway.id]]
        ]
        for worker in workers
    }


def test_each_test_is_run_once_whoever_is_slow() -> None:
    for slow in ("", "a", "b"):
        ran = shared(slow)
        assert sorted(ran["a"] + ran["b"]) == list(range(1, len(TESTS) + 1)), slow


def test_the_system_and_the_containers_stay_with_their_workers() -> None:
    for slow in ("", "a", "b"):
        ran = shared(slow)
        system = next(worker for worker in ran.values() if 1 in worker)
        others = next(worker for worker in ran.values() if 3 in worker)
        assert system is not others
        assert {1, 2, 8, 9, 11} <= set(system)
        assert {3, 4, 10, 12} <= set(others)


def test_who_wants_the_processors_alone_comes_last() -> None:
    for ran in shared().values():
        alone = [sharing.work_of(TESTS[number - 1]) in sharing.HOME for number in ran]
        assert any(alone)
        assert alone == sorted(alone)


def test_each_file_that_is_named_is_there() -> None:
    for begin in (*sharing._FILES, *(f"tests/faults/test_{row}_" for row in sharing._FAULTS)):
        assert list(ROOT.glob(f"{begin}*")), begin
    assert len(sharing._FAULTS) == len(list(ROOT.glob("tests/faults/test_*.py")))
