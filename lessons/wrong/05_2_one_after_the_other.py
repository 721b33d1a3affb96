"""Asks one list after the other."""


async def ask_together(ask, names):
    answers = {}
    for name in names:
        try:
            answers[name] = await ask(name)
        except Exception as error:
            answers[name] = error
    return answers
