"""Faults from a command line and from a file, together."""

from pathlib import Path

from tools.chaos.plan import FaultError, FaultSpec, parse, parse_script


def with_script(text: str, script: Path | None) -> FaultSpec:
    """The faults of a spec and of a script together. Raises: FaultError."""
    if script is None:
        return parse(text)
    try:
        return parse_script(f"{text}\n{script.read_text()}")
    except (OSError, UnicodeDecodeError) as e:
        raise FaultError([f"{script}: {getattr(e, 'strerror', None) or e}"]) from None
