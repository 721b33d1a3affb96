"""Draws from the module `random`: no test can repeat it."""

import random


def pick(in_flight, draw):
    places = range(len(in_flight))
    return min(random.sample(places, min(2, len(places))), key=lambda place: in_flight[place])
