import json
import shutil
from pathlib import Path

import blosc2
import numpy as np
import pytest

from nnunetv2_voco.pretrain.cache import VolumeCache, volume_key
from nnunetv2_voco.pretrain.preprocess import AIR_HU, Target
from tests.pretrain.volumes import filled_cache, prepared_volume

COUNTER = Path("/proc/self/io")
SHAPES = [(40, 70, 90), (5, 100, 33), (64, 64, 64)]


@pytest.fixture
def filled(tmp_path, rng):
    return filled_cache(tmp_path / "cache", rng, SHAPES)


def files_of(cache: VolumeCache, key: str, ending: str):
    (path,) = cache.folder.rglob(f"{key}{ending}")
    return path


def bytes_read() -> int:
    return int(COUNTER.read_text().split()[1])


def test_every_int16_survives(tmp_path):
    cache = VolumeCache(tmp_path, Target(spacing_mm=(1.0, 1.0, 1.0)))
    volume = prepared_volume(np.random.default_rng(0), (16, 64, 64))
    volume.array[:] = np.arange(65536, dtype=np.uint16).view(np.int16).reshape(volume.array.shape)
    record = cache.write({}, volume, key="ab12")
    np.testing.assert_array_equal(cache.open(record).read((0, 0, 0), record.shape), volume.array)


def test_volumes_and_records_come_back_as_they_were(filled):
    cache, records, volumes = filled
    fresh = VolumeCache(cache.folder.parent, cache.target)
    for record, volume in zip(records, volumes, strict=True):
        assert fresh.record(record.key) == record
        assert record.shape == volume.array.shape
        assert record.histogram == tuple(volume.histogram)
        assert record.bytes == files_of(cache, record.key, ".b2nd").stat().st_size
        np.testing.assert_array_equal(fresh.open(record).read((0, 0, 0), record.shape), volume.array)


def test_body_map_comes_back(tmp_path, rng):
    cache = VolumeCache(tmp_path, Target(spacing_mm=(1.0, 1.0, 1.0)))
    mask = rng.random((16, 24, 32)) > 0.5
    record = cache.write({}, prepared_volume(rng, (16, 24, 32), body=mask), key="ab12")
    corners = np.array([(0, 8, 16), (8, 0, 24)])
    expected = [mask[z : z + 8, y : y + 8, x : x + 8].mean() for z, y, x in corners]
    fractions = cache.open(record).body.fraction(corners, np.array((8, 8, 8)))
    np.testing.assert_allclose(fractions, expected, atol=0.5 / 255)


def test_reads_beyond_the_volume_are_padded_with_air(filled, rng):
    cache, records, volumes = filled
    for record, volume in zip(records, volumes, strict=True):
        margin = 40
        padded = np.pad(volume.array, margin, constant_values=AIR_HU)
        opened = cache.open(record)
        for _ in range(15):
            corner = rng.integers(-30, record.shape)
            shape = rng.integers(1, 38, 3)
            box = tuple(slice(c + margin, c + margin + n) for c, n in zip(corner, shape, strict=True))
            read = opened.read(corner, shape)
            assert read.dtype == np.int16
            np.testing.assert_array_equal(read, padded[box])


def test_a_box_around_the_whole_volume_and_one_far_from_it(filled):
    cache, records, volumes = filled
    opened = cache.open(records[1])
    shape = np.array(records[1].shape)
    np.testing.assert_array_equal(
        opened.read((-3, -2, -1), shape + 7), np.pad(volumes[1].array, [(3, 4), (2, 5), (1, 6)], constant_values=AIR_HU)
    )
    for corner in (shape, -shape, (-500, 0, 0), (0, 0, 5000)):
        assert (opened.read(corner, (5, 5, 5)) == AIR_HU).all()


@pytest.mark.parametrize(("use_mask", "fill"), [(False, -1500), (True, 0)])
def test_padding_of_normalised_volumes_is_their_background(tmp_path, rng, use_mask, fill):
    target = Target(spacing_mm=(1.0, 1.0, 1.0), normalization="ZScoreNormalization", use_mask_for_norm=use_mask)
    volume = prepared_volume(rng, (8, 8, 8))
    volume.array[:] = rng.integers(-1500, 1500, (8, 8, 8))
    volume.array[0, 0, 0] = -1500
    cache = VolumeCache(tmp_path, target)
    record = cache.write({}, volume, key="ab12")
    assert (cache.open(record).read((-9, 0, 0), (8, 8, 8)) == fill).all()


def test_volume_without_array_or_record_is_not_there(filled):
    cache, records, _ = filled
    files_of(cache, records[0].key, ".b2nd").unlink()
    files_of(cache, records[1].key, ".json").unlink()
    assert cache.record(records[0].key) is None
    assert cache.record(records[1].key) is None
    assert cache.record(records[2].key) == records[2]
    assert cache.record("0000") is None


@pytest.mark.parametrize("text", ["", '{"key": "00', "[]", "null", '{"key": "00abcdef", "of_another_version": 1}'])
def test_damaged_record_is_not_there(filled, text):
    cache, records, _ = filled
    files_of(cache, records[0].key, ".json").write_text(text)
    assert cache.record(records[0].key) is None


def test_truncated_array_is_noticed(filled):
    cache, records, _ = filled
    path = files_of(cache, records[0].key, ".b2nd")
    path.write_bytes(path.read_bytes()[:-100])
    assert cache.record(records[0].key) is None


def test_failed_write_leaves_nothing_behind(tmp_path, rng, monkeypatch):
    cache = VolumeCache(tmp_path, Target(spacing_mm=(1.0, 1.0, 1.0)))

    def fail(*_args, **_kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(blosc2, "empty", fail)
    with pytest.raises(OSError, match="no space"):
        cache.write({}, prepared_volume(rng, (8, 8, 8)), key="ab12")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert cache.record("ab12") is None


def test_writing_again_replaces(filled, rng):
    cache, records, _ = filled
    volume = prepared_volume(rng, (20, 20, 20))
    record = cache.write({}, volume, key=records[0].key)
    assert cache.record(records[0].key) == record
    np.testing.assert_array_equal(cache.open(record).read((0, 0, 0), (20, 20, 20)), volume.array)


def test_file_is_the_same_however_many_threads_blosc2_uses(tmp_path):
    volume = prepared_volume(np.random.default_rng(0), (40, 70, 90))
    digests = set()
    before = blosc2.set_nthreads(1)
    try:
        for threads in (1, 2, 5):
            blosc2.set_nthreads(threads)
            cache = VolumeCache(tmp_path / str(threads), Target(spacing_mm=(1.0, 1.0, 1.0)))
            digests.add(cache.write({}, volume, key="ab12").digest)
    finally:
        blosc2.set_nthreads(before)
    assert len(digests) == 1


def test_rejection_is_remembered(filled):
    cache, _, _ = filled
    cache.reject("ff00", "too small")
    record = cache.record("ff00")
    assert not record.usable
    assert record.reason == "too small"


def test_targets_do_not_mix(filled):
    cache, records, _ = filled
    other = VolumeCache(cache.folder.parent, Target(spacing_mm=(2.0, 1.0, 1.0)))
    other.create()
    assert other.record(records[0].key) is None
    assert json.loads((cache.folder / "target.json").read_text())["spacing_mm"] == [1.0, 1.0, 1.0]


def test_cache_can_be_moved(filled, tmp_path):
    cache, records, volumes = filled
    shutil.move(tmp_path / "cache", tmp_path / "elsewhere")
    moved = VolumeCache(tmp_path / "elsewhere", cache.target)
    assert moved.record(records[0].key) == records[0]
    np.testing.assert_array_equal(moved.open(records[0]).read((1, 2, 3), (4, 5, 6)), volumes[0].array[1:5, 2:7, 3:9])


@pytest.mark.skipif(not COUNTER.exists(), reason="bytes are counted by Linux only")
@pytest.mark.parametrize("shape", [(64, 96, 96), (192, 256, 256)])
def test_bytes_read_for_a_crop_do_not_depend_on_the_volumes_size(tmp_path, rng, shape):
    cache, (record,), (volume,) = filled_cache(tmp_path / "cache", rng, [shape])
    corner, size = (20, 40, 10), (32, 32, 32)
    opened = cache.open(record)
    before = bytes_read()
    crop = opened.read(corner, size)
    touched = 2 * 2 * 2 * 32 * 64 * 64 * 2  # of the chunks that the crop touches
    assert bytes_read() - before < touched
    np.testing.assert_array_equal(crop, volume.array[20:52, 40:72, 10:42])


def test_key_says_nothing_about_the_source():
    assert volume_key("a") == volume_key("a") != volume_key("b")
    assert set(volume_key("Secretname")) <= set("0123456789abcdef")
