"""Ending a run between two steps when the system or a person asks for it."""

import signal
from collections.abc import Callable


class StopOnSignal:
    """Notes SIGTERM and SIGINT, so that the loop can save its state between two steps; a second one ends at once."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Callable | int | None] = {}

    def __enter__(self) -> "StopOnSignal":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        if self.requested:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.requested = True
