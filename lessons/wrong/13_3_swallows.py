"""The error does not reach the caller."""


def roll(old, start, wait_until_ready, switch, stop):
    new = start()
    try:
        wait_until_ready(new)
        switch(new)
    except BaseException:
        stop(new)
        return old
    stop(old)
    return new
