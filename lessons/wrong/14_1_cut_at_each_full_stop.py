"""Takes the point of a number for the end of a sentence."""


def extractive_answer(sources, limit=2):
    found = [s for s in sources if s["text"].strip()][:limit]
    return " ".join(f"{s['text'].split('.')[0]}. [{s['number']}]" for s in found)
