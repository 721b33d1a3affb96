"""What is taken from another stage is taken for unchanged."""

from pathlib import PurePosixPath


def runs_again(steps, changed):
    stages, again = set(), []
    for step in steps:
        reads = any(PurePosixPath(changed).is_relative_to(path) for path in step.sources)
        if reads or step.stage in stages:
            stages.add(step.stage)
            again.append(step)
    return again
