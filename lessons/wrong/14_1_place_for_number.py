"""Cites by the place in the list."""

from services.orchestrator.domain import sentences


def extractive_answer(sources, limit=2):
    found = []
    for place, source in enumerate(sources, 1):
        parts = sentences(source["text"])
        if parts and len(found) < limit:
            found.append(f"{parts[0]} [{place}]")
    return " ".join(found)
