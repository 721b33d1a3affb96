"""Every stage is said to start at 0."""

import time


def run_stages(stages, state, timings, clock=time.perf_counter):
    for name, stage in stages.items():
        began = clock()
        started, status = clock(), "failed"
        try:
            state[name] = stage(state)
            status = "ok"
        finally:
            row = {"stage": name, "start_ms": (started - began) * 1000, "status": status}
            timings.append(row | {"ms": (clock() - started) * 1000})
    return state
