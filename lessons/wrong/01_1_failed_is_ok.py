"""The failed stage has a row, which says that it went well."""

import time


def run_stages(stages, state, timings, clock=time.perf_counter):
    began = clock()
    for name, stage in stages.items():
        started = clock()
        try:
            state[name] = stage(state)
        finally:
            row = {"stage": name, "start_ms": (started - began) * 1000, "status": "ok"}
            timings.append(row | {"ms": (clock() - started) * 1000})
    return state
