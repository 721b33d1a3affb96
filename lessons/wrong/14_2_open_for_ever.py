"""Once open, it never tries again."""


def may_call(circuit, now):
    return circuit.opened_at is None
