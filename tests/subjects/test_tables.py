"""Subjects listed in a table."""

from pathlib import Path

import pytest

import patchflow as pf
from patchflow.errors import ArgumentError, ImageFileError, SubjectError
from patchflow.subjects.tables import read_table


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for name in ("a t1.nii.gz", "b t1.nii.gz", "a seg.nii.gz", "b seg.nii.gz"):
        (tmp_path / "data" / name).touch()
    return tmp_path


HEADER = "subject,t1_path,seg_path,age,weight,site,ward\n"
ROWS = "007,data/a t1.nii.gz,data/a seg.nii.gz,61,70.5,Köln,01\nb,data/b t1.nii.gz,data/b seg.nii.gz,,1e2,n/a,02\n"


def write(folder: Path, text: str | bytes, name: str = "subjects.csv") -> Path:
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / name


def load(path: Path, **options: object) -> list[pf.Subject]:
    return pf.subjects_from_table(path, image="t1_path", label="seg_path", **options)  # type: ignore[arg-type]


class TestSubjects:
    def test_images_and_metadata(self, data: Path) -> None:
        first, second = load(write(data, HEADER + ROWS))
        assert (first.name, second.name) == ("007", "b")
        assert [type(image) for image in first.images.values()] == [pf.ScalarImage, pf.LabelMap]
        assert first["image"].path == data / "data" / "a t1.nii.gz"
        assert second["label"].path == data / "data" / "b seg.nii.gz"
        assert first.metadata == {"age": 61, "weight": 70.5, "site": "Köln", "ward": "01"}
        assert second.metadata == {"age": None, "weight": 100.0, "site": None, "ward": "02"}
        assert [type(value) for value in first.metadata.values()] == [int, float, str, str]

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("bom.csv", b"\xef\xbb\xbf" + (HEADER + ROWS).encode()),
            ("crlf.csv", (HEADER + ROWS).replace("\n", "\r\n").encode()),
            ("semicolons.csv", (HEADER + ROWS).replace(",", ";").replace("70.5", "70,5").encode()),
            ("tabs.csv", (HEADER + ROWS).replace(",", "\t").encode()),
            ("tabs.tsv", (HEADER + ROWS).replace(",", "\t").encode()),
            ("UPPER.TSV", (HEADER + ROWS).replace(",", "\t").encode()),
            ("utf16.csv", (HEADER + ROWS).replace(",", "\t").encode("utf-16")),
            ("spreadsheet.csv", (HEADER + ROWS).replace("\n", " ,, \n").encode() + b",,,,,,,,\n\n"),
            ("quotes.csv", (HEADER + ROWS).replace("Köln", '"Köln"').replace("data/a t1.nii.gz", '"data/a t1.nii.gz"').encode()),
        ],
    )
    def test_ways_to_write_a_table(self, data: Path, name: str, content: bytes) -> None:
        subjects = load(write(data, content, name))
        assert [subject["image"].path for subject in subjects] == [data / "data" / "a t1.nii.gz", data / "data" / "b t1.nii.gz"]
        assert subjects[0].metadata == {"age": 61, "weight": 70.5, "site": "Köln", "ward": "01"}

    def test_a_column_of_paths_that_is_not_asked_for_is_metadata(self, data: Path) -> None:
        first, second = pf.subjects_from_table(write(data, HEADER + ROWS), image="t1_path")
        assert (first.metadata["seg_path"], list(first.images)) == ("data/a seg.nii.gz", ["image"])
        assert second.metadata["seg_path"] == "data/b seg.nii.gz"

    def test_chosen_metadata_and_another_name(self, data: Path) -> None:
        path = write(data, HEADER.replace("subject", "id") + ROWS)
        for metadata in ("age", ["age"]):
            subject = load(path, name="id", metadata=metadata)[0]
            assert (subject.name, subject.metadata) == ("007", {"age": 61})
        assert load(path, name="id", metadata=())[0].metadata == {}

    def test_absolute_paths(self, data: Path) -> None:
        subject = load(write(data, HEADER + ROWS.replace("data/", f"{data}/data/")))[1]
        assert subject["image"].path == data / "data" / "b t1.nii.gz"

    def test_optional_images(self, data: Path) -> None:
        path = write(data, HEADER + ROWS.replace("data/b seg.nii.gz", ""))
        assert [list(subject.images) for subject in load(path, optional="label")] == [["image", "label"], ["image"]]
        with pytest.raises(SubjectError, match=r"subjects\.csv, line 3, column 'seg_path' is empty"):
            load(path)

    def test_label_maps(self, data: Path) -> None:
        subject = pf.subjects_from_table(write(data, HEADER + ROWS), tissue="seg_path", label_maps="tissue")[0]
        assert type(subject["tissue"]) is pf.LabelMap


class TestErrors:
    def test_missing_files_are_all_listed(self, data: Path) -> None:
        path = write(data, HEADER + ROWS.replace("a t1", "c t1").replace("b seg", "d seg"))
        with pytest.raises(SubjectError) as caught:
            load(path)
        assert "2 files are not there" in str(caught.value)
        assert f"{path}, line 2, column 't1_path': {data / 'data' / 'c t1.nii.gz'}" in str(caught.value)
        assert f"{path}, line 3, column 'seg_path': {data / 'data' / 'd seg.nii.gz'}" in str(caught.value)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (("b,data", "007,data"), r"line 3, column 'subject': '007' is named in line 2 already"),
            (("b,data", " ,data"), r"line 3, column 'subject' is empty"),
            (("data/b t1.nii.gz", "  "), r"line 3, column 't1_path' is empty"),
            (("b,data", "b/c,data"), r"'b/c' cannot name a subject"),
            (("1e2,n/a", "1e2,n,a"), r"line 3 has 8 cells and the first line 7: put texts that hold ',' in quotes"),
            (("01\nb,", "01\n\n\nb,,,"), r"line 5 has 9 cells"),
            (("Köln", '"Köln'), r"line 2 cannot be read as a row of a table"),
            (("site,ward", "age,ward"), r"two columns are called 'age' in line 1"),
            (("site,ward", ",ward"), r"column 6 has no name in line 1"),
            (("site,ward", "image,ward"), r"line 2: 'image' names an image and a piece of metadata of subject '007'"),
            (("seg_path", "seg"), r"has no column 'seg_path': it has 'subject', 't1_path', 'seg', 'age'"),
            (("subject,", "name,"), r"has no column 'subject'"),
        ],
    )
    def test_what_is_wrong_is_named(self, data: Path, change: tuple[str, str], message: str) -> None:
        text = (HEADER + ROWS).replace(*change, 1)
        assert text != HEADER + ROWS
        with pytest.raises(SubjectError, match=message):
            load(write(data, text))

    def test_files_that_are_no_tables(self, data: Path) -> None:
        with pytest.raises(SubjectError, match=r"none\.csv cannot be read"):
            load(data / "none.csv")
        with pytest.raises(SubjectError, match="is empty: its first line must name the columns"):
            load(write(data, "\n\n"))
        with pytest.raises(SubjectError, match="lists no subject"):
            load(write(data, HEADER))
        with pytest.raises(SubjectError, match="line 2 is not UTF-8 text: save the table as UTF-8"):
            load(write(data, (HEADER + ROWS).encode("latin-1")))
        with pytest.raises(SubjectError, match="holds zero bytes"):
            load(write(data, HEADER + ROWS.replace("61", "6\0")))

    def test_a_file_of_no_known_format(self, data: Path) -> None:
        (data / "data" / "a t1.docx").touch()
        with pytest.raises(ImageFileError, match=r"line 2, column 't1_path': .*a t1\.docx is of no format"):
            load(write(data, HEADER + ROWS.replace("a t1.nii.gz", "a t1.docx")))

    def test_no_image(self, data: Path) -> None:
        path = write(data, HEADER + ROWS.replace("data/b t1.nii.gz,data/b seg.nii.gz", ","))
        with pytest.raises(ArgumentError, match="a column as in image="):
            pf.subjects_from_table(path)
        with pytest.raises(SubjectError, match="line 3: subject 'b' has no image"):
            load(path, optional=["image", "label"])


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "-2", "+3"], [1, -2, 3]),
        (["1", "2.5", ".5", "1e-3"], [1.0, 2.5, 0.5, 0.001]),
        (["1", "", "N/A", "NaN"], [1, None, None, None]),
        (["007", "12"], ["007", "12"]),
        (["1", "x"], ["1", "x"]),
        (["1,5", "2"], ["1,5", "2"]),
        (["inf", "1"], ["inf", "1"]),
        (["1e999", "1"], ["1e999", "1"]),
        (["e5", "1"], ["e5", "1"]),
        (["١", "1"], ["١", "1"]),
        (["", "nan"], [None, None]),
        (["123456789012345678901", "1"], [123456789012345678901, 1]),
    ],
)
def test_numbers_and_text(tmp_path: Path, cells: list[str], values: list[object]) -> None:
    text = "k\tv\n" + "".join(f"{number}\t{cell}\n" for number, cell in enumerate(cells))
    found = read_table(write(tmp_path, text, "t.tsv")).values("v")
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("cells", "values"),
    [(["1,5", "2"], [1.5, 2.0]), (["1,5", "1.5"], ["1,5", "1.5"]), (["1.5", "2"], [1.5, 2.0]), (["a,b", "1"], ["a,b", "1"])],
)
def test_decimal_commas(tmp_path: Path, cells: list[str], values: list[object]) -> None:
    text = "k;v\n" + "".join(f"{number};{cell}\n" for number, cell in enumerate(cells))
    assert read_table(write(tmp_path, text)).values("v") == values


def test_a_quoted_line_break_does_not_shift_lines(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, 'a,b\n1,"x\ny"\n2,z\n'))
    assert table.lines == (2, 4)
    assert table.rows == (("1", "x\ny"), ("2", "z"))
