"""A folder is not looked into."""


def runs_again(steps, changed):
    stages, again = set(), []
    for step in steps:
        if changed in step.sources or step.stage in stages or step.takes_from in stages:
            stages.add(step.stage)
            again.append(step)
    return again
