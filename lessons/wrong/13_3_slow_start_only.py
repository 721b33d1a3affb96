"""Only a slow start is cleaned up, not a switch that fails."""


def roll(old, start, wait_until_ready, switch, stop):
    new = start()
    try:
        wait_until_ready(new)
    except BaseException:
        stop(new)
        raise
    switch(new)
    stop(old)
    return new
