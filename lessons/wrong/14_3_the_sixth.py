"""More than the threshold, in place of as many."""


def record(circuit, succeeded, now):
    circuit.probing = False
    if succeeded:
        circuit.failures, circuit.opened_at = 0, None
    elif succeeded is False:
        circuit.failures += 1
        if circuit.failures > circuit.threshold or circuit.opened_at is not None:
            circuit.opened_at = now
