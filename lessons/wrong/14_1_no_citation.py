"""Says nothing of where it comes from."""

from services.orchestrator.domain import sentences


def extractive_answer(sources, limit=2):
    return " ".join(sentences(source["text"])[0] for source in sources[:limit])
