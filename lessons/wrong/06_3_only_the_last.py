"""Only the last question: where that is a follow-up itself, the subject is missing."""

from services.query_preprocessing.intent import content_words
from services.query_preprocessing.rewrite import topic


def standalone(question, language, history):
    own = set(content_words(question, language))
    subject = topic(history[-1], language) if history else ""
    if not subject or set(content_words(subject, language)) <= own:
        return question, ""
    return f"{question} ({subject})", subject
