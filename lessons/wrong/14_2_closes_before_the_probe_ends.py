"""Takes the end of the pause for the end of the fault."""


def may_call(circuit, now):
    if circuit.opened_at is not None and now - circuit.opened_at >= circuit.reset:
        circuit.opened_at, circuit.failures = None, 0
    return circuit.opened_at is None
