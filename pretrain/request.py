"""What a user asks for, and the settings that follow: given ones, or those of a run that is continued."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2_voco.pretrain.config import PretrainConfig, differing_fields
from nnunetv2_voco.pretrain.weights import WeightRows, read_weights

_NOT_A_RUN = frozenset({"volumes.json", "cache"})
"""What an earlier `--dry-run`, or a cache, leaves in a folder that is no run yet."""


class RunError(RuntimeError):
    """A run cannot start; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asks for.

    Attributes:
        folders: Where the volumes lie; none for all volumes that the cache holds.
        out: The run's folder.
        settings: Fields of `PretrainConfig` that were given, presets included.
        cache: Root of the cache; `out/cache` if None.
        resume: Whether to go on with the run in `out`.
        dry_run: Whether to stop after checking the volumes.
        num_processes: Volumes that are pre-processed at once.
        assumed_volumes: For a dry run, how many volumes to reckon with; those of the folders if None.
        gpus: For a dry run, the GPUs to reckon with, see `roofline.parse_gpus`; this machine if None.
    """

    folders: tuple[str, ...]
    out: Path
    settings: dict[str, Any] = field(default_factory=dict)
    cache: Path | None = None
    resume: bool = False
    dry_run: bool = False
    num_processes: int = 4
    assumed_volumes: int | None = None
    gpus: str | None = None

    @property
    def cache_root(self) -> Path:
        """Root of the cache."""
        return self.cache or self.out / "cache"


def check_folder(request: Request) -> None:
    """Check that the run's folder is free, or is that of a run to be continued.

    Raises:
        RunError: If it holds anything that could be overwritten.
    """
    out = request.out
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is a file; -o names the folder of the run")
    inside = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    if not request.resume and inside - _NOT_A_RUN:
        raise RunError(
            f"{out}: already holds {', '.join(sorted(inside - _NOT_A_RUN)[:3])}…; nothing is overwritten. "
            "Go on with that run by --continue, or name another folder with -o"
        )


def effective_config(request: Request) -> PretrainConfig:
    """Return the settings of the run: given ones, or those of the run that is continued.

    Raises:
        RunError: If values are given that differ from the run's.
    """
    stored_file = request.out / "config.json"
    settings = dict(request.settings)
    if settings.get("weights") is not None:
        settings["weights"] = read_weights(settings["weights"]).label
    if not (request.resume and stored_file.exists()):
        return PretrainConfig(**settings)
    stored = PretrainConfig.load(stored_file)
    differing = differing_fields(stored, settings)
    if differing:
        raise RunError(
            f"{request.out}: the run to be continued has other settings:\n  "
            + "\n  ".join(differing)
            + "\nLeave them out to continue it, or start a new run with another -o"
        )
    return PretrainConfig(**{**vars(stored), **settings})


def weights_of(request: Request, config: PretrainConfig) -> WeightRows | None:
    """Return the weights to be planned with.

    Raises:
        RunError: If they come from a table that a continued run needs and that was not given again.
    """
    if config.weights is None:
        return None
    try:
        return read_weights(request.settings.get("weights", config.weights))
    except ValueError:
        if "weights" in request.settings:
            raise
        raise RunError(
            f"{request.out}: the run was interrupted before it had read its volumes; give --weights with the table "
            f"{config.weights} again"
        ) from None
