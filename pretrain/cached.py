"""All volumes that a cache holds at one target, taken from its index: no folder is needed, no volume is opened."""

import json
from pathlib import Path

from nnunetv2_voco.pretrain.cache import VolumeCache
from nnunetv2_voco.pretrain.collect import Collected, CollectError, Collection, without_copies
from nnunetv2_voco.pretrain.preprocess import Target
from nnunetv2_voco.pretrain.sources import load_names


def cached_collection(root: Path, target: Target) -> Collection:
    """Collect the volumes of a cache as `collect` would from the folders they came from.

    Args:
        root: The cache.
        target: What the volumes were brought to.

    Raises:
        CollectError: If the cache holds nothing at this target, or has no index.
    """
    cache = VolumeCache(root, target)
    index = cache.open_index()
    if not len(index):
        raise CollectError(_why_empty(root, cache))
    names = load_names(root)
    volumes = []
    for row in range(len(index)):
        record = index.record(row)
        # voco_pretrain keeps no names in a cache, voco_preprocess does
        name, file_format = names.get(record.key, (f"volume {record.key}", "unknown"))
        volumes.append(Collected(name=name, file_format=file_format, record=record))
    volumes.sort(key=lambda volume: volume.name)
    return Collection(volumes=tuple(without_copies(volumes)), skipped=())


def cached_targets(root: Path) -> list[Target]:
    """List the targets that a cache holds volumes at."""
    targets = []
    for file in sorted(Path(root).glob("*/target.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            target = Target(**{k: tuple(v) if isinstance(v, list) else v for k, v in content.items()})
        except (ValueError, TypeError, AttributeError):
            continue  # of another version
        if target.digest == file.parent.name:
            targets.append(target)
    return targets


def describe_target(target: Target) -> str:
    """Say in words what volumes are brought to."""
    words = [" × ".join(f"{s:g}" for s in target.spacing_mm) + " mm (z, y, x)"]
    if target.transpose != (0, 1, 2):
        words.append(f"axes in the order {', '.join(str(axis) for axis in target.transpose)}")
    if target.normalization:
        words.append(f"normalised by {target.normalization}")
    if target.lossy:
        words.append(f"to within {target.lossy} HU")
    return ", ".join(words)


def _why_empty(root: Path, cache: VolumeCache) -> str:
    if next(cache.recorded_keys(), None) is not None:
        return f"{root}: the cache has no index yet; make it with voco_preprocess --merge -o {root}"
    others = [target for target in cached_targets(root) if len(VolumeCache(root, target).open_index())]
    if not others:
        return f"{root}: no pre-processed volumes in this cache; name the folder they come from before -o"
    return (
        f"{root}: holds volumes at {'; '.join(describe_target(target) for target in others)}, but this run needs "
        f"{describe_target(cache.target)}. Give voco_pretrain the same --spacing, --preset, --lossy or -d -c -p as "
        "voco_preprocess, or name the folder of volumes before -o"
    )
