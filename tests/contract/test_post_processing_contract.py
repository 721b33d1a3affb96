"""The contract of post_processing."""

import pytest

pytestmark = pytest.mark.system

TEXTS = {
    "en": "A circuit breaker opens after five failures in a row. Then calls fail at once.",
    "pt": "Um circuit breaker abre depois de cinco falhas seguidas. Então as chamadas falham.",
}
QUESTIONS = {
    "en": "When does a circuit breaker open?",
    "pt": "Quando um circuit breaker abre?",
}
ELSEWHERE = {
    "en": "Who bought the Netflix patent?",
    "pt": "Quem comprou a patente da Netflix?",
}
TRUE = {
    "en": "A circuit breaker opens after five failures in a row",
    "pt": "Um circuit breaker abre depois de cinco falhas seguidas",
}
FALSE = {
    "en": "Netflix sold its patent to a bank in 2013",
    "pt": "A Netflix vendeu a patente a um banco em 2013",
}


def source(number, language, text=None):
    return {
        "number": number,
        "id": f"{language}/circuit-breaker#{number}",
        "document": f"{language}/circuit-breaker",
        "title": "Circuit breakers",
        "heading": "",
        "language": language,
        "text": text or TEXTS[language],
        "passages": [f"{language}/circuit-breaker#{number}"],
    }


def check(http, answer, language="en", sources=None, **more):
    body = {
        "question": QUESTIONS[language],
        "answer": answer,
        "sources": [source(1, language)] if sources is None else sources,
        "language": language,
        "mode": "generated",
    }
    response = http.post("/v1/postprocess", json=body | more)
    assert response.status_code == 200, response.text
    result = response.json()
    assert 0 <= result["groundedness"] <= 1
    assert all({"check", "action", "detail"} <= set(one) for one in result["decisions"])
    return result


@pytest.mark.parametrize("language", ["en", "pt"])
def test_a_supported_answer_passes_with_its_citation(http, language):
    result = check(http, f"{TRUE[language]} [1].", language)
    assert not result["refused"]
    assert "[1]" in result["answer"]
    assert [one["number"] for one in result["citations"]] == [1]
    assert result["citations"][0]["text"] == TEXTS[language]
    assert result["groundedness"] == 1.0


@pytest.mark.parametrize("language", ["en", "pt"])
def test_a_missing_or_impossible_citation_is_put_right(http, language):
    for given in ("", " [7]"):
        result = check(http, f"{TRUE[language]}{given}.", language)
        assert "[1]" in result["answer"]
        assert "[7]" not in result["answer"]


@pytest.mark.parametrize("language", ["en", "pt"])
def test_what_no_source_supports_is_removed(http, language):
    result = check(http, f"{TRUE[language]} [1]. {FALSE[language]} [1].", language)
    assert "Netflix" not in result["answer"]
    assert result["groundedness"] < 1


@pytest.mark.parametrize("language", ["en", "pt"])
def test_nothing_supported_is_a_refusal_in_the_language_of_the_question(http, language):
    results = [
        check(http, f"{FALSE[language]} [1].", language, question=ELSEWHERE[language]),
        check(http, TRUE[language], language, sources=[]),
        check(http, "", language),
    ]
    assert all(result["refused"] and result["citations"] == [] for result in results)
    text = results[0]["answer"]
    assert (" não " in f" {text.lower()} ") == (language == "pt")


@pytest.mark.parametrize("language", ["en", "pt"])
def test_what_no_source_supports_is_never_shown(http, language):
    result = check(http, f"{FALSE[language]} [1].", language)
    assert "Netflix" not in result["answer"]
    # The source speaks of just this question: its own sentences may stand in.
    assert result["refused"] or TRUE[language] in result["answer"]


def test_personal_data_and_active_markup_do_not_leave(http):
    answer = (
        f"{TRUE['en']} [1]. <script>alert(1)</script> Then calls fail at once, says "
        "ana.souza@acme.com.br ![x](https://evil.io/x.png) [1]."
    )
    text = check(http, answer)["answer"]
    for part in ("<script", "@acme", "https://evil.io"):
        assert part not in text


@pytest.mark.parametrize(
    ("number", "masked"),
    [("390.533.447-05", True), ("390.533.447-06", False), ("111.111.111-11", False)],
)
def test_a_cpf_is_masked_and_what_only_looks_like_one_is_not(http, number, masked):
    text = f"A circuit breaker opens after five failures in a row, says {number}."
    result = check(http, f"{text} [1]", sources=[source(1, "en", text)])
    assert not result["refused"]
    for shown in (result["answer"], result["citations"][0]["text"]):
        assert (number not in shown) == masked


def test_an_extractive_answer_keeps_its_sentences(http):
    result = check(http, TEXTS["en"], mode="extractive")
    assert not result["refused"]
    assert result["groundedness"] == 1.0


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"question": ""}, "question"),
        ({"answer": 3}, "answer"),
        ({"mode": "other"}, "mode"),
        ({"sources": "none"}, "sources"),
        ({"sources": [source(0, "en")]}, "sources.0.number"),
        ({"extra": 1}, "extra"),
    ],
)
def test_bad_input_names_the_field(http, change, field):
    body = {"question": "q", "answer": "a", "sources": [], "language": "en", "mode": "generated"}
    response = http.post("/v1/postprocess", json=body | change)
    assert response.status_code == 422
    assert field in [error["field"] for error in response.json()["errors"]]
