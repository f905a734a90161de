"""Which rows are held out of a data set that has no validation or test split."""

from __future__ import annotations

import numpy as np
import pytest

from epochal.core.errors import ConfigError
from epochal.data.stored import StoredExamples, count_of, stratified_order


@pytest.mark.parametrize("roles", [("train",), ("train", "test"), ("train", "validation", "test")])
def test_every_row_is_in_one_split_and_splits_of_the_source_stay_whole(roles):
    data = StoredExamples(name="set", path="set", validation=0.25, test=4)
    splits = data.split_rows(dict.fromkeys(roles, 20), np.random.default_rng(0).permutation(20))
    for split, role in (("val", "validation"), ("test", "test")):
        if role in roles:
            assert splits[split][0] == role and splits[split][1].tolist() == list(range(20))
    from_train = [rows for role, rows in splits.values() if role == "train"]
    assert sorted(np.concatenate(from_train)) == list(range(20))
    assert all((np.diff(rows) > 0).all() for rows in from_train)


@pytest.mark.parametrize("part, count", [(None, 200), (1, 1), (200, 200), (0.25, 50), (1.0, 200), (0.005, 1)])
def test_a_part_is_a_count_or_a_fraction(part, count):
    assert count_of(part, 200, "dataset.train_size") == count


@pytest.mark.parametrize("part", [0, -1, 201, 0.001, -0.5])
def test_a_part_of_no_row_or_more_than_all_is_refused(part):
    with pytest.raises(ConfigError, match=rf"dataset\.test={part} makes .* of 200 rows"):
        count_of(part, 200, "dataset.test")


def test_every_beginning_of_a_stratified_order_has_the_classes_in_proportion():
    labels = np.repeat([0, 1, 2], [500, 300, 200])
    found = stratified_order(labels, seed=0)
    assert sorted(found) == list(range(1000))
    for end in (10, 50, 200, 777):
        counts = np.bincount(labels[found[:end]], minlength=3)
        assert np.abs(counts - end * np.array([0.5, 0.3, 0.2])).max() <= 1.5
    assert stratified_order(labels, seed=0).tolist() == found.tolist()
    assert stratified_order(labels, seed=1).tolist() != found.tolist()
