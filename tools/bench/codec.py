"""The feed's bytes: how many a delta takes, and how fast they are made and read.

Sizes are of whole frames: topic, header, checksum, body and times.
"""

import json
from collections.abc import Sequence
from itertools import islice
from typing import Final

import msgpack  # type: ignore[import-untyped]

from proto import feed
from proto.columns import DELTA_WIDTH
from tools.bench import deltas, flows
from tools.bench.deltas import Cut, Event
from tools.bench.measure import Options, Report, Result, cpu_ns, hash_of, in_turns, quiet, result, say

COMMAND: Final = "python -m tools.bench codec"
SENT_NS: Final = deltas.START_NS + 10**14
COMMIT_NS: Final = 100_000  # what one durable append takes here (`bench log`)


def run(options: Options) -> Report:
    """codec.bytes_per_delta at 32 a batch, at 1 and at 64; codec.encode and codec.decode in deltas a second."""
    say("codec: reading the flow")
    count = options.take(90_000, 20_000)
    published = list(deltas.of_flow(flows.load("normal", options.data, options.seed, 40_000)))
    timed = published
    source = "the venue's deltas for a flow like normal"
    if options.data is not None:
        path = options.data / "lobster" / "aapl_l50" / "AAPL_message_50.csv.gz"
        timed = list(islice(deltas.of_lobster(path), count))
        source = f"{path.name}, first {len(timed):,} events"
    day = deltas.logged(timed, COMMIT_NS)
    report = Report(
        "codec",
        "at most 12 bytes a delta at 32 a batch, header and time included, on real flow",
        f"{source}, logged as they arrived by an engine that commits in {COMMIT_NS // 1000} µs; beside it (_timed) "
        "every event with its own nanosecond, as if each had met an idle engine, and (_venue) the venue's deltas for "
        f"normal in records of {flows.BATCH} commands",
        "one process, one thread; processor time",
    )
    report.results += sizes(day, timed, published)
    report.results += rates(day, options.turns(9, 3))
    report.notes.append(
        "A batch of one delta pays the topic (8 bytes), the header (48) and the body's bases by itself. "
        "JSON is one map a delta, the same fields by name."
    )
    return report


def sizes(day: Sequence[Event], timed: Sequence[Event], published: Sequence[Event]) -> list[Result]:
    found = []
    for name, events, size, goal in (
        ("codec.bytes_per_delta", day, 32, "<= 12"),
        ("codec.bytes_per_delta_64", day, 64, ""),
        ("codec.bytes_per_delta_1", day, 1, ""),
        ("codec.bytes_per_delta_timed", timed, 32, ""),
        ("codec.bytes_per_delta_venue", published, 32, "<= 12"),
        ("codec.bytes_per_delta_venue_1", published, 1, ""),
    ):
        cuts = deltas.cut(events, size)
        frames = [frame(piece, 1 + i * size) for i, piece in enumerate(cuts)]
        total = len(cuts) * size
        value = sum(map(len, frames)) / total
        naive = sum(len(json.dumps(deltas.spoken(row))) for piece in cuts for row in rows_of(piece)) / total
        found.append(Result(
            name, value, "B", naive, value / naive, 0.0, COMMAND, hash_of(*frames),
            "naive JSON, one map a delta", goal,
        ))  # fmt: skip
    return found


def rates(day: Sequence[Event], rounds: int) -> list[Result]:
    cuts = deltas.cut(day, 32)
    frames = [frame(piece, 1 + i * 32) for i, piece in enumerate(cuts)]
    plain = [list(rows_of(piece)) for piece in cuts]
    packed: list[bytes] = [msgpack.packb(rows) for rows in plain]
    total = len(cuts) * 32

    def encode() -> float:
        before = cpu_ns()
        for i, piece in enumerate(cuts):
            frame(piece, 1 + i * 32)
        return total * 1e9 / (cpu_ns() - before)

    def decode() -> float:
        before = cpu_ns()
        for data in frames:
            feed.decode(data)
        return total * 1e9 / (cpu_ns() - before)

    def pack() -> float:
        before = cpu_ns()
        for rows in plain:
            msgpack.packb(rows)
        return total * 1e9 / (cpu_ns() - before)

    def unpack() -> float:
        before = cpu_ns()
        for data in packed:
            msgpack.unpackb(data)
        return total * 1e9 / (cpu_ns() - before)

    with quiet():
        found = in_turns({"encode": encode, "pack": pack, "decode": decode, "unpack": unpack}, rounds)
    digest = hash_of(*frames)
    return [
        result("codec.encode", "deltas/s", found["encode"], found["pack"], command=COMMAND, digest=digest,
               against="msgpack.packb of the same rows, not delta-coded, no header, no checksum"),
        result("codec.decode", "deltas/s", found["decode"], found["unpack"], command=COMMAND, digest=digest,
               against="msgpack.unpackb of those, nothing checked"),
    ]  # fmt: skip


def frame(piece: Cut, first_seq: int) -> bytes:
    return feed.encode_frame(
        1, 1, 0, 0xC0FFEE, 1, first_seq, SENT_NS + first_seq, piece.times, piece.instruments, piece.rows
    )


def rows_of(piece: Cut) -> list[tuple[int, ...]]:
    it = iter(piece.rows)
    return list(zip(*[it] * DELTA_WIDTH, strict=True))
