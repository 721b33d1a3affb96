"""A RAG system in one process, from the typed question to the checked answer.

    python services/monolith/rag.py "When does a circuit breaker open?"

Nine stages, one after the other: preprocess, embed, dense, sparse, fuse, rerank, context,
generate, post-process. LangChain wires them; every stage is a function call away from the next.

Alone it starts llama.cpp inside of itself. `MONOLITH_LLM_URL`, the address of any server that
speaks OpenAI's API (`http://127.0.0.1:8020/v1`), lets it share a running one.
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
HOME = Path(os.environ.get("WORKSHOP_HOME") or ".workshop")
MODELS = Path(os.environ.get("WORKSHOP_MODELS_DIR") or HOME / "models")
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


def point_id(document: Document) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, str(document.id)))


class Rag:
    """Loads every model and indexes the handbook, or `documents` if there are any given."""

    def __init__(
        self,
        home: Path = HOME,
        models: Path = MODELS,
        llm_url: str | None = None,
        documents: list[Document] | None = None,
    ) -> None:
        data = home / "data" / "monolith"
        self.texts: dict[str, str] = {}
        self.passages: dict[str, dict[str, Any]] = {}
        self.qdrant = QdrantClient(path=str(data / "qdrant"))
        self.stores = {
            "dense": self.vectors(models / "multilingual-e5-small-enpt"),
            "dense_english": self.vectors(models / "all-MiniLM-L6-v2"),
        }
        self.keywords = KeywordIndex()
        self.reranker = load_engine(
            RerankingSettings(data_dir=data, model_dir=models / "multilingual-e5-small-enpt")
        )
        self.index(load_documents(HANDBOOK) if documents is None else documents)
        self.tokenizer = load_tokenizer(models / "qwen2.5-coder-0.5b-instruct")
        self.fusion = FusionSettings()
        assign = RunnablePassthrough.assign
        self.retrieval: Runnable[dict[str, Any], dict[str, Any]] = (
            assign(asked=self.preprocess)
            | assign(lists=self.search)
            | assign(fused=self.fuse)
            | assign(reranked=self.rerank)
            | assign(context=self.build_context)
        )
        self.connect(llm_url or self.start_llm(models / "qwen2.5-coder-0.5b-instruct"))

    def connect(self, llm_url: str) -> None:
        """Let this OpenAI-compatible server write the answers."""
        self.llm_url = llm_url
        llm = ChatOpenAI(
            base_url=llm_url,
            api_key="none",
            model="default",
            temperature=0,
            seed=42,
            max_tokens=ANSWER_TOKENS,
        )
        self.generation = RunnableLambda(self.prompt) | llm | StrOutputParser()

    def start_llm(self, folder: Path) -> str:
        """llama.cpp inside this process; it speaks HTTP to its own process."""
        self.llm = xllamacpp.Server(parameters(LlmSettings(port=8030), find_model(folder)))
        return f"{self.llm.listening_address}/v1"

    def vectors(self, model: Path) -> QdrantVectorStore:
        """The collection of a model folder, opened or made."""
        embeddings = self.embeddings(model)
        if not self.qdrant.collection_exists(model.name):
            size = len(embeddings.embed_query("size"))
            self.qdrant.create_collection(
                model.name, vectors_config=VectorParams(size=size, distance=Distance.COSINE)
            )
        return QdrantVectorStore(self.qdrant, model.name, embeddings)

    def embeddings(self, model: Path) -> Embeddings:
        return LocalEmbeddings(model)

    def index(self, documents: list[Document]) -> int:
        """Add documents to every index; the number of vectors that were not on disk yet."""
        self.texts |= {str(document.id): document.page_content for document in documents}
        self.passages |= {str(document.id): document.metadata for document in documents}
        new = self.index_vectors(documents)
        self.keywords.put([document.metadata for document in documents])
        self.preprocessor = Preprocessor(vocabulary=Vocabulary(self.keywords.vocabulary().terms))
        if hasattr(self.reranker, "put"):
            self.reranker.put([document.page_content for document in documents])
        return new

    def index_vectors(self, documents: list[Document]) -> int:
        english = [document for document in documents if document.metadata["language"] == "en"]
        new = 0
        for name, store in self.stores.items():
            own = {point_id(d): d for d in (english if name == "dense_english" else documents)}
            for record in self.qdrant.retrieve(store.collection_name, list(own)):
                if (record.payload or {})["page_content"] == own[str(record.id)].page_content:
                    del own[str(record.id)]
            store.add_documents(list(own.values()), ids=list(own))
            new += len(own)
        return new

    def preprocess(self, state: dict[str, Any]) -> Any:
        return self.preprocessor.run(state["question"], history=state.get("history", []))

    def search(self, state: dict[str, Any]) -> dict[str, list[tuple[str, float]]]:
        """Each list's best passages."""
        query, language = state["asked"].search_query, state["asked"].language
        return {name: self.search_list(name, query, language) for name in self.weights(language)}

    def search_list(self, name: str, query: str, language: str) -> list[tuple[str, float]]:
        """Keyword search, or embedding and dense search."""
        if name == "sparse":
            hits = self.keywords.search(query, language=language, top_k=CANDIDATES)
            return [(hit.id, hit.score) for hit in hits]
        found = self.stores[name].similarity_search_with_score(query, k=CANDIDATES)
        # A section that was removed leaves its vector on disk.
        return [
            (document.metadata["id"], score)
            for document, score in found
            if document.metadata["id"] in self.passages
        ]

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

    def generate(self, state: dict[str, Any]) -> str:
        return self.generation.invoke(state)

    def check(self, state: dict[str, Any]) -> dict[str, Any]:
        """The answer that may be shown, with its citations and its sources."""
        sources = [asdict(source) for source in state["context"].sources]
        return self.checked(state["asked"], state["text"], sources)

    def checked(self, asked: Any, text: str, sources: list[dict[str, Any]]) -> dict[str, Any]:
        given = [Source(**{k: v for k, v in s.items() if k != "passages"}) for s in sources]
        found = postprocess(asked.search_query, text, given, language=asked.language)
        return asdict(found) | {"sources": sources}

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
        checked = self.check(state | {"text": text})
        return checked | {
            "passages": [passage["id"] for passage in state["reranked"]],
            "language": state["asked"].language,
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
    if not (HOME / "data" / "monolith").exists():
        print("encoding the handbook, once; this takes a minute …", file=sys.stderr)
    rag = Rag(llm_url=os.environ.get("MONOLITH_LLM_URL") or None)
    answer = rag.answer(question)
    rag.qdrant.close()
    print(answer["answer"])
    for citation in answer["citations"]:
        print(f"  [{citation['number']}] {citation['title']} — {citation['id']}")


if __name__ == "__main__":
    main()
