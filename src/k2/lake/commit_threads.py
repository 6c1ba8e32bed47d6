"""How many threads pyiceberg takes for what it does beside its caller."""

import os

_VARIABLE = "PYICEBERG_MAX_WORKERS"


def commit_on_one_thread() -> None:
    """Give pyiceberg one thread, unless the environment says how many; call it before other work.

    It starts one per manifest of the table, up to the cores and four. None makes a commit faster:
    merging manifests is Python throughout. But each keeps, in an allocator's arena of its own, the
    memory that its largest merge took, so the process grows for hours while they take turns.
    """
    os.environ.setdefault(_VARIABLE, "1")
