"""A RAG system in one process, from the typed question to the checked answer.

    python services/monolith/rag.py "When does a circuit breaker open?"

Nine stages, one after the other: preprocess, embed, dense, sparse, fuse, rerank, context,
generate, post-process. LangChain wires them; every stage is a function call away from the next.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import xllamacpp
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from langchain_openai import ChatOpenAI
from langchain_qdrant import QdrantVectorStore
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, VectorParams

from services.context_aggregation.domain import build_context
from services.context_aggregation.tokenizer import load_tokenizer
from services.embedding.domain import Encoder
from services.generation.domain import render
from services.hybrid_search.domain import reciprocal_rank_fusion
from services.hybrid_search.settings import Settings as FusionSettings
from services.ingestion.splitting import index_text, split_document
from services.llm_server.server import find_model, parameters
from services.llm_server.settings import Settings as LlmSettings
from services.post_processing.domain import postprocess
from services.post_processing.grounding import Source
from services.query_preprocessing.domain import Preprocessor
from services.query_preprocessing.vocabulary import Vocabulary
from services.reranking.domain import TimeLeft, rank
from services.reranking.engines import load_engine
from services.reranking.settings import Settings as RerankingSettings
from services.sparse_retrieval.domain import KeywordIndex

HANDBOOK = Path(__file__).parents[2] / "handbook"
HOME = Path(os.environ.get("WORKSHOP_HOME", ".workshop"))
CANDIDATES, RERANKED, PASSAGES, CONTEXT_TOKENS, ANSWER_TOKENS = 50, 20, 6, 260, 160


class LocalEmbeddings(Embeddings):
    """LangChain's embedding interface over a model folder."""

    def __init__(self, folder: Path) -> None:
        self.encoder = Encoder.load(folder)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.encoder.encode(texts, input_type="passage").tolist()

    def embed_query(self, text: str) -> list[float]:
        return self.encoder.encode([text], input_type="query")[0].tolist()


def load_documents(folder: Path) -> list[Document]:
    """Every page of the handbook, one document a section."""
    return [
        Document(index_text(passage), id=passage.id, metadata=asdict(passage))
        for page in sorted(folder.glob("??/*.md"))
        for passage in split_document(page.read_bytes(), f"{page.parent.name}/{page.stem}")
    ]


class Rag:
    def __init__(
        self, home: Path = HOME, models: Path = HOME / "models", llm_url: str | None = None
    ) -> None:
        data = home / "data" / "monolith"
        documents = load_documents(HANDBOOK)
        self.texts = {document.id: document.page_content for document in documents}
        self.passages = {document.id: document.metadata for document in documents}
        english = [document for document in documents if document.metadata["language"] == "en"]
        self.qdrant = QdrantClient(path=str(data / "qdrant"))
        self.stores = {
            "dense": self.vectors("multilingual-e5-small-enpt", models, documents),
            "dense_english": self.vectors("all-MiniLM-L6-v2", models, english),
        }
        self.keywords = KeywordIndex()
        self.keywords.put(self.passages.values())
        self.preprocessor = Preprocessor(vocabulary=Vocabulary(self.keywords.vocabulary().terms))
        self.reranker = load_engine(
            RerankingSettings(data_dir=data, model_dir=models / "multilingual-e5-small-enpt")
        )
        if hasattr(self.reranker, "put"):
            self.reranker.put(list(self.texts.values()))
        self.tokenizer = load_tokenizer(models / "qwen2.5-coder-0.5b-instruct")
        self.fusion = FusionSettings()
        self.llm_url = llm_url or self.start_llm(models / "qwen2.5-coder-0.5b-instruct")
        llm = ChatOpenAI(
            base_url=self.llm_url,
            api_key="none",
            model="local",
            temperature=0,
            seed=7,
            max_tokens=ANSWER_TOKENS,
        )
        assign = RunnablePassthrough.assign
        self.retrieval: Runnable[dict[str, Any], dict[str, Any]] = (
            assign(asked=self.preprocess)
            | assign(lists=self.search)
            | assign(fused=self.fuse)
            | assign(reranked=self.rerank)
            | assign(context=self.build_context)
        )
        self.generation = RunnableLambda(self.prompt) | llm | StrOutputParser()

    def start_llm(self, folder: Path) -> str:
        """llama.cpp inside this process; it speaks HTTP to its own process."""
        self.llm = xllamacpp.Server(parameters(LlmSettings(port=8030), find_model(folder)))
        return f"{self.llm.listening_address}/v1"

    def vectors(self, model: str, models: Path, documents: list[Document]) -> QdrantVectorStore:
        embeddings = LocalEmbeddings(models / model)
        if not self.qdrant.collection_exists(model):
            size = embeddings.encoder.dimension
            self.qdrant.create_collection(
                model, vectors_config=VectorParams(size=size, distance=Distance.COSINE)
            )
        store = QdrantVectorStore(self.qdrant, model, embeddings)
        if self.qdrant.count(model).count != len(documents):
            print(f"embedding {len(documents)} passages with {model} …", file=sys.stderr)
            ids = [str(uuid.uuid5(uuid.NAMESPACE_URL, document.id or "")) for document in documents]
            store.add_documents(documents, ids=ids)
        return store

    def preprocess(self, state: dict[str, Any]) -> Any:
        return self.preprocessor.run(state["question"], history=state.get("history", []))

    def search(self, state: dict[str, Any]) -> dict[str, list[tuple[str, float]]]:
        """Each list's best passages: embedding and dense search, keyword search."""
        query, language = state["asked"].search_query, state["asked"].language
        lists: dict[str, list[tuple[str, float]]] = {}
        for name in self.weights(language):
            if name == "sparse":
                hits = self.keywords.search(query, language=language, top_k=CANDIDATES)
                lists[name] = [(hit.id, hit.score) for hit in hits]
            else:
                found = self.stores[name].similarity_search_with_score(query, k=CANDIDATES)
                lists[name] = [(document.metadata["id"], score) for document, score in found]
        return lists

    def weights(self, language: str) -> dict[str, float]:
        return self.fusion.weights.get(language) or self.fusion.weights["other"]

    def fuse(self, state: dict[str, Any]) -> list[str]:
        weights = self.weights(state["asked"].language)
        fused = reciprocal_rank_fusion(state["lists"], weights=weights, k=self.fusion.rrf_k)
        return [item.id for item in fused[:RERANKED]]

    def rerank(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        texts = [self.texts[passage_id] for passage_id in state["fused"]]
        ranking = rank(self.reranker, state["asked"].search_query, texts, TimeLeft(10.0))
        return [
            self.passages[state["fused"][item.index]] | {"score": item.score}
            for item in ranking.results
        ]

    def build_context(self, state: dict[str, Any]) -> Any:
        asked = state["asked"]
        return build_context(
            asked.search_query,
            asked.language,
            state["reranked"][:PASSAGES],
            CONTEXT_TOKENS,
            self.tokenizer,
        )

    def prompt(self, state: dict[str, Any]) -> list[dict[str, str]]:
        asked = state["asked"]
        variables = {"question": asked.search_query, "context": state["context"].context}
        return render("answer", asked.language, variables)

    def answer(
        self,
        question: str,
        history: list[str] | None = None,
        on_token: Callable[[str], None] = lambda _: None,
    ) -> dict[str, Any]:
        """The checked answer, its sources, and how long each part took, in milliseconds."""
        started = time.perf_counter()
        state = self.retrieval.invoke({"question": question, "history": history or []})
        retrieved = time.perf_counter()
        text, first_token = "", None
        for token in self.generation.stream(state):
            first_token = first_token or time.perf_counter()
            text += token
            on_token(token)
        generated = time.perf_counter()
        sources = [asdict(source) for source in state["context"].sources]
        asked = state["asked"]
        given = [Source(**{k: v for k, v in s.items() if k != "passages"}) for s in sources]
        checked = postprocess(asked.search_query, text, given, language=asked.language)
        return asdict(checked) | {
            "sources": sources,
            "passages": [passage["id"] for passage in state["reranked"]],
            "language": asked.language,
            "ms": {
                "retrieval": (retrieved - started) * 1000,
                "first_token": ((first_token or generated) - started) * 1000,
                "generation": (generated - retrieved) * 1000,
                "total": (time.perf_counter() - started) * 1000,
            },
        }


def main() -> None:
    question = " ".join(sys.argv[1:]).strip()
    if not question:
        sys.exit('usage: python services/monolith/rag.py "your question"')
    rag = Rag()
    answer = rag.answer(question)
    rag.qdrant.close()
    print(answer["answer"])
    for citation in answer["citations"]:
        print(f"  [{citation['number']}] {citation['title']} — {citation['id']}")


if __name__ == "__main__":
    main()
