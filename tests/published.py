"""A publisher and a reader of one stream, in one process and without sockets."""

import random

from bus.reader.events import Event
from bus.reader.teller import Teller
from bus.stream.actions import Action, State
from bus.stream.feed_client import FeedClient
from bus.stream.sequencer import Sequencer
from proto.feed import ADD, DEFINITION, DELETE, END, EXECUTE, MODIFY, STATUS
from proto.feed import SELL as ASK

ALFA = [DEFINITION, 1, 0, 0, 0, 0, STATUS | END, 1, 1, 0, 0, 0]
EXTRAS: list[list[object]] = [["ALFA", "0.01", "10", 1, 1_000], [2, 0]]
BOUGHT = [ADD | END, 1, 11, 99, 5, 0]
OFFERED = [ADD | ASK | END, 1, 12, 101, 7, 0]
TRADED = [EXECUTE | ASK, 1, 12, 101, 3, 1, ADD | END, 1, 13, 98, 4, 0]
CHANGED = [MODIFY | END, 1, 11, 0, 2, 0]
GONE = [DELETE | END, 1, 13, 0, 0, 0]


class Stream:
    """A publisher and a reader in one process; frames may be kept from the reader."""

    def __init__(self) -> None:
        self.sequencer = Sequencer(1, 1, 77, 1, fresh=True)
        self.client = FeedClient(1, 1, random.Random(1))
        self.now_ns = 1_000
        self.client.start(self.now_ns)

    def publish(self, *events: list[int], extras: list[list[object]] | None = None) -> list[bytes]:
        self.now_ns += 1_000
        for event in events:
            self.sequencer.append(1_700_000_000, event, extras or [])
        return self.sequencer.take(self.now_ns, flush=True)

    def hear(self, frames: list[bytes]) -> list[Action]:
        self.now_ns += 1_000
        return [action for frame in frames for action in self.client.frame(frame, self.now_ns)]

    def events(self, actions: list[Action]) -> list[Event]:
        """What a reader of the SDK is told."""
        told: list[Event] = []
        clients = {(1, 1): self.client}
        teller = Teller(clients, {}, lambda event, *_: told.append(event), lambda: self.now_ns)
        for action in actions:
            teller.on_action(self.client, action)
        return told


def opened() -> Stream:
    """A stream that is live, with a bid of 5 @ 99 and an offer of 7 @ 101."""
    stream = Stream()
    stream.hear(stream.publish(ALFA, extras=EXTRAS))
    stream.hear(stream.publish(BOUGHT, OFFERED))
    assert stream.client.state is State.LIVE
    return stream
