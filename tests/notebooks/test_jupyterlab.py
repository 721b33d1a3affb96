"""What a learner sees: JupyterLab in a real browser, on copies of the notebooks."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from workshop import browser, course, exercises, fixed, lab, lessons, system

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(600)]
START = course.find("00")
STUB = course.find("05")
PROMPTS = ".jp-Notebook .jp-CodeCell .jp-InputPrompt"
ERRORS = '.jp-Notebook [data-mime-type="application/vnd.jupyter.stderr"]'
ASKS = ".jp-Dialog, .Toastify__toast"

BEGUN = "prompts => [...document.querySelectorAll(prompts)].some(e => /[*\\d]/.test(e.textContent))"
DONE = "prompts => ![...document.querySelectorAll(prompts)].some(e => e.textContent.includes('*'))"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with copies: lesson 00 with its solutions filled in, another as it is given."""
    folder = tmp_path_factory.mktemp("desk") / "notebooks"
    folder.mkdir()
    lessons.write(folder / START.notebook.name, lessons.solution_notebook(START))
    (folder / STUB.notebook.name).write_bytes(STUB.notebook.read_bytes())
    return folder


@pytest.fixture(scope="module")
def address(indexed: Any, system_environment: dict[str, str], desk: Path) -> Iterator[str]:
    """JupyterLab as `make lab` starts it, for a person who has never started it before."""
    if lacks := browser.missing():
        pytest.skip(lacks)
    fixed.ask(indexed.url("gateway"))  # the model writes them once, outside of any cell's time
    port, token = system.free_port(), secrets.token_hex(16)
    own = {
        "WORKSHOP_MY_SERVICES": str(desk.parent / "my_services"),
        "IPYTHONDIR": str(desk.parent / "ipython"),
        **{f"JUPYTER_{n}_DIR": str(desk.parent / n) for n in ("CONFIG", "DATA", "RUNTIME")},
    }
    options = [
        *("--no-browser", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"),
        *("--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", str(desk)),
    ]
    log = desk.parent / "lab.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            lab.command(options),
            env=lab.environment({**os.environ, **system_environment, **own}),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            assert process.poll() is None, log.read_text()[-2000:]
            try:
                with urllib.request.urlopen(f"{base}/api?token={token}", timeout=5):
                    break
            except OSError:
                time.sleep(0.2)
        else:
            pytest.fail("JupyterLab did not answer in a minute: " + log.read_text()[-2000:])
        # `reset` leaves out the tabs that a page before had open.
        yield base + "/lab/tree/{}?reset&token=" + token
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if lacks := browser.missing():
        pytest.skip(lacks)
    with browser.browser() as found:
        yield found


@pytest.fixture
def run_all(address: str, chromium: Any) -> Iterator[Callable[[course.Lesson], Any]]:
    """Open a notebook, choose Run > Run All Cells, wait until nothing runs; gives the page."""
    pages = []

    def run(lesson: course.Lesson) -> Any:
        page = chromium.new_context(viewport={"width": 1280, "height": 900}).new_page()
        pages.append(page)
        page.goto(address.format(lesson.notebook.name))
        page.wait_for_selector(PROMPTS, timeout=60_000)
        # No dialog asks for a kernel: the notebook names its own. Before the status bar shows it,
        # the menus do not know the notebook yet.
        page.get_by_text(re.compile(r"^Python 3 \(ipykernel\) \| Idle$")).wait_for(timeout=60_000)
        assert page.locator(ASKS).all_inner_texts() == []
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.wait_for_function(BEGUN, arg=PROMPTS, timeout=30_000)
        page.wait_for_function(DONE, arg=PROMPTS, timeout=300_000)
        return page

    yield run
    for page in pages:
        page.context.close()


def cell_with(page: Any, source: str) -> Any:
    """The code cell whose source holds a text, scrolled to."""
    found = page.locator(".jp-Notebook .jp-CodeCell").filter(has_text=source).first
    found.scroll_into_view_if_needed()
    return found


def shows(cell: Any, *texts: str) -> None:
    """The cell's output, as it is drawn, holds each text."""
    from playwright.sync_api import expect

    output = cell.locator(".jp-Cell-outputArea")
    output.scroll_into_view_if_needed()
    for text in texts:
        expect(output).to_contain_text(text, use_inner_text=True, timeout=10_000)


def prompts(page: Any) -> list[str]:
    return [text.strip("[]: ") for text in page.locator(PROMPTS).all_text_contents()]


def test_lesson_00_runs_to_its_end_and_shows_what_it_promises(
    run_all: Callable[[course.Lesson], Any],
) -> None:
    page = run_all(START)
    cells = json.loads(START.solution.read_text())["cells"]
    assert page.locator(".jp-Notebook .jp-Cell").count() == len(cells)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert prompts(page) == [str(number) for number in range(1, len(code) + 1)]
    assert page.locator(ERRORS).all_text_contents() == []
    assert page.locator(ASKS).all_inner_texts() == []

    shows(cell_with(page, 'here.ask("When does a circuit breaker open?")'), "[1]", "circuit")
    for source in ("here.trace(answer)", "plt.barh", "bill.plot()"):
        figure = cell_with(page, source).locator(".jp-OutputArea-output img")
        figure.wait_for(state="visible")
        assert figure.evaluate("image => image.complete && image.naturalWidth") > 200, source

    shows(cell_with(page, "workshop.same(before, after)"), "20 of 20 equal")
    shows(cell_with(page, 'bill = workshop.bill("hybrid_search")'), "hybrid_search", "on the way")
    checks = len(exercises.checks_of(START))
    shows(cell_with(page, 'workshop.check("00")'), f"00: {checks} of {checks} green")


def test_an_answer_is_folded_until_somebody_opens_it(address: str, chromium: Any) -> None:
    page = chromium.new_page()
    page.goto(address.format(START.notebook.name))
    fold = page.locator(".jp-Notebook details").first
    fold.scroll_into_view_if_needed(timeout=60_000)
    inside = fold.locator("p").first
    assert not inside.is_visible()
    fold.locator("summary").click()
    assert inside.is_visible()
    page.close()


def test_an_exercise_that_is_not_written_says_so_and_nothing_goes_on(
    run_all: Callable[[course.Lesson], Any],
) -> None:
    page = run_all(STUB)
    first = exercises.exercises_of(STUB)[0]
    check = cell_with(page, f'workshop.check("{first}")')
    shows(check, f"not written yet: exercise {first}", "checks are red")
    assert "Traceback" not in check.inner_text()
    assert page.locator(ASKS).all_inner_texts() == []
    ran = prompts(page)
    stop = ran.index("")
    assert check.locator(".jp-InputPrompt").inner_text().strip("[]: ") == str(stop)
    assert ran == [str(number) for number in range(1, stop + 1)] + [""] * (len(ran) - stop)
    assert stop < len(ran)
