"""Collects the results apart: no stage sees those before it."""

import time


def run_stages(stages, state, timings, clock=time.perf_counter):
    began, results = clock(), {}
    for name, stage in stages.items():
        started, status = clock(), "failed"
        try:
            results[name] = stage(state)
            status = "ok"
        finally:
            row = {"stage": name, "start_ms": (started - began) * 1000, "status": status}
            timings.append(row | {"ms": (clock() - started) * 1000})
    return state | results
