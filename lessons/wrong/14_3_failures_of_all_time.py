"""Counts all failures, and not those in a row: every breaker opens in the end."""


def record(circuit, succeeded, now):
    circuit.probing = False
    if succeeded:
        circuit.opened_at = None
    elif succeeded is False:
        circuit.failures += 1
        if circuit.failures >= circuit.threshold or circuit.opened_at is not None:
            circuit.opened_at = now
