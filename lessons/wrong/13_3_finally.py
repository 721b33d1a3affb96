"""The old one is stopped whatever happens."""


def roll(old, start, wait_until_ready, switch, stop):
    new = start()
    try:
        wait_until_ready(new)
        switch(new)
    except BaseException:
        stop(new)
        raise
    finally:
        stop(old)
    return new
