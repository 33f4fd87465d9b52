"""The feed's bytes: how many a delta takes, and how fast they are made and read.

Sizes are of whole frames: topic, header, checksum, body and times.
"""

import json
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

import msgpack

from proto import feed
from proto.columns import DELTA_WIDTH
from tools.bench import deltas, flows
from tools.bench.deltas import Cut, Event
from tools.bench.measure import BenchOptions, PartReport, cpu_ns, hash_of, in_turns, quiet, say

SENT_NS: Final = deltas.START_NS + 10**14
COMMIT_NS: Final = 100_000  # what one durable append takes here (`bench log`)


def run(options: BenchOptions) -> PartReport:
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
    report = PartReport(
        "codec",
        "at most 12 bytes a delta at 32 a batch, header and time included, on real flow",
        f"{source}, logged as they arrived by an engine that commits in {COMMIT_NS // 1000} µs; beside it "
        "(_venue) the venue's deltas for "
        f"normal in records of {flows.BATCH} commands",
        "one process, one thread; processor time",
    )
    for name, events, size, goal in (
        ("codec.bytes_per_delta", day, 32, "<= 12"),
        ("codec.bytes_per_delta_64", day, 64, ""),
        ("codec.bytes_per_delta_1", day, 1, ""),
        ("codec.bytes_per_delta_venue", published, 32, "<= 12"),
    ):
        cuts = deltas.cut(events, size)
        frames = [frame(piece, 1 + i * size) for i, piece in enumerate(cuts)]
        total = len(cuts) * size
        naive = sum(len(json.dumps(deltas.spoken(row))) for piece in cuts for row in rows_of(piece)) / total
        report.add(
            name, "B", [sum(map(len, frames)) / total], [naive], digest=hash_of(*frames), goal=goal,
            against="naive JSON, one map a delta",
        )  # fmt: skip
    rates(day, options.turns(9, 3), report)
    report.notes.append(
        "A batch of one delta pays the topic (8 bytes), the header (48) and the body's bases by itself. "
        "JSON is one map a delta, the same fields by name."
    )
    return report


def rates(day: Sequence[Event], rounds: int, report: PartReport) -> None:
    cuts = deltas.cut(day, 32)
    frames = [frame(piece, 1 + i * 32) for i, piece in enumerate(cuts)]
    plain = [rows_of(piece) for piece in cuts]
    packed: list[bytes] = [msgpack.packb(rows) for rows in plain]

    def each(function: Callable[..., object], inputs: Sequence[object]) -> Callable[[], float]:
        def run() -> float:
            before = cpu_ns()
            for i, one in enumerate(inputs):
                function(one, i)
            return len(cuts) * 32e9 / (cpu_ns() - before)

        return run

    contenders = {
        "encode": each(lambda piece, i: frame(piece, 1 + i * 32), cuts),
        "pack": each(lambda rows, _: msgpack.packb(rows), plain),
        "decode": each(lambda data, _: feed.decode(data), frames),
        "unpack": each(lambda data, _: msgpack.unpackb(data), packed),
    }
    with quiet():
        found = in_turns(contenders, rounds)
    for name, bare, against in (
        ("encode", "pack", "msgpack.packb of the same rows, not delta-coded, no header, no checksum"),
        ("decode", "unpack", "msgpack.unpackb of those, nothing checked"),
    ):
        report.add(f"codec.{name}", "deltas/s", found[name], found[bare], digest=hash_of(*frames), against=against)


def frame(piece: Cut, first_seq: int) -> bytes:
    return feed.encode_frame(
        1, 1, 0, 0xC0FFEE, 1, first_seq, SENT_NS + first_seq, piece.times, piece.instruments, piece.rows
    )


def rows_of(piece: Cut) -> list[tuple[int, ...]]:
    it = iter(piece.rows)
    return list(zip(*[it] * DELTA_WIDTH, strict=True))
