"""Subjects and caches back to NIfTI files."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import patchflow as pf
from patchflow import seeding
from patchflow.cache import export as module
from patchflow.errors import ArgumentError, CacheDamagedError, ImageFileError, SubjectError, UnknownNameError
from patchflow.kernels.pointwise import plain_apply_map

AFFINE = np.array([[0.0, 2, 0, 5], [-3, 0, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])


def make_subject(name: str = "Jürgen 1", seed: int = 0, **metadata: Any) -> pf.Subject:
    rng = seeding.generator(seed)
    return pf.Subject(
        name,
        image=pf.ScalarImage(rng.integers(-1024, 2000, (2, 9, 10, 11)).astype(np.int16), AFFINE),
        pet=pf.ScalarImage(rng.random((9, 10, 11)), AFFINE),
        label=pf.LabelMap(rng.integers(0, 300, (9, 10, 11)).astype(np.int32), AFFINE),
        **metadata,
    )


def whole(entry: Any, image: str) -> Any:
    return entry.read(image, pf.PatchLocation((0, 0, 0), entry.shape))


def dtype_of(path: Path) -> np.dtype[Any]:
    return nib.load(path).get_data_dtype()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("layout", ["contiguous", "compressed"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_whole_cache(tmp_path: Path, layout: Any, suffix: str) -> None:
    subjects = [make_subject(), make_subject("s2", 1)]
    steps = pf.Pipeline([pf.preprocess.Clamp(-1000, 1000, keys="image"), pf.preprocess.ZNormalize(keys="pet")])
    cache = pf.build_cache(subjects, tmp_path / "cache", preprocess=steps, layout=layout, progress=False)
    paths = pf.export(cache, tmp_path / "out", suffix=suffix, num_workers=2, progress=False)
    assert paths["s2"] == {name: tmp_path / "out" / f"s2_{name}{suffix}" for name in ("image", "pet", "label")}
    for entry in cache:
        for name, path in paths[entry.name].items():
            image = (pf.LabelMap if name == "label" else pf.ScalarImage)(path)
            assert image.data.tobytes() == whole(entry, name).tobytes()
            np.testing.assert_array_equal(image.affine, AFFINE)
    assert [dtype_of(path) for path in paths["s2"].values()] == [np.int16, np.float32, np.int32]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        f"{subject.name}{end}" for subject in subjects for end in (f"_image{suffix}", f"_pet{suffix}", f"_label{suffix}", ".json")
    )


def test_a_subject_as_it_is_and_processed(tmp_path: Path) -> None:
    subject = make_subject()
    paths = pf.export(subject, tmp_path / "plain", progress=False)[subject.name]
    assert [dtype_of(path) for path in paths.values()] == [np.int16, np.float64, np.int32]
    np.testing.assert_array_equal(pf.ScalarImage(paths["image"]).data, subject["image"].data)
    steps = pf.Pipeline([pf.preprocess.ZNormalize()])
    volume = steps.run(subject)["image"]
    paths = pf.export(subject, tmp_path / "processed", preprocess=steps, progress=False)[subject.name]
    assert dtype_of(paths["image"]) == np.float32
    np.testing.assert_array_equal(pf.ScalarImage(paths["image"]).data, plain_apply_map(volume.array, volume.map))


def test_an_entry_and_some_images(tmp_path: Path) -> None:
    cache = pf.build_cache([make_subject("s1")], tmp_path / "cache", progress=False)
    assert pf.export(cache[0], tmp_path / "a", images="label", progress=False) == {"s1": {"label": tmp_path / "a" / "s1_label.nii.gz"}}
    assert list(pf.export([cache["s1"]], tmp_path / "b", images=["pet", "image"], progress=False)["s1"]) == ["pet", "image"]
    with pytest.raises(UnknownNameError, match="'s1' has no image 'lable'"):
        pf.export(cache, tmp_path / "c", images="lable")
    with pytest.raises(ArgumentError, match="images must be names, each once"):
        pf.export(cache, tmp_path / "c", images=["pet", "pet"])
    assert not (tmp_path / "c").exists()


def test_what_was_exported_is_found_again(tmp_path: Path) -> None:
    subjects = [make_subject("s1", age=61, site="Köln"), make_subject("s_2", 1)]
    pf.export(subjects, tmp_path / "out", progress=False)
    found = pf.find_subjects(tmp_path / "out", image="*_image.nii.gz", pet="*_pet.nii.gz", label="*_label.nii.gz")
    assert [subject.name for subject in found] == ["s1", "s_2"]
    np.testing.assert_array_equal(found[1]["label"].data, subjects[1]["label"].data)
    note = json.loads((tmp_path / "out" / "s1.json").read_text(encoding="utf-8"))
    assert note["metadata"] == {"age": 61, "site": "Köln"}
    assert note["files"] == {"image": "s1_image.nii.gz", "pet": "s1_pet.nii.gz", "label": "s1_label.nii.gz"}


class TestAgain:
    @pytest.fixture
    def written(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        names: list[str] = []
        write = module.write_volume
        monkeypatch.setattr(module, "write_volume", lambda path, volume: (names.append(Path(path).name), write(path, volume)))
        return names

    def test_what_is_there_is_kept(self, tmp_path: Path, written: list[str], caplog: pytest.LogCaptureFixture) -> None:
        cache = pf.build_cache([make_subject("s1"), make_subject("s2", 1)], tmp_path / "cache", progress=False)
        for source in (cache, [make_subject("s1"), make_subject("s2", 1)]):
            folder = tmp_path / f"out{type(source).__name__}"
            first = pf.export(source, folder, progress=False)
            (folder / "s2_pet.nii.gz").unlink()
            written.clear()
            with caplog.at_level("INFO", "patchflow"):
                assert pf.export(source, folder, progress=False) == first
            assert written == ["s2_image.nii.gz", "s2_pet.nii.gz", "s2_label.nii.gz"]
            assert "1 of 2 subjects were exported before" in caplog.text

    def test_it_goes_on_after_an_interruption(self, tmp_path: Path, written: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        subjects = [make_subject("s1"), make_subject("s2", 1)]
        write = module.write_volume

        def stops(path: Path, volume: Any) -> None:
            if path.name == "s2_pet.nii.gz":
                raise KeyboardInterrupt
            write(path, volume)

        with monkeypatch.context() as patch:
            patch.setattr(module, "write_volume", stops)
            with pytest.raises(KeyboardInterrupt):
                pf.export(subjects, tmp_path, progress=False)
        assert (tmp_path / "s2_image.nii.gz").exists()
        assert not (tmp_path / "s2_pet.nii.gz").exists()
        written.clear()
        pf.export(subjects, tmp_path, progress=False)
        assert written == ["s2_image.nii.gz", "s2_pet.nii.gz", "s2_label.nii.gz"]
        assert json.loads((tmp_path / "s2.json").read_text())["whole"] is True

    def test_files_of_something_else_are_not_overwritten(self, tmp_path: Path) -> None:
        pf.export(make_subject("s1"), tmp_path, progress=False)
        before = (tmp_path / "s1_image.nii.gz").read_bytes()
        steps = pf.Pipeline([pf.preprocess.ZNormalize(keys="image")])
        for source, options in (
            (make_subject("s1", 5), {}),
            (make_subject("s1"), {"preprocess": steps}),
            (make_subject("s1"), {"images": "pet"}),
        ):
            with pytest.raises(ArgumentError, match=r"s1\.json: subject 's1' was exported from other images, or in another way"):
                pf.export(source, tmp_path, progress=False, **options)  # type: ignore[arg-type]
        assert (tmp_path / "s1_image.nii.gz").read_bytes() == before
        pf.export(make_subject("s1"), tmp_path, preprocess=steps, overwrite=True, progress=False)
        assert (tmp_path / "s1_image.nii.gz").read_bytes() != before

    def test_files_of_the_user_are_not_overwritten(self, tmp_path: Path) -> None:
        (tmp_path / "s1_image.nii.gz").write_bytes(b"mine")
        with pytest.raises(ArgumentError, match=r"holds s1_image\.nii\.gz already, not from an export"):
            pf.export(make_subject("s1"), tmp_path, progress=False)
        assert (tmp_path / "s1_image.nii.gz").read_bytes() == b"mine"
        (tmp_path / "s1.json").write_text('{"EchoTime": 3}')
        with pytest.raises(ArgumentError, match=r"s1\.json is there, and is not from an export"):
            pf.export(make_subject("s1"), tmp_path, overwrite=True, progress=False)


class TestErrors:
    def test_arguments(self, tmp_path: Path) -> None:
        cache = pf.build_cache([make_subject("s1")], tmp_path / "cache", progress=False)
        with pytest.raises(ArgumentError, match=r'suffix must be "\.nii\.gz" or "\.nii"'):
            pf.export(cache, tmp_path / "out", suffix=".mha")
        with pytest.raises(ArgumentError, match="was preprocessed when the cache was built"):
            pf.export(cache, tmp_path / "out", preprocess=pf.Pipeline([]))
        with pytest.raises(ArgumentError, match="num_workers must be an int of at least 1"):
            pf.export(cache, tmp_path / "out", num_workers=0)
        for nothing in ([], ["s1"], 3):
            with pytest.raises(ArgumentError, match="export"):
                pf.export(nothing, tmp_path / "out")  # type: ignore[arg-type]
        (tmp_path / "file").touch()
        with pytest.raises(ArgumentError, match="cannot be made a folder to export to"):
            pf.export(cache, tmp_path / "file")

    def test_two_files_of_one_name(self, tmp_path: Path) -> None:
        one, two = (pf.Subject(name, **{key: pf.ScalarImage(np.ones((2, 2, 2)))}) for name, key in (("a", "b_c"), ("A_b", "c")))
        with pytest.raises(ArgumentError, match=r"'b_c' of subject 'a' and 'c' of subject 'A_b' would both be written to A_b_c\.nii\.gz"):
            pf.export([one, two], tmp_path)

    def test_metadata_that_json_cannot_keep(self, tmp_path: Path) -> None:
        with pytest.raises(SubjectError, match="'s1' has metadata that JSON cannot keep"):
            pf.export(make_subject("s1", born=object()), tmp_path / "out", progress=False)
        assert list((tmp_path / "out").iterdir()) == []

    def test_a_full_disk_leaves_nothing_half_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(file: Any, data: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("patchflow.images.write.write_all", fails)
        with pytest.raises(ImageFileError, match=r"s1_image\.nii\.gz cannot be written \(No space left on device\)"):
            pf.export(make_subject("s1"), tmp_path, progress=False)
        assert [path.name for path in tmp_path.iterdir()] == ["s1.json"]

    def test_a_damaged_entry(self, tmp_path: Path) -> None:
        cache = pf.build_cache([make_subject("s1")], tmp_path / "cache", layout="contiguous", progress=False)
        content = bytearray(cache[0].path.read_bytes())
        place = content.find(make_subject("s1")["image"].load().array.tobytes()[:64])
        content[place] ^= 1
        cache[0].path.write_bytes(content)
        with pytest.raises(CacheDamagedError, match="s1"):
            pf.export(pf.open_cache(tmp_path / "cache"), tmp_path / "out", progress=False)
        assert not list((tmp_path / "out").glob("*.nii.gz"))

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "a.nii.gz").write_bytes(b"no")
        with pytest.raises(ImageFileError, match=r"subject 's1', image 'image': .*a\.nii\.gz"):
            pf.export(pf.Subject("s1", image=pf.ScalarImage(tmp_path / "a.nii.gz")), tmp_path / "out", progress=False)
