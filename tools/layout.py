"""A venue made up from a few numbers: engines, and instruments dealt out to them in turn."""

from decimal import Decimal
from typing import Final

from proto.cluster import Cluster, EngineEntry, Instrument

_WORDS: Final = (
    "ALFA BRAVO CHARLIE DELTA ECHO FOXTROT GOLF HOTEL INDIA JULIETT KILO LIMA MIKE NOVEMBER OSCAR PAPA QUEBEC ROMEO "
    "SIERRA TANGO UNIFORM VICTOR WHISKEY XRAY YANKEE ZULU"
)
NAMES: Final = tuple(_WORDS.split())
TICK_SIZE: Final = Decimal("0.01")
PRICE_MAX: Final = 1_000_000


def made_up(engines: int, instruments: int) -> Cluster:
    """Instrument i lives at engine 1 + (i - 1) mod engines; every account may trade."""
    return Cluster(
        name="demo",
        engines=tuple(EngineEntry(id) for id in range(1, engines + 1)),
        instruments=tuple(
            Instrument(
                id=id,
                symbol=symbol(id),
                engine=(id - 1) % engines + 1,
                channel=1,
                tick_size=TICK_SIZE,
                lot_size=Decimal(1),
                price_min=1,
                price_max=PRICE_MAX,
            )
            for id in range(1, instruments + 1)
        ),
    )


def symbol(id: int) -> str:
    """ALFA, BRAVO, ..., ZULU, ALFA2, ..."""
    turn, place = divmod(id - 1, len(NAMES))
    return NAMES[place] + (str(turn + 1) if turn else "")
