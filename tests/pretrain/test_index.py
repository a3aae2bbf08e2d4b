"""The index against the records it was made of, alone and with other processes at work on it."""

import itertools
import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_voco.pretrain.index import IndexedRecords, VolumeIndex, add_segment, merge_segments
from nnunetv2_voco.pretrain.intensity import body_properties
from nnunetv2_voco.pretrain.record import Record
from nnunetv2_voco.pretrain.training_plan import split_volumes
from tests.pretrain.index_records import add_and_merge, make_records


def in_index(records: list[Record]) -> list[Record]:
    return [replace(record, histogram=None) for record in records]


def read_all(index: VolumeIndex, records: list[Record]) -> list[Record]:
    return [index.record(int(row)) for row in index.rows([record.key for record in records])]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("merged", [False, True])
def test_records_and_histograms_come_back(tmp_path, merged):
    records = make_records(40)
    for start in range(0, 40, 15):
        add_segment(tmp_path, records[start : start + 15])
    index = merge_segments(tmp_path) if merged else VolumeIndex.open(tmp_path)
    assert len(index) == 40
    assert index.merged is merged
    assert read_all(index, records) == in_index(records)
    with_histogram = [record for record in records if record.histogram is not None]
    for order in (with_histogram, with_histogram[::-1]):
        found = list(index.histograms([record.key for record in order]))
        assert [tuple(histogram) for histogram in found] == [record.histogram for record in order]


def test_same_volumes_give_the_same_files_however_they_were_added(tmp_path):
    records = make_records(24)
    seen = []
    for number, order in enumerate(([0, 1, 2, 3], [2, 0, 3, 1], [3, 2, 1, 0])):
        folder = tmp_path / str(number)
        for part in order:
            add_segment(folder, records[part::4][:: 1 if number else -1])
            if number == 2:
                merge_segments(folder)
        add_segment(folder, records[:9])  # twice
        merge_segments(folder)
        seen.append(contents(folder))
    assert len(seen[0]) == 2
    assert seen[0] == seen[1] == seen[2]


def test_unknown_keys_have_no_row(tmp_path):
    index = VolumeIndex.open(tmp_path / "nothing")
    assert len(index) == 0
    assert index.rows(["a"]).tolist() == [-1]
    records = make_records(5)
    add_segment(tmp_path, records)
    rows = VolumeIndex.open(tmp_path).rows(["", records[2].key, "zzz", records[2].key[:-1]])
    assert (rows >= 0).tolist() == [False, True, False, False]
    with pytest.raises(KeyError, match="zzz"):
        list(VolumeIndex.open(tmp_path).histograms([records[0].key, "zzz"]))


@pytest.mark.parametrize("merged_between", [False, True])
def test_of_rows_with_one_key_the_newest_counts(tmp_path, merged_between):
    before, other = (make_records(1, first=i)[0] for i in (4, 5))
    after = replace(before, bytes=99, digest="new")
    add_segment(tmp_path, [before])
    add_segment(tmp_path, [other])
    if merged_between:
        merge_segments(tmp_path)
    add_segment(tmp_path, [after])
    for index in (VolumeIndex.open(tmp_path), merge_segments(tmp_path)):
        assert read_all(index, [after, other]) == in_index([after, other])


def test_rows_can_be_left_out(tmp_path):
    records = make_records(10)
    add_segment(tmp_path, records)
    index = merge_segments(tmp_path, without=frozenset({records[1].key, records[6].key}))
    assert len(index) == 8
    assert index.rows([records[1].key, records[6].key]).tolist() == [-1, -1]
    assert len(merge_segments(tmp_path, without=frozenset(record.key for record in records))) == 0
    assert list(tmp_path.iterdir()) == []


def test_index_read_before_a_merge_still_gives_histograms(tmp_path):
    records = [record for record in make_records(12) if record.histogram]
    add_segment(tmp_path, records[:4])
    add_segment(tmp_path, records[4:])
    index = VolumeIndex.open(tmp_path)
    merge_segments(tmp_path)
    found = list(index.histograms([record.key for record in records]))
    assert [tuple(histogram) for histogram in found] == [record.histogram for record in records]


def test_merge_that_is_killed_before_it_removes_the_parts_loses_nothing(tmp_path, monkeypatch):
    records = make_records(12)
    add_segment(tmp_path, records[:6])
    add_segment(tmp_path, records[6:])

    def die(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)
        with pytest.raises(KeyboardInterrupt):
            merge_segments(tmp_path)
    assert read_all(VolumeIndex.open(tmp_path), records) == in_index(records)
    assert len(merge_segments(tmp_path)) == 12
    assert len(contents(tmp_path)) == 2


def test_damaged_segment_is_named(tmp_path):
    add_segment(tmp_path, make_records(5))
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ValueError, match=f"{file.name}: .* damaged"):
        VolumeIndex.open(tmp_path)


def test_processes_thatadd_and_merge_at_a_time_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=add_and_merge, args=(str(tmp_path), i)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    records = list(itertools.chain(*(make_records(18, first=100 * i) for i in range(2))))
    index = merge_segments(tmp_path)
    assert len(index) == len(records) == 36
    assert read_all(index, records) == in_index(records)
    assert len(contents(tmp_path)) == 2


def test_records_are_made_when_asked_for(tmp_path):
    records = make_records(9)
    add_segment(tmp_path, records)
    index = VolumeIndex.open(tmp_path)
    view = IndexedRecords(index, index.rows([record.key for record in records]))
    assert list(view) == in_index(records)
    assert view[-1] == in_index(records)[-1]
    assert list(view[2:5]) == in_index(records)[2:5]
    with pytest.raises(IndexError):
        view[9]


def test_split_and_statistics_are_those_of_the_records(tmp_path):
    records = [r for r in make_records(60) if r.usable and r.histogram]
    for part in range(3):
        add_segment(tmp_path, records[part::3])
    index = merge_segments(tmp_path)
    view = IndexedRecords(index, np.arange(len(index)))
    split = split_volumes(view, fraction=0.2, seed=1)
    assert split == split_volumes(records, fraction=0.2, seed=1)
    by_key = {record.key: record for record in records}
    densities = [np.asarray(by_key[k].histogram, float) / np.sum(by_key[k].histogram) for k in split[0]]
    assert body_properties(index.histograms(split[0])) == body_properties(by_key[k].histogram for k in split[0])
    streamed = np.zeros(len(densities[0]))
    for density in densities:
        streamed += density
    assert np.array_equal(streamed / len(densities), np.mean(densities, axis=0))  # to the last bit


def test_index_holds_no_text_that_records_do_not_hold(tmp_path):
    records = make_records(8)
    add_segment(tmp_path, records)
    (file,) = tmp_path.glob("*.npz")
    with np.load(file) as stored:
        texts = json.loads(stored["texts"].tobytes())
    assert set(texts) == {json.dumps(r.mended) for r in records if r.mended} | {r.reason for r in records if r.reason}
