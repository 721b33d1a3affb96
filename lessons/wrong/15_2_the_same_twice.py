"""May draw the same copy twice, so that the busiest one gets calls."""


def pick(in_flight, draw):
    first, second = draw.randrange(len(in_flight)), draw.randrange(len(in_flight))
    return first if in_flight[first] <= in_flight[second] else second
