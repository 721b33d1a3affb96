"""k1 and b are taken and not used."""


def term_frequency(count, length, average, *, k1=1.2, b=0.75):
    return count * 2.2 / (count + 1.2 * (0.25 + 0.75 * length / average))
