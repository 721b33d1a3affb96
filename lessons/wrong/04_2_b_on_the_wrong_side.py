"""b and 1 - b are swapped."""


def term_frequency(count, length, average, *, k1=1.2, b=0.75):
    return count * (k1 + 1) / (count + k1 * (b + (1 - b) * length / average))
