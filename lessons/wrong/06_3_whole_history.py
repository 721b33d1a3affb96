"""Every earlier subject comes along, also those that the talk has left."""

from services.query_preprocessing.intent import content_words
from services.query_preprocessing.rewrite import topic


def standalone(question, language, history):
    topics, own = [], set(content_words(question, language))
    topics = [t for earlier in history[-3:] if (t := topic(earlier, language))]
    subject = "; ".join(t for t in topics if not set(content_words(t, language)) <= own)
    return (f"{question} ({subject})", subject) if subject else (question, "")
