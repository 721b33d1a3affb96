"""`python -m services.ingestion.read_file MEDIA_TYPE`: one file from standard input, as JSON.

A PDF or DOCX is read in a process of its own with a memory limit: a file made to exhaust or
crash its parser takes nothing else along.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import sys

from .domain import BadDocument, Block, Parsed
from .parsing import DOCX, PDF, parse

IN_OWN_PROCESS = (PDF, DOCX)


async def read_file(content: bytes, media_type: str, *, timeout: float, memory: int) -> Parsed:
    """As `parsing.parse`, bounded by `timeout` seconds and `memory` bytes."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.ingestion.read_file",
        media_type,
        str(memory),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(timeout):
            output, _ = await process.communicate(content)
    except TimeoutError:
        raise BadDocument(f"Reading it took longer than {timeout:.0f} s.") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise BadDocument("Reading it crashed the parser: the file is damaged or too complex.")
    answer = json.loads(output)
    if "bad" in answer:
        raise BadDocument(answer["bad"])
    blocks = [Block(**block) for block in answer.pop("blocks")]
    return Parsed(blocks, **answer)


def _main(media_type: str, memory: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        answer = dataclasses.asdict(parse(sys.stdin.buffer.read(), media_type))
    except BadDocument as error:
        answer = {"bad": str(error)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
