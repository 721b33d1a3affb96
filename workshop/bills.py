"""What the split of a service costs here: milliseconds, memory and bytes, measured now."""

from __future__ import annotations

import http.client
import json
import statistics
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from . import course, fixed, measure, system
from .errors import WorkshopError

ROUNDS = 60
WARM_UP = 5


@dataclass(frozen=True, slots=True)
class Line:
    """One service. Times are means in milliseconds, sizes in bytes a call.

    `inside` is what the service's own metrics count from the request's first byte to the
    answer's last; `on_the_way` is the rest of what the caller waited: HTTP, JSON, loopback.
    """

    service: str
    calls: int
    ms: float
    inside: float
    memory: int
    sent: int
    received: int

    @property
    def on_the_way(self) -> float:
        return max(0.0, self.ms - self.inside)


@dataclass(frozen=True, slots=True)
class Bill:
    lines: tuple[Line, ...]

    COLUMNS = ("service", "ms a call", "inside", "on the way", "memory MB", "sent B", "received B")

    def rows(self) -> list[tuple[str, ...]]:
        return [
            (
                line.service,
                f"{line.ms:.2f}",
                f"{line.inside:.2f}",
                f"{line.on_the_way:.2f}",
                f"{line.memory / 1e6:.0f}",
                f"{line.sent:.0f}",
                f"{line.received:.0f}",
            )
            for line in self.lines
        ]

    def __str__(self) -> str:
        rows = [self.COLUMNS, *self.rows()]
        widths = [max(len(row[n]) for row in rows) for n in range(len(self.COLUMNS))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if n == 0 else cell.rjust(width)
                for n, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in self.COLUMNS)
        body = "".join(
            "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in self.rows()
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def plot(self) -> None:
        """Bars: the time inside and on the way, the memory, the bytes of one call."""
        from matplotlib import pyplot as plt

        names = [line.service for line in self.lines]
        figure, axes = plt.subplots(1, 3, figsize=(10, 0.8 + 0.6 * len(names)), sharey=True)
        inside = [line.inside for line in self.lines]
        axes[0].barh(names, inside, label="inside")
        axes[0].barh(
            names, [line.on_the_way for line in self.lines], left=inside, label="on the way"
        )
        axes[0].set_xlabel("ms a call")
        # Above: one bar would fill the axes, and the legend lie on it.
        axes[0].legend(fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
        axes[1].barh(names, [line.memory / 1e6 for line in self.lines], color="tab:green")
        axes[1].set_xlabel("memory, MB")
        axes[2].barh(
            names, [(line.sent + line.received) / 1e3 for line in self.lines], color="tab:red"
        )
        axes[2].set_xlabel("kB a call")
        figure.tight_layout()
        plt.show()


def measure_bill(here: system.System, names: tuple[str, ...], rounds: int = ROUNDS) -> Bill:
    """Call each service as its callers do, `rounds` times over one open connection."""
    return Bill(tuple(_line(here, name, rounds) for name in names))


def _line(here: system.System, name: str, rounds: int) -> Line:
    probe = course.probe_of(name)
    questions = [row["question"] for row in fixed.fixed_questions()]
    bodies = [_filled(probe.body, question) for question in questions]
    connection = http.client.HTTPConnection(urlsplit(here.url(name)).netloc, timeout=30)
    try:
        for number in range(WARM_UP):
            _call(connection, name, probe.path, bodies[number % len(bodies)])
        counted, seconds = _inside(connection, probe.path)
        times, sent, received = [], [], []
        for number in range(rounds):
            body = bodies[number % len(bodies)]
            started = time.perf_counter()
            answer = _call(connection, name, probe.path, body)
            times.append((time.perf_counter() - started) * 1000)
            sent.append(len(body))
            received.append(len(answer))
        counted_after, seconds_after = _inside(connection, probe.path)
    finally:
        connection.close()
    calls = counted_after - counted
    pid = here.refresh().pids[name]
    return Line(
        name,
        rounds,
        statistics.fmean(times),
        (seconds_after - seconds) * 1000 / calls if calls else 0.0,
        measure.proportional_memory([pid]),
        round(statistics.fmean(sent)),
        round(statistics.fmean(received)),
    )


def _filled(body: dict[str, Any], question: str) -> bytes:
    filled = {k: question if v == "{question}" else v for k, v in body.items()}
    return json.dumps(filled, ensure_ascii=False).encode()


def _call(connection: http.client.HTTPConnection, name: str, path: str, body: bytes) -> bytes:
    connection.request("POST", path, body, {"content-type": "application/json"})
    response = connection.getresponse()
    answer = response.read()
    if not 200 <= response.status < 300:
        said = answer.decode("utf-8", "replace")[:200]
        raise WorkshopError(f"{name} answered {response.status}: {said}")
    return answer


def _inside(connection: http.client.HTTPConnection, path: str) -> tuple[float, float]:
    """(requests answered, seconds they took) on `path`, from the service's own /metrics."""
    from prometheus_client.parser import text_string_to_metric_families

    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    count = total = 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("route") == path:
                if sample.name == "http_request_duration_seconds_count":
                    count += sample.value
                elif sample.name == "http_request_duration_seconds_sum":
                    total += sample.value
    return count, total
