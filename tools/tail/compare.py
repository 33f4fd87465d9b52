"""Whether a mirror is its owner's book, and where it is not."""

from proto.snapshot import BookSnapshot, Snapshot


def differences(owner: Snapshot, mirror: Snapshot) -> tuple[str, ...]:
    """Where a mirror is not its owner's book: epoch, sequence, definition, state, last trade, every order in its place.

    Both must stand at one sequence. Cost: O(orders).
    """
    out = [
        f"{name} {getattr(mirror, name):,} instead of {getattr(owner, name):,}"
        for name in ("incarnation", "epoch", "last_seq")
        if getattr(mirror, name) != getattr(owner, name)
    ]
    owned = {book.instrument: book for book in owner.books}
    mirrored = {book.instrument: book for book in mirror.books}
    for instrument in sorted(owned.keys() | mirrored.keys()):
        mine, its = owned.get(instrument), mirrored.get(instrument)
        if mine is None or its is None:
            out.append(f"instrument {instrument} only {'in the mirror' if mine is None else 'at its owner'}")
        elif mine != its:
            out += _book_differences(mine, its)
    return tuple(out)


def _book_differences(owner: BookSnapshot, mirror: BookSnapshot) -> list[str]:
    symbol = owner.definition.symbol if owner.definition else str(owner.instrument)
    out: list[str] = []
    for name in BookSnapshot._fields:
        mine, its = getattr(owner, name), getattr(mirror, name)
        if mine == its:
            continue
        if name in ("bids", "asks"):
            pairs = enumerate(zip(mine, its, strict=False), 1)
            place = next((i for i, (a, b) in pairs if a != b), min(len(mine), len(its)) + 1)
            out.append(f"{symbol} {name}: {len(its):,} orders, {len(mine):,} at its owner; they differ from #{place}")
        else:
            out.append(f"{symbol} {name}: {its!r} instead of {mine!r}")
    return out
