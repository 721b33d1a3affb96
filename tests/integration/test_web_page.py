"""What a person sees on the page, in a real browser, on the running system."""

import json
import shutil
import time
from collections.abc import Iterator

import httpx2
import pytest

pytestmark = pytest.mark.system

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
WAIT = 90_000
LANGUAGES = {
    "en": {
        "locale": "en-GB",
        "question": "What does a transactional outbox guarantee?",
        "follow_up": "And what problem does it solve?",
        "title": "Ask the documents",
        "ask": "Ask",
        "good": "Good answer",
        "thanks": "Thank you",
        "sources": "Sources",
        "new": "New conversation",
        "close": "Close",
        "document": "en/",
    },
    "pt": {
        "locale": "pt-BR",
        "question": "Qual a diferença entre uma fila e um tópico?",
        "title": "Pergunte aos documentos",
        "ask": "Perguntar",
        "good": "Boa resposta",
        "thanks": "Obrigado",
        "sources": "Fontes",
        "new": "Nova conversa",
        "close": "Fechar",
        "document": "pt/",
    },
}


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, indexed):
    """Opens the page; fails the test on an error in the console or a call to another site."""
    contexts, wrong = [], []

    def open_page(**options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
        home = indexed.url("gateway")
        page.on(
            "request",
            lambda sent: None if sent.url.startswith((home, "data:")) else wrong.append(sent.url),
        )
        page.goto(home)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def ask(page, question):
    page.locator("#question").fill(question)
    page.locator("#question").press("Enter")


@pytest.mark.parametrize("language", ["en", "pt"])
def test_a_person_asks_reads_opens_a_citation_and_votes(open_page, language):
    words = LANGUAGES[language]
    page = open_page(locale=words["locale"])
    given = []
    page.on(
        "response",
        lambda response: (
            given.append((response.request.post_data_json, response.status))
            if response.url.endswith("/v1/feedback")
            else None
        ),
    )
    # Every text that the draft ever shows, noted inside the page: tokens may come fast.
    page.evaluate(
        """() => {
            window.drafts = new Set();
            new MutationObserver(() => {
                const draft = document.querySelector(".answer.draft");
                if (draft) window.drafts.add(draft.textContent);
            }).observe(document.getElementById("turns"), {childList: true, subtree: true});
        }"""
    )
    assert page.get_by_role("heading", level=1).inner_text() == words["title"]
    assert page.locator("html").get_attribute("lang") == language
    assert page.locator("#examples button").count() >= 3

    page.get_by_label({"en": "Your question", "pt": "Sua pergunta"}[language]).fill(
        words["question"]
    )
    page.get_by_role("button", name=words["ask"], exact=True).click()
    turn = page.locator(".turn").first
    turn.get_by_role("heading", name=words["sources"]).wait_for()
    turn.locator(".trace").wait_for()

    assert turn.locator(".answer").get_attribute("lang") == language
    assert turn.locator(".answer").inner_text().strip()
    assert turn.locator(".answer.draft").count() == 0
    assert page.evaluate("window.drafts.size") >= 2, f"no tokens were seen: {turn.inner_text()}"
    assert turn.locator(".trace tbody tr").count() == 6

    assert turn.locator(".answer button.citation").count() >= 1, turn.inner_text()
    turn.locator(".answer button.citation").first.click()
    passage = page.locator("#passage")
    passage.wait_for()
    assert passage.get_by_role("heading").inner_text().strip()
    assert words["document"] in passage.locator(".where").inner_text()
    assert len(passage.locator(".text").inner_text()) > 20
    page.keyboard.press("Escape")
    assert not passage.is_visible()

    turn.get_by_role("button", name=words["good"]).click()
    turn.locator(".said", has_text=words["thanks"]).wait_for()
    assert turn.get_by_role("button", name=words["good"]).get_attribute("aria-pressed") == "true"
    turn.locator(".trace summary").click()
    request_id = turn.locator(".trace .id").inner_text().split()[-1]
    assert [(sent["kind"], sent["request_id"], status) for sent, status in given] == [
        ("citation_opened", request_id, 201),
        ("thumbs", request_id, 201),
    ]


def test_a_follow_up_continues_and_a_new_conversation_forgets(open_page):
    words = LANGUAGES["en"]
    page = open_page(locale=words["locale"])
    ask(page, words["question"])
    page.locator(".turn .trace").first.wait_for()
    ask(page, words["follow_up"])
    page.locator(".turn .trace").nth(1).wait_for()
    second = page.locator(".turn").nth(1).inner_text().lower()
    assert "outbox" in second, second
    page.get_by_role("button", name=words["new"]).click()
    assert page.locator(".turn").count() == 0
    assert page.locator("#examples").is_visible()
    assert page.evaluate("document.activeElement.id") == "question"


def test_the_language_of_the_page_can_be_switched_and_stays(open_page):
    page = open_page(locale="en-GB")
    page.get_by_role("button", name="Português").click()
    assert page.get_by_role("heading", level=1).inner_text() == LANGUAGES["pt"]["title"]
    page.reload()
    assert page.locator("html").get_attribute("lang") == "pt"


def test_a_refusal_is_said_in_plain_words(open_page):
    page = open_page(locale="en-GB")
    ask(page, "What is the capital of Mongolia?")
    turn = page.locator(".turn").first
    turn.locator(".trace").wait_for()
    assert turn.locator(".notice").is_visible()
    assert turn.locator("button.citation").count() == 0


def test_a_narrow_screen_in_the_dark_shows_everything(open_page):
    page = open_page(locale="pt-BR", color_scheme="dark", viewport={"width": 360, "height": 740})
    ask(page, LANGUAGES["pt"]["question"])
    page.locator(".turn .trace summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in background[4:-1].split(",")) < 60
    page.locator("#question").focus()
    assert page.locator("#ask").is_visible()


def test_a_document_is_added_with_its_progress(open_page, indexed):
    page = open_page(locale="en-GB")
    page.locator("#upload summary").click()
    page.locator("#file").set_input_files(
        {
            "name": "page-test.md",
            "mimeType": "text/markdown",
            "buffer": f"# Page test\n\nThe quibbler valve opens at {time.time()} bar.".encode(),
        }
    )
    page.locator("#upload-form button").click()
    page.locator("#uploads li", has_text="done, 1 passages").wait_for()
    with httpx2.Client(base_url=indexed.url("gateway")) as client:
        assert client.get("/v1/documents/page-test").json()["status"] == "done"
        assert client.delete("/v1/documents/page-test").status_code == 202


def test_an_error_is_the_sentence_of_the_problem_document(browser, indexed):
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.goto(indexed.url("gateway"))
    sentence = "Search is unavailable, so there is nothing to answer from."
    page.route(
        "**/v1/answer",
        lambda route: route.fulfill(
            status=503,
            content_type="application/problem+json",
            json={"type": "urn:x", "title": "t", "status": 503, "detail": sentence},
        ),
    )
    ask(page, "anything")
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text() == sentence
    context.close()


def test_text_of_the_model_is_never_run(browser, indexed):
    """An answer that tries: its markup is shown as text."""
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.goto(indexed.url("gateway"))
    evil = '<img src=x onerror="document.title=1"> **<script>document.title=2</script>** [1]'
    source = {
        "number": 1,
        "id": "a",
        "document": "a",
        "title": "<b>t</b>",
        "heading": "",
        "text": evil,
    }
    answer = {
        "id": "r",
        "conversation_id": "c" * 32,
        "question": "q",
        "language": "en",
        "answer": evil,
        "kind": "generated",
        "citations": [source],
        "sources": [],
        "groundedness": 1,
        "degraded": [],
        "suggestion": None,
        "timings": [],
    }
    page.route(
        "**/v1/answer",
        lambda route: route.fulfill(
            status=200,
            content_type="text/event-stream",
            body=f"event: answer\ndata: {json.dumps(answer)}\n\n",
        ),
    )
    ask(page, "q")
    page.locator(".turn .trace").wait_for()
    page.locator("button.citation").click()
    assert page.locator(".turn img, .turn script, dialog img, dialog script").count() == 0
    assert "<img src=x" in page.locator(".turn .answer").inner_text()
    assert page.title() == LANGUAGES["en"]["title"]
    context.close()


def test_a_key_is_asked_for_and_used(browser, indexed):
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.goto(indexed.url("gateway"))
    used = []

    def answer(route):
        used.append(route.request.headers.get("authorization"))
        if used[-1] == "Bearer rag_right":
            route.fulfill(
                status=503,
                content_type="application/problem+json",
                json={"detail": "Past the key."},
            )
        else:
            route.fulfill(status=401, json={"detail": "Send an API key."})

    page.route("**/v1/answer", answer)
    ask(page, "q")
    page.locator("#key-value").fill("rag_right")
    page.locator("#key-value").press("Enter")
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text() == "Past the key."
    assert used == [None, "Bearer rag_right"]
    context.close()
