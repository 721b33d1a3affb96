"""The old one is stopped first."""


def roll(old, start, wait_until_ready, switch, stop):
    stop(old)
    new = start()
    wait_until_ready(new)
    switch(new)
    return new
