"""Plans each copy to be busy all the time."""

import math


def copies(busy_ms, per_second, most=0.7):
    return {part: max(1, math.ceil(per_second * ms / 1000)) for part, ms in busy_ms.items()}
