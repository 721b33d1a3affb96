"""The monolith while it is taken apart: a stage that has a URL is asked of its service.

What has moved is not loaded here. Until ingestion is a service, the script indexes the handbook:
into its own stores, or into those of the services.
"""

from __future__ import annotations

import hashlib
import sqlite3
from array import array
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import RunnableLambda
from qdrant_client import QdrantClient

from services.context_aggregation.tokenizer import load_tokenizer
from services.hybrid_search.settings import Settings as FusionSettings
from services.query_preprocessing.domain import Preprocessor
from services.query_preprocessing.vocabulary import Vocabulary
from services.reranking.engines import load_engine
from services.reranking.settings import Settings as RerankingSettings
from services.sparse_retrieval.domain import KeywordIndex

from .rag import (
    CANDIDATES,
    CONTEXT_TOKENS,
    HANDBOOK,
    PASSAGES,
    RERANKED,
    Rag,
    load_documents,
)
from .settings import Settings

MODELS = {"bilingual": "multilingual-e5-small-enpt", "english": "all-MiniLM-L6-v2"}
_LISTS = {"dense": "bilingual", "dense_english": "english"}
_BATCH = 64


class RemoteEmbeddings(Embeddings):
    """LangChain's embedding interface over the embedding service."""

    def __init__(self, call: Any, model: str) -> None:
        self.call, self.model = call, model

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._embed(texts, "passage")

    def embed_query(self, text: str) -> list[float]:
        return self._embed([text], "query")[0]

    def _embed(self, texts: list[str], kind: str) -> list[list[float]]:
        found: list[list[float]] = []
        for start in range(0, len(texts), _BATCH):
            part = texts[start : start + _BATCH]
            body = {"model": self.model, "input": part, "input_type": kind}
            answer = self.call("POST", "embedding", "/v1/embeddings", body)
            found += [item["embedding"] for item in answer["data"]]
        return found


class KeptEmbeddings(Embeddings):
    """Vectors of passages stay in a file: the script starts anew at every step of the course."""

    def __init__(self, maker: Embeddings, file: Path, model: str) -> None:
        self.maker, self.model = maker, model
        file.parent.mkdir(parents=True, exist_ok=True)
        self.kept = sqlite3.connect(file, check_same_thread=False)
        self.kept.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB)")

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        found = {text: vector for text in texts if (vector := self._read(text)) is not None}
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        if missing:
            made = dict(zip(missing, self.maker.embed_documents(missing), strict=True))
            rows = [(self._key(text), array("d", made[text]).tobytes()) for text in missing]
            with self.kept:
                self.kept.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
            found |= made
        return [found[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.maker.embed_query(text)

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self.model}\n{text}".encode()).digest()

    def _read(self, text: str) -> list[float] | None:
        asked = self.kept.execute("SELECT vector FROM vectors WHERE key = ?", [self._key(text)])
        row = asked.fetchone()
        return None if row is None else list(memoryview(row[0]).cast("d"))


class PartlySplit(Rag):
    """`Rag`, with the stages of `settings` that have a URL outside of this process."""

    def __init__(self, settings: Settings, documents: list[Document] | None = None) -> None:
        self.at, self.http = settings, httpx.Client(timeout=60.0, trust_env=False)
        self.texts: dict[str, str] = {}
        self.passages: dict[str, dict[str, Any]] = {}
        self.fusion = FusionSettings()
        if not self.at.dense_url:
            self.qdrant = QdrantClient(path=str(settings.home / "qdrant"))
            self.stores = {
                name: self.vectors(settings.models_dir / MODELS[role])
                for name, role in _LISTS.items()
            }
        if not self.at.sparse_url:
            self.keywords = KeywordIndex()
        if not self.at.reranking_url:
            model = settings.models_dir / MODELS["bilingual"]
            self.reranker = load_engine(RerankingSettings(data_dir=settings.home, model_dir=model))
        if not self.at.context_url:
            self.tokenizer = load_tokenizer(settings.models_dir / settings.llm)
        self.index(load_documents(HANDBOOK) if documents is None else documents)
        self.retrieval = RunnableLambda(self.retrieve)
        generation = self.at.generation_url
        self.connect(
            f"{generation}/v1" if generation else self.start_llm(settings.models_dir / settings.llm)
        )

    def call(self, method: str, service: str, path: str, body: Any = None) -> Any:
        """The answer of a service. Raises httpx.HTTPError."""
        answer = self.http.request(method, f"{getattr(self.at, f'{service}_url')}{path}", json=body)
        answer.raise_for_status()
        return answer.json()

    def embeddings(self, model: Path) -> Embeddings:
        remote = self.at.embedding_url
        maker = RemoteEmbeddings(self.call, model.name) if remote else super().embeddings(model)
        return KeptEmbeddings(maker, self.at.home / "vectors.db", model.name)

    # -- indexing ------------------------------------------------------------------------

    def index(self, documents: list[Document]) -> int:
        self.texts |= {str(document.id): document.page_content for document in documents}
        self.passages |= {str(document.id): document.metadata for document in documents}
        bodies = [document.metadata for document in documents]
        new = self.put_vectors(documents) if self.at.dense_url else self.index_vectors(documents)
        if self.at.sparse_url:
            for start in range(0, len(bodies), _BATCH):
                part = {"passages": bodies[start : start + _BATCH]}
                self.call("PUT", "sparse", "/v1/passages", part)
        else:
            self.keywords.put(bodies)
        if not self.at.preprocessing_url:
            self.preprocessor = Preprocessor(
                vocabulary=Vocabulary(self.terms()), cache=self.at.home
            )
        self.encode_ahead([document.page_content for document in documents])
        return new

    def put_vectors(self, documents: list[Document]) -> int:
        """Vectors of both models into dense_retrieval; it keeps those that it has."""
        stored = 0
        folders = {role: self.at.models_dir / model for role, model in MODELS.items()}
        makers = {role: self.embeddings(folder) for role, folder in folders.items()}
        for start in range(0, len(documents), _BATCH):
            part = documents[start : start + _BATCH]
            vectors: list[dict[str, list[float]]] = [{} for _ in part]
            for role, maker in makers.items():
                places = [
                    n
                    for n, document in enumerate(part)
                    if role == "bilingual" or document.metadata["language"] == "en"
                ]
                made = maker.embed_documents([part[n].page_content for n in places])
                for n, vector in zip(places, made, strict=True):
                    vectors[n][role] = vector
            bodies = [
                document.metadata | {"vectors": v}
                for document, v in zip(part, vectors, strict=True)
            ]
            used = {role: MODELS[role] for v in vectors for role in v}
            answer = self.call("PUT", "dense", "/v1/passages", {"models": used, "passages": bodies})
            stored += answer["stored"]
        return stored

    def terms(self) -> dict[str, int]:
        if self.at.sparse_url:
            return dict(self.call("GET", "sparse", "/v1/vocabulary")["terms"])
        return self.keywords.vocabulary().terms

    def encode_ahead(self, texts: list[str]) -> None:
        if not self.at.reranking_url:
            if hasattr(self.reranker, "put"):
                self.reranker.put(texts)
            return
        for start in range(0, len(texts), _BATCH):
            part = {"texts": texts[start : start + _BATCH]}
            self.call("PUT", "reranking", "/v1/passages", part)

    # -- stages --------------------------------------------------------------------------

    def retrieve(self, state: dict[str, Any]) -> dict[str, Any]:
        """Everything before generation, in the order of the script."""
        state = state | {"asked": self.preprocess(state)}
        if self.at.hybrid_url:
            state = state | {"fused": self.ask_hybrid(state)}
        else:
            state = state | {"lists": self.search(state)}
            state = state | {"fused": self.fuse(state)}
        state = state | {"reranked": self.rerank(state)}
        return state | {"context": self.build_context(state)}

    def preprocess(self, state: dict[str, Any]) -> Any:
        if not self.at.preprocessing_url:
            return super().preprocess(state)
        body = {"query": state["question"], "history": state.get("history", [])}
        return SimpleNamespace(**self.call("POST", "preprocessing", "/v1/preprocess", body))

    def search_list(self, name: str, query: str, language: str) -> list[tuple[str, float]]:
        """From whoever holds the list."""
        body = {"query": query, "top_k": CANDIDATES}
        if name == "sparse" and self.at.sparse_url:
            found = self.call("POST", "sparse", "/v1/search", body | {"language": language})
        elif name in _LISTS and self.at.dense_url:
            found = self.call("POST", "dense", "/v1/search", body | {"using": _LISTS[name]})
        else:
            return super().search_list(name, query, language)
        return [(hit["id"], hit["score"]) for hit in self.known(found["hits"])]

    def known(self, hits: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Without what a later step or an older handbook has left in a service's store."""
        return [hit for hit in hits if hit["id"] in self.texts]

    def ask_hybrid(self, state: dict[str, Any]) -> list[str]:
        asked = state["asked"]
        body = {"query": asked.search_query, "language": asked.language, "top_k": RERANKED}
        found = self.call("POST", "hybrid", "/v1/search", body)
        return [hit["id"] for hit in self.known(found["hits"])]

    def rerank(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        if not self.at.reranking_url:
            return super().rerank(state)
        documents = [self.texts[passage_id] for passage_id in state["fused"]]
        body = {"query": state["asked"].search_query, "documents": documents}
        ranked = self.call("POST", "reranking", "/v1/rerank", body)["results"]
        return [
            self.passages[state["fused"][item["index"]]] | {"score": item["relevance_score"]}
            for item in ranked
        ]

    def build_context(self, state: dict[str, Any]) -> Any:
        if not self.at.context_url:
            built = super().build_context(state)
            sources = [asdict(source) for source in built.sources]
            return SimpleNamespace(context=built.context, sources=sources)
        asked = state["asked"]
        body = {
            "query": asked.search_query,
            "language": asked.language,
            "passages": state["reranked"][:PASSAGES],
            "max_tokens": CONTEXT_TOKENS,
        }
        return SimpleNamespace(**self.call("POST", "context", "/v1/context", body))

    def check(self, state: dict[str, Any]) -> dict[str, Any]:
        asked, sources = state["asked"], state["context"].sources
        if not self.at.post_processing_url:
            return self.checked(asked, state["text"], sources)
        body = {
            "question": asked.search_query,
            "answer": state["text"],
            "sources": sources,
            "language": asked.language,
        }
        found = self.call("POST", "post_processing", "/v1/postprocess", body)
        return dict(found) | {"sources": sources}
