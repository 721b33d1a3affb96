"""Without the factor k1 + 1, as Lucene has it since version 8: the order stays, scores do not."""


def term_frequency(count, length, average, *, k1=1.2, b=0.75):
    return count / (count + k1 * (1 - b + b * length / average))
