"""The whole earlier question with its function words, in place of its topic."""

from services.query_preprocessing.intent import follows_up


def standalone(question, language, history):
    topics = []
    for earlier in reversed(history[-3:]):
        topics = [earlier, *topics]
        if not follows_up(earlier, language):
            break
    subject = "; ".join(topics)
    return (f"{question} ({subject})", subject) if subject else (question, "")
