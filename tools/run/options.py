"""What a run is asked to be, and the venue that comes of it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from proto import cluster as cluster_file
from proto.cluster import Cluster, ClusterError
from proto.dial import UsageError
from tools.chaos.plan import FaultSpec
from tools.run.day.plan import ruled
from tools.run.layout import made_up, symbols_of

RATE: Final = 1_500  # orders/s of all traders together
PORT: Final = 4_001  # of a venue to play with: its first engine's
FABRIC_PORTS: Final = 100  # behind the engines': the fabric nodes'


@dataclass(frozen=True, slots=True)
class Options:
    """`serve`: a venue to play with, without an end or a verdict. `port` 0: ports are the system's to choose."""

    engines: int = 3
    instruments: int = 6
    traders: int = 12
    rate: int = 0  # 0: RATE for traders, as fast as may be for a replay
    duration_s: float = 20.0
    seed: int = 1
    replay: tuple[Path, ...] = ()
    check: tuple[Path, ...] = ()
    faults: FaultSpec = field(default_factory=FaultSpec)
    trading_day: bool = False
    serve: bool = False
    port: int = 0

    def title(self) -> str:
        """One line that says what this run is."""
        if self.replay:
            flow = "replay of " + ", ".join(path.name for path in self.replay)
        else:
            flow = f"{self.traders} traders, seed {self.seed}" + (", a trading day" if self.trading_day else "")
        faults = f", faults {self.faults}" if str(self.faults) else ""
        return f"{self.engines} engines, {self.instruments} instruments, {flow}{faults}"

    def ports(self) -> dict[str, str]:
        """Where each machine is to serve, host:port; empty: wherever the system says."""
        if not self.port:
            return {}
        machines = range(1, self.engines + self.faults.joins + 1)
        engines = {f"engine-{id}": f"127.0.0.1:{self.port + id - 1}" for id in machines}
        return engines | {f"fabric-{id}": f"127.0.0.1:{self.port + FABRIC_PORTS + id - 1}" for id in machines}


def venue_of(options: Options, directory: Path) -> Cluster:
    """The venue of a data directory that was used before, or a new one. Raises: UsageError when it is another one."""
    path = directory / "cluster.toml"
    recorded = symbols_of([path.name for path in options.replay])
    new = made_up(options.engines, max(options.instruments, len(recorded)), recorded)
    if options.trading_day:
        new = replace(new, instruments=tuple(map(ruled, new.instruments)))
    try:
        if not path.exists():
            return new
        old = cluster_file.load(path)
    except (ClusterError, OSError) as e:
        first, *others = str(e).splitlines()
        raise UsageError(f"--data-dir: {first}" + (f" (and {len(others)} more)" if others else "")) from None
    if (old.engines, old.instruments) != (new.engines, new.instruments):
        given = f"--engines {len(old.engines)} --instruments {len(old.instruments)}"
        given += " --trading-day" if any(instrument.band for instrument in old.instruments) else ""
        raise UsageError(f"{directory} holds the venue of another run: {given}")
    return old
