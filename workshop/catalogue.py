"""Every process of the system: what it runs, where it listens, whom it calls.

A process gets its addresses and folders through environment variables only; what the person has
set in the environment wins over what is computed here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from . import paths

DEFAULT_PORT_BASE = 8000


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the catalogue.

    `tier` orders start and stop: low tiers start first and stop last. `calls` maps a setting
    (without the prefix) to the process whose URL it takes. `ready` is the path that answers 200
    once the process can do its job.
    """

    name: str
    offset: int | None
    prefix: str
    tier: int
    calls: Mapping[str, str] = field(default_factory=dict)
    module: str = ""
    ready: str = "/readyz"
    scheme: str = "http"


# Within a tier the order is the start order. What loads a model comes first: it takes longest.
CATALOGUE: tuple[Entry, ...] = (
    Entry("broker", 21, "", 0, ready="", scheme="nats"),
    Entry("llm_server", 20, "LLM_", 1, ready="/health"),
    Entry("embedding", 3, "EMBEDDING_", 1),
    Entry("reranking", 7, "RERANKING_", 1),
    Entry(
        "query_preprocessing",
        2,
        "PREPROCESSING_",
        2,
        {"VOCABULARY_URL": "sparse_retrieval", "LLM_URL": "llm_server"},
    ),
    Entry("post_processing", 10, "POST_PROCESSING_", 2),
    Entry("dense_retrieval", 4, "DENSE_", 2, {"EMBEDDING_URL": "embedding"}),
    Entry("sparse_retrieval", 5, "SPARSE_", 2),
    Entry("context_aggregation", 8, "CONTEXT_", 2),
    Entry("generation", 9, "GENERATION_", 2, {"LLM_URL": "llm_server"}),
    Entry(
        "hybrid_search",
        6,
        "HYBRID_",
        3,
        {"DENSE_URL": "dense_retrieval", "SPARSE_URL": "sparse_retrieval"},
    ),
    Entry("feedback", 11, "FEEDBACK_", 3, {"BROKER_URL": "broker"}),
    Entry(
        "ingestion",
        12,
        "INGESTION_",
        3,
        {
            "EMBEDDING_URL": "embedding",
            "DENSE_URL": "dense_retrieval",
            "SPARSE_URL": "sparse_retrieval",
            "RERANKING_URL": "reranking",
            "BROKER_URL": "broker",
        },
    ),
    Entry(
        "ingestion_worker",
        None,
        "INGESTION_",
        3,
        {
            "EMBEDDING_URL": "embedding",
            "DENSE_URL": "dense_retrieval",
            "SPARSE_URL": "sparse_retrieval",
            "RERANKING_URL": "reranking",
            "BROKER_URL": "broker",
        },
        module="services.ingestion.worker",
        ready="",
    ),
    Entry(
        "orchestrator",
        1,
        "ORCHESTRATOR_",
        4,
        {
            "PREPROCESSING_URL": "query_preprocessing",
            "HYBRID_URL": "hybrid_search",
            "RERANKING_URL": "reranking",
            "CONTEXT_URL": "context_aggregation",
            "GENERATION_URL": "generation",
            "POST_PROCESSING_URL": "post_processing",
            "BROKER_URL": "broker",
        },
    ),
    Entry(
        "gateway",
        0,
        "GATEWAY_",
        5,
        {
            "ORCHESTRATOR_URL": "orchestrator",
            "HYBRID_URL": "hybrid_search",
            "RERANKING_URL": "reranking",
            "INGESTION_URL": "ingestion",
            "FEEDBACK_URL": "feedback",
            "BROKER_URL": "broker",
        },
    ),
)

SERVICES = tuple(entry.name for entry in CATALOGUE if entry.offset is not None)[2:]
"""The thirteen services, without the programs beside them."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What the supervisor needs to run one process. Plain data: it goes through JSON.

    Either `module` (run as `python -m module`) or `command` is set. `environment` are defaults:
    a variable that the supervisor's own environment has wins, except for `overrides`.
    """

    name: str
    tier: int
    module: str = ""
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None
    url: str = ""
    ready: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ProcessSpec:
        return cls(**{**data, "command": tuple(data.get("command", ()))})

    def replaced(self, *, module: str, command: list[str], env: Mapping[str, str]) -> ProcessSpec:
        """The same place in the system (port, addresses), another program in it."""
        return replace(
            self, module=module, command=tuple(command), overrides={**self.overrides, **env}
        )

    def configured(self, env: Mapping[str, str | None], original: ProcessSpec) -> ProcessSpec:
        """The same program with other settings; None: what `original` has."""
        overrides = {**self.overrides, **{k: v for k, v in env.items() if v is not None}}
        for key in (key for key, value in env.items() if value is None):
            overrides.pop(key, None)
            if key in original.overrides:
                overrides[key] = original.overrides[key]
        return replace(self, overrides=overrides)

    def full_environment(self) -> dict[str, str]:
        return {**self.environment, **os.environ, **self.overrides}


def entry_of(name: str) -> Entry:
    return next(entry for entry in CATALOGUE if entry.name == name)


def default_port_base() -> int:
    """`WORKSHOP_PORT_BASE`, else 8000."""
    own = os.environ.get("WORKSHOP_PORT_BASE", "")
    return int(own) if own.isdigit() else DEFAULT_PORT_BASE


def ports(base: int, environ: Mapping[str, str] = os.environ) -> dict[str, int]:
    """Port of each process that listens. A `<PREFIX>PORT` in the environment wins."""
    found = {}
    for entry in CATALOGUE:
        if entry.offset is not None:
            own = environ.get(f"{entry.prefix}PORT", "") if entry.prefix else ""
            found[entry.name] = int(own) if own.isdigit() else base + entry.offset
    return found


def plan(
    base: int,
    *,
    model_settings: Mapping[str, str],
    broker_command: tuple[str, ...],
    home: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> list[ProcessSpec]:
    """The processes of one system, in start order.

    `model_settings` are the environment variables that lead services to their model files.
    """
    home = home or paths.home()
    port_of = ports(base, environ)
    urls = {
        entry.name: f"{entry.scheme}://127.0.0.1:{port_of[entry.name]}"
        for entry in CATALOGUE
        if entry.offset is not None
    }
    specs = []
    for entry in CATALOGUE:
        port = port_of.get(entry.name)
        settings = {
            "WORKSHOP_HOME": str(home),
            "WORKSHOP_PORT_BASE": str(base),
        }
        if entry.prefix:
            settings[f"{entry.prefix}DATA_DIR"] = str(home / "data")
            settings |= {k: v for k, v in model_settings.items() if k.startswith(entry.prefix)}
        if port is not None and entry.prefix:
            settings[f"{entry.prefix}HOST"] = "127.0.0.1"
            settings[f"{entry.prefix}PORT"] = str(port)
        for setting, target in entry.calls.items():
            settings[entry.prefix + setting] = urls[target] + _path(setting)
        is_broker = entry.name == "broker"
        specs.append(
            ProcessSpec(
                name=entry.name,
                tier=entry.tier,
                module="" if is_broker else entry.module or f"services.{entry.name}",
                command=broker_command if is_broker else (),
                environment=settings,
                port=port,
                url=urls.get(entry.name, ""),
                ready=entry.ready,
            )
        )
    return specs


def routes(target: str, url: str) -> dict[str, dict[str, str]]:
    """The settings that lead each caller of `target` to another `url`, by the caller's name."""
    found = {
        entry.name: {
            entry.prefix + setting: url + _path(setting)
            for setting, called in entry.calls.items()
            if called == target
        }
        for entry in CATALOGUE
    }
    return {name: settings for name, settings in found.items() if settings}


def _path(setting: str) -> str:
    return "/v1" if setting == "LLM_URL" else ""
