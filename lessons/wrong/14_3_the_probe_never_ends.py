"""When the probe's caller leaves, `probing` stays, and nobody is ever let through."""


def record(circuit, succeeded, now):
    if succeeded is None:
        return
    circuit.probing = False
    if succeeded:
        circuit.failures, circuit.opened_at = 0, None
        return
    circuit.failures += 1
    if circuit.failures >= circuit.threshold or circuit.opened_at is not None:
        circuit.opened_at = now
