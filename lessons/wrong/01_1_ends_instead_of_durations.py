"""`ms` is the time since the beginning, not since the stage's own start."""

import time


def run_stages(stages, state, timings, clock=time.perf_counter):
    began = clock()
    for name, stage in stages.items():
        started, status = clock(), "failed"
        try:
            state[name] = stage(state)
            status = "ok"
        finally:
            row = {"stage": name, "start_ms": (started - began) * 1000, "status": status}
            timings.append(row | {"ms": (clock() - began) * 1000})
    return state
