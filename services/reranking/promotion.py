"""The way of a model into service: a gate that it must pass, and a registry that is versioned.

An offline job adds a candidate with its evidence: the nDCG@10 of each validation question, under
what serves and under the candidate. The gate decides on the evidence alone. The service loads
what is promoted, and only if the file is the promoted one and the gate lets its evidence pass.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .domain import ModelNotUsable
from .weighting import TermWeights

DRAWS, SEED = 2000, 7
MAX_LOSS = 0.02
"""What the mean of one language may lose: a mean over all hides the loss of a few."""

Scores = Mapping[str, float]
"""nDCG@10 of each question, by its id."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to promote; the mean difference with its 95 % interval; the reason in words."""

    promoted: bool
    mean: float
    low: float
    high: float
    reason: str

    def __str__(self) -> str:
        verdict = "promote" if self.promoted else "refuse"
        return f"{verdict}: {self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}], {self.reason}"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was measured: `serving` and `candidate` hold the same questions."""

    against: str
    serving: Scores
    candidate: Scores
    languages: Mapping[str, str]


Gate = Callable[[Scores, Scores, Mapping[str, str]], Decision]


def decide(serving: Scores, candidate: Scores, languages: Mapping[str, str]) -> Decision:
    """Promote if the paired bootstrap interval lies above zero and no language loses too much.

    Percentile interval (Efron and Tibshirani, 1993; for retrieval: Sakai, SIGIR 2006). Pairs are
    made by question id. Raises ValueError if the two were not asked the same questions.
    """
    if serving.keys() != candidate.keys() or not serving:
        raise ValueError("both must have been judged on the same questions, at least one")
    gains = {question: candidate[question] - serving[question] for question in serving}
    values = np.array(list(gains.values()))
    drawn = np.random.default_rng(SEED).integers(0, len(values), (DRAWS, len(values)))
    low, high = (float(end) for end in np.percentile(values[drawn].mean(axis=1), [2.5, 97.5]))
    reason = "the interval lies above zero" if low > 0 else "the interval does not leave out zero"
    reason = "it is worse" if high < 0 else reason
    for language in sorted(set(languages.values())):
        own = [gain for question, gain in gains.items() if languages[question] == language]
        if own and low > 0 and np.mean(own) < -MAX_LOSS:
            reason = f"{language} loses {-np.mean(own):.3f}"
            return Decision(False, float(values.mean()), low, high, reason)
    return Decision(low > 0, float(values.mean()), low, high, reason)


class Registry:
    """Versions of the weights on disk, and which of them is promoted.

    `versions/VERSION/` holds `weights.json` and `evidence.json`; a version is named by the
    SHA-256 of its weights. `promoted.json` names one version and the hashes of both files; it is
    replaced in one step, so that a reader sees the old one or the new one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pointer = folder / "promoted.json"

    def add(self, weights: TermWeights, evidence: Evidence) -> str:
        """Keep a candidate; returns its version. It does not serve before it is promoted."""
        raw = weights.to_bytes()
        version = hashlib.sha256(raw).hexdigest()[:12]
        folder = self._of(version)
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "weights.json", raw)
        _write(folder / "evidence.json", _pack(evidence))
        return version

    def promote(self, version: str, gate: Gate = decide) -> Decision:
        """Let the gate decide; if it says so, the version serves from the next start on."""
        decision = _judge(gate, self.evidence(version))
        if decision.promoted:
            pointer = {"version": version} | {
                name: _sha256(self._of(version) / f"{name}.json")
                for name in ("weights", "evidence")
            }
            _write(self._pointer, json.dumps(pointer, indent=1).encode())
        return decision

    def promoted(self) -> str | None:
        """The promoted version, or None: then all tokens count alike."""
        pointer = self._read_pointer()
        return None if pointer is None else pointer["version"]

    def evidence(self, version: str) -> Evidence:
        try:
            value = json.loads((self._of(version) / "evidence.json").read_bytes())
            rows = value["questions"]
            return Evidence(
                value["against"],
                {row["id"]: float(row["serving"]) for row in rows},
                {row["id"]: float(row["candidate"]) for row in rows},
                {row["id"]: str(row["language"]) for row in rows},
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelNotUsable(f"version {version} has no evidence: {error!r}") from error

    def load(self, gate: Gate = decide) -> tuple[str, TermWeights] | None:
        """(version, weights) of what is promoted; None if nothing is.

        Raises ModelNotUsable if a file is not the one that was promoted, or if the gate does not
        let the evidence pass: a pointer that somebody wrote by hand promotes nothing.
        """
        pointer = self._read_pointer()
        if pointer is None:
            return None
        version = pointer["version"]
        for name in ("weights", "evidence"):
            path = self._of(version) / f"{name}.json"
            if not path.is_file() or _sha256(path) != pointer[name]:
                raise ModelNotUsable(f"{path} is not the file that was promoted: its hash differs")
        decision = _judge(gate, self.evidence(version))
        if not decision.promoted:
            raise ModelNotUsable(f"version {version} does not pass the gate: {decision}")
        raw = (self._of(version) / "weights.json").read_bytes()
        return version, TermWeights.from_bytes(raw)

    def withdraw(self) -> None:
        """Promote nothing; the versions stay."""
        self._pointer.unlink(missing_ok=True)

    def remove(self, version: str) -> None:
        """Delete a version. Raises ValueError if it is the promoted one."""
        if version == self.promoted():
            raise ValueError(f"{version} is promoted: withdraw it first")
        shutil.rmtree(self._of(version), ignore_errors=True)

    def _of(self, version: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{12}", version):
            raise ModelNotUsable(f"{version!r} is not the name of a version")
        return self.folder / "versions" / version

    def _read_pointer(self) -> dict[str, str] | None:
        if not self._pointer.is_file():
            return None
        try:
            value = json.loads(self._pointer.read_bytes())
            return {name: str(value[name]) for name in ("version", "weights", "evidence")}
        except (ValueError, KeyError, TypeError) as error:
            raise ModelNotUsable(f"{self._pointer} names no version: {error!r}") from error


def _judge(gate: Gate, evidence: Evidence) -> Decision:
    return gate(evidence.serving, evidence.candidate, evidence.languages)


def _pack(evidence: Evidence) -> bytes:
    rows = [
        {
            "id": question,
            "serving": evidence.serving[question],
            "candidate": evidence.candidate[question],
            "language": evidence.languages[question],
        }
        for question in evidence.serving
    ]
    return json.dumps({"against": evidence.against, "questions": rows}, indent=1).encode()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(path: Path, raw: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(raw)
    os.replace(temporary, path)
