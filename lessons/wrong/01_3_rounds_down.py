"""Rounds down: every copy is too busy."""


def copies(busy_ms, per_second, most=0.7):
    return {part: max(1, int(per_second * ms / 1000 / most)) for part, ms in busy_ms.items()}
