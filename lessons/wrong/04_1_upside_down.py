"""The fraction is upside down: common words weigh the most."""

import math


def inverse_document_frequency(passages, holding):
    return math.log(1 + (holding + 0.5) / (passages - holding + 0.5))
