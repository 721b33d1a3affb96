"""The checks of lesson 06."""

from __future__ import annotations

import random
import unicodedata

from services.query_preprocessing import rewrite, spelling
from services.query_preprocessing.spelling import Candidate
from workshop.exercises import check

# -- 06.1 ---------------------------------------------------------------------------------


def cleaned(core, text):
    found = core.normalize(text)
    assert found is not None, "the function returns nothing: is there a return?"
    good = isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], str)
    assert good, f"return a pair, the clean text and the list of names, not {found!r}"
    return found[0], list(found[1])


def shown(text):
    """As Python writes it; decomposed letters by their numbers, because they look like others."""
    return repr(text) if unicodedata.is_normalized("NFC", text) else ascii(text)


def becomes(core, text, expected, hint):
    found = cleaned(core, text)[0]
    said = f"{shown(text)} became {shown(found)}, not {shown(expected)}"
    assert found == expected, f"{said}: {hint}"


@check("06.1", "query_preprocessing", "cleaning.py")
def clean_text_stays(cleaning):
    """A clean text stays as it is, and no change is named."""
    for text in ("O que é HNSW?", "US, not us: ef_search = 10²", "why? - that's all"):
        found = cleaned(cleaning, text)
        assert found[0] == text, (
            f"{text!r} became {shown(found[0])}, and there was nothing to change"
        )
        assert found[1] == [], f"{text!r} needed no change, and {found[1]} are named"


@check("06.1", "query_preprocessing", "cleaning.py")
def capitals_stay(cleaning):
    """Capitals stay: names and acronyms are known by them."""
    becomes(
        cleaning, " What does REST  cost in the US?", "What does REST cost in the US?", "keep case"
    )


@check("06.1", "query_preprocessing", "cleaning.py")
def accents_stay(cleaning):
    """Accents stay, and are composed."""
    becomes(cleaning, "late\u0302ncia e me\u0301dia", "latência e média", "NFC composes, and keeps")
    becomes(cleaning, "O que é?", "O que é?", "without its accent it is another word")


@check("06.1", "query_preprocessing", "cleaning.py")
def meaning_stays(cleaning):
    """Powers and ligatures are not replaced: that is NFKC, and changes numbers."""
    becomes(cleaning, "10² ﬁles", "10² ﬁles", "use NFC; NFKC makes another number of 10²")


@check("06.1", "query_preprocessing", "cleaning.py")
def the_invisible_goes(cleaning):
    """What nobody sees goes, and leaves no gap."""
    becomes(cleaning, "clo\u200bse", "close", "replace what INVISIBLE matches by nothing")
    becomes(
        cleaning,
        "soft\u00adhyphen\ufeff",
        "softhyphen",
        "replace what INVISIBLE matches by nothing",
    )


@check("06.1", "query_preprocessing", "cleaning.py")
def a_line_end_separates(cleaning):
    """A tab or a line end becomes a space, and spaces become one."""
    becomes(cleaning, "one\ntwo\tthree", "one two three", "what CONTROL matches is a space")
    becomes(cleaning, "  a\u00a0\u2003b \n c  ", "a b c", "any white space, also at the ends")


@check("06.1", "query_preprocessing", "cleaning.py")
def quotes_and_marks(cleaning):
    """Curly quotes are made straight, and repeated marks one."""
    becomes(cleaning, "“What’s” it – …", '"What\'s" it – ...', "translate with STRAIGHT")
    becomes(cleaning, "why???!!", "why?", "REPEATED_MARK becomes its group 1")


@check("06.1", "query_preprocessing", "cleaning.py")
def changes_are_named(cleaning):
    """Each change is named, in order, and no other."""
    for text, names in (
        ("cafe\u0301", ["Unicode NFC"]),
        ("clo\u200bse", ["invisible"]),
        ("a\tb", ["control"]),
        ("“a”", ["quotes"]),
        ("why??", ["marks"]),
        (" a  b ", ["spaces"]),
        (
            "  “cafe\u0301”\u200b\n??",
            ["Unicode NFC", "invisible", "control", "quotes", "marks", "spaces"],
        ),
    ):
        found = cleaned(cleaning, text)[1]
        assert found == names, f"{text!r}: named {found}, and it was {names}"


# -- 06.2 ---------------------------------------------------------------------------------

MODEL, MODULE, MODE = (
    Candidate("model", 0.8, 7.1),
    Candidate("module", 1.0, 3.3),
    Candidate("mode", 1.0, 2.3),
)


def chosen(core, passages=(), dictionary=(), *, known=(), word="modle", edit_cost=8.0, asked=None):
    def near(name, candidates):
        def look(text):
            assert text == word, f"{name} was asked for {text!r}, and {word!r} was typed"
            if asked is not None:
                asked.append(name)
            return list(candidates)

        return look

    return core.choose(
        word,
        known=lambda text: text in known,
        passages=near("passages", passages),
        dictionary=near("dictionary", dictionary),
        edit_cost=edit_cost,
    )


@check("06.2", "query_preprocessing", "choice.py")
def the_table_of_the_lesson(choice):
    """modle: model, of three candidates."""
    found = chosen(choice, [MODE, MODEL, MODULE])
    assert found is not None, "nothing was chosen: is there a return?"
    assert not isinstance(found, Candidate), "return the candidate's word, not the candidate"
    assert found == "model", f"got {found!r}: model has the highest weight - 8 * cost, 0.7"


@check("06.2", "query_preprocessing", "choice.py")
def a_known_word_is_safe(choice):
    """A known word is left alone, however good a candidate looks."""
    found = chosen(choice, [Candidate("embeddings", 0.1, 9.0)], known=("qdrant",), word="qdrant")
    assert found is None, f"qdrant is known, and became {found!r}: a right word was spoiled"


@check("06.2", "query_preprocessing", "choice.py")
def both_parts_count(choice):
    """Neither the most common word nor the nearest wins alone."""
    common, near = Candidate("common", 2.0, 9.0), Candidate("nearer", 0.4, 2.0)
    found = chosen(choice, [common, near])
    assert found == "nearer", f"got {found!r}: 2.0 - 8 * 0.4 is more than 9.0 - 8 * 2.0"
    common, near = Candidate("common", 1.0, 9.0), Candidate("nearer", 0.8, 2.0)
    found = chosen(choice, [near, common])
    assert found == "common", f"got {found!r}: 9.0 - 8 * 1.0 is more than 2.0 - 8 * 0.8"


@check("06.2", "query_preprocessing", "choice.py")
def the_price_of_an_edit_is_given(choice):
    """`edit_cost` is the parameter, not always 8."""
    common, near = Candidate("common", 2.0, 9.0), Candidate("nearer", 0.4, 2.0)
    found = chosen(choice, [near, common], edit_cost=1.0)
    assert found == "common", f"got {found!r}: with edit_cost = 1, 9 - 2 is more than 2 - 0.4"


@check("06.2", "query_preprocessing", "choice.py")
def passages_first(choice):
    """A candidate of the passages comes before any of the dictionary."""
    asked = []
    found = chosen(choice, [MODE], [Candidate("model", 0.1, 20.0)], asked=asked)
    assert found == "mode", f"got {found!r}: the passages have a candidate, so it is theirs"
    assert asked == ["passages"], f"asked {asked}: the dictionary only where passages offer none"
    found = chosen(choice, [], [MODE, MODEL])
    assert found == "model", f"got {found!r}: the passages offer none, so the dictionary's best"


@check("06.2", "query_preprocessing", "choice.py")
def no_candidate_no_correction(choice):
    """Without a candidate the word is left alone."""
    found = chosen(choice, word="xyzzy")
    assert found is None, f"got {found!r}: nothing is near, so None leaves the word alone"


@check("06.2", "query_preprocessing", "choice.py")
def equals_by_alphabet(choice):
    """Equal scores: the first in the alphabet, in whatever order they come."""
    pair = [Candidate("store", 1.0, 4.0), Candidate("stone", 1.0, 4.0)]
    for candidates in (pair, pair[::-1]):
        found = chosen(choice, candidates)
        assert found == "stone", f"got {found!r}: stone and store are equal, so stone"


@check("06.2", "query_preprocessing", "choice.py")
def same_choice_as_the_reference(choice):
    """On five hundred drawn words it agrees with the reference."""
    draw = random.Random(6)
    for _ in range(500):
        lists = [
            [
                Candidate(f"w{n}", draw.choice([0.4, 0.8, 1.0, 1.15, 2.0]), draw.randint(0, 9))
                for n in draw.sample(range(20), draw.randint(0, 4))
            ]
            for _ in range(2)
        ]
        known = draw.choice([(), (), ("modle",)])
        mine = chosen(choice, *lists, known=known)
        right = chosen(spelling, *lists, known=known)
        said = "a known word" if known else f"a word that is not known, {lists[0] or lists[1]}"
        assert mine == right, f"for {said}: it chose {mine!r}, not {right!r}"


# -- 06.3 ---------------------------------------------------------------------------------

BREAKER = "When does a circuit breaker open?"
OUTBOX = "What is an outbox?"


def alone(core, question, history, language="en"):
    before = list(history)
    found = core.standalone(question, language, history)
    assert history == before, "the history must stay as it is"
    assert found is not None, "the function returns nothing: is there a return?"
    good = isinstance(found, tuple) and len(found) == 2
    assert good, f"return a pair, the question and the subject, not {found!r}"
    return found


@check("06.3", "query_preprocessing", "follow_up.py")
def the_subject_comes_along(follow_up):
    """The last question's topic is put in brackets behind the question."""
    question, subject = alone(follow_up, "And when does it close?", [BREAKER])
    assert subject == "circuit breaker open", f"the subject is {subject!r}: topic(text, language)"
    right = "And when does it close? (circuit breaker open)"
    assert question == right, f"got {question!r}, not {right!r}"


@check("06.3", "query_preprocessing", "follow_up.py")
def also_in_portuguese(follow_up):
    """Portuguese has its own function words."""
    question, _ = alone(follow_up, "E quando ele fecha?", ["Quando o disjuntor abre?"], "pt")
    right = "E quando ele fecha? (disjuntor abre)"
    assert question == right, f"got {question!r}: hand the language on"


@check("06.3", "query_preprocessing", "follow_up.py")
def only_as_far_as_needed(follow_up):
    """A last question that stands alone is enough: older subjects stay away."""
    question, subject = alone(follow_up, "And who invented it?", [BREAKER, OUTBOX])
    assert subject == "outbox", f"the subject is {subject!r}: the talk has moved on from breakers"
    assert "breaker" not in question, "older questions only count when the last is a follow-up"


@check("06.3", "query_preprocessing", "follow_up.py")
def through_a_follow_up(follow_up):
    """When the last question is a follow-up itself, the one before it is taken along."""
    history = ["What is BM25?", "How does it rank?"]
    _, subject = alone(follow_up, "And who invented it?", history)
    assert subject == "BM25; rank", f"the subject is {subject!r}: BM25 first, as in the talk"


@check("06.3", "query_preprocessing", "follow_up.py")
def at_most_three_back(follow_up):
    """It looks at the last three questions, and no further."""
    history = [BREAKER, "And how does it rank?", "And why does it score?", "And when does it fail?"]
    _, subject = alone(follow_up, "And who invented it?", history)
    assert "breaker" not in subject, f"the subject is {subject!r}: the breaker is four back"
    assert subject == "rank; score; fail", f"the subject is {subject!r}"


@check("06.3", "query_preprocessing", "follow_up.py")
def nothing_twice(follow_up):
    """A topic that the question has already is left out."""
    question, subject = alone(follow_up, "And when does the circuit breaker open?", [BREAKER])
    assert subject == "", f"the subject is {subject!r}: the question has all of it already"
    assert question == "And when does the circuit breaker open?", f"got {question!r}"


@check("06.3", "query_preprocessing", "follow_up.py")
def nothing_to_take(follow_up):
    """Without a history, or a topic in it, the question stays as it is."""
    for history in ([], ["And that?"], ["Why?"]):
        question, subject = alone(follow_up, "And when?", history)
        assert question == "And when?", f"got {question!r}: {history} has no topic to take along"
        assert subject == "", f"the subject is {subject!r}: {history} has none, so it is empty"


@check("06.3", "query_preprocessing", "follow_up.py")
def same_subjects_as_the_reference(follow_up):
    """On the handbook's own follow-ups, with longer talks, it agrees with the reference."""
    import json

    from workshop import paths

    with open(paths.ROOT / "handbook" / "questions.jsonl", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["kind"] == "follow_up"]
    draw = random.Random(6)
    for row in rows:
        others = [r for r in rows if r["language"] == row["language"]]
        earlier = [q for r in draw.sample(others, 2) for q in (*r["history"], r["question"])]
        for history in (row["history"], earlier, [*earlier, *row["history"]]):
            found = alone(follow_up, row["question"], list(history), row["language"])
            right = rewrite.standalone(row["question"], row["language"], history)
            assert found == right, (
                f"{row['question']!r} after {history}: {found[1]!r}, not {right[1]!r}"
            )
