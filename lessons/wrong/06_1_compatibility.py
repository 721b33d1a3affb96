"""NFKC: 10² becomes 102."""

import unicodedata

from services.query_preprocessing.text import CONTROL, INVISIBLE, REPEATED_MARK, STRAIGHT

NAMES = ("Unicode NFC", "invisible", "control", "quotes", "marks", "spaces")


def normalize(text):
    texts = [text, unicodedata.normalize("NFKC", text)]
    texts.append(INVISIBLE.sub("", texts[-1]))
    texts.append(CONTROL.sub(" ", texts[-1]))
    texts.append(texts[-1].translate(STRAIGHT))
    texts.append(REPEATED_MARK.sub(r"\1", texts[-1]))
    texts.append(" ".join(texts[-1].split()))
    return texts[-1], [name for n, name in enumerate(NAMES) if texts[n] != texts[n + 1]]
