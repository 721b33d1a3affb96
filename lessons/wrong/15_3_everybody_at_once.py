"""Takes every user for a question in each second."""

import math


def machines(users, think_s, answer_s, core_ms, cores, busy=0.6, spare=1):
    return math.ceil(users * core_ms / 1000 / (cores * busy)) + spare
