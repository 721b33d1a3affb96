"""The steps after the one that reads the file, without it."""

from pathlib import PurePosixPath


def runs_again(steps, changed):
    stages, again = set(), []
    for step in steps:
        if step.stage in stages or step.takes_from in stages:
            stages.add(step.stage)
            again.append(step)
        if any(PurePosixPath(changed).is_relative_to(path) for path in step.sources):
            stages.add(step.stage)
    return again
