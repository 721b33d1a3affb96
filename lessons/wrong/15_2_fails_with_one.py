"""Fails where there is one copy only."""


def pick(in_flight, draw):
    first, second = draw.sample(range(len(in_flight)), 2)
    return first if in_flight[first] <= in_flight[second] else second
