"""A topic that the question has already is put there again."""

from services.query_preprocessing.intent import follows_up
from services.query_preprocessing.rewrite import topic


def standalone(question, language, history):
    topics = []
    for earlier in reversed(history[-3:]):
        found = topic(earlier, language)
        topics = [found, *topics] if found else topics
        if found and not follows_up(earlier, language):
            break
    subject = "; ".join(topics)
    return (f"{question} ({subject})", subject) if subject else (question, "")
