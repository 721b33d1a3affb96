"""The capacity sheet: its laws by hand, its slopes from a report, its seam."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from workshop import capacity, paths
from workshop.errors import WorkshopError

SLOPES = capacity.Slopes(
    services_ms=100, model_ms=3000, answer_s=2, passage_bytes=2400, passage_ns=80
)


def test_machines_by_hand() -> None:
    # 320 users, a question every 32 s: 10 a second, 1 core for the services, of 9.6 that may work
    assert capacity.machines_for(320, 30, 2, 100, 16) == 1 + 1
    # 30 cores for the model: 3.125 machines
    assert capacity.machines_for(320, 30, 2, 3000, 16) == 4 + 1
    assert capacity.machines_for(320, 30, 2, 3000, 16, busy=1, spare=0) == 2


def test_nodes_by_hand() -> None:
    # 10⁹ passages of 2,400 bytes, three times: 7,200 GB; 44.8 GB of a machine hold vectors
    assert capacity.nodes_for(1_000_000_000, 2400) == 161
    assert capacity.nodes_for(1000, 2400) == capacity.COPIES


def test_the_sheet_uses_the_machines_that_it_is_given() -> None:
    asked = []

    def machines(users: float, *rest: float) -> int:
        asked.append((users, *rest))
        return 7

    found = capacity.sheet(SLOPES, machines=machines)
    assert {row["services"] for row in found.users} == {row["model"] for row in found.users} == {7}
    assert (10, 30.0, 2, 3000, 16) in asked
    text = str(found)
    assert "1,000,000" in text
    assert text.splitlines()[0].split()[-1] == "model"


def test_slopes_come_from_the_growing_collections_of_a_report(tmp_path: Path) -> None:
    report = tmp_path / "bench.json"
    rows = [
        {
            "what": f"dense search over {size:,} passages, p50",
            "value": f"{0.1 + size * 8e-5:.1f} ms",
            "note": f"top 50; {10 + size * 2400 / 1e6:.0f} MB; written at 9 passages/s",
        }
        for size in (10_000, 100_000)
    ]
    report.write_text(json.dumps({"figures": [*rows, {"what": "one hop", "value": "1 ms"}]}))
    passage_bytes, passage_ns = capacity.passage_slopes(report)
    assert passage_bytes == pytest.approx(2400, rel=0.01)
    assert passage_ns == pytest.approx(80, rel=0.02)
    report.write_text(json.dumps({"figures": rows[:1]}))
    with pytest.raises(WorkshopError, match="no growing collection"):
        capacity.passage_slopes(report)


def test_the_committed_report_has_the_slopes() -> None:
    """Qdrant's own rule is 1.5 times the vector: 384 × 4 × 1.5 = 2,304 bytes."""
    passage_bytes, passage_ns = capacity.passage_slopes()
    assert 1536 < passage_bytes < 2 * 1536
    assert passage_ns > 0


def test_the_copies_are_those_of_the_production_overlay() -> None:
    overlay = paths.ROOT / "compose" / "kubernetes" / "overlays" / "production"
    found = yaml.safe_load((overlay / "kustomization.yaml").read_text())
    (qdrant,) = [item for item in found["configMapGenerator"] if item["name"] == "qdrant"]
    settings = dict(line.split("=") for line in qdrant["literals"])
    assert settings["QDRANT__STORAGE__COLLECTION__REPLICATION_FACTOR"] == str(capacity.COPIES)
