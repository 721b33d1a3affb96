"""A caller who leaves is counted against the service."""


def record(circuit, succeeded, now):
    circuit.probing = False
    if succeeded:
        circuit.failures, circuit.opened_at = 0, None
    else:
        circuit.failures += 1
        if circuit.failures >= circuit.threshold or circuit.opened_at is not None:
            circuit.opened_at = now
