"""Sentences, list items and blocks: nothing is lost, nothing is cut."""

import time

import pytest

from services.context_aggregation.segments import join, sentences, units


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four…", ["One.", "Two!", "Three?", "Four…"]),
        ("It costs 3.5 ms. See v2.1 for more.", ["It costs 3.5 ms.", "See v2.1 for more."]),
        (
            "See M. Nygard, ch. 5, for it. Then stop.",
            ["See M. Nygard, ch. 5, for it.", "Then stop."],
        ),
        ("Use a cache, e.g. Redis. It helps.", ["Use a cache, e.g. Redis.", "It helps."]),
        ("O Dr. Silva, p. ex. Ana, leu. Sim.", ["O Dr. Silva, p. ex. Ana, leu.", "Sim."]),
        ("É rápido. Água também. Ótimo!", ["É rápido.", "Água também.", "Ótimo!"]),
        ('He said "stop." Then he left.', ['He said "stop."', "Then he left."]),
        ("The `a.b. C` call. **Bold** follows.", ["The `a.b. C` call.", "**Bold** follows."]),
        ("no capital. so it stays", ["no capital. so it stays"]),
        ("Chosen in 1994. 60 was the value.", ["Chosen in 1994.", "60 was the value."]),
        ("line one\nline two. Next", ["line one line two.", "Next"]),
        ("", []),
    ],
)
def test_sentences(text, expected):
    assert sentences(text) == expected


TEXT = """Three states exist. They are these:

- closed, where calls pass
- open, where they fail. At once.
- half-open

The breaker counts failures. It opens at five.

```python
breaker = Breaker(threshold=5)

breaker.call()
```

| state | calls |
|---|---|
| open | none |

After it all is well."""


def test_units_keep_blocks_whole_and_every_word():
    found = units(TEXT)
    blocks = [unit.text for unit in found if unit.block]
    assert blocks == [
        "```python\nbreaker = Breaker(threshold=5)\n\nbreaker.call()\n```",
        "| state | calls |\n|---|---|\n| open | none |",
    ]
    assert join(found).split() == TEXT.split()


def test_an_item_needs_the_line_that_introduces_the_list_and_a_pronoun_its_sentence():
    found = units(TEXT)
    at = {unit.text: number for number, unit in enumerate(found)}
    intro = at["They are these:"]
    assert found[at["- half-open"]].needs == intro
    assert found[intro].needs == at["Three states exist."]
    assert found[at["At once."]].needs == at["- open, where they fail."]
    assert found[at["It opens at five."]].needs == at["The breaker counts failures."]
    assert found[at["After it all is well."]].needs is None


@pytest.mark.parametrize(
    "text",
    [
        "." * 20_000,
        "A. " * 7_000,
        "e.g. A " * 3_000,
        "It is. " * 3_000,
        "`" * 20_000,
        "\n" * 20_000,
    ],
)
def test_hostile_text_takes_no_time(text):
    started = time.perf_counter()
    units(text)
    assert time.perf_counter() - started < 1.0


def test_an_unclosed_fence_is_still_one_block():
    assert [unit.block for unit in units("Text.\n```\ncode. More code.\nEven More.")] == [
        False,
        True,
    ]
