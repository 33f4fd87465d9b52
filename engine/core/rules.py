"""The version of the rules that this core applies: raise it with each change after which an old log could come out
different, and say here what changed.

    1   epochs that name none
    2   what an account's commands are remembered by does not count repeats
"""

from typing import Final

RULES: Final = 2
