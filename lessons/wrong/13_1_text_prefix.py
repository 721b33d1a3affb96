"""Paths are compared as text: services/one_more is taken for a file of services/one."""


def runs_again(steps, changed):
    stages, again = set(), []
    for step in steps:
        reads = any(p == "." or changed.startswith(p) for p in step.sources)
        if reads or step.stage in stages or step.takes_from in stages:
            stages.add(step.stage)
            again.append(step)
    return again
