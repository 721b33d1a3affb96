"""It gives back the one that it stopped."""


def roll(old, start, wait_until_ready, switch, stop):
    new = start()
    try:
        wait_until_ready(new)
        switch(new)
    except BaseException:
        stop(new)
        raise
    stop(old)
    return old
