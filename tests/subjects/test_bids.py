"""Subjects of BIDS data sets."""

from pathlib import Path

import pytest

import patchflow as pf
from patchflow.errors import ArgumentError, SubjectError


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Without sessions, and with labels among the derivatives."""
    make(tmp_path, *(f"sub-{name}/anat/sub-{name}_{suffix}.nii.gz" for name in ("01", "02") for suffix in ("T1w", "T2w")))
    make(tmp_path, *(f"sub-{name}/anat/sub-{name}_T1w.json" for name in ("01", "02")))
    make(tmp_path, *(f"derivatives/manual/sub-{name}/anat/sub-{name}_desc-manual_dseg.nii.gz" for name in ("01", "02")))
    (tmp_path / "participants.tsv").write_text("participant_id\tage\tsex\nsub-02\t30\tF\nsub-01\tn/a\tM\nsub-03\t9\tM\n")
    return tmp_path


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    names = [f"sub-a/ses-{number}/anat/sub-a_ses-{number}" for number in ("1", "2")]
    make(tmp_path, *(f"{name}_acq-{kind}_run-{run}_T1w.nii" for name in names for kind in ("hi", "lo") for run in ("01", "2")))
    make(tmp_path, *(f"{name}_T2w.NII.GZ" for name in names))
    (tmp_path / "sub-a" / "sub-a_sessions.tsv").write_text("session_id\tweight\nses-2\t71.5\nses-1\t70\n")
    return tmp_path


def test_images_labels_and_participants(plain: Path) -> None:
    first, second = pf.subjects_from_bids(plain, image="T1w", t2="anat/T2w", label="desc-manual_dseg")
    assert (first.name, second.name) == ("sub-01", "sub-02")
    assert first["t2"].path == plain / "sub-01" / "anat" / "sub-01_T2w.nii.gz"
    assert second["label"].path == plain / "derivatives" / "manual" / "sub-02" / "anat" / "sub-02_desc-manual_dseg.nii.gz"
    assert [type(image) for image in first.images.values()] == [pf.ScalarImage, pf.ScalarImage, pf.LabelMap]
    assert first.metadata == {"participant_id": "sub-01", "age": None, "sex": "M"}
    assert second.metadata == {"participant_id": "sub-02", "age": 30, "sex": "F"}


def test_suffixes_make_label_maps(plain: Path) -> None:
    assert type(pf.subjects_from_bids(plain, tissue="dseg")[0]["tissue"]) is pf.LabelMap
    assert type(pf.subjects_from_bids(plain, tissue="dseg", label_maps=())[0]["tissue"]) is pf.ScalarImage


class TestFilters:
    def test_entities_in_the_name_asked_for(self, sessions: Path) -> None:
        first, second = pf.subjects_from_bids(sessions, image="acq-hi_run-1_T1w", t2="T2w")
        assert (first.name, second.name) == ("sub-a_ses-1", "sub-a_ses-2")
        assert first["image"].path == sessions / "sub-a" / "ses-1" / "anat" / "sub-a_ses-1_acq-hi_run-01_T1w.nii"
        assert first.metadata == {"participant_id": "sub-a", "session_id": "ses-1", "weight": 70.0}
        assert second.metadata == {"participant_id": "sub-a", "session_id": "ses-2", "weight": 71.5}

    @pytest.mark.parametrize("session", ["2", 2, "ses-2", ["2", "3"]])
    @pytest.mark.parametrize("run", [2, "2", "02"])
    def test_entities_of_all_images(self, sessions: Path, session: object, run: object) -> None:
        (subject,) = pf.subjects_from_bids(sessions, image="T1w", session=session, run=run, acquisition="lo")  # type: ignore[arg-type]
        assert subject["image"].path == sessions / "sub-a" / "ses-2" / "anat" / "sub-a_ses-2_acq-lo_run-2_T1w.nii"

    def test_ambiguous_files_are_listed(self, sessions: Path) -> None:
        with pytest.raises(SubjectError) as caught:
            pf.subjects_from_bids(sessions, image="acq-hi_T1w")
        message = str(caught.value)
        assert "image='acq-hi_T1w' fits more than one file of 2 subjects" in message
        assert "'sub-a_ses-1' has sub-a/ses-1/anat/sub-a_ses-1_acq-hi_run-01_T1w.nii and sub-a/ses-1/" in message
        assert "name an entity that tells them apart (run)" in message

    def test_an_entity_that_must_not_be_there(self, plain: Path) -> None:
        make(plain, *(f"sub-{name}/anat/sub-{name}_acq-fast_T1w.nii.gz" for name in ("01", "02")))
        with pytest.raises(SubjectError, match=r"tells them apart \(acq\)"):
            pf.subjects_from_bids(plain, image="T1w")
        subject = pf.subjects_from_bids(plain, image="acq-_T1w")[0]
        assert subject["image"].path == plain / "sub-01" / "anat" / "sub-01_T1w.nii.gz"

    def test_nothing_fits(self, sessions: Path, tmp_path: Path) -> None:
        with pytest.raises(SubjectError, match=r"suffixes T1w, T2w; ses 1, 2$"):
            pf.subjects_from_bids(sessions, image="T1w", session="baseline")
        with pytest.raises(SubjectError, match="holds no folders sub-"):
            pf.subjects_from_bids(make(tmp_path / "other", "x.nii"), image="T1w")
        with pytest.raises(SubjectError, match="is not a folder"):
            pf.subjects_from_bids(tmp_path / "none", image="T1w")


class TestDerivatives:
    def test_own_files_come_first(self, plain: Path) -> None:
        make(plain, "derivatives/prep/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz")
        assert pf.subjects_from_bids(plain, image="T1w")[0]["image"].path == plain / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
        (subject,) = pf.subjects_from_bids(plain, image="derivatives/prep/T1w")
        assert subject["image"].path == plain / "derivatives" / "prep" / "sub-01" / "anat" / "sub-01_desc-preproc_T1w.nii.gz"

    def test_two_pipelines_are_told_apart(self, plain: Path) -> None:
        make(plain, "derivatives/auto/sub-01/anat/sub-01_dseg.nii.gz")
        with pytest.raises(SubjectError, match=r"derivatives/auto/.* and derivatives/manual/"):
            pf.subjects_from_bids(plain, label="dseg")
        assert len(pf.subjects_from_bids(plain, label="derivatives/manual/anat/dseg")) == 2
        with pytest.raises(SubjectError, match=r"there is no folder .*derivatives/maual"):
            pf.subjects_from_bids(plain, label="derivatives/maual/dseg")


class TestErrors:
    def test_missing_images(self, plain: Path) -> None:
        (plain / "sub-02" / "anat" / "sub-02_T2w.nii.gz").unlink()
        with pytest.raises(SubjectError, match=r"of 2 subjects, 1 images are missing: 'sub-02' lacks 't2' \(no T2w among sub-02_T1w"):
            pf.subjects_from_bids(plain, image="T1w", t2="T2w")
        assert list(pf.subjects_from_bids(plain, image="T1w", t2="T2w", optional="t2")[1].images) == ["image"]

    def test_a_file_in_the_folder_of_another(self, plain: Path) -> None:
        make(plain, "sub-02/anat/sub-03_T1w.nii.gz")
        with pytest.raises(SubjectError, match=r"sub-03_T1w\.nii\.gz lies in the folder sub-02"):
            pf.subjects_from_bids(plain, image="T1w")
        assert len(pf.subjects_from_bids(plain, image="T2w")) == 2

    def test_a_link_without_its_content(self, plain: Path) -> None:
        path = plain / "sub-02" / "anat" / "sub-02_T1w.nii.gz"
        path.unlink()
        path.symlink_to("../../.git/annex/objects/x")
        with pytest.raises(SubjectError, match=r"is a link to \.\./\.\./\.git/annex/objects/x, which is not there"):
            pf.subjects_from_bids(plain, image="T1w")

    @pytest.mark.parametrize("asked", ["", "T1w.nii.gz", "desc_T1w", "../T1w", "/T1w", "*", 3])
    def test_what_cannot_be_asked_for(self, plain: Path, asked: object) -> None:
        with pytest.raises(ArgumentError, match="must be a suffix"):
            pf.subjects_from_bids(plain, image=asked)  # type: ignore[arg-type]

    def test_participants_without_a_line(self, plain: Path, caplog: pytest.LogCaptureFixture) -> None:
        (plain / "participants.tsv").write_text("participant_id\tage\n01\t30\n")
        with caplog.at_level("INFO", "patchflow"):
            subjects = pf.subjects_from_bids(plain, image="T1w")
        assert [subject.metadata for subject in subjects] == [
            {"age": 30, "participant_id": "sub-01"},
            {"age": None, "participant_id": "sub-02"},
        ]
        assert "has no line for sub-02" in caplog.text

    def test_participants_named_twice(self, plain: Path) -> None:
        (plain / "participants.tsv").write_text("participant_id\tage\n01\t30\nsub-01\t31\n")
        with pytest.raises(SubjectError, match="two lines for 'sub-01'"):
            pf.subjects_from_bids(plain, image="T1w")

    def test_no_image(self, plain: Path) -> None:
        with pytest.raises(ArgumentError, match="a suffix as in image="):
            pf.subjects_from_bids(plain)


def test_folders_called_like_sessions_above_the_data_set(tmp_path: Path) -> None:
    root = make(tmp_path / "ses-9 sub-x" / "ses-3", "sub-01/anat/sub-01_T1w.nii")
    assert [subject.name for subject in pf.subjects_from_bids(root, image="T1w")] == ["sub-01"]
