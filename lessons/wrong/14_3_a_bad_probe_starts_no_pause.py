"""After a bad probe the old pause counts, which is over: the next call is a probe at once."""


def record(circuit, succeeded, now):
    circuit.probing = False
    if succeeded:
        circuit.failures, circuit.opened_at = 0, None
    elif succeeded is False:
        circuit.failures += 1
        if circuit.failures >= circuit.threshold and circuit.opened_at is None:
            circuit.opened_at = now
