"""Takes the busier one of the two."""


def pick(in_flight, draw):
    places = range(len(in_flight))
    return max(draw.sample(places, min(2, len(places))), key=lambda place: in_flight[place])
