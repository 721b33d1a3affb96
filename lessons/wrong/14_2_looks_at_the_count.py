"""Looks at the count, which `record` alone knows how to read."""


def may_call(circuit, now):
    if circuit.failures < circuit.threshold:
        return True
    if circuit.probing or now - circuit.opened_at < circuit.reset:
        return False
    circuit.probing = True
    return True
