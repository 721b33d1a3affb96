"""Documents and jobs on disk (SQLAlchemy: SQLite, WAL and synchronous=FULL, or PostgreSQL).

A job row is its own outbox entry: it is committed together with the file it is about, and the
relay publishes rows that have not been published. All methods block; call them in a thread.

What makes a killed worker harmless: `may_hold` of a document lists every passage id that can be
in an index, and is written *before* the indexes are. Whoever takes the job next knows what to
remove.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    Float,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from services.chassis.database import connect, create_tables

QUEUED, RUNNING, DONE, FAILED = "queued", "running", "done", "failed"
FINISHED = (DONE, FAILED)


class Base(DeclarativeBase):
    pass


class DocumentRow(Base):
    __tablename__ = "documents"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(32))
    fingerprint: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64))
    media_type: Mapped[str] = mapped_column(String(100))
    filename: Mapped[str | None] = mapped_column(String(300))
    size: Mapped[int] = mapped_column(Integer)
    title: Mapped[str | None] = mapped_column(String(500))
    language: Mapped[str | None] = mapped_column(String(8))
    tags: Mapped[list[str] | None] = mapped_column(JSON)
    models: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    partial: Mapped[bool] = mapped_column(default=False)
    passages: Mapped[int] = mapped_column(Integer, default=0)
    may_hold: Mapped[list[str]] = mapped_column(JSON, default=list)
    indexed_at: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[float] = mapped_column(Float)
    updated_at: Mapped[float] = mapped_column(Float)
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[float] = mapped_column(Float, default=0.0)


class ContentRow(Base):
    """The file of a job that is not finished."""

    __tablename__ = "contents"

    job_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    body: Mapped[bytes] = mapped_column(LargeBinary)


class AheadRow(Base):
    """An indexed passage that reranking has not been asked to encode yet."""

    __tablename__ = "ahead"

    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    document_id: Mapped[str] = mapped_column(String(200), index=True)
    text: Mapped[str] = mapped_column(Text)


class JobRow(Base):
    __tablename__ = "jobs"
    __table_args__ = (Index("jobs_by_status", "status", "published_at"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    document_id: Mapped[str] = mapped_column(String(200))
    kind: Mapped[str] = mapped_column(String(8))
    status: Mapped[str] = mapped_column(String(8), default=QUEUED)
    progress: Mapped[float] = mapped_column(Float, default=0.0)
    passages: Mapped[int] = mapped_column(Integer, default=0)
    error: Mapped[str | None] = mapped_column(Text)
    superseded: Mapped[bool] = mapped_column(default=False)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    waits: Mapped[int] = mapped_column(Integer, default=0)
    headers: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    created_at: Mapped[float] = mapped_column(Float)
    updated_at: Mapped[float] = mapped_column(Float)
    published_at: Mapped[float | None] = mapped_column(Float)


@dataclass(frozen=True)
class Upload:
    """A document as it was sent. `title`, `language` and `tags` are None unless given."""

    document_id: str
    content: bytes
    media_type: str
    filename: str | None = None
    title: str | None = None
    language: str | None = None
    tags: list[str] | None = None

    def fingerprint(self, pipeline: str) -> str:
        """SHA-256 over everything that decides what is indexed."""
        parts = (self.media_type, self.title, self.language, self.tags, pipeline)
        return hashlib.sha256(repr(parts).encode() + b"\0" + self.content).hexdigest()


@dataclass(frozen=True)
class Accepted:
    job_id: str
    unchanged: bool


@dataclass(frozen=True)
class Work:
    """A job that this worker holds the lease of."""

    job_id: str
    kind: str
    upload: Upload | None
    document_id: str
    may_hold: list[str]
    waits: int


class Busy(Exception):
    """Another worker holds the document."""


class Store:
    def __init__(self, url: str) -> None:
        self._engine = connect(url)
        self._reading = self._engine.execution_options(read_only=True)
        create_tables(self._engine, Base.metadata)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def _view(self) -> Iterator[Session]:
        with Session(self._reading, expire_on_commit=False) as session:
            yield session

    # -- the API's side --------------------------------------------------------------------

    def accept(
        self, upload: Upload, pipeline: str, headers: dict[str, str], *, force: bool = False
    ) -> Accepted:
        """Keep the file and its job, durable on return; nothing new if it is indexed already."""
        fingerprint = upload.fingerprint(pipeline)
        now = time.time()
        with self._session() as session:
            row = session.get(DocumentRow, upload.document_id, with_for_update=True)
            if row is not None and row.fingerprint == fingerprint and not force:
                job = session.get(JobRow, row.job_id)
                whole = job is not None and (job.status != DONE or not row.partial)
                if job is not None and job.kind == "index" and job.status != FAILED and whole:
                    return Accepted(row.job_id, unchanged=True)
            job_id = uuid.uuid4().hex
            if row is None:
                row = DocumentRow(id=upload.document_id, created_at=now, may_hold=[], models={})
                session.add(row)
            row.job_id, row.fingerprint = job_id, fingerprint
            row.sha256 = hashlib.sha256(upload.content).hexdigest()
            row.media_type, row.filename = upload.media_type, upload.filename
            row.size, row.updated_at = len(upload.content), now
            row.title, row.language, row.tags = upload.title, upload.language, upload.tags
            session.add(ContentRow(job_id=job_id, body=upload.content))
            session.add(_new_job(job_id, upload.document_id, "index", headers, now))
        return Accepted(job_id, unchanged=False)

    def request_delete(self, document_id: str, headers: dict[str, str]) -> str | None:
        """The id of the job that will delete it; None if there is no such document."""
        now = time.time()
        with self._session() as session:
            row = session.get(DocumentRow, document_id, with_for_update=True)
            if row is None:
                return None
            job = session.get(JobRow, row.job_id)
            if job is not None and job.kind == "delete" and job.status not in FINISHED:
                return job.id
            job_id = uuid.uuid4().hex
            row.job_id, row.updated_at, row.fingerprint = job_id, now, ""
            session.add(_new_job(job_id, document_id, "delete", headers, now))
        return job_id

    def job(self, job_id: str) -> JobRow | None:
        with self._view() as session:
            return session.get(JobRow, job_id)

    def document(self, document_id: str) -> tuple[DocumentRow, JobRow | None] | None:
        with self._view() as session:
            row = session.get(DocumentRow, document_id)
            return None if row is None else (row, session.get(JobRow, row.job_id))

    def documents(
        self, after: str | None, limit: int
    ) -> tuple[list[tuple[DocumentRow, JobRow | None]], int]:
        """One page in the order of their ids, and how many there are in all."""
        with self._view() as session:
            query = select(DocumentRow, JobRow).outerjoin(JobRow, DocumentRow.job_id == JobRow.id)
            if after is not None:
                query = query.where(DocumentRow.id > after)
            rows = session.execute(query.order_by(DocumentRow.id).limit(limit)).all()
            total = session.scalar(select(func.count()).select_from(DocumentRow)) or 0
            return [(row[0], row[1]) for row in rows], total

    # -- the relay's side ------------------------------------------------------------------

    def unpublished(self, *, again_after: float, limit: int = 200) -> list[JobRow]:
        """Jobs to publish: new ones, and unfinished ones that nobody has worked on for long."""
        late = time.time() - again_after
        with self._view() as session:
            return list(
                session.scalars(
                    select(JobRow)
                    .where(
                        JobRow.status.not_in(FINISHED),
                        JobRow.published_at.is_(None)
                        | ((JobRow.published_at < late) & (JobRow.updated_at < late)),
                    )
                    .order_by(JobRow.created_at)
                    .limit(limit)
                )
            )

    def set_published(self, job_ids: list[str]) -> None:
        with self._session() as session:
            session.execute(
                update(JobRow).where(JobRow.id.in_(job_ids)).values(published_at=time.time())
            )

    def counts(self) -> dict[str, int]:
        """How many jobs are in each status."""
        with self._view() as session:
            rows = session.execute(select(JobRow.status, func.count()).group_by(JobRow.status))
            return {row[0]: row[1] for row in rows}

    def prune(self, older_than: float) -> int:
        """Forget jobs that finished more than `older_than` seconds ago and are nobody's latest."""
        with self._session() as session:
            latest = select(DocumentRow.job_id)
            gone = session.execute(
                delete(JobRow).where(
                    JobRow.status.in_(FINISHED),
                    JobRow.updated_at < time.time() - older_than,
                    JobRow.id.not_in(latest),
                )
            )
            return int(getattr(gone, "rowcount", 0))

    # -- the worker's side -----------------------------------------------------------------

    def claim(self, job_id: str, worker: str, lease: float, max_attempts: int) -> Work | None:
        """Take the job for `lease` seconds; None if there is nothing (left) to do.

        Raises `Busy` while another worker, or this one, has its document in hand.
        """
        now = time.time()
        with self._session() as session:
            job = session.get(JobRow, job_id)
            if job is None or job.status in FINISHED:
                return None
            row = session.get(DocumentRow, job.document_id, with_for_update=True)
            if row is None or row.job_id != job_id:
                self._finish(session, job, DONE, superseded=True)
                return None
            if row.lease_until > now:
                raise Busy
            if job.attempts >= max_attempts:
                reason = job.error or "the worker stopped each time while it read this."
                reason = f"Given up after {job.attempts} attempts: {reason}"
                self._finish(session, job, FAILED, error=reason)
                return None
            row.lease_owner, row.lease_until = worker, now + lease
            job.status, job.attempts, job.updated_at = RUNNING, job.attempts + 1, now
            content = session.get(ContentRow, job_id) if job.kind == "index" else None
            upload = None
            if content is not None:
                upload = Upload(
                    row.id,
                    content.body,
                    row.media_type,
                    row.filename,
                    row.title,
                    row.language,
                    row.tags,
                )
            return Work(job_id, job.kind, upload, row.id, list(row.may_hold), job.waits)

    def renew(self, document_id: str, worker: str, lease: float) -> None:
        """Keep the lease for `lease` more seconds."""
        with self._session() as session:
            session.execute(
                update(DocumentRow)
                .where(DocumentRow.id == document_id, DocumentRow.lease_owner == worker)
                .values(lease_until=time.time() + lease)
            )

    def progress(self, job_id: str, progress: float, passages: int | None = None) -> None:
        values: dict[str, Any] = {"progress": progress, "updated_at": time.time()}
        if passages is not None:
            values["passages"] = passages
        with self._session() as session:
            session.execute(update(JobRow).where(JobRow.id == job_id).values(**values))

    def will_hold(self, work: Work, ids: list[str]) -> None:
        """Note, before the indexes are touched, every id that they may hold from now on."""
        union = sorted({*work.may_hold, *ids})
        with self._session() as session:
            session.execute(
                update(DocumentRow).where(DocumentRow.id == work.document_id).values(may_hold=union)
            )
            session.execute(
                update(JobRow)
                .where(JobRow.id == work.job_id)
                .values(progress=0.2, passages=len(ids), updated_at=time.time())
            )

    def indexed(
        self,
        work: Work,
        ids: list[str],
        *,
        title: str,
        language: str,
        tags: list[str],
        models: dict[str, str],
        partial: bool,
        ahead: Sequence[str] = (),
    ) -> None:
        """Both indexes hold exactly `ids` of the document, with the index texts `ahead`.

        `partial` says that a wanted vector is missing: sent again, it is not `unchanged`.
        """
        now = time.time()
        with self._session() as session:
            row = session.get_one(DocumentRow, work.document_id, with_for_update=True)
            job = session.get_one(JobRow, work.job_id)
            row.may_hold, row.passages, row.indexed_at = ids, len(ids), now
            row.models, row.partial = models, partial
            row.lease_owner, row.lease_until = None, 0.0
            if row.job_id == work.job_id:
                row.title, row.language, row.tags = title, language, tags
            job.passages = len(ids)
            self._finish(session, job, DONE)
            _nothing_ahead(session, work.document_id)
            session.add_all(AheadRow(document_id=work.document_id, text=text) for text in ahead)

    def deleted(self, work: Work) -> None:
        """Neither index holds anything of the document."""
        with self._session() as session:
            row = session.get_one(DocumentRow, work.document_id, with_for_update=True)
            self._finish(session, session.get_one(JobRow, work.job_id), DONE)
            if row.job_id == work.job_id:
                session.delete(row)
            else:  # sent again meanwhile
                row.may_hold, row.passages, row.indexed_at = [], 0, None
                row.lease_owner, row.lease_until = None, 0.0
            _nothing_ahead(session, work.document_id)

    def failed(self, work: Work, reason: str) -> None:
        """It will never work. What an earlier version left in the indexes stays searchable."""
        with self._session() as session:
            self._release(session, work)
            self._finish(session, session.get_one(JobRow, work.job_id), FAILED, error=reason)

    def waiting(self, work: Work, reason: str, *, blameless: bool) -> None:
        """Queued again; a try that was not the document's fault does not count."""
        with self._session() as session:
            self._release(session, work)
            job = session.get_one(JobRow, work.job_id)
            job.status, job.error, job.updated_at = QUEUED, reason, time.time()
            job.waits += 1
            if blameless:
                job.attempts = max(0, job.attempts - 1)

    def ahead(self, limit: int) -> dict[int, str]:
        """Index texts that reranking has not been asked to encode yet, by their numbers."""
        with self._view() as session:
            query = select(AheadRow.number, AheadRow.text).order_by(AheadRow.number).limit(limit)
            return {row[0]: row[1] for row in session.execute(query)}

    def no_longer_ahead(self, numbers: Iterable[int]) -> None:
        with self._session() as session:
            session.execute(delete(AheadRow).where(AheadRow.number.in_(list(numbers))))

    def _release(self, session: Session, work: Work) -> None:
        session.execute(
            update(DocumentRow)
            .where(DocumentRow.id == work.document_id)
            .values(lease_owner=None, lease_until=0.0)
        )

    def _finish(
        self,
        session: Session,
        job: JobRow,
        status: str,
        *,
        error: str | None = None,
        superseded: bool = False,
    ) -> None:
        job.status, job.error, job.superseded = status, error, superseded
        job.updated_at = time.time()
        if status == DONE:
            job.progress = 1.0
        session.execute(delete(ContentRow).where(ContentRow.job_id == job.id))


def _nothing_ahead(session: Session, document_id: str) -> None:
    session.execute(delete(AheadRow).where(AheadRow.document_id == document_id))


def _new_job(
    job_id: str, document_id: str, kind: str, headers: dict[str, str], now: float
) -> JobRow:
    return JobRow(
        id=job_id,
        document_id=document_id,
        kind=kind,
        status=QUEUED,
        headers=headers,
        created_at=now,
        updated_at=now,
    )
