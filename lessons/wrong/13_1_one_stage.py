"""Stages are forgotten: all that stands below the first miss runs again."""

from pathlib import PurePosixPath


def runs_again(steps, changed):
    for number, step in enumerate(steps):
        if any(PurePosixPath(changed).is_relative_to(path) for path in step.sources):
            return steps[number:]
    return []
