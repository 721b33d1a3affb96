"""Looks at the first two, and not at the first two that have a sentence."""

from services.orchestrator.domain import sentences


def extractive_answer(sources, limit=2):
    found = [(sentences(source["text"]), source["number"]) for source in sources[:limit]]
    return " ".join(f"{parts[0]} [{number}]" for parts, number in found if parts)
