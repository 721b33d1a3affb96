"""`workshop slides`: from `slides/NN_slug.md` to HTML and PDF, in `slides/dist/`.

Markers are filled from their files, Mermaid diagrams become SVG in the system's Chromium, pictures
are put into the page, and Marp makes the pages. Nothing is fetched from a network. At the end each
page is rendered, and whatever does not fit on its slide is named.
"""

from __future__ import annotations

import base64
import difflib
import json
import os
import re
import shutil
import subprocess
import sysconfig
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import unquote

import typer
from rich.console import Console
from rich.text import Text

from . import browser, decks, paths, slide_markers
from .decks import Deck
from .errors import WorkshopError

DIST = decks.FOLDER / "dist"
MODULES = decks.FOLDER / "node_modules"
_MARP = MODULES / "@marp-team" / "marp-cli" / "marp-cli.js"
_MERMAID = MODULES / "@mermaid-js" / "tiny" / "dist" / "mermaid.tiny.js"
_DIAGRAM = re.compile(r"^```mermaid\n(.*?)\n```$", re.DOTALL | re.MULTILINE)
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
_MEDIA = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}
_SMALLEST = 15
"""Pixels of a page 1280 wide: what is smaller cannot be read from the last row."""
_TIMEOUT = 240

console = Console(highlight=False)


class Fault(NamedTuple):
    """Something on a page that a person would see as broken."""

    deck: str
    slide: int
    what: str

    def __str__(self) -> str:
        return f"{self.deck}, slide {self.slide}: {self.what}"


def command(
    lessons: Annotated[
        list[str] | None, typer.Argument(help="numbers of lessons; default: every deck")
    ] = None,
    sync: Annotated[
        bool, typer.Option("--sync", help="only fill the markers from their files")
    ] = False,
    images: Annotated[
        bool, typer.Option("--images", help="a PNG of each page too, to look at")
    ] = False,
    pdf: Annotated[bool, typer.Option(help="PDF beside the HTML")] = True,
) -> int:
    """Build the decks, and check that each page holds what is on it."""
    chosen = [decks.find(number) for number in lessons] if lessons else every()
    for deck in chosen:
        if sync:
            changed = bool(outdated(deck))
            deck.path.write_text(filled(deck), encoding="utf-8")
            console.print(f"slides/{deck.path.name}  {'filled anew' if changed else 'current'}")
        elif difference := outdated(deck):
            for line in difference:
                console.print(Text(line), soft_wrap=True)
            raise WorkshopError(
                f"slides/{deck.path.name} does not show what its files say.",
                "Fill it with `workshop slides --sync`.",
            )
    if sync:
        return 0
    with console.status("building the decks"):
        build(chosen, DIST, pdf=pdf)
        faults = look_at(chosen, DIST, images=images)
    for deck in chosen:
        console.print(f"slides/dist/{deck.name}.html  {len(deck.slides)} slides")
    for fault in faults:
        console.print(Text(str(fault), style="red"), soft_wrap=True)
    return 1 if faults else 0


def every() -> list[Deck]:
    return [decks.read(decks.path_of(lesson)) for lesson in decks.written()]


# -- markers ------------------------------------------------------------------------------


def filled(deck: Deck) -> str:
    """The deck's whole text, its markers filled."""
    head = deck.path.read_text(encoding="utf-8").removesuffix(deck.body)
    try:
        return head + slide_markers.fill(deck.body, deck.number, deck.front.demo)
    except WorkshopError as error:
        raise WorkshopError(f"slides/{deck.path.name}: {error.what}", error.way_out) from error


def outdated(deck: Deck) -> list[str]:
    """A diff between the deck and what its markers' files say; [] if it is current."""
    name = f"slides/{deck.path.name}"
    written = deck.path.read_text(encoding="utf-8").splitlines()
    now = filled(deck).splitlines()
    return list(difflib.unified_diff(written, now, name, f"{name} (filled)", lineterm="", n=1))


# -- building -----------------------------------------------------------------------------


def missing() -> str:
    """What the build lacks on this machine, as a sentence; "" if it lacks nothing."""
    if lacks := browser.missing():
        return lacks
    if node() is None or not _MARP.is_file() or not _MERMAID.is_file():
        return "Marp and Mermaid are not installed: `make slides` does it once."
    return ""


def node() -> str | None:
    """The Node of this environment (slides/requirements.txt), else the system's."""
    own = Path(sysconfig.get_path("scripts")) / "node"
    return str(own) if own.exists() else shutil.which("node")


def build(chosen: Sequence[Deck], folder: Path, *, pdf: bool = True) -> None:
    """Write NAME.html and NAME.pdf of each deck, and NAME.pages.html, all pages on one.

    Raises `WorkshopError` where something is missing or Marp refuses.
    """
    if lacks := missing():
        raise WorkshopError("The decks cannot be built here.", lacks)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with browser.browser() as chromium:
        page = chromium.new_page()
        page.set_content("<!doctype html><body></body>")
        page.add_script_tag(path=str(_MERMAID))
        for deck in chosen:
            (folder / f"{deck.name}.md").write_text(_for_marp(deck, page), encoding="utf-8")
    sources = [f"{deck.name}.md" for deck in chosen]
    _marp(folder, [*sources, "--template", "bare"])
    for deck in chosen:
        (folder / f"{deck.name}.html").rename(folder / f"{deck.name}.pages.html")
    _marp(folder, sources)
    if pdf:
        path = ["--browser", "chrome", "--browser-path", str(browser.chromium())]
        _marp(folder, [*sources, "--pdf", "--pdf-outlines", "--pdf-notes", *path])


def _marp(folder: Path, arguments: list[str]) -> None:
    theme = ["--theme-set", str(decks.FOLDER / "theme.css"), "--html", "--no-stdin"]
    done = subprocess.run(
        [str(node()), str(_MARP), *theme, *arguments],
        cwd=folder,
        env={**os.environ, "CHROME_NO_SANDBOX": "1", "NO_UPDATE_NOTIFIER": "1"},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise WorkshopError("Marp failed.", done.stderr.strip()[-600:])


def _for_marp(deck: Deck, page: Any) -> str:
    """Front matter that Marp knows; no markers; diagrams and pictures inside of the text."""
    title = deck.front.title.replace('"', "'")
    head = f'---\nmarp: true\ntheme: workshop\npaginate: true\ntitle: "{title}"\n---\n'
    body = slide_markers.strip(deck.body)
    body = _DIAGRAM.sub(lambda found: _diagram(deck, found[1], page), body)
    return head + _PICTURE.sub(lambda found: _picture(deck, found), body)


def _picture(deck: Deck, found: re.Match[str]) -> str:
    """A picture of the repository, or with `solutions/NN.ipynb#CELL` the one a cell drew."""
    place, _, cell = found[2].partition("#")
    path = (deck.path.parent / place).resolve()
    content, media = None, _MEDIA.get(path.suffix, "")
    if path.is_file() and path.is_relative_to(paths.ROOT):
        if media:
            content = path.read_bytes()
        elif path.suffix == ".ipynb":
            content, media = _drawn(path, unquote(cell)), _MEDIA[".png"]
    if content is None:
        raise WorkshopError(f"slides/{deck.path.name}: there is no picture {found[2]}.")
    return _image(content, media, found[1])


def _drawn(notebook: Path, cell: str) -> bytes | None:
    """The picture of the cell with this id, else of the only one whose source holds this text."""
    drawn = [
        (each["id"], "".join(each["source"]), base64.b64decode("".join(png)))
        for each in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        for output in each.get("outputs", [])
        if (png := output.get("data", {}).get("image/png"))
    ]
    found = [png for name, _, png in drawn if name == cell]
    found = found or [png for _, source, png in drawn if cell and cell in source]
    return found[0] if len(found) == 1 else None


def _image(content: bytes, media: str, text: str, kind: str = "picture") -> str:
    data = base64.b64encode(content).decode()
    return f'<img class="{kind}" alt="{text}" src="data:{media};base64,{data}">'


# -- diagrams -----------------------------------------------------------------------------

_DRAW = """async ([source, number]) => {
    mermaid.initialize({
        startOnLoad: false, securityLevel: "strict", htmlLabels: false, deterministicIds: true,
        theme: "base", look: "classic", fontFamily: '"Liberation Sans", Arial, sans-serif',
        themeVariables: {
            fontSize: "24px", fontFamily: '"Liberation Sans", Arial, sans-serif',
            primaryColor: "#eaf1f8", primaryBorderColor: "#1f5f8b", primaryTextColor: "#17212b",
            lineColor: "#51606e", secondaryColor: "#fdf1e3", tertiaryColor: "#f6f7f8",
            edgeLabelBackground: "#ffffff", clusterBkg: "#f6f7f8", clusterBorder: "#9aa7b3",
        },
        themeCSS: ".edgePath path, .flowchart-link {stroke-width: 2px}"
            + " .edgeLabel rect, .labelBkg {fill: #ffffff; opacity: 1}",
        markdownAutoWrap: false,
        flowchart: {
            htmlLabels: false, nodeSpacing: 28, rankSpacing: 56, padding: 14, wrappingWidth: 700,
        },
        sequence: {actorFontSize: 22, messageFontSize: 20, noteFontSize: 20, useMaxWidth: false},
    });
    return (await mermaid.render("diagram" + number, source)).svg;
}"""


def _diagram(deck: Deck, source: str, page: Any) -> str:
    from playwright.sync_api import Error

    try:
        svg = str(page.evaluate(_DRAW, [source, f"{deck.number}-{zlib.crc32(source.encode())}"]))
    except Error as error:
        reason = str(error).splitlines()[0]
        raise WorkshopError(
            f"slides/{deck.path.name}: Mermaid does not understand a diagram: {reason}",
            source.splitlines()[0],
        ) from error
    # Mermaid gives the width as "100%"; as a picture the diagram needs its own size.
    size = re.search(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+) ([\d.]+)"', svg)
    if size is None:
        raise WorkshopError(f"slides/{deck.path.name}: a diagram came without a size.")
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(width|height|style)="[^"]*"', "", head)
    svg = f'{head} width="{size[1]}" height="{size[2]}">{rest}'
    return _image(svg.encode(), _MEDIA[".svg"], "diagram", "diagram")


# -- looking at the pages -----------------------------------------------------------------

_LOOK = """([smallest]) => [...document.querySelectorAll("section")].map((section, index) => {
    const faults = [], box = section.getBoundingClientRect(), style = getComputedStyle(section);
    const scale = box.width / section.offsetWidth;
    const edge = {
        left: box.left + parseFloat(style.paddingLeft) * scale,
        right: box.right - parseFloat(style.paddingRight) * scale,
        top: box.top + parseFloat(style.paddingTop) * scale,
        bottom: box.bottom - parseFloat(style.paddingBottom) * scale,
    };
    const say = (element) => "<" + element.tagName.toLowerCase() + "> "
        + (element.textContent || element.alt || "").trim().replace(/\\s+/g, " ").slice(0, 50);
    if (section.scrollHeight > section.clientHeight + 1) {
        faults.push(`${section.scrollHeight - section.clientHeight} px too much text in height`);
    }
    if (section.scrollWidth > section.clientWidth + 1) {
        faults.push(`${section.scrollWidth - section.clientWidth} px too much text in width`);
    }
    for (const element of section.querySelectorAll("*")) {
        if (element.closest("header, footer")) continue;
        const r = element.getBoundingClientRect();
        if (!r.width && !r.height) continue;
        const beyond = Math.max(
            edge.left - r.left, r.right - edge.right, edge.top - r.top, r.bottom - edge.bottom
        ) / scale;
        if (beyond > 2) faults.push(`${say(element)} lies ${Math.round(beyond)} px outside`);
        else if (element.scrollWidth > element.clientWidth + 1 && element.clientWidth) {
            faults.push(`${say(element)} is wider than its box`);
        }
        if (element.tagName === "IMG") {
            if (!element.naturalWidth) faults.push(`${say(element)} could not be drawn`);
            else if (element.className === "diagram"
                     && 22 * element.clientWidth / element.naturalWidth < smallest) {
                faults.push(`a diagram is shown at ${Math.round(
                    100 * element.clientWidth / element.naturalWidth)} %: too small to read`);
            }
        } else if ([...element.childNodes].some(n => n.nodeType === 3 && n.data.trim())
                   && parseFloat(getComputedStyle(element).fontSize) < smallest) {
            faults.push(`${say(element)} is too small to read`);
        }
    }
    return faults;
})"""


def look_at(chosen: Sequence[Deck], folder: Path, *, images: bool = False) -> list[Fault]:
    """Render every page; what does not fit, cannot be read, or asks the network for something."""
    faults = []
    with browser.browser() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": 720})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for deck in chosen:
            asked.clear()
            page.goto((folder / f"{deck.name}.pages.html").as_uri())
            page.evaluate("document.fonts.ready")
            for number, found in enumerate(page.evaluate(_LOOK, [_SMALLEST]), 1):
                faults += [Fault(deck.name, number, what) for what in found]
            outside = sorted({url for url in asked if url.startswith(("http:", "https:", "ws"))})
            faults += [Fault(deck.name, 0, f"asks the network for {url}") for url in outside]
            if images:
                target = folder / deck.name
                target.mkdir(exist_ok=True)
                for number, slide in enumerate(page.query_selector_all("svg[data-marpit-svg]"), 1):
                    slide.screenshot(path=str(target / f"{number:02d}.png"))
    return faults
