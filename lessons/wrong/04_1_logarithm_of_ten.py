"""Another base of the logarithm: the order stays, the scores do not."""

import math


def inverse_document_frequency(passages, holding):
    return math.log10(1 + (passages - holding + 0.5) / (holding + 0.5))
