import asyncio
import io
import zipfile

import docx
import pytest
from pypdf import PdfReader, PdfWriter

from services.ingestion.domain import BadDocument, Block
from services.ingestion.parsing import DOCX, HTML, MARKDOWN, PDF, TEXT, media_type_of, parse
from services.ingestion.read_file import read_file
from services.ingestion.splitting import split_document


def pdf(pages, title=""):
    """A PDF with real text, a line for each string, written by hand (PDF 1.4)."""
    objects = []

    def add(body):
        objects.append(body)
        return len(objects)

    font = add(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    kids, parent = [], 2 * len(pages) + 2
    for lines in pages:
        shown = b" ".join(b"(%s) Tj 0 -14 Td" % line.encode("latin-1") for line in lines)
        stream = b"BT /F1 12 Tf 50 750 Td " + shown + b" ET"
        content = add(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        kids.append(
            add(
                b"<< /Type /Page /Parent %d 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
                b"/Resources << /Font << /F1 %d 0 R >> >> >>" % (parent, content, font)
            )
        )
    refs = b" ".join(b"%d 0 R" % kid for kid in kids)
    add(b"<< /Type /Pages /Kids [%s] /Count %d >>" % (refs, len(kids)))
    catalog = add(b"<< /Type /Catalog /Pages %d 0 R >>" % parent)
    info = add(b"<< /Title (%s) >>" % title.encode("latin-1"))
    out, offsets = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"trailer << /Size %d /Root %d 0 R /Info %d 0 R >>\nstartxref\n%d\n%%%%EOF\n"
    return bytes(out) + trailer % (len(objects) + 1, catalog, info, start)


PAGES = [
    ["Company report", "Queues grow without bound when no-", "body limits them at the door."],
    ["Company report", "A second page follows the first one here."],
    ["Company report", "And a third page ends it all, quietly."],
]


def word(build):
    document = docx.Document()
    build(document)
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def test_a_pdf_loses_running_heads_and_hyphens():
    parsed = parse(pdf(PAGES, "Annual"), PDF)
    assert parsed.title == "Annual"
    text = " ".join(block.text for block in parsed.blocks)
    assert "when nobody limits them at the door." in text
    assert "Company report" not in text


def test_a_pdf_s_outline_gives_its_headings():
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf([["Opening words of it."], *PAGES]))))
    writer.add_outline_item("A second page follows the first one here.", page_number=2)
    out = io.BytesIO()
    writer.write(out)
    passages = split_document(out.getvalue(), "d", PDF, language="en")
    assert passages[-1].heading == "A second page follows the first one here."


def test_an_encrypted_pdf_says_so():
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf(PAGES))))
    writer.encrypt("secret", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    with pytest.raises(BadDocument, match="password"):
        parse(out.getvalue(), PDF)


def test_a_scanned_pdf_asks_for_ocr():
    with pytest.raises(BadDocument, match="OCR"):
        parse(pdf([[], ["1"]]), PDF)


def test_docx_structure_is_kept():
    def build(document):
        document.add_heading("The guide", 0)
        document.add_paragraph("Opening.")
        document.add_heading("First part", 1)
        document.add_paragraph("One.", style="List Bullet")
        document.add_paragraph("Two.", style="List Bullet")
        document.add_heading("Second part", 1)
        table = document.add_table(2, 2)
        for cell, text in zip(
            [c for row in table.rows for c in row.cells], ["k", "v", "a|b", "1"], strict=True
        ):
            cell.text = text

    passages = split_document(word(build), "d", DOCX, language="en")
    assert [(p.heading, p.text) for p in passages] == [
        ("", "Opening."),
        ("First part", "- One.\n- Two."),
        ("Second part", "| k | v |\n| --- | --- |\n| a\\|b | 1 |"),
    ]
    assert passages[0].title == "The guide"


def test_html_keeps_content_and_drops_the_rest():
    page = b"""<!doctype html><html lang="pt-BR"><head><title>Guia | Site</title>
    <style>p{}</style></head><body><nav><p>Menu</p></nav><main><h1>O guia</h1>
    <p>Abertura com <b>negrito</b>.</p><h2>Parte</h2><div>Solto<p>Par.</p></div>
    <ul><li>um<ul><li>dentro</li></ul></li><li>dois</li></ul>
    <pre>x = 1\n  y</pre><table><tr><th>a</th></tr><tr><td>b</td></tr></table>
    <script>alert(1)</script></main><footer>Rodape</footer></body></html>"""
    parsed = parse(page, HTML)
    assert (parsed.title, parsed.language) == ("O guia", "pt")
    assert parsed.blocks == [
        Block("heading", "O guia", 1),
        Block("paragraph", "Abertura com negrito."),
        Block("heading", "Parte", 2),
        Block("paragraph", "Solto"),
        Block("paragraph", "Par."),
        Block("list", "- um\n  - dentro\n- dois"),
        Block("code", "```\nx = 1\n  y\n```"),
        Block("table", "| a |\n| --- |\n| b |"),
    ]


@pytest.mark.parametrize(
    ("content", "media_type", "reason"),
    [
        (b"", TEXT, "empty"),
        (b"  \n ", MARKDOWN, "empty"),
        (b"# Only a heading", MARKDOWN, "only headings"),
        (b"<html><script>1</script></html>", HTML, "no text"),
        (b"a\x00b\x01\x02", TEXT, "binary"),
        (bytes(range(128, 256)), TEXT, "UTF-8"),
        ("ação".encode("latin-1"), MARKDOWN, "UTF-8"),
        (b"\x89PNG\r\n\x1a\n", TEXT, "binary"),
        (b"%PDF-1.7 ...", MARKDOWN, "binary"),
        (b"not a pdf", PDF, "named as a PDF"),
        (b"%PDF-1.4 broken", PDF, "damaged"),
        (b"not a zip", DOCX, "named as a DOCX"),
        (b"PK\x03\x04 broken", DOCX, "damaged"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", DOCX, "old .doc"),
    ],
)
def test_a_bad_file_says_what_is_wrong(content, media_type, reason):
    with pytest.raises(BadDocument, match=reason):
        parse(content, media_type)


def test_a_zip_that_is_no_docx_is_refused():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("hello.txt", "x")
    with pytest.raises(BadDocument, match="damaged"):
        parse(out.getvalue(), DOCX)


def test_a_zip_bomb_is_not_expanded():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(21):
            archive.writestr(f"{n}.xml", b"0" * 10_000_000)
    with pytest.raises(BadDocument, match="200 MB"):
        parse(out.getvalue(), DOCX)


def test_text_is_normalised():
    (block,) = parse("\ufeffac\u0327a\u0303o\r\nfim".encode(), TEXT).blocks
    assert block.text == "ação\nfim"
    assert parse("olá".encode("utf-16"), TEXT).blocks[0].text == "olá"


@pytest.mark.parametrize(
    ("declared", "name", "expected"),
    [
        ("application/octet-stream", "a.MD", MARKDOWN),
        ("text/html; charset=utf-8", None, HTML),
        ("text/plain", "notes.pdf", PDF),
        ("image/png", "a.png", None),
        (None, None, None),
    ],
)
def test_the_type_follows_the_name_then_the_declaration(declared, name, expected):
    assert media_type_of(declared, name) == expected


async def test_reading_in_a_process_of_its_own_gives_the_same():
    parsed = await read_file(pdf(PAGES), PDF, timeout=60, memory=1_500_000_000)
    assert parsed == parse(pdf(PAGES), PDF)
    with pytest.raises(BadDocument, match="damaged"):
        await read_file(b"%PDF-1.4 broken", PDF, timeout=60, memory=1_500_000_000)


async def test_reading_that_takes_too_long_is_ended():
    before = asyncio.get_running_loop().time()
    with pytest.raises(BadDocument, match="longer than"):
        await read_file(pdf(PAGES), PDF, timeout=0.01, memory=1_500_000_000)
    assert asyncio.get_running_loop().time() - before < 10
