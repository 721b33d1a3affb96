"""Prefers the lower place when both are equally busy: the last copy idles."""


def pick(in_flight, draw):
    places = draw.sample(range(len(in_flight)), min(2, len(in_flight)))
    return min(sorted(places), key=lambda place: in_flight[place])
