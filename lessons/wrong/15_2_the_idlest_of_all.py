"""Looks at all copies: many balancers would send to the same one at once."""


def pick(in_flight, draw):
    return min(range(len(in_flight)), key=lambda place: (in_flight[place], draw.random()))
