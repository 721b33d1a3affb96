"""When it fails, the new one is left running."""


def roll(old, start, wait_until_ready, switch, stop):
    new = start()
    wait_until_ready(new)
    switch(new)
    stop(old)
    return new
