"""Conversations, in the orchestrator's own SQLite file."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any


class Conversations:
    """Turns of each conversation. Safe to call from several threads."""

    def __init__(self, path: Path, ttl: float = 86_400.0) -> None:
        self._lock = threading.Lock()
        self._ttl = ttl
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.executescript(
            """
            PRAGMA journal_mode = WAL;
            PRAGMA synchronous = NORMAL;
            CREATE TABLE IF NOT EXISTS turns (
                conversation TEXT NOT NULL, at REAL NOT NULL,
                question TEXT NOT NULL, answer TEXT NOT NULL
            );
            CREATE INDEX IF NOT EXISTS turns_by_conversation ON turns (conversation, at);
            CREATE INDEX IF NOT EXISTS turns_by_time ON turns (at);
            """
        )

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def add(self, conversation: str, question: str, answer: str) -> None:
        """Append a turn, and forget the conversations that nobody continued."""
        now = time.time()
        with self._lock:
            self._db.execute(
                "INSERT INTO turns VALUES (?, ?, ?, ?)", (conversation, now, question, answer)
            )
            self._db.execute(
                "DELETE FROM turns WHERE at < ? AND conversation NOT IN"
                " (SELECT conversation FROM turns WHERE at >= ?)",
                (now - self._ttl, now - self._ttl),
            )

    def questions(self, conversation: str, limit: int) -> list[str]:
        """The last `limit` questions, oldest first."""
        with self._lock:
            rows = self._db.execute(
                "SELECT question FROM turns WHERE conversation = ? ORDER BY at DESC LIMIT ?",
                (conversation, limit),
            ).fetchall()
        return [row[0] for row in reversed(rows)]

    def turns(self, conversation: str) -> list[dict[str, Any]]:
        with self._lock:
            rows = self._db.execute(
                "SELECT question, answer, at FROM turns WHERE conversation = ? ORDER BY at",
                (conversation,),
            ).fetchall()
        return [{"question": row[0], "answer": row[1], "at": row[2]} for row in rows]

    def delete(self, conversation: str) -> int:
        """Turns deleted."""
        with self._lock:
            return self._db.execute(
                "DELETE FROM turns WHERE conversation = ?", (conversation,)
            ).rowcount
