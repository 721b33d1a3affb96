"""Quotes the sources whole: no bound on the answer."""


def extractive_answer(sources, limit=2):
    return " ".join(f"{source['text']} [{source['number']}]" for source in sources[:limit])
