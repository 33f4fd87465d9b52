"""A PUB and a SUB socket of one process that have found each other, over TCP on this machine."""

import zmq


class Joined:
    """`publisher` and `subscriber`, connected; nothing is dropped. Close it when done."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self.publisher = self._context.socket(zmq.XPUB)
        self.subscriber = self._context.socket(zmq.SUB)
        for socket in (self.publisher, self.subscriber):
            socket.set_hwm(0)
        port = self.publisher.bind_to_random_port("tcp://127.0.0.1")
        self.subscriber.subscribe(b"")
        self.subscriber.connect(f"tcp://127.0.0.1:{port}")
        self.publisher.setsockopt(zmq.RCVTIMEO, 10_000)
        self.subscriber.setsockopt(zmq.RCVTIMEO, 10_000)
        assert self.publisher.recv() == b"\x01", "the subscription has come"

    def __enter__(self) -> "Joined":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._context.destroy(linger=0)
