"""Addresses: who listens where, who is told about whom, and what the person's variables change."""

from __future__ import annotations

from pathlib import Path

from workshop import catalogue


def specs(environ: dict[str, str] | None = None) -> dict[str, catalogue.ProcessSpec]:
    plan = catalogue.plan(
        8000,
        model_settings={"EMBEDDING_MODEL_DIR": "/models/e5", "LLM_MODEL_PATH": "/models/llm.gguf"},
        broker_command=("nats-server", "--config", "x"),
        home=Path("/home"),
        environ=environ or {},
    )
    return {spec.name: spec for spec in plan}


def test_ports_follow_the_design() -> None:
    assert catalogue.ports(8000, {}) == {
        "gateway": 8000,
        "orchestrator": 8001,
        "query_preprocessing": 8002,
        "embedding": 8003,
        "dense_retrieval": 8004,
        "sparse_retrieval": 8005,
        "hybrid_search": 8006,
        "reranking": 8007,
        "context_aggregation": 8008,
        "generation": 8009,
        "post_processing": 8010,
        "feedback": 8011,
        "ingestion": 8012,
        "llm_server": 8020,
        "broker": 8021,
    }


def test_a_port_of_the_persons_own_moves_the_service_and_those_who_call_it() -> None:
    found = specs({"DENSE_PORT": "9004"})
    assert found["dense_retrieval"].environment["DENSE_PORT"] == "9004"
    assert found["hybrid_search"].environment["HYBRID_DENSE_URL"] == "http://127.0.0.1:9004"
    assert found["ingestion_worker"].environment["INGESTION_DENSE_URL"] == "http://127.0.0.1:9004"


def test_each_process_gets_its_own_model_and_no_other() -> None:
    found = specs()
    assert found["embedding"].environment["EMBEDDING_MODEL_DIR"] == "/models/e5"
    assert "LLM_MODEL_PATH" not in found["embedding"].environment
    assert found["generation"].environment["GENERATION_LLM_URL"] == "http://127.0.0.1:8020/v1"
    assert found["feedback"].environment["FEEDBACK_BROKER_URL"] == "nats://127.0.0.1:8021"


def test_callers_stop_before_those_they_call() -> None:
    tiers = {entry.name: entry.tier for entry in catalogue.CATALOGUE}
    for entry in catalogue.CATALOGUE:
        for setting, target in entry.calls.items():
            if setting != "VOCABULARY_URL":  # fetched now and then, kept between
                assert tiers[target] < entry.tier, (entry.name, target)


def test_a_spec_survives_json_and_the_environment_of_the_person_wins(monkeypatch) -> None:
    spec = specs()["embedding"]
    assert catalogue.ProcessSpec.from_json(spec.to_json()) == spec
    monkeypatch.setenv("EMBEDDING_MODEL_DIR", "/mine")
    assert spec.full_environment()["EMBEDDING_MODEL_DIR"] == "/mine"
    other = spec.replaced(module="", command=["run"], env={"EMBEDDING_MODEL_DIR": "/swapped"})
    assert other.full_environment()["EMBEDDING_MODEL_DIR"] == "/swapped"
    assert (other.port, other.module, other.command) == (spec.port, "", ("run",))
