"""A caller who leaves is counted in the service's favour."""


def record(circuit, succeeded, now):
    circuit.probing = False
    if succeeded is False:
        circuit.failures += 1
        if circuit.failures >= circuit.threshold or circuit.opened_at is not None:
            circuit.opened_at = now
    else:
        circuit.failures, circuit.opened_at = 0, None
