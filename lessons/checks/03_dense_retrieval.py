"""The checks of lesson 03."""

from __future__ import annotations

import tempfile
import uuid

from services.dense_retrieval import domain
from services.dense_retrieval.domain import NAMESPACE, Hit
from workshop.exercises import check

SECTION = "en/hnsw#memory-of-vectors-and-links"
KNOWN = "3c4ca6a2-39f9-5f8f-820b-fd2f2f79bdad"
"""The id of SECTION's point in every collection of this service."""

PASSAGES = {
    "en/a": {"language": "en", "document": "en/a", "tags": ["latency", "resilience"]},
    "en/b": {"language": "en", "document": "en/b", "tags": ["resilience"]},
    "pt/a": {"language": "pt", "document": "pt/a", "tags": ["latency"]},
    "pt/c": {"language": "pt", "document": "pt/c", "tags": []},
}


# -- 03.1 ---------------------------------------------------------------------------------


@check("03.1", "dense_retrieval", "points.py")
def an_id_that_qdrant_takes(points):
    """The id is a UUID, as text."""
    found = points.point_id(SECTION)
    assert found is not None, "the function returns nothing: is there a return?"
    assert isinstance(found, str), f"got {type(found).__name__}: return the UUID as text, by str()"
    try:
        uuid.UUID(found)
    except ValueError:
        raise AssertionError(f"{found!r} is no UUID: Qdrant refuses other texts") from None


@check("03.1", "dense_retrieval", "points.py")
def the_same_passage_the_same_id(points):
    """Asked twice, it gives the same id."""
    one, two = points.point_id(SECTION), points.point_id(SECTION)
    assert one == two, "two ids for one passage: an upsert with them stores the passage twice"


@check("03.1", "dense_retrieval", "points.py")
def other_passages_other_ids(points):
    """Each passage has an id of its own."""
    names = ["en/hnsw", SECTION, "pt/hnsw", "en/hnsw#memory", "EN/hnsw", "en/hnsw#Memory"]
    ids = {name: points.point_id(name) for name in names}
    for name in names[1:]:
        others = [other for other in names if other != name and ids[other] == ids[name]]
        assert not others, f"{name} and {others[0]} share an id: one would replace the other"


@check("03.1", "dense_retrieval", "points.py")
def the_id_that_is_on_disk(points):
    """It is the id that the passage's point has already."""
    found = str(points.point_id(SECTION))
    try:
        version = uuid.UUID(found).version
    except ValueError:
        version = None
    assert version == 5, "use version 5: name-based, with SHA-1 (uuid5)"
    swapped_namespace = found == str(uuid.uuid5(uuid.NAMESPACE_URL, SECTION))
    assert not swapped_namespace, "the namespace must be NAMESPACE, not the one for URLs"
    assert found == KNOWN == str(uuid.uuid5(NAMESPACE, SECTION)), (
        f"got {found}; on disk this passage has {KNOWN}: is it NAMESPACE and the whole id?"
    )


# -- 03.2 ---------------------------------------------------------------------------------


def in_client(core, fields):
    """Ids that pass the filter in qdrant-client's local mode."""
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    client.create_collection(
        "c", vectors_config=models.VectorParams(size=2, distance=models.Distance.COSINE)
    )
    points = [
        models.PointStruct(id=domain.point_id(name), vector=[1, 1], payload={"id": name, **payload})
        for name, payload in PASSAGES.items()
    ]
    client.upsert("c", points)
    chosen = core.build_filter(models, fields)
    if fields:
        kind = type(chosen).__name__
        assert isinstance(chosen, models.Filter), f"got {kind}: return a qdrant.Filter"
    found = client.query_points("c", query=[1, 1], limit=9, query_filter=chosen).points
    return sorted((point.payload or {})["id"] for point in found)


def in_edge(core, fields):
    """Ids that pass the filter in the engine that the service uses by default."""
    import qdrant_edge as engine

    with tempfile.TemporaryDirectory() as folder:
        vectors = {"v": engine.EdgeVectorParams(2, engine.Distance.Cosine)}
        shard = engine.EdgeShard.create(folder, engine.EdgeConfig(vectors=vectors))
        points = [
            engine.Point(domain.point_id(name), {"v": [1.0, 1.0]}, {"id": name, **payload})
            for name, payload in PASSAGES.items()
        ]
        shard.update(engine.UpdateOperation.upsert_points(points))
        request = engine.QueryRequest(
            query=engine.Query.Nearest([1.0, 1.0], using="v"),
            limit=9,
            filter=core.build_filter(engine, fields),
            with_payload=True,
        )
        found = [(point.payload or {})["id"] for point in shard.query(request)]
        shard.close()
    return sorted(found)


def passes(core, fields, expected, hint):
    found = in_client(core, fields)
    said = ", ".join(found) or "nothing"
    assert found == expected, f"{fields} lets {said} through: {hint}"


@check("03.2", "dense_retrieval", "filters.py")
def one_field_one_value(filters):
    """One field with one value."""
    passes(filters, {"language": ["pt"]}, ["pt/a", "pt/c"], "only the Portuguese ones match")


@check("03.2", "dense_retrieval", "filters.py")
def any_of_the_values(filters):
    """Within a field, any of its values is enough."""
    hint = "one of the values is enough, and MatchAny says so"
    passes(filters, {"document": ["en/a", "pt/c", "none"]}, ["en/a", "pt/c"], hint)
    passes(filters, {"language": ["en", "pt"]}, sorted(PASSAGES), hint)


@check("03.2", "dense_retrieval", "filters.py")
def every_field(filters):
    """Two fields: both must match."""
    fields = {"language": ["en"], "tags": ["latency"]}
    passes(filters, fields, ["en/a"], "only en/a is English and about latency; must, not should")
    fields = {"tags": ["latency"], "language": ["pt"], "document": ["pt/c", "en/a"]}
    passes(filters, fields, [], "no passage matches all three fields")


@check("03.2", "dense_retrieval", "filters.py")
def no_field_no_restriction(filters):
    """Without fields every passage may be found."""
    passes(filters, {}, sorted(PASSAGES), "there was no field, so there is nothing to restrict")


@check("03.2", "dense_retrieval", "filters.py")
def the_other_engine(filters):
    """The same filter for the service's other engine."""
    fields = {"language": ["en", "pt"], "tags": ["latency"]}
    try:
        found = in_edge(filters, fields)
    except TypeError as error:
        raise AssertionError(
            f"qdrant_edge does not take it ({str(error)[:80]}): use the classes of the argument "
            "qdrant, and give key=, match= and any= by name"
        ) from None
    said = ", ".join(found) or "nothing"
    assert found == ["en/a", "pt/a"], f"in qdrant_edge {fields} lets {said} through"


@check("03.2", "dense_retrieval", "filters.py")
def values_of_any_sequence(filters):
    """The values may come as a tuple, and the caller's fields stay as they are."""
    fields = {"language": ("en",), "tags": ("resilience",)}
    passes(filters, fields, ["en/a", "en/b"], "a tuple of values is as good as a list")
    assert fields == {"language": ("en",), "tags": ("resilience",)}, "do not change the fields"


# -- 03.3 ---------------------------------------------------------------------------------


class Engine:
    """Ranked hits that are fetched: equals in the order of storage, as an engine gives them."""

    def __init__(self, *groups):
        """Each group is (score, ids)."""
        self.hits = [Hit(name, score, {}) for score, names in groups for name in names]
        self.limits = []

    def fetch(self, limit):
        self.limits.append(limit)
        assert isinstance(limit, int), f"fetch was asked for {limit!r} hits"
        assert len(self.limits) < 40, (
            "fetch was asked 40 times: when fewer come than you asked for, there are no more"
        )
        return list(self.hits[:limit])


def ids(core, engine, top_k):
    found = core.best(engine.fetch, top_k)
    assert found is not None, "the function returns nothing: is there a return?"
    return [hit.id for hit in found]


def names(count, first="p"):
    return [f"{first}{number:03}" for number in range(count)]


@check("03.3", "dense_retrieval", "order.py")
def best_first(order):
    """Without ties: the first three, best first."""
    engine = Engine((0.9, ["c"]), (0.8, ["a"]), (0.7, ["b"]), (0.6, ["d"]), (0.5, names(40)))
    found = ids(order, engine, 3)
    assert len(found) == 3, f"got {len(found)} hits, and top_k is 3"
    assert found == ["c", "a", "b"], f"got {', '.join(found)}: by score, the highest first"


@check("03.3", "dense_retrieval", "order.py")
def equals_by_id(order):
    """Equal scores are ordered by id."""
    engine = Engine((0.9, ["z"]), (0.8, ["pt", "en"]), (0.5, names(40)))
    found = ids(order, engine, 3)
    assert found == ["z", "en", "pt"], f"got {', '.join(found)}: z is best, then en before pt"


@check("03.3", "dense_retrieval", "order.py")
def a_tie_across_the_cut(order):
    """A tie at place `top_k`: the smallest id may be the last of the equals."""
    for size in (4, 12, 60):
        engine = Engine((0.9, ["z"]), (0.8, names(size)[::-1]), (0.5, names(400, "q")))
        found = ids(order, engine, 3)
        assert found == ["z", "p000", "p001"], (
            f"got {', '.join(found)}: {size} hits tie at place 3, and p000 is the last that is "
            "fetched"
        )


@check("03.3", "dense_retrieval", "order.py")
def every_hit_ties(order):
    """All hits tie: it ends, and gives the smallest ids."""
    found = ids(order, Engine((0.8, names(50)[::-1])), 5)
    assert found == names(5), f"got {', '.join(found)}: of fifty equals, the five smallest ids"


@check("03.3", "dense_retrieval", "order.py")
def fewer_than_wanted(order):
    """Fewer hits than wanted, or none."""
    assert ids(order, Engine(), 5) == [], "nothing fetched, nothing found: []"
    found = ids(order, Engine((0.8, ["b", "a"])), 5)
    assert found == ["a", "b"], f"got {', '.join(found)}: two hits there are, both are wanted"


@check("03.3", "dense_retrieval", "order.py")
def no_more_than_needed(order):
    """It fetches little where nothing ties."""
    groups = [(1 - number / 1000, [name]) for number, name in enumerate(names(900))]
    engine = Engine(*groups)
    found = ids(order, engine, 10)
    assert found == names(10), f"got {len(found)} hits: the ten best of 900, in order of score"
    most = max(engine.limits)
    assert most <= 40, f"{most} hits were fetched for 10: every hit brings its whole text"
    assert len(engine.limits) == 1, f"asked {len(engine.limits)} times, and once was enough"


@check("03.3", "dense_retrieval", "order.py")
def same_as_the_reference(order):
    """On two hundred drawn rankings it agrees with the reference."""
    import random

    draw = random.Random(3)
    for _ in range(200):
        scores = sorted((draw.randint(0, 6) / 10 for _ in range(draw.randint(0, 40))), reverse=True)
        labels = draw.sample(names(60), len(scores))
        groups = [(score, [name]) for score, name in zip(scores, labels, strict=True)]
        top_k = draw.randint(1, 20)
        mine, reference = (Engine(*groups) for _ in range(2))
        found = ids(order, mine, top_k)
        right = [hit.id for hit in domain.best(reference.fetch, top_k)]
        place = next((n for n in range(len(right)) if found[n : n + 1] != right[n : n + 1]), None)
        assert place is None, (
            f"top {top_k} of scores {scores}: place {place + 1} must be {right[place]}, the smallest "
            "id of its score that is not placed yet"
        )
        assert len(found) == len(right), f"{len(found)} hits, and {len(right)} are wanted"
