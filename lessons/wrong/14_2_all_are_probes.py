"""After the pause everybody is let through: a rush meets a service that has just come back."""


def may_call(circuit, now):
    return circuit.opened_at is None or now - circuit.opened_at >= circuit.reset
