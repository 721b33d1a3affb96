"""Reads a clock in place of `now`."""

import time


def may_call(circuit, now):
    if circuit.opened_at is None:
        return True
    if circuit.probing or time.monotonic() - circuit.opened_at < circuit.reset:
        return False
    circuit.probing = True
    return True
