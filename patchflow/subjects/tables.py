"""Tables of text, and subjects listed in one."""

import csv
import io
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchflow.errors import ArgumentError, ImageError, SubjectError
from patchflow.images.image import Image
from patchflow.subjects.gather import image_kinds, listed, optional_names, subject_of
from patchflow.subjects.subject import Subject

_EXAMPLE = 'a column as in image="t1_path"'
_ABSENT = {"", "n/a", "nan"}
_INT = re.compile(r"[+-]?(0|[1-9]\d*)", re.ASCII)
_FLOAT = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)

Value = int | float | str | None


@dataclass(frozen=True)
class Table:
    """A table as text, without what is empty in all of its cells.

    Attributes:
        path: the file.
        columns: their names, in order.
        lines: the line of each row in the file, from 1.
        rows: a cell for each column, without spaces around it.
        comma: whether numbers have a decimal comma, as where semicolons part cells.
    """

    path: Path
    columns: tuple[str, ...]
    lines: tuple[int, ...]
    rows: tuple[tuple[str, ...], ...]
    comma: bool = False

    def column(self, name: str) -> tuple[str, ...]:
        """The cells of a column.

        Raises:
            SubjectError: for a column that is not there.
        """
        if name not in self.columns:
            raise SubjectError(f"{self.path} has no column {name!r}: it has {', '.join(map(repr, self.columns))}")
        place = self.columns.index(name)
        return tuple(row[place] for row in self.rows)

    def values(self, name: str) -> list[Value]:
        """A column's cells as numbers if all that are not empty are numbers, as text otherwise, and None where they are empty.

        "n/a" and "NaN" count as empty, in any case. Numbers with leading zeros are names ("007") and stay text.
        """
        cells = self.column(name)
        absent = [cell.casefold() in _ABSENT for cell in cells]
        comma = self.comma and not any("." in cell for cell in cells)  # with both, who knows which is which: text
        text = [cell.replace(",", ".") if comma else cell for cell in cells]
        given = [cell for cell, empty in zip(text, absent, strict=True) if not empty]
        read: Callable[[str], Value] = str
        if all(_INT.fullmatch(cell) for cell in given):
            read = int
        elif all(_is_float(cell) for cell in given):
            read = float
        kept = cells if read is str else text
        return [None if empty else read(cell) for cell, empty in zip(kept, absent, strict=True)]

    def at(self, row: int, column: str) -> str:
        """Where a cell stands, for messages."""
        return f"{self.path}, line {self.lines[row]}, column {column!r}"


def read_table(path: str | Path, wanted: Sequence[str] = ()) -> Table:
    """Read a table whose first line names its columns.

    UTF-8 with or without a byte order mark, or UTF-16 with one. Cells are parted by tabs in files called .tsv, else by what the first line
    has: commas, semicolons or tabs, those that give the columns `wanted`.

    Raises:
        SubjectError: for a file that is not there or no text, a column without a name or two of one name, or a line with more or fewer
            cells than the first; names the line.
    """
    path = Path(path)
    text = _text(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    choices = ["\t"] if path.name.lower().endswith(".tsv") else [",", ";", "\t"]
    delimiter = max(choices, key=lambda sign: (_holds(first, sign, wanted), first.count(sign)))
    numbered = list(_lines(path, text, delimiter))
    if not numbered:
        raise SubjectError(f"{path} is empty: its first line must name the columns")
    (_, header), *body = numbered
    while header and not header[-1] and all(len(row) < len(header) or not row[len(header) - 1] for _, row in body):
        body = [(line, row[: len(header) - 1]) for line, row in body]  # as spreadsheets leave them
        header = header[:-1]
    for number, name in enumerate(header):
        if not name or name in header[:number]:
            what = f"two columns are called {name!r}" if name else f"column {number + 1} has no name"
            raise SubjectError(f"{path}: {what} in line {numbered[0][0]}: give each column a name of its own")
    for line, row in body:
        if len(row) != len(header):
            raise SubjectError(
                f"{path}, line {line} has {len(row)} cells and the first line {len(header)}: put texts that hold {delimiter!r} in quotes"
            )
    return Table(path, tuple(header), tuple(line for line, _ in body), tuple(tuple(row) for _, row in body), delimiter == ";")


def subjects_from_table(
    path: str | Path,
    *,
    name: str = "subject",
    label_maps: str | Iterable[str] | None = None,
    optional: str | Iterable[str] = (),
    metadata: Iterable[str] | None = None,
    **columns: str,
) -> list[Subject]:
    """The subjects that a table lists, one in each line, with a column for each image.

        subjects_from_table("subjects.csv", image="t1_path", label="seg_path", name="id")

    Args:
        path: a .csv or .tsv file: UTF-8 (with a byte order mark or without) or UTF-16; commas, semicolons or tabs between cells; the first
            line names the columns. Where semicolons part cells, numbers may have a decimal comma. Empty lines are left out.
        name: the column of the subjects' names, which are kept as they are written ("007").
        label_maps: names of the images that are label maps; see `find_subjects`.
        optional: names of images whose cells may be empty; a subject does not have those images.
        metadata: columns that become metadata, each under its name; None: all others. A column of numbers gives ints or floats, any other
            text; an empty cell, "n/a" and "NaN" give None.
        **columns: image name to the column of its files. A relative path starts at the table's folder.

    Returns:
        Subjects in the order of the table. No image is opened.

    Raises:
        ArgumentError: for no image, or a name in `label_maps` or `optional` that is no image asked for.
        SubjectError: for a table that cannot be read, a column that is not there, an empty cell, a file that is not there, or a name that
            stands twice; names the line and column. Files that are missing are all listed.
    """
    kinds = image_kinds(columns, label_maps, _EXAMPLE)
    may_lack = optional_names(optional, columns)
    table = read_table(path, (name, *columns.values()))
    names = _names(table, name)
    missing: list[str] = []
    found = {key: _images(table, column, kinds[key], key in may_lack, missing) for key, column in columns.items()}
    if missing:
        raise SubjectError(f"{len(missing)} files are not there: {listed(missing)}: mend the paths, which start at {table.path.parent}")
    taken = {name, *columns.values()}
    if isinstance(metadata, str):
        metadata = [metadata]
    others = [column for column in table.columns if column not in taken] if metadata is None else list(metadata)
    values = {column: table.values(column) for column in others}
    subjects = []
    for row, subject in enumerate(names):
        images = {key: image for key, column in found.items() if (image := column[row]) is not None}
        if not images:
            raise SubjectError(f"{table.path}, line {table.lines[row]}: subject {subject!r} has no image: fill a cell or remove the line")
        facts: dict[str, Any] = {column: cells[row] for column, cells in values.items()}
        subjects.append(subject_of(subject, images, facts, f"{table.path}, line {table.lines[row]}"))
    return subjects


def _names(table: Table, column: str) -> tuple[str, ...]:
    names = table.column(column)
    if not names:
        raise SubjectError(f"{table.path} lists no subject: there is no line below the names of the columns")
    seen: dict[str, int] = {}
    for row, subject in enumerate(names):
        if not subject:
            raise SubjectError(f"{table.at(row, column)} is empty: give the subject a name")
        if seen.setdefault(subject, row) != row:
            raise SubjectError(f"{table.at(row, column)}: {subject!r} is named in line {table.lines[seen[subject]]} already: rename one")
    return names


def _images(table: Table, column: str, kind: type[Image], may_lack: bool, missing: list[str]) -> list[Image | None]:
    """The images of a column; those whose files are not there are told to `missing`."""
    images: list[Image | None] = []
    for row, cell in enumerate(table.column(column)):
        where, path, image = table.at(row, column), table.path.parent / cell, None
        if not cell and not may_lack:
            raise SubjectError(f"{where} is empty: give the path of the file, or name the image in optional= to take subjects without it")
        try:
            image = kind(path) if cell else None
            there = image is None or os.path.exists(image.path or path)
        except (ImageError, ArgumentError) as error:
            there = os.path.exists(path)
            if there:
                raise type(error)(f"{where}: {error}") from error
        if not there:
            missing.append(f"{where}: {path}")
        images.append(image)
    return images


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SubjectError(f"the table {path} cannot be read ({error.strerror}): give the path of a .csv or .tsv file") from error
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SubjectError(f"{path}, line {line} is not {encoding.removesuffix('-sig').upper()} text: save the table as UTF-8") from error
    if "\0" in text:
        raise SubjectError(f"{path} is no text: it holds zero bytes; save the table as UTF-8")
    return text


def _lines(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold anything, each with the line where it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begin = 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield begin, cells
            begin = reader.line_num + 1
    except csv.Error as error:
        raise SubjectError(f"{path}, line {begin} cannot be read as a row of a table ({error}): mend its quotes") from error


def _holds(first: str, delimiter: str, wanted: Sequence[str]) -> bool:
    cells = {cell.strip().strip('"') for cell in first.split(delimiter)}
    return set(wanted) <= cells


def _is_float(cell: str) -> bool:
    return _FLOAT.fullmatch(cell) is not None and math.isfinite(float(cell))
