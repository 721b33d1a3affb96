"""Brackets also where there is no subject."""

from services.query_preprocessing.intent import content_words, follows_up
from services.query_preprocessing.rewrite import topic


def standalone(question, language, history):
    topics, own = [], set(content_words(question, language))
    for earlier in reversed(history[-3:]):
        found = topic(earlier, language)
        topics = [found, *topics] if found else topics
        if found and not follows_up(earlier, language):
            break
    subject = "; ".join(t for t in topics if not set(content_words(t, language)) <= own)
    return f"{question} ({subject})", subject
