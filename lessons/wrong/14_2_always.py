"""No breaker at all."""


def may_call(circuit, now):
    return True
