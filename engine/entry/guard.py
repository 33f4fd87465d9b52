"""Who may be an operator: whoever has the token, or, where there is none, whoever is on this machine."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final
from urllib.parse import unquote

import grpc

from proto.dial import BEARER

Refused = tuple[grpc.StatusCode, str]
_WANTED: Final = (grpc.StatusCode.UNAUTHENTICATED, "operators only: metadata `authorization: Bearer TOKEN` is wanted")
_ELSEWHERE: Final = (
    grpc.StatusCode.PERMISSION_DENIED,
    "operators only, and from this machine only: the engine was started without --operator-token-file",
)


class Guard:
    """Stands before an operator's calls. `token` empty: none is asked for, and nobody from elsewhere is let in."""

    def __init__(self, token: str = "") -> None:
        self._expected = (BEARER + token).encode() if token else b""

    def refusal(self, peer: str, metadata: Iterable[tuple[str, str | bytes]]) -> Refused | None:
        """Why a caller is not let in, if so. `peer` as gRPC names it. The token is compared in constant time."""
        if not self._expected:
            return None if is_local(peer) else _ELSEWHERE
        for key, value in metadata:
            said = value.encode() if isinstance(value, str) else value
            if key == "authorization" and hmac.compare_digest(said, self._expected):
                return None
        return _WANTED


def is_local(peer: str) -> bool:
    """Whether gRPC's name of a peer is one of this machine: ipv4:127.0.0.1:5001, ipv6:%5B::1%5D:5001, unix:..."""
    kind, _, rest = peer.partition(":")
    if kind == "unix":
        return True
    host = unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
