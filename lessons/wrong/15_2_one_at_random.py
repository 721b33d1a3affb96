"""One copy drawn at random, however busy it is."""


def pick(in_flight, draw):
    return draw.randrange(len(in_flight))
