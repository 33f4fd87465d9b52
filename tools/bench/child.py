"""A part of a measurement in a process of its own, which answers what it is asked.

A child runs `serve(ends, *arguments)`, named as `module:function`, on its end of a pipe. Without the machine code that
may lie beside the sources if `plain` is set: that is how a compiled core is set beside the same source.
"""

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any, Final

PATIENCE_S: Final = 60.0
ROOTS: Final = ("engine", "bus", "proto")


class PipeChild:
    """The process. `connection` is our end of its pipe; leaving the block ends the process."""

    def __init__(self, serve: str, *arguments: Any, plain: bool = False) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, serve, arguments, plain), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, *question: Any) -> Any:
        """Its answer. Raises: EOFError when it has ended, TimeoutError when it says nothing for a minute."""
        self.tell(*question)
        return self.answer()

    def tell(self, *question: Any) -> None:
        self.connection.send(question)

    def answer(self) -> Any:
        if not self.connection.poll(PATIENCE_S):
            raise TimeoutError(f"no answer within {PATIENCE_S:g} s")
        return self.connection.recv()

    def __enter__(self) -> "PipeChild":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self._process.terminate()
        self._process.join()


def _serve(connection: "Connection[Any, Any]", serve: str, arguments: Sequence[Any], plain: bool) -> None:
    if plain:
        sys.meta_path.insert(0, Sources())
    module, _, name = serve.partition(":")
    with contextlib.suppress(EOFError, KeyboardInterrupt):  # the parent is done with it
        getattr(importlib.import_module(module), name)(connection, *arguments)


class Sources(importlib.abc.MetaPathFinder):
    """Finds our modules by their source, before anything else finds their machine code."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is None or fullname.partition(".")[0] not in ROOTS:
            return None
        for directory in path:
            spec = FileFinder(directory, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(fullname)
            if spec is not None:
                return spec
        return None
