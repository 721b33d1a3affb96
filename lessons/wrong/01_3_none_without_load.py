"""No load, no copy: the first question finds nobody."""

import math


def copies(busy_ms, per_second, most=0.7):
    return {part: math.ceil(per_second * ms / 1000 / most) for part, ms in busy_ms.items()}
