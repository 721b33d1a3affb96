"""The halves are forgotten: a word that all hold weighs nothing."""

import math


def inverse_document_frequency(passages, holding):
    return math.log(1 + (passages - holding) / holding)
