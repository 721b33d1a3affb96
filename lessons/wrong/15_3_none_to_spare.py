"""Forgets the machine to spare."""

import math


def machines(users, think_s, answer_s, core_ms, cores, busy=0.6, spare=1):
    return math.ceil(users / (think_s + answer_s) * core_ms / 1000 / (cores * busy))
