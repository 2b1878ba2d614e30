"""Subjects in a BIDS data set, found by the entities in the names of its files.

The Brain Imaging Data Structure: K. J. Gorgolewski et al., Scientific Data 3:160044 (2016); https://bids-specification.readthedocs.io.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchflow.errors import ArgumentError, SubjectError
from patchflow.subjects.gather import image_kinds, listed, optional_names, refuse_missing, subject_of
from patchflow.subjects.participants import facts_of, name_of
from patchflow.subjects.subject import Subject

_EXAMPLE = 'a suffix as in image="T1w", label="desc-manual_dseg"'
_FILE = re.compile(r"((?:[a-zA-Z0-9]+-[a-zA-Z0-9+]+_)+)([a-zA-Z0-9]+)\.nii(?:\.gz)?", re.IGNORECASE)
_ASKED = re.compile(r"((?:[a-zA-Z0-9]+-[a-zA-Z0-9+]*_)*)([a-zA-Z0-9]+)")
_DERIVATIVES = "derivatives"
_NUMBERED = {"run", "echo", "flip", "inv", "split", "chunk"}
"""Entities whose values are numbers, so that run-1 and run-01 are one."""

Filter = str | int | Sequence[str | int] | None


@dataclass(frozen=True)
class _Asked:
    """An image that is asked for: what its file's name must hold, and where it may lie."""

    text: str
    folders: tuple[str, ...]
    entities: Mapping[str, str]
    suffix: str


@dataclass(frozen=True)
class _File:
    path: Path
    entities: Mapping[str, str]
    suffix: str
    folders: tuple[str, ...]
    """Those of a participant and a session in which it lies."""

    @property
    def unit(self) -> tuple[str, str]:
        """The participant and the session, "" where there are none."""
        return self.entities["sub"], self.entities.get("ses", "")


def subjects_from_bids(
    folder: str | Path,
    *,
    session: Filter = None,
    run: Filter = None,
    acquisition: Filter = None,
    label_maps: str | Iterable[str] | None = None,
    optional: str | Iterable[str] = (),
    **images: str,
) -> list[Subject]:
    """The subjects of a BIDS data set: one for each participant, or for each session of one.

        subjects_from_bids("ds", image="T1w", label="desc-manual_dseg")
        subjects_from_bids("ds", t1="acq-mprage_T1w", t2="anat/T2w", label="derivatives/lesions/label-L_mask", session="baseline")

    Args:
        folder: the data set, which holds folders sub-...
        session: value of the entity ses, or several, that images must have; None: any. An int also finds numbers with leading zeros.
        run: likewise of the entity run; zeros at the front never count.
        acquisition: likewise of the entity acq.
        label_maps: names of the images that are label maps. Unless given, those called so (see `find_subjects`), and those with the suffix
            dseg or mask.
        optional: names of images that a subject may lack.
        **images: image name to what the file's name must hold: a suffix ("T1w") and any entities before it ("space-orig_desc-manual_dseg").
            An entity without a value ("acq-_T1w") must not be there, any that is not named may have any value. Folders may stand before it:
            a data type ("anat/T1w"), or a folder of derivatives ("derivatives/manual/dseg"). Unless derivatives are named, the data set's
            own files are looked through, and all folders of derivatives if there is none that fits.

    Returns:
        Subjects sorted by name, "sub-01" or "sub-01_ses-1". Metadata: participant_id ("sub-01"), session_id ("ses-1", where there are
        sessions), and the columns of participants.tsv and of sub-01_sessions.tsv, numbers as numbers. No image is opened.

    Raises:
        ArgumentError: for an image that cannot be asked for in this way.
        SubjectError: when nothing is found, a subject lacks an image or has several that fit (all are listed), or a file lies in the folder
            of another participant or session.
    """
    root = Path(folder)
    asked = {key: _asked(key, text) for key, text in images.items()}
    if label_maps is None and images:
        kinds = image_kinds(images, None, _EXAMPLE)
        suffixes = [key for key, image in asked.items() if image.suffix in ("dseg", "mask")]
        label_maps = [*suffixes, *(key for key, kind in kinds.items() if kind.kind == "label")]
    kinds = image_kinds(images, label_maps, _EXAMPLE)
    may_lack = optional_names(optional, images)
    if not root.is_dir():
        raise SubjectError(f"{root} is not a folder: there are no subjects to find")
    files = _Files(root)
    common = {"ses": session, "run": run, "acq": acquisition}
    found = {key: _matches(files, key, image, common) for key, image in asked.items()}
    units = sorted(set().union(*found.values()))
    if not units:
        raise SubjectError(f"no subject in {root.absolute()}: {_nothing(files, common)}")
    lacking = [(unit, key) for unit in units for key in images if unit not in found[key] and key not in may_lack]
    refuse_missing(((name_of(unit), key, f"no {images[key]} among {files.of(unit)}") for unit, key in lacking), len(units))
    facts = facts_of(root, units)
    return [
        subject_of(name_of(unit), {key: kinds[key](found[key][unit].path) for key in images if unit in found[key]}, facts[unit], str(root))
        for unit in units
    ]


def _asked(key: str, text: object) -> _Asked:
    *folders, name = text.split("/") if isinstance(text, str) else [""]
    match = _ASKED.fullmatch(name)
    if match is None or "" in folders or ".." in folders:
        raise ArgumentError(
            f"{key}={text!r} must be a suffix, with entities before it if need be, such as 'T1w', 'acq-mprage_T1w' or "
            "'derivatives/manual/desc-manual_dseg', without an ending"
        )
    return _Asked(str(text), tuple(folders), _entities(match[1]), match[2])


def _entities(text: str) -> dict[str, str]:
    pairs = (part.partition("-") for part in text.split("_") if part)
    return {entity: value for entity, _, value in pairs}


class _Files:
    """The NIfTI files of a data set that are called as BIDS wants, each folder read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: dict[Path, list[_File]] = {}

    def below(self, source: Path) -> list[_File]:
        """Files in the participants' folders of a data set or of a folder of derivatives."""
        if source not in self._read:
            self._read[source] = list(self._walk(source))
        return self._read[source]

    def derivatives(self) -> list[Path]:
        """The folders of derivatives: those below derivatives/ and itself."""
        top = self.root / _DERIVATIVES
        return [top, *sorted(path for path in top.iterdir() if path.is_dir() and not path.name.startswith("sub-"))] if top.is_dir() else []

    def of(self, unit: tuple[str, str]) -> str:
        """The names of a subject's files, for messages."""
        return ", ".join(sorted(file.path.name for files in self._read.values() for file in files if file.unit == unit)) or "its files"

    def all(self) -> list[_File]:
        """Whatever was read so far."""
        return [file for files in self._read.values() for file in files]

    @staticmethod
    def _walk(source: Path) -> Iterator[_File]:
        for participant in sorted(source.glob("sub-*")):
            for path in sorted(participant.rglob("*")):
                match = _FILE.fullmatch(path.name)
                if match is None:
                    continue
                entities = _entities(match[1])
                if "sub" in entities:
                    folders = [part for part in path.relative_to(source).parts[:-1] if part.startswith(("sub-", "ses-"))]
                    yield _File(path, entities, match[2], tuple(folders))


def _matches(files: _Files, key: str, asked: _Asked, common: Mapping[str, Filter]) -> dict[tuple[str, str], _File]:
    """What fits, one for each participant and session."""
    folders = asked.folders
    if folders[:1] == (_DERIVATIVES,):
        pipeline = files.root.joinpath(*folders[:2])
        if not pipeline.is_dir():
            raise SubjectError(f"{key}={asked.text!r}: there is no folder {pipeline}")
        sources, folders = [[pipeline]], folders[2:]
    else:
        sources = [[files.root], files.derivatives()]
    fitting: list[_File] = []
    for choice in sources:
        fitting = fitting or [file for source in choice for file in files.below(source) if _fits(file, asked, folders, common)]
    by_unit: dict[tuple[str, str], list[_File]] = {}
    for file in fitting:
        _check_place(file)
        by_unit.setdefault(file.unit, []).append(file)
    several = {unit: matches for unit, matches in by_unit.items() if len(matches) > 1}
    if several:
        told = (
            f"{name_of(unit)!r} has {' and '.join(str(file.path.relative_to(files.root)) for file in matches)}"
            for unit, matches in several.items()
        )
        apart = ", ".join(_differing(next(iter(several.values())))) or "the folder"
        raise SubjectError(
            f"{key}={asked.text!r} fits more than one file of {len(several)} subjects: {listed(told)}: "
            f"name an entity that tells them apart ({apart}); one without a value, as in 'acq-_T1w', must not be there"
        )
    return {unit: matches[0] for unit, matches in by_unit.items()}


def _fits(file: _File, asked: _Asked, folders: Sequence[str], common: Mapping[str, Filter]) -> bool:
    if file.suffix != asked.suffix or (folders and file.path.parent.parts[-len(folders) :] != tuple(folders)):
        return False
    own = all(_same(entity, file.entities.get(entity, ""), value) for entity, value in asked.entities.items())
    return own and all(_allowed(entity, file.entities.get(entity, ""), wanted) for entity, wanted in common.items())


def _check_place(file: _File) -> None:
    if astray := [folder for folder in file.folders if folder != f"{folder[:3]}-{file.entities.get(folder[:3])}"]:
        raise SubjectError(f"{file.path} lies in the folder {astray[0]}, and its name says otherwise: move or rename it")
    if file.path.is_symlink() and not file.path.exists():
        raise SubjectError(f"{file.path} is a link to {file.path.readlink()}, which is not there: fetch its content, or remove it")


def _allowed(entity: str, value: str, wanted: Filter) -> bool:
    if wanted is None:
        return True
    choices = [wanted] if isinstance(wanted, (str, int)) else wanted
    return any(_same(entity, value, choice) for choice in choices)


def _same(entity: str, value: str, wanted: str | int) -> bool:
    if isinstance(wanted, int) or (entity in _NUMBERED and wanted.isdecimal()):
        return value.isdecimal() and int(value) == int(wanted)
    return value == wanted.removeprefix(f"{entity}-")


def _differing(files: Sequence[_File]) -> list[str]:
    entities = dict.fromkeys(entity for file in files for entity in file.entities)
    return [entity for entity in entities if len({file.entities.get(entity) for file in files}) > 1]


def _nothing(files: _Files, common: Mapping[str, Filter]) -> str:
    everything = files.all()
    if not everything:
        return "it holds no folders sub-... with NIfTI files called as BIDS wants (sub-01_T1w.nii.gz)"
    kinds = ", ".join(sorted({file.suffix for file in everything}))
    values = [
        f"{entity} {', '.join(sorted({file.entities.get(entity, 'none') for file in everything}))}"
        for entity, wanted in common.items()
        if wanted is not None
    ]
    return f"no file fits; there are those with the suffixes {kinds}{''.join(f'; {value}' for value in values)}"
