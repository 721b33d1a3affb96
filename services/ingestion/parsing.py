"""Files into blocks: Markdown, text, HTML, PDF and DOCX. Needs no service and no network.

Text is decoded as UTF-8 (or UTF-16 with a byte order mark) and nothing else: a guessed encoding
puts words into the index that no search finds.
"""

from __future__ import annotations

import io
import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from .domain import BadDocument, Block, Parsed

MARKDOWN, TEXT, HTML = "text/markdown", "text/plain", "text/html"
PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
MEDIA_TYPES = (MARKDOWN, TEXT, HTML, PDF, DOCX)
SUFFIXES = {
    ".md": MARKDOWN,
    ".markdown": MARKDOWN,
    ".txt": TEXT,
    ".text": TEXT,
    ".html": HTML,
    ".htm": HTML,
    ".pdf": PDF,
    ".docx": DOCX,
}
MAX_PAGES = 2_000
MAX_EXPANDED_BYTES = 200_000_000


def media_type_of(declared: str | None, filename: str | None) -> str | None:
    """The media type by the file's suffix, else as declared; None if it is not one we read."""
    known = SUFFIXES.get(PurePosixPath((filename or "").lower()).suffix)
    plain = (declared or "").partition(";")[0].strip().lower()
    plain = {"text/x-markdown": MARKDOWN, "application/xhtml+xml": HTML}.get(plain, plain)
    return known or (plain if plain in MEDIA_TYPES else None)


def parse(content: bytes, media_type: str) -> Parsed:
    """Raises `BadDocument` with a reason that its owner can act on."""
    if not content.strip():
        raise BadDocument("The file is empty.")
    _check_signature(content, media_type)
    parsed = {MARKDOWN: _markdown, TEXT: _text, HTML: _html, PDF: _pdf, DOCX: _docx}[media_type](
        content
    )
    parsed.blocks = [block for block in parsed.blocks if block.text.strip()]
    if not any(block.kind != "heading" for block in parsed.blocks):
        raise BadDocument("There is no text in it, only headings or nothing at all.")
    return parsed


def _check_signature(content: bytes, media_type: str) -> None:
    head = content[:1024].lstrip()
    if media_type == PDF:
        if b"%PDF-" not in content[:1024]:
            raise BadDocument("It is named as a PDF and is none: the %PDF- mark is missing.")
    elif media_type == DOCX:
        if head.startswith(b"\xd0\xcf\x11\xe0"):
            raise BadDocument(
                "It is an encrypted or an old .doc file. Save it as .docx without a password."
            )
        if not head.startswith(b"PK"):
            raise BadDocument("It is named as a DOCX and is none: it is not a ZIP archive.")
    elif head.startswith((b"%PDF-", b"PK\x03\x04", b"\x89PNG", b"\xff\xd8\xff", b"GIF8")):
        raise BadDocument("It is sent as text and is a binary file. Send it with its real type.")


# -- text ---------------------------------------------------------------------------------


def decode(content: bytes) -> str:
    """Unicode text (NFC, line feeds only)."""
    encoding = "utf-8-sig"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise BadDocument(
            f"Its text is not UTF-8 (byte {error.start}). Save it as UTF-8 and send it again."
        ) from None
    controls = sum(1 for c in text if unicodedata.category(c) == "Cc" and c not in "\n\r\t\f")
    if "\x00" in text or controls > len(text) / 100:
        raise BadDocument("It is sent as text and is a binary file. Send it with its real type.")
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


def _text(content: bytes) -> Parsed:
    paragraphs = re.split(r"\n[ \t]*\n", decode(content))
    return Parsed([Block("paragraph", p.strip()) for p in paragraphs])


# -- Markdown -----------------------------------------------------------------------------

_BLOCKS = {
    "paragraph_open": "paragraph",
    "blockquote_open": "paragraph",
    "html_block": "paragraph",
    "bullet_list_open": "list",
    "ordered_list_open": "list",
    "fence": "code",
    "code_block": "code",
    "table_open": "table",
}
_PLAIN_SCALAR = re.compile(r"^(\w+):[ \t]+(?![\[{\"'|>&*!])(.+)$", re.M)
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.S | re.M)


def _markdown(content: bytes) -> Parsed:
    from markdown_it import MarkdownIt

    text, parsed = _front_matter(decode(content))
    lines = text.split("\n")
    for token in (tokens := MarkdownIt("commonmark").enable("table").parse(text)):
        if token.level != 0 or token.map is None:
            continue
        if token.type == "heading_open":
            inline = tokens[tokens.index(token) + 1]
            level = int(token.tag[1])
            parsed.blocks.append(Block("heading", _plain_inline(inline), level))
        elif token.type in _BLOCKS:
            source = "\n".join(lines[token.map[0] : token.map[1]]).strip("\n").rstrip()
            parsed.blocks.append(Block(_BLOCKS[token.type], source))  # type: ignore[arg-type]
    return parsed


def _quoted(line: re.Match[str]) -> str:
    value = line[2].strip().replace("'", "''")
    return f"{line[1]}: '{value}'"


def _plain_inline(token: Any) -> str:
    """A heading's words without its markup."""
    words = [
        " " if child.type in ("softbreak", "hardbreak") else child.content
        for child in token.children or []
    ]
    return " ".join("".join(words).split())


def _front_matter(text: str) -> tuple[str, Parsed]:
    """The text without its YAML front matter, and what that said."""
    import yaml

    parsed = Parsed([])
    found = _FRONT_MATTER.match(text)
    if not found:
        return text, parsed
    try:
        try:
            fields = yaml.safe_load(found[1])
        except yaml.YAMLError:
            # `title: HNSW: an introduction` is not YAML, and what people write all the same.
            fields = yaml.safe_load(_PLAIN_SCALAR.sub(_quoted, found[1]))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 2})" if mark else ""
        raise BadDocument(f"Its front matter is not valid YAML{where}.") from None
    if fields is None:
        return text[found.end() :], parsed
    if not isinstance(fields, dict):
        return text, parsed  # two rules with text between them, not front matter
    if fields.get("title") is not None:
        parsed.title = str(fields["title"])
    if isinstance(fields.get("language") or fields.get("lang"), str):
        parsed.language = str(fields.get("language") or fields.get("lang")).strip().lower()
    tags = fields.get("tags") or []
    tags = re.split(r"[,;]", tags) if isinstance(tags, str) else tags
    if isinstance(tags, list):
        parsed.tags = [str(tag).strip() for tag in tags if str(tag).strip()]
    return text[found.end() :], parsed


# -- HTML ---------------------------------------------------------------------------------

_NOT_CONTENT = ["script", "style", "noscript", "template", "nav", "aside", "footer", "form"]
_NOT_CONTENT += ["button", "iframe", "svg", "canvas", "object", "select", "input", "dialog"]
_CONTAINERS = {"p", "ul", "ol", "dl", "pre", "table", "blockquote", "figure", "hr"}
_CONTAINERS |= {"h1", "h2", "h3", "h4", "h5", "h6"}


def _html(content: bytes) -> Parsed:
    from bs4 import BeautifulSoup

    page = BeautifulSoup(decode(content), "lxml")
    parsed = Parsed([])
    if page.title:
        parsed.title = " ".join(page.title.get_text().split())
    if page.html and isinstance(lang := page.html.get("lang"), str):
        parsed.language = lang.partition("-")[0].lower() or None
    for tag in page.find_all(_NOT_CONTENT):
        tag.decompose()
    for tag in page.select('[hidden], [aria-hidden="true"], [role="navigation"]'):
        tag.decompose()
    body = page.find("main") or page.find("article") or page.body or page
    parsed.blocks = list(_html_blocks(body))
    headings = [block.text for block in parsed.blocks if block.level == 1]
    if len(headings) == 1:
        parsed.title = headings[0]  # <title> often carries the site's name as well
    return parsed


def _html_blocks(node: Any) -> Iterator[Block]:
    from bs4.element import Comment, NavigableString

    loose: list[str] = []

    def flush() -> Iterator[Block]:
        text = _squeeze("".join(loose))
        loose.clear()
        if text:
            yield Block("paragraph", text)

    for child in node.children:
        if isinstance(child, Comment):
            continue
        if isinstance(child, NavigableString):
            loose.append(str(child))
            continue
        if child.name == "br":
            loose.append("\n")
        elif child.name in _CONTAINERS or child.find(list(_CONTAINERS)) is not None:
            yield from flush()
            yield from _html_block(child)
        elif child.name in ("div", "section", "li", "td", "main", "article", "header"):
            yield from flush()
            loose.append(child.get_text())
            yield from flush()
        else:
            loose.append(child.get_text())
    yield from flush()


def _html_block(tag: Any) -> Iterator[Block]:
    name = tag.name
    if re.fullmatch("h[1-6]", name):
        yield Block("heading", _squeeze(tag.get_text()), int(name[1]))
    elif name == "pre":
        yield Block("code", "```\n" + tag.get_text().strip("\n") + "\n```")
    elif name == "table":
        rows = [
            [_squeeze(cell.get_text(" ")) for cell in row.find_all(["td", "th"])]
            for row in tag.find_all("tr")
        ]
        yield Block("table", _table(rows))
    elif name in ("ul", "ol"):
        yield Block("list", "\n".join(_html_list(tag, 0)))
    elif name == "dl":
        items = [_squeeze(item.get_text(" ")) for item in tag.find_all(["dt", "dd"])]
        yield Block("list", "\n".join(f"- {item}" for item in items))
    elif name == "p":
        yield Block("paragraph", _squeeze(tag.get_text()))
    else:
        yield from _html_blocks(tag)


def _html_list(tag: Any, depth: int) -> Iterator[str]:
    for number, item in enumerate(tag.find_all("li", recursive=False), 1):
        nested = item.find_all(["ul", "ol"], recursive=False)
        for inner in nested:
            inner.extract()
        mark = f"{number}." if tag.name == "ol" else "-"
        yield "  " * depth + f"{mark} {_squeeze(item.get_text(' '))}"
        for inner in nested:
            yield from _html_list(inner, depth + 1)


def _squeeze(text: str) -> str:
    return " ".join(text.split())


def _table(rows: list[list[str]]) -> str:
    """A Markdown table; its first row is the head."""
    rows = [row for row in rows if any(row)]
    if not rows:
        return ""
    width = max(len(row) for row in rows)
    lines = [
        "| " + " | ".join(c.replace("|", "\\|") for c in row + [""] * (width - len(row))) + " |"
        for row in rows
    ]
    return "\n".join([lines[0], "|" + " --- |" * width, *lines[1:]])


# -- PDF ----------------------------------------------------------------------------------


def _pdf(content: bytes) -> Parsed:
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            raise BadDocument("The PDF is password-protected. Send a copy without a password.")
        if len(reader.pages) > MAX_PAGES:
            raise BadDocument(f"The PDF has more than {MAX_PAGES} pages. Send it in parts.")
        pages = [page.extract_text() or "" for page in reader.pages]
        title = str((reader.metadata and reader.metadata.title) or "").strip()
        outline = {_squeeze(name).lower(): level for name, level in _outline(reader.outline)}
    except BadDocument:
        raise
    except ImportError:
        raise BadDocument("The PDF is encrypted in a way this service cannot read.") from None
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError, OSError) as e:
        raise BadDocument(f"The PDF is damaged ({type(e).__name__}). Export it anew.") from None
    if sum(len("".join(page.split())) for page in pages) < 20 * len(pages):
        raise BadDocument("The PDF holds pictures of pages and no text. Run OCR on it first.")
    if re.match(r"(?i)microsoft (word|powerpoint)|untitled|.*\.(docx?|tex|indd)$", title):
        title = ""  # what a converter wrote there is the file's name, not the title
    return Parsed(_pdf_blocks(pages, outline), title)


def _outline(items: Any, level: int = 1) -> Iterator[tuple[str, int]]:
    for item in items:
        if isinstance(item, list):
            yield from _outline(item, level + 1)
        elif item.title:
            yield str(item.title), level


def _pdf_blocks(pages: list[str], outline: dict[str, int]) -> list[Block]:
    """Paragraphs out of lines: running heads dropped, hyphenated words joined."""
    by_page = [[line.strip() for line in page.split("\n")] for page in pages]
    edges = Counter(
        re.sub(r"\d+", "#", line)
        for lines in by_page
        for line in {*[x for x in lines if x][:1], *[x for x in lines if x][-1:]}
    )
    running = {line for line, n in edges.items() if n >= 3 and n > len(pages) / 2}
    longest = max((len(line) for lines in by_page for line in lines), default=0)
    blocks: list[Block] = []
    paragraph = ""

    def flush() -> None:
        nonlocal paragraph
        if paragraph:
            blocks.append(Block("paragraph", paragraph))
        paragraph = ""

    for lines in by_page:
        for line in (_squeeze(line) for line in lines):
            if re.sub(r"\d+", "#", line) in running or re.fullmatch(r"\W*\d{1,4}\W*", line):
                continue
            if not line:
                flush()
            elif line.lower() in outline:
                flush()
                blocks.append(Block("heading", line, min(outline[line.lower()] + 1, 6)))
            else:
                if re.search(r"[^\W\d_]-$", paragraph) and line[0].islower():
                    paragraph = paragraph[:-1] + line
                else:
                    paragraph = f"{paragraph} {line}".strip()
                if line[-1] in ".!?:" and len(line) < 0.75 * longest:
                    flush()  # a short last line ends its paragraph
    flush()
    return blocks


# -- DOCX ---------------------------------------------------------------------------------


def _docx(content: bytes) -> Parsed:
    import docx
    from docx.opc.exceptions import OpcError
    from docx.table import Table
    from lxml.etree import LxmlError  # type: ignore[import-untyped]

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(item.file_size for item in archive.infolist()) > MAX_EXPANDED_BYTES:
                raise BadDocument("The DOCX expands to more than 200 MB. Send it in parts.")
        document = docx.Document(io.BytesIO(content))
        parsed = Parsed([], title=(document.core_properties.title or "").strip())
        for item in document.iter_inner_content():
            if isinstance(item, Table):
                rows = [[_squeeze(cell.text) for cell in row.cells] for row in item.rows]
                parsed.blocks.append(Block("table", _table(rows)))
                continue
            block = _docx_paragraph(item)
            last = parsed.blocks[-1] if parsed.blocks else None
            if block.kind == "list" and last is not None and last.kind == "list":
                parsed.blocks[-1] = Block("list", f"{last.text}\n{block.text}")
            else:
                parsed.blocks.append(block)
    except BadDocument:
        raise
    except (zipfile.BadZipFile, OpcError, LxmlError, KeyError, ValueError, OSError) as error:
        raise BadDocument(f"The DOCX is damaged ({type(error).__name__}). Save it anew.") from None
    titles = [block for block in parsed.blocks if block.kind == "heading" and block.level == 0]
    if titles:
        parsed.title = titles[0].text
        parsed.blocks = [block for block in parsed.blocks if block not in titles]
    return parsed


def _docx_paragraph(item: Any) -> Block:
    style = (item.style.style_id if item.style is not None else "") or ""
    text = item.text.strip()
    if found := re.fullmatch(r"Heading([1-9])", style):
        return Block("heading", _squeeze(text), min(int(found[1]), 6))
    if style == "Title":
        return Block("heading", _squeeze(text), 0)
    if style.startswith("List") and text:
        return Block("list", f"- {_squeeze(text)}")
    return Block("paragraph", text)
