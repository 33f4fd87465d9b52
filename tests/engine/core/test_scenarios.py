"""Transcripts: commands above the line, the whole output below. They read as documentation of the matching rules.

A file is a sequence of blocks, a blank line between them; what one leaves behind the next one finds. To write the
outputs anew: LOBMESH_REWRITE=1 python -m pytest tests/engine/core/test_scenarios.py, then read the difference.
"""

import os
from pathlib import Path

import pytest

from tests.transcript import Floor

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))
LINE = "----"


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_transcript_is_what_the_venue_says(path: Path) -> None:
    text = path.read_text()
    played = play(text)
    if os.environ.get("LOBMESH_REWRITE"):
        path.write_text(played)
    else:
        assert played == text


def test_there_are_transcripts() -> None:
    assert len(SCENARIOS) >= 10


def play(text: str) -> str:
    """A transcript with its outputs as the venue gives them now."""
    floor = Floor()
    blocks = []
    for block in text.strip().split("\n\n"):
        commands = block.split("\n" + LINE)[0].splitlines()
        said = [line for command in commands if command and command[0] != "#" for line in floor.say(command)]
        blocks.append("\n".join([*commands, LINE, *said]) if any(line[0] != "#" for line in commands) else block)
    return "\n\n".join(blocks) + "\n"
