"""Who trains and who validates."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_subjects import make_subjects

import patchflow as pf
from patchflow import seeding
from patchflow.errors import ArgumentError, SubjectError, UnknownNameError


class Known:
    """What splits look at."""

    def __init__(self, name: str, **metadata: Any) -> None:
        self.name, self.metadata = name, metadata


def known(**columns: list[Any]) -> list[Known]:
    number = len(next(iter(columns.values())))
    return [Known(f"s{row:02d}", **{key: values[row] for key, values in columns.items()}) for row in range(number)]


class TestSplit:
    def test_a_subject_in_two_parts(self) -> None:
        with pytest.raises(SubjectError, match="2 subjects are in two parts of the split: 'b' is in train and val; 'c' is in val and test"):
            pf.Split(["a", "b"], ["b", "c"], ["c"])  # type: ignore[arg-type]
        with pytest.raises(SubjectError, match="'a' is in train and train"):
            pf.Split(("a", "a"), ("b",))
        with pytest.raises(ArgumentError, match="train must be a list of names"):
            pf.Split("ab", ("b",))  # type: ignore[arg-type]

    def test_subjects_and_entries_of_a_cache(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        subjects = make_subjects(4)
        cache = pf.build_cache(subjects, tmp_path / "cache", progress=False)
        split = pf.Split(("s2", "s0"), ("s1",))
        with caplog.at_level("INFO", "patchflow"):
            train, val = split.of(subjects)
        assert "1 subjects are in no part of the split and left out: s3" in caplog.text
        assert (train, val) == ([subjects[2], subjects[0]], [subjects[1]])
        train, val = split.of(cache)
        assert (train.names, val.names) == (("s2", "s0"), ("s1",))
        assert split.part(cache, "val").names == ("s1",)
        with pytest.raises(UnknownNameError, match="1 subjects of the split are not there: 's9'"):
            pf.Split(("s9",), ("s1",)).of(cache)
        with pytest.raises(ArgumentError, match='a part is "train"'):
            split.part(cache, "tset")


class TestColumns:
    def test_a_column_of_parts(self) -> None:
        subjects = known(part=["train", "val", "test", "train"])
        assert pf.split_by_column(subjects, "part") == pf.Split(("s00", "s03"), ("s01",), ("s02",))

    def test_other_values(self) -> None:
        subjects = known(site=["A", "B", "C", "B"])
        assert pf.split_by_column(subjects, "site", train=["A", "B"], val="C") == pf.Split(("s00", "s01", "s03"), ("s02",))
        with pytest.raises(ArgumentError, match="the value 'A' stands for two parts"):
            pf.split_by_column(subjects, "site", train=["A", "B"], val="A")

    def test_values_that_stand_for_nothing(self) -> None:
        for value in ("Train", None, ""):
            with pytest.raises(SubjectError, match=rf"'s01' has part={value!r}, which stands for no part"):
                pf.split_by_column(known(part=["train", value, "val"]), "part")
        with pytest.raises(SubjectError, match="'s00' has no metadata 'parts': it has 'part'"):
            pf.split_by_column(known(part=["train", "val"]), "parts")
        with pytest.raises(ArgumentError, match="no subject is left for val"):
            pf.split_by_column(known(part=["train", "train"]), "part")
        with pytest.raises(SubjectError, match=r"tell subjects apart"):
            pf.split_by_column(known(part=["train", ["val"]]), "part")

    def test_two_subjects_of_one_name(self) -> None:
        for split in (pf.split_by_column, pf.folds_by_column):
            with pytest.raises(SubjectError, match="two subjects are named 'a'"):
                split([Known("a", part="train"), Known("a", part="val")], "part")
        with pytest.raises(SubjectError, match="two subjects are named 'a'"):
            pf.k_fold([Known("a"), Known("a"), Known("b")], 2)

    def test_a_column_of_folds(self) -> None:
        assert pf.folds_by_column(known(fold=[2, 0, 2, 1]), "fold") == [
            pf.Split(("s00", "s02", "s03"), ("s01",)),
            pf.Split(("s00", "s01", "s02"), ("s03",)),
            pf.Split(("s01", "s03"), ("s00", "s02")),
        ]
        with pytest.raises(ArgumentError, match="folds need two values"):
            pf.folds_by_column(known(fold=[1, 1]), "fold")
        with pytest.raises(SubjectError, match="'s01' has no 'fold'"):
            pf.folds_by_column(known(fold=[1, None]), "fold")


class TestKFold:
    def test_every_subject_validates_once(self) -> None:
        subjects = known(x=list(range(23)))
        folds = pf.k_fold(subjects, 5, seed=3)
        assert sorted(len(fold.val) for fold in folds) == [4, 4, 5, 5, 5]
        assert sorted(name for fold in folds for name in fold.val) == [subject.name for subject in subjects]
        assert all(sorted(fold.train + fold.val) == [subject.name for subject in subjects] for fold in folds)

    def test_it_depends_on_the_seed_and_not_on_the_order(self) -> None:
        subjects = known(x=list(range(20)))
        assert pf.k_fold(subjects, 4, seed=1) == pf.k_fold(subjects[::-1], 4, seed=1)
        assert pf.k_fold(subjects, 4, seed=1) != pf.k_fold(subjects, 4, seed=2)

    def test_the_same_in_every_version(self) -> None:
        assert [fold.val for fold in pf.k_fold(known(x=list(range(6))), 3, seed=0)] == [("s03", "s04"), ("s00", "s02"), ("s01", "s05")]

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), min_size=8, max_size=60), st.integers(2, 4), st.integers(0, 5))
    def test_classes_are_shared_out(self, rows: list[tuple[int, int]], folds: int, seed: int) -> None:
        subjects = known(site=[site for site, _ in rows])
        splits = pf.k_fold(subjects, folds, seed=seed, stratify="site")
        site = {subject.name: subject.metadata["site"] for subject in subjects}
        sizes = [len(split.val) for split in splits]
        assert max(sizes) - min(sizes) <= 1
        for value in set(site.values()):
            counts = [sum(site[name] == value for name in split.val) for split in splits]
            assert max(counts) - min(counts) <= 1

    @given(st.lists(st.integers(0, 12), min_size=20, max_size=60), st.integers(0, 5))
    def test_groups_stay_together(self, patients: list[int], seed: int) -> None:
        folds = min(3, len(set(patients)))
        if folds < 2:
            return
        subjects = known(patient=patients)
        splits = pf.k_fold(subjects, folds, seed=seed, group="patient")
        patient = {subject.name: subject.metadata["patient"] for subject in subjects}
        for split in splits:
            assert not {patient[name] for name in split.train} & {patient[name] for name in split.val}
            assert split.val
        largest = max(Counter(patients).values())
        sizes = [len(split.val) for split in splits]
        assert max(sizes) - min(sizes) <= largest

    def test_groups_and_classes_at_once(self) -> None:
        rng = seeding.generator(0)
        patients = [int(patient) for patient in rng.integers(0, 60, 200)]
        subjects = known(patient=patients, tumour=[bool(patient % 3 == 0) for patient in patients])
        splits = pf.k_fold(subjects, 4, group=lambda subject: subject.metadata["patient"], stratify="tumour")
        tumour = {subject.name: subject.metadata["tumour"] for subject in subjects}
        counts = np.array([[sum(tumour[name] for name in split.val), len(split.val)] for split in splits])
        assert (np.ptp(counts, axis=0) <= 2).all()  # of 50 subjects and some 17 with a tumour in each fold

    def test_what_cannot_be_done(self) -> None:
        subjects = known(patient=["a", "a", "b"], age=[30.5, 40.25, 50.0])
        with pytest.raises(ArgumentError, match="3 subjects do not make 4 folds"):
            pf.k_fold(subjects, 4)
        with pytest.raises(ArgumentError, match="2 groups by 'patient' do not make 3 folds"):
            pf.k_fold(subjects, 3, group="patient")
        with pytest.raises(ArgumentError, match="'age' makes 3 classes of 3 subjects"):
            pf.k_fold(subjects, 2, stratify="age")
        with pytest.raises(SubjectError, match="'s01' has no 'patient'"):
            pf.k_fold(known(patient=["a", None, "b"]), 2, group="patient")
        with pytest.raises(ArgumentError, match="folds must be an int of at least 2"):
            pf.k_fold(subjects, 1)
        with pytest.raises(ArgumentError, match="seed must be an int"):
            pf.k_fold(subjects, 2, seed=-1)
        with pytest.raises(ArgumentError, match="no subjects to split"):
            pf.k_fold([], 2)


class TestFiles:
    def test_splits_of_nnunet(self, tmp_path: Path) -> None:
        path = tmp_path / "splits_final.json"
        path.write_text(json.dumps([{"train": ["a", "b"], "val": ["c"]}, {"train": ["c"], "val": ["a", "b"]}]))
        assert pf.read_splits(path) == [pf.Split(("a", "b"), ("c",)), pf.Split(("c",), ("a", "b"))]

    def test_there_and_back(self, tmp_path: Path) -> None:
        splits = [pf.Split(("ä", "b"), ("c",), ("d",)), pf.Split(("c",), ("b",))]
        pf.write_splits(tmp_path / "s.json", splits)
        assert pf.read_splits(tmp_path / "s.json") == splits
        assert json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))[1] == {"train": ["c"], "val": ["b"]}
        with pytest.raises(SubjectError, match="cannot be written"):
            pf.write_splits(tmp_path / "none" / "s.json", splits)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("[", "is no JSON"),
            ("[]", "must hold a list of folds"),
            ('{"train": []}', "must hold a list of folds"),
            ('[{"train": ["a"]}]', 'fold 0 must have lists of names, "train" and "val"'),
            ('[{"train": ["a"], "val": ["b"], "test": 3}]', "fold 0 must have lists of names"),
            (
                '[{"train": ["a"], "val": ["b"]}, {"train": ["a"], "val": ["a"]}]',
                "fold 1: 1 subjects are in two parts .*'a' is in train and val",
            ),
            ('[{"train": [1], "val": ["a"]}]', "fold 0 must have"),
        ],
    )
    def test_files_that_cannot_be_used(self, tmp_path: Path, content: str, message: str) -> None:
        (tmp_path / "s.json").write_text(content)
        with pytest.raises(SubjectError, match=message):
            pf.read_splits(tmp_path / "s.json")
        with pytest.raises(SubjectError, match="cannot be read"):
            pf.read_splits(tmp_path / "none.json")
