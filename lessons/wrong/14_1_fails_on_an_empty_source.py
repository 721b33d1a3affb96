"""Takes it for granted that there is a sentence."""

from services.orchestrator.domain import sentences


def extractive_answer(sources, limit=2):
    return " ".join(f"{sentences(s['text'])[0]} [{s['number']}]" for s in sources[:limit])
