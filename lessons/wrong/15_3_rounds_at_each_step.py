"""Rounds the questions a second up, and then the cores."""

import math


def machines(users, think_s, answer_s, core_ms, cores, busy=0.6, spare=1):
    per_second = math.ceil(users / (think_s + answer_s))
    working = math.ceil(per_second * core_ms / 1000)
    return math.ceil(working / (cores * busy)) + spare
