"""Rounds down."""


def machines(users, think_s, answer_s, core_ms, cores, busy=0.6, spare=1):
    return int(users / (think_s + answer_s) * core_ms / 1000 / (cores * busy)) + spare
