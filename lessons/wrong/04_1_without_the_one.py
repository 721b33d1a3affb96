"""The older form, without the 1: a word that most passages hold gets a negative weight."""

import math


def inverse_document_frequency(passages, holding):
    return math.log((passages - holding + 0.5) / (holding + 0.5))
