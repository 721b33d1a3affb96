"""Notes a probe while closed: a healthy service gets one call at a time."""


def may_call(circuit, now):
    if circuit.probing:
        return False
    if circuit.opened_at is not None and now - circuit.opened_at < circuit.reset:
        return False
    circuit.probing = True
    return True
