"""Callers are sent to one that still loads its packages."""


def roll(old, start, wait_until_ready, switch, stop):
    new = start()
    switch(new)
    wait_until_ready(new)
    stop(old)
    return new
