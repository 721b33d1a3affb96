"""Copies every part as often as all of them together need it."""

import math


def copies(busy_ms, per_second, most=0.7):
    needed = math.ceil(per_second * sum(busy_ms.values()) / 1000 / most)
    return dict.fromkeys(busy_ms, max(1, needed))
