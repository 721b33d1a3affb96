"""Seconds where milliseconds are asked for."""

import time


def run_stages(stages, state, timings, clock=time.perf_counter):
    began = clock()
    for name, stage in stages.items():
        started, status = clock(), "failed"
        try:
            state[name] = stage(state)
            status = "ok"
        finally:
            row = {"stage": name, "start_ms": started - began, "status": status}
            timings.append(row | {"ms": clock() - started})
    return state
