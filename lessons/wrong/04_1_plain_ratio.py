"""The textbook idf ln(N / n), which is zero for a word that all hold."""

import math


def inverse_document_frequency(passages, holding):
    return math.log(passages / holding)
