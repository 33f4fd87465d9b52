"""Matching where not everything is plain, beside the plain flow in the same round.

special   the flow of a regime with one far order of each special type resting: nobody should notice
mixed     that flow with types in the shares of MIX: stops fire, icebergs refill, pegs move
venue     what the traders of run_cluster.py send, as a core took it
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from engine.core.venue import Venue
from proto.columns import (
    ACCEPTED,
    ALL_OR_NONE,
    CAPPED,
    FLAG_SELL,
    NEW,
    POST_ONLY,
    STP_NONE,
    TIF_GTD,
    TIF_IOC,
    TIF_MASK,
    TRADED,
    TRIGGERED,
    TYPE_ICEBERG,
    TYPE_PEG_BID,
    TYPE_PEG_OFFER,
    TYPE_STOP_LIMIT,
    Batch,
    Commands,
    Terms,
    delta_rows,
    report_rows,
)
from proto.feed import ADD, OP_MASK
from tools.bench.flows import INSTRUMENT
from tools.bench.measure import PartReport, cpu_ns, hash_of, in_turns, quiet
from tools.flow.traders import made_traders

MIX: Final = {"stop": 3, "iceberg": 5, "peg": 2, "conditional": 1, "good till a time": 10, "post-only": 5}  # percent
LIVES: Final = 20  # records that an order that is good till a time may see
SECONDS: Final = 60  # of the traders' time
OTHER: Final = 99  # the account of the far orders
MARKETS: Final = (INSTRUMENT, replace(INSTRUMENT, id=2, symbol="MIXED"))  # the traders enter everything in even ones

Records = list[list[Batch]]


def rate(records: Records, far: bool = False) -> float:
    """Messages a second through a new venue's `apply`, one record after the other."""
    venue = Venue(1, MARKETS)
    if far:
        venue.apply(1, 0, [far_orders()])
    copies = [[copied(batch) for batch in record] for record in records]
    count = sum(len(batch) for record in copies for batch in record)
    with quiet():
        before = cpu_ns()
        for position, record in enumerate(copies, 2):
            venue.apply(position, position, record)
        spent = cpu_ns() - before
    return count * 1e9 / spent


def copied(batch: Batch) -> Batch:
    """A batch of its own, since an account remembers its list of ids."""
    return Batch(
        batch.account, batch.session, batch.stp, batch.op, list(batch.client_order_id), batch.instrument, batch.flags,
        batch.price, batch.quantity, batch.target, batch.terms,
    )  # fmt: skip


def far_orders() -> Batch:
    """One order of each special type, where nothing comes."""
    far = INSTRUMENT.price_max
    kinds = (
        (ALL_OR_NONE, 1, Terms()),
        (TYPE_STOP_LIMIT, 1, Terms(stop_price=far)),
        (TYPE_ICEBERG, 1, Terms(display=2)),
        (TIF_GTD, 1, Terms(expires_ns=1 << 60)),
        (TYPE_PEG_BID | CAPPED, 1, Terms()),
        (TYPE_PEG_OFFER | CAPPED | FLAG_SELL, far, Terms()),
        (FLAG_SELL | TIF_GTD, far, Terms(expires_ns=1 << 60)),
        (0, 1, Terms(minimum=2)),
    )
    return Batch(
        OTHER, 0, STP_NONE, [NEW] * len(kinds), list(range(1, len(kinds) + 1)), [INSTRUMENT.id] * len(kinds),
        [flags for flags, _, _ in kinds], [price for _, price, _ in kinds], [5] * len(kinds), [0] * len(kinds),
        [terms for _, _, terms in kinds],
    )  # fmt: skip


def mixed(batches: Sequence[Batch], seed: int) -> Records:
    """The same commands, with orders made into others by the shares of MIX."""
    chance = random.Random(f"{seed} mixed")
    kinds, weights = ["plain", *MIX], [100 - sum(MIX.values()), *MIX.values()]
    records: Records = []
    touch = 0  # where it traded last, as far as the messages tell
    for nth, batch in enumerate(batches):
        flags, prices, terms = list(batch.flags), list(batch.price), [Terms()] * len(batch)
        for i, op in enumerate(batch.op):
            if op != NEW:
                continue
            if flags[i] & TIF_MASK == TIF_IOC:
                touch = prices[i]
                continue
            sell = flags[i] & FLAG_SELL
            (kind,) = chance.choices(kinds, weights)
            if kind == "stop" and touch:
                flags[i] |= TYPE_STOP_LIMIT
                terms[i] = Terms(stop_price=touch + (-1 if sell else 1) * chance.randrange(0, 8))
                prices[i] = terms[i].stop_price
            elif kind == "iceberg" and batch.quantity[i] > 1:
                flags[i] |= TYPE_ICEBERG
                terms[i] = Terms(display=max(1, batch.quantity[i] // 5))
            elif kind == "peg":
                flags[i] |= TYPE_PEG_OFFER if sell else TYPE_PEG_BID
                terms[i] = Terms(offset=(1 if sell else -1) * chance.randrange(0, 4))
            elif kind == "conditional":
                if chance.random() < 0.5:
                    flags[i] |= ALL_OR_NONE
                else:
                    terms[i] = Terms(minimum=(batch.quantity[i] + 1) // 2)
            elif kind == "good till a time":
                flags[i] |= TIF_GTD
                terms[i] = Terms(expires_ns=nth + 3 + chance.randrange(LIVES))
            elif kind == "post-only":
                flags[i] |= POST_ONLY
        records.append([
            Batch(
                batch.account, batch.session, batch.stp, batch.op, batch.client_order_id, batch.instrument, flags,
                prices, batch.quantity, batch.target, terms,
            )
        ])  # fmt: skip
    return records


def traded(seed: int) -> Records:
    """What ten traders send in a minute; each hears at once what became of it."""
    venue = Venue(1, MARKETS)
    agents = {agent.account: agent for agent in made_traders(10, MARKETS, seed)}
    records: Records = []
    for step in range(10 * SECONDS):
        record: list[Batch] = []
        for agent in agents.values():
            commands = agent.act(step / 10, 20)
            if commands:
                batch = Commands()
                batch.account, batch.stp = agent.account, agent.stp
                for command in commands:
                    batch.add(*command)
                record.append(batch)
        if not record:
            continue
        records.append(record)
        outcome = venue.apply(len(records), len(records), [copied(batch) for batch in record])
        for reports in outcome.reports:
            for row in report_rows(reports.rows):
                agents[reports.account].report(row)
    return records


def happened(records: Records) -> dict[str, int]:
    """What comes of a flow."""
    venue = Venue(1, MARKETS)
    found = dict.fromkeys(("messages", "trades", "stops", "stops fired", "tips shown", "shown anew"), 0)
    accepted: set[int] = set()
    shown: set[int] = set()
    for position, record in enumerate(records, 2):
        outcome = venue.apply(position, position, [copied(batch) for batch in record])
        for batch in record:
            found["messages"] += len(batch)
            found["stops"] += sum(terms.stop_price > 0 for terms in batch.terms or ())
        for reports in outcome.reports:
            for report in report_rows(reports.rows):
                found["trades"] += report.kind == TRADED
                found["stops fired"] += report.kind == TRIGGERED
                if report.kind == ACCEPTED:
                    accepted.add(report.order_id)
        for channel in outcome.deltas:
            for row in delta_rows(channel.rows):
                if row.op & OP_MASK == ADD:
                    found["tips shown"] += row.order_id not in accepted
                    found["shown anew"] += row.order_id in shown  # a peg that moved, or a replace
                    shown.add(row.order_id)
    venue.check()
    return found


def add_rows(report: PartReport, plain: Mapping[str, Sequence[Batch]], data_seed: int, rounds: int) -> None:
    """core.special.<regime>, core.mixed and core.venue; `plain` has the batches of the regimes."""
    records = {name: [[batch] for batch in batches] for name, batches in plain.items()}
    last = list(plain)[-1]
    mix, venue = mixed(plain[last], data_seed), traded(data_seed)
    contenders = {name: partial(rate, flow) for name, flow in records.items()}
    contenders |= {f"special.{name}": partial(rate, flow, far=True) for name, flow in records.items()}
    contenders |= {"mixed": partial(rate, mix), "venue": partial(rate, venue)}
    found = in_turns(contenders, rounds)
    for name in plain:
        report.add(
            f"core.special.{name}", "messages/s", found[f"special.{name}"], found[name], digest=hash_of(name),
            against="the same flow with plain orders only", goal="ratio >= 0.90",
        )  # fmt: skip
    for name, flow in (("mixed", mix), ("venue", venue)):
        came_of_it = happened(flow)
        report.add(
            f"core.{name}", "messages/s", found[name], found[last], digest=hash_of(repr(came_of_it)),
            against=f"the plain flow of {last}", goal="ratio >= 0.60",
        )  # fmt: skip
        report.notes.append(f"core.{name}: " + ", ".join(f"{count:,} {what}" for what, count in came_of_it.items()))
