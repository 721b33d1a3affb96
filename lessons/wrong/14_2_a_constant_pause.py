"""A second, whatever `reset` says."""


def may_call(circuit, now):
    if circuit.opened_at is None:
        return True
    if circuit.probing or now - circuit.opened_at < 1.0:
        return False
    circuit.probing = True
    return True
