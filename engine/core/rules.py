"""The version of the rules that this core applies: raise it with each change after which an old log could come out
different, and say here what changed.

    1   epochs that name none
    2   a repeat does not push out what an account is remembered by
    3   bounds on what a command may set off (engine/core/limits.py)
"""

from typing import Final

RULES: Final = 3


def alike(rules: int, these: int, sent: int, remembered: int, bounded: int) -> bool:
    """Whether records of the version `rules` come to the same under version `these`, from the begin of a log on.

    `sent` is how many commands the busiest account has sent by then, repeats included; `remembered`, how many are;
    `bounded`, how often a bound made a difference.
    """
    return rules == these or (these == 3 and rules < 3 and not bounded and (rules == 2 or sent <= remembered))
