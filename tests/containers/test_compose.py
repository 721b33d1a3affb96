"""What compose makes of the files: hardened, bounded, healthy, one door; each step is whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from workshop import catalogue

ROOT = Path(__file__).parents[2]
STEPS = sorted(path.name for path in (ROOT / "compose").glob("step_*.yaml"))
ORDER = (
    ("02", {"embedding"}),
    ("03", {"dense_retrieval", "qdrant"}),
    ("04", {"sparse_retrieval"}),
    ("05", {"hybrid_search"}),
    ("06", {"query_preprocessing"}),
    ("07", {"reranking"}),
    ("08", {"context_aggregation"}),
    ("09", {"generation", "llm_server"}),
    ("10", {"post_processing"}),
    ("11", {"gateway", "orchestrator"}),
    ("12", {"feedback", "ingestion", "ingestion_worker", "broker", "postgres"}),
)


@pytest.mark.parametrize("file", ["compose.yaml", *STEPS])
def test_every_container_is_hardened_and_bounded(configuration, file):
    found = configuration(file, profiles=("*",))
    for name, service in found["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {"cpus", "memory", "pids"} <= service["deploy"]["resources"]["limits"].keys(), name
        for volume in service.get("volumes", []):
            assert volume["type"] == "volume" or volume.get("read_only"), (name, volume)
        secret = [
            key for key in service.get("environment", {}) if key.endswith(("_KEY", "PASSWORD"))
        ]
        assert secret == [], name
    assert found["networks"]["internal"]["internal"] is True


@pytest.mark.parametrize("file", ["compose.yaml", *STEPS])
def test_one_door_is_open_on_the_loopback_interface_alone(configuration, file):
    services = configuration(file)["services"]
    published = {name: s["ports"] for name, s in services.items() if s.get("ports")}
    door = "gateway" if "gateway" in services else "monolith"
    assert published.keys() == {door}
    assert [port["host_ip"] for port in published[door]] == ["127.0.0.1"]


def test_each_step_has_what_the_lessons_before_it_took_out(configuration):
    expected: set[str] = {"monolith"}
    for (number, new), file in zip(ORDER, STEPS, strict=True):
        assert file == f"step_{number}.yaml"
        expected |= new
        if number == "12":
            expected -= {"monolith"}
        assert configuration(file)["services"].keys() == expected, number


def test_what_has_moved_out_is_asked_of_its_service(configuration):
    for number, file in enumerate(STEPS[:-1], start=2):
        services = configuration(file)["services"]
        asked = {
            value.removeprefix("http://").split(":")[0]
            for key, value in services["monolith"]["environment"].items()
            if key.endswith("_URL")
        }
        beside = {"monolith", "qdrant", "llm_server", "gateway", "orchestrator"}
        assert asked == services.keys() - beside, number


def test_the_offline_form_has_no_qdrant_and_differs_in_settings_only(configuration):
    whole = configuration("compose.yaml")["services"]
    offline = configuration("compose.yaml", "offline/compose.yaml")["services"]
    assert whole.keys() - offline.keys() == {"qdrant"}
    changed = {name for name in offline if offline[name] != whole[name]}
    assert changed == {"dense_retrieval"}
    assert offline["dense_retrieval"]["environment"]["DENSE_STORE"] == "edge"
    assert whole["dense_retrieval"]["environment"]["DENSE_STORE"] == "client"


@pytest.mark.parametrize("step", [name for name in STEPS if name != "step_02.yaml"])
def test_the_offline_form_goes_with_each_step_that_has_a_store(configuration, step):
    """Step 02 has no dense_retrieval yet: there `workshop up` leaves the offline form out."""
    services = configuration(step, "offline/compose.yaml")["services"]
    assert configuration(step)["services"].keys() - services.keys() == {"qdrant"}
    dense = services["dense_retrieval"]
    assert dense["image"].endswith("-edge")
    assert dense["build"]["dockerfile"] == "services/dense_retrieval/Dockerfile"
    assert "qdrant" not in dense["depends_on"]


def test_the_profile_scale_puts_a_second_replica_behind_the_name(configuration):
    services = configuration("compose.yaml", profiles=("scale",))["services"]
    for name in ("embedding", "reranking"):
        second = services[f"{name}_2"]
        assert second["image"] == services[name]["image"]
        assert second["environment"] == services[name]["environment"]
        assert second["networks"]["internal"]["aliases"] == [name]


def test_prometheus_scrapes_every_service_at_its_port(configuration):
    found = yaml.safe_load((ROOT / "compose" / "prometheus.yaml").read_text())
    scraped = {s["names"][0]: s["port"] for s in found["scrape_configs"][0]["dns_sd_configs"]}
    expected = {
        e.name: 8000 + e.offset for e in catalogue.CATALOGUE if e.prefix and e.offset is not None
    }
    assert scraped == expected | {"ingestion_worker": 8013}


def test_development_publishes_every_service_on_loopback_at_its_own_port(configuration):
    services = configuration("compose.yaml", "dev.yaml")["services"]
    for name, service in services.items():
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name
            assert port["published"] == str(port["target"]), name
    assert {n for n, s in services.items() if not s.get("ports")} == {
        "postgres",
        "qdrant",
        "ingestion_worker",
    }


def test_the_profile_learner_puts_a_learners_image_in_the_place_of_the_reference(
    configuration, monkeypatch
):
    monkeypatch.setenv("LEARNER", "reranking")
    services = configuration("compose.yaml", profiles=("learner",))["services"]
    learner, reference = services["learner"], services["reranking"]
    assert learner["image"] == "rag-workshop/reranking:mine"
    assert learner["build"]["args"]["REFERENCE"] == reference["image"]
    assert learner["networks"]["internal"]["aliases"] == ["reranking"]
    same = ("environment", "volumes", "deploy", "read_only", "cap_drop", "security_opt")
    assert {key: learner[key] for key in same} == {key: reference[key] for key in same}
