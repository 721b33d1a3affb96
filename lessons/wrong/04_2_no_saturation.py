"""Every repetition counts in full."""


def term_frequency(count, length, average, *, k1=1.2, b=0.75):
    return count / (1 - b + b * length / average)
