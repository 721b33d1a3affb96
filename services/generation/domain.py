"""Prompts as versioned files: which there are, and how one becomes chat messages.

A prompt lies in `prompts/<template>/<version>/<language>.toml`: a description and a list of
messages whose text may hold `{{variable}}`. The order inside a file is chosen for the prefix
cache of LLM servers (they reuse the state of the longest token prefix seen before): what is the
same for every question comes first, then the context, then the question.

No web framework and no network here; usable from a script:

    messages = render("answer", "pt", {"question": "…", "context": "[1] …"})
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROMPTS = Path(__file__).parent / "prompts"

Message = dict[str, str]
"""A chat message: `role` (system, user or assistant) and `content`."""

_VARIABLE = re.compile(r"\{\{(\w+)\}\}")
# Control tokens of chat templates (<|im_end|>, <|eot_id|>, [INST]…): a model server reads them as
# such even inside a message, so a passage that holds one could end its own message and start
# another. `</sources>` would end the block that marks a passage as data.
_CONTROL = re.compile(
    r"<\|([^|<>]{1,40})\|>|<(/?)(sources|s)>|\[(/?)(INST|SYS)\]|<<(/?SYS)>>", re.I
)


class UnknownPrompt(LookupError):
    """No such template, version or language. `field` names which; `known` lists what there is."""

    def __init__(self, field: str, value: str, known: list[str]) -> None:
        super().__init__(f"there is no {field} {value!r}; known: {', '.join(known)}")
        self.field = field
        self.known = known


class WrongVariables(ValueError):
    """The variables given are not the ones that the template has."""


@dataclass(frozen=True, slots=True)
class Prompt:
    template: str
    version: str
    language: str
    description: str
    messages: tuple[tuple[str, str], ...]
    """(role, text with `{{variable}}`), in order."""
    sha256: str

    @property
    def variables(self) -> list[str]:
        found = (name for _, text in self.messages for name in _VARIABLE.findall(text))
        return list(dict.fromkeys(found))

    def render(self, variables: Mapping[str, str]) -> list[Message]:
        """The messages with every variable filled in. Raises WrongVariables.

        Values are inserted as data: chat control tokens in them are broken up, and a value that
        looks like `{{another}}` stays as it is.
        """
        missing = [name for name in self.variables if name not in variables]
        unknown = [name for name in variables if name not in self.variables]
        if missing or unknown:
            problem = f"missing: {', '.join(missing)}" if missing else f"unknown: {unknown[0]}"
            raise WrongVariables(f"{problem} ({self.template} has {', '.join(self.variables)})")
        return [
            {
                "role": role,
                "content": _VARIABLE.sub(lambda match: defuse(variables[match[1]]), text),
            }
            for role, text in self.messages
        ]


def defuse(text: str) -> str:
    """`text` with chat control tokens and the prompt's own delimiters made harmless."""
    return _CONTROL.sub(lambda match: f"({match[0].strip('<>[]|')})", text).strip()


@cache
def prompts(folder: Path = PROMPTS) -> dict[tuple[str, str, str], Prompt]:
    """Every prompt below `folder` by (template, version, language). Raises ValueError if bad."""
    found = {}
    for path in sorted(folder.glob("*/*/*.toml")):
        template, version, language = path.parts[-3], path.parts[-2], path.stem
        raw = path.read_bytes()
        try:
            data = tomllib.loads(raw.decode())
            messages = tuple((item["role"], item["content"].strip()) for item in data["messages"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"the prompt {path} cannot be read: {error}") from error
        if not messages or {role for role, _ in messages} - {"system", "user", "assistant"}:
            raise ValueError(f"the prompt {path} has no messages, or one with an unknown role")
        found[template, version, language] = Prompt(
            template,
            version,
            language,
            str(data.get("description", "")),
            messages,
            hashlib.sha256(raw).hexdigest(),
        )
    if not found:
        raise ValueError(f"there are no prompts below {folder}")
    return found


def find(
    template: str, language: str, version: str | None = None, folder: Path = PROMPTS
) -> Prompt:
    """One prompt; the newest version if none is named. Raises UnknownPrompt."""
    known = prompts(folder)
    of_template = [prompt for prompt in known.values() if prompt.template == template]
    if not of_template:
        raise UnknownPrompt("template", template, sorted({name for name, _, _ in known}))
    versions = sorted({prompt.version for prompt in of_template}, key=_version_number)
    if version is not None and version not in versions:
        raise UnknownPrompt("version", version, versions)
    chosen = version or versions[-1]
    prompt = known.get((template, chosen, language))
    if prompt is None:
        languages = sorted(p.language for p in of_template if p.version == chosen)
        raise UnknownPrompt("language", language, languages)
    return prompt


def render(
    template: str,
    language: str,
    variables: Mapping[str, str],
    version: str | None = None,
    folder: Path = PROMPTS,
) -> list[Message]:
    """Chat messages of a template. Raises UnknownPrompt or WrongVariables."""
    return find(template, language, version, folder).render(variables)


def _version_number(version: str) -> tuple[int, str]:
    digits = version.removeprefix("v")
    return (int(digits) if digits.isdigit() else 0, version)
