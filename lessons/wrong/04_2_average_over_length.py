"""The ratio is upside down: short passages pay."""


def term_frequency(count, length, average, *, k1=1.2, b=0.75):
    return count * (k1 + 1) / (count + k1 * (1 - b + b * average / length))
