"""Ctrl-C leaves the new one running."""


def roll(old, start, wait_until_ready, switch, stop):
    new = start()
    try:
        wait_until_ready(new)
        switch(new)
    except Exception:
        stop(new)
        raise
    stop(old)
    return new
