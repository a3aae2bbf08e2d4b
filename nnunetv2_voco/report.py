"""The account of a transfer: what every parameter of the network's encoder starts from."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TensorRecord:
    """What happened to one tensor of the network.

    Attributes:
        name: Its name in the network.
        stage: The part of the network it belongs to.
        size: Its number of trainable parameters; 0 for buffers.
        loaded: How many of them come from the checkpoint.
        rules: The rules by which it was adapted; none if it was copied or left alone.
        reason: Why it was left as the network initialised it, if it was.
    """

    name: str
    stage: str
    size: int
    loaded: int
    rules: tuple[str, ...] = ()
    reason: str = ""

    @property
    def state(self) -> str:
        """One of "copied", "adapted" (determined wholly by the checkpoint), "partial" and "random"."""
        if self.reason:
            return "random"
        if self.loaded < self.size:
            return "partial"
        return "adapted" if self.rules else "copied"


@dataclass(frozen=True, kw_only=True)
class TransferReport:
    """What `load_encoder` did; `str()` gives the table that the trainers log.

    Attributes:
        encoder: One record for each tensor of the encoder.
        decoder: The same for the decoder, if it was asked for.
        unused: Names in the checkpoint's encoder for which the network has no place.
        notes: What fits but means something else, such as other strides.
    """

    encoder: tuple[TensorRecord, ...]
    decoder: tuple[TensorRecord, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Share of the encoder's parameters that come from the checkpoint, in [0, 1]."""
        return _loaded(self.encoder) / max(1, _size(self.encoder))

    def stages(self) -> dict[str, list[TensorRecord]]:
        """Return the records by part of the network, in the order of the network."""
        result: dict[str, list[TensorRecord]] = {}
        for record in sorted(self.encoder, key=lambda record: record.stage != "stem"):
            result.setdefault(record.stage, []).append(record)
        if self.decoder:
            result["decoder"] = list(self.decoder)
        return result

    def to_json(self) -> dict[str, Any]:
        """Return the account per stage in types that JSON knows."""
        return {
            "share": self.share,
            "stages": {
                stage: {"parameters": _size(records), "loaded": _loaded(records), "tensors": _states(records)}
                for stage, records in self.stages().items()
            },
            "unused": list(self.unused),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        lines = [
            f"VoCo weights: {_loaded(self.encoder):,} of the encoder's {_size(self.encoder):,} parameters "
            f"({self.share:.1%}) come from the checkpoint",
            f"  {'':10} {'parameters':>12} {'loaded':>8}   tensors",
        ]
        for stage, records in self.stages().items():
            share = _loaded(records) / max(1, _size(records))
            tensors = ", ".join(f"{count} {state}" for state, count in _states(records).items())
            lines.append(f"  {stage:10} {_size(records):12,} {share:8.1%}   {tensors}{_why(records)}")
        if self.unused:
            lines.append(f"  not used from the checkpoint: {len(self.unused)} tensors in {_parts(self.unused)}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def _size(records: Iterable[TensorRecord]) -> int:
    return sum(record.size for record in records)


def _loaded(records: Iterable[TensorRecord]) -> int:
    return sum(record.loaded for record in records)


def _states(records: Iterable[TensorRecord]) -> dict[str, int]:
    states = [record.state for record in records]
    return {state: states.count(state) for state in ("copied", "adapted", "partial", "random") if state in states}


def _why(records: Iterable[TensorRecord]) -> str:
    """Say by which rules tensors were adapted and why others were left, each once."""
    words = dict.fromkeys(text for record in records for text in (*record.rules, record.reason) if text)
    return f" ({'; '.join(words)})" if words else ""


def _parts(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(".".join(name.split(".")[:3]) for name in names))
