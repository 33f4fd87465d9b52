"""An account's reports as a list: whole, or it says that it is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.message import DecodeError

from engine.client.report import IncompleteError, Report, SessionError, UnreachableError, reports_of
from engine.client.stream import greet, raise_status
from proto import orders_pb2 as pb
from proto.connect import BROKEN_STREAM, channel

if TYPE_CHECKING:
    from engine.client.client import Client

PROGRESS_S: Final = 10.0  # without a report that is due, and nobody says why
STAND_S: Final = 3.0  # for every engine to say where the account's numbers stand
RETRY_S: Final = 0.2

# Ends of a stream after which it can be opened again, where it was.
_AGAIN: Final = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}


class Executions:
    """The account's reports, of every home, in the order of each home's numbers. Made by `Client.executions`.

    It asks first how far each home's numbers go, and gives the reports up to there, however long that takes, as long as
    they come. `missing` says, a line each, what is known so far not to be here: an engine that does not answer, reports
    that are no longer held. Unless it is empty at the end, IncompleteError is raised. With `follow` there is no end.
    """

    def __init__(self, client: Client, cursors: dict[int, int], *, follow: bool) -> None:
        self.missing: list[str] = []
        self._client = client
        self._cursors = cursors
        self._follow = follow
        self._due: dict[int, int] = {}

    async def __aiter__(self) -> AsyncIterator[Report]:
        await self._ask_how_far()
        progress = time.monotonic()
        while self._follow or self._is_due():
            try:
                async with channel(await self._client.find()) as there:
                    async for batch in self._batches(there):
                        progress = time.monotonic()
                        await self._client.learn(batch.instrument)
                        for report in reports_of(batch, self._client.instruments):
                            yield report
                        progress = time.monotonic()  # whoever reads may have taken their time
            except grpc.aio.AioRpcError as e:
                if e.code() is grpc.StatusCode.OUT_OF_RANGE:
                    self.missing.append(e.details() or "reports are no longer held")
                    break
                if e.code() not in _AGAIN:
                    raise SessionError(e.code(), e.details() or "") from e
                why = f"{e.code().name}: {e.details()}"
            except (UnreachableError, TimeoutError, DecodeError, *BROKEN_STREAM) as e:
                why = str(e) or f"nothing came for {PROGRESS_S:g} s"
            else:
                continue
            patience_s = self._client.patience_s if self._follow else PROGRESS_S
            if time.monotonic() > progress + patience_s:
                if self._follow:
                    raise UnreachableError(f"no reports come: {why}")
                for home, last in self._due.items():
                    if (first := self._cursors.get(home, 0) + 1) <= last:
                        self.missing.append(f"engine {home}: reports {first:,} to {last:,} did not come ({why})")
                break
            await asyncio.sleep(RETRY_S)
        if self.missing:
            raise IncompleteError("not all reports are here: " + "; ".join(self.missing))

    def _is_due(self) -> bool:
        return any(self._cursors.get(home, 0) < last for home, last in self._due.items())

    async def _batches(self, there: grpc.aio.Channel) -> AsyncIterator[pb.ReportBatch]:
        """What one stream brings, until all that is due is here."""
        cursors = [pb.Cursor(home=home, last_seq=last) for home, last in self._cursors.items()]
        wish = pb.ExecutionsRequest(account=self._client.account, cursors=cursors)
        executions: Any = there.unary_stream("/lobmesh.v1.Orders/Executions")
        call = executions(wish.SerializeToString())
        try:
            while self._follow or self._is_due():
                async with asyncio.timeout(None if self._follow else PROGRESS_S):
                    data = await call.read()
                if data is grpc.aio.EOF:
                    await raise_status(call)
                batch = pb.ReportBatch.FromString(data)
                if batch.first_seq:
                    last = self._cursors.get(batch.home, 0)
                    if batch.first_seq > last + 1:
                        gone = (
                            f"engine {batch.home}: reports {last + 1:,} to {batch.first_seq - 1:,} are no longer held"
                        )
                        self.missing.append(gone)
                    self._cursors[batch.home] = batch.first_seq + len(batch.kind) - 1
                    yield batch
        finally:
            call.cancel()

    async def _ask_how_far(self) -> None:
        """Where each home's numbers stand, as they say to whoever begins a session.

        Raises: UnreachableError, SessionError.
        """
        deadline = time.monotonic() + STAND_S
        while True:
            silent, why = list[int](), ""
            try:
                silent = await self._stand()
            except grpc.aio.AioRpcError as e:
                if e.code() not in _AGAIN:
                    raise SessionError(e.code(), e.details() or "") from e
                why = f"{e.code().name}: {e.details()}"
            except (TimeoutError, DecodeError, *BROKEN_STREAM) as e:
                why = str(e) or "an engine gave no welcome"
            if not silent and not why:
                return
            if time.monotonic() > deadline:
                if why:
                    raise UnreachableError(why)
                self.missing += [f"engine {home} does not answer" for home in silent]
                return
            await asyncio.sleep(RETRY_S)

    async def _stand(self) -> list[int]:
        """Take in where the homes stand; those that do not say."""
        async with channel(await self._client.find()) as there:
            call: Any = there.stream_stream("/lobmesh.v1.Orders/Session")()
            try:
                welcome = await greet(call, pb.Hello(account=self._client.account))
            finally:
                call.cancel()
        self._due = {cursor.home: cursor.last_seq for cursor in welcome.cursors}
        return [home for home in welcome.engines if home not in self._due]
