"""A bad probe begins the count anew: five more calls must fail."""


def record(circuit, succeeded, now):
    if succeeded or circuit.probing:
        circuit.failures, circuit.opened_at = 0, None
    circuit.probing = False
    if succeeded is False:
        circuit.failures += 1
        if circuit.failures >= circuit.threshold:
            circuit.opened_at = now
