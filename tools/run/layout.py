"""A venue made up from a few numbers: engines, and instruments dealt out to them in turn."""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from proto import instrument
from proto.cluster import Cluster, EngineEntry
from proto.instrument import Instrument

_WORDS: Final = (
    "ALFA BRAVO CHARLIE DELTA ECHO FOXTROT GOLF HOTEL INDIA JULIETT KILO LIMA MIKE NOVEMBER OSCAR PAPA QUEBEC ROMEO "
    "SIERRA TANGO UNIFORM VICTOR WHISKEY XRAY YANKEE ZULU"
)
NAMES: Final = tuple(_WORDS.split())
TICK_SIZE: Final = Decimal("0.01")
RECORDED_TICK_SIZE: Final = Decimal("0.0001")
PRICE_MAX: Final = 1_000_000
BY_SIZE: Final = 4  # each fourth instrument shares a level out by size


def made_up(engines: int, instruments: int, recorded: Sequence[str] = ()) -> Cluster:
    """Instrument i lives at engine 1 + (i - 1) mod engines; every account may trade. Each fourth is pro-rata.

    The first instruments are those of `recorded` flow, if any: their prices are as they were recorded, so all have the
    smallest tick and the widest limits.
    """
    symbols = [*recorded, *(symbol(id) for id in range(len(recorded) + 1, instruments + 1))]
    return Cluster(
        name="demo",
        engines=tuple(EngineEntry(id) for id in range(1, engines + 1)),
        instruments=tuple(
            Instrument(
                id=id,
                symbol=name,
                engine=(id - 1) % engines + 1,
                channel=1,
                tick_size=RECORDED_TICK_SIZE if recorded else TICK_SIZE,
                lot_size=Decimal(1),
                price_min=-instrument.PRICE_MAX if recorded else 1,
                price_max=instrument.PRICE_MAX if recorded else PRICE_MAX,
                allocation=instrument.FIFO if recorded or id % BY_SIZE else instrument.PRO_RATA,
            )
            for id, name in enumerate(symbols, 1)
        ),
    )


def symbol(id: int) -> str:
    """ALFA, BRAVO, ..., ZULU, ALFA2, ..."""
    turn, place = divmod(id - 1, len(NAMES))
    return NAMES[place] + (str(turn + 1) if turn else "")


def symbols_of(files: Sequence[str]) -> list[str]:
    """A symbol for each file of recorded flow, after its name: MSFT_message_50.csv.gz is MSFT."""
    symbols: list[str] = []
    for name in files:
        stem = re.sub(r"[^A-Z0-9-]", "", name.split(".")[0].split("_")[0].upper())[:12] or "FLOW"
        times = symbols.count(stem)
        symbols.append(f"{stem}.{times + 1}" if times else stem)
    return symbols
