"""Path patterns with places for a subject's name and for other words, and the files that fit them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any, NamedTuple
from unicodedata import normalize

from patchflow.errors import ArgumentError, SubjectError

NAME = "*"
_PLACE = re.compile(r"\*|\{([^\W\d]\w*)\}")
_ENDING = re.compile(r"(\.nii\.gz|\.[A-Za-z0-9]{1,6})$", re.IGNORECASE)


_Pairs = tuple[tuple[str, str], ...]
"""Places and the text at each, in the order of the path."""


class Found(NamedTuple):
    """A file or folder that fits a pattern, and the text at each of the pattern's places."""

    path: Path
    words: dict[str, str]


@dataclass(frozen=True)
class _Part:
    """A folder's or file's name: a fixed one, or an expression with the places that its groups stand for."""

    text: str
    fixed: bool
    places: tuple[str, ...]
    greedy: re.Pattern[str]
    lazy: re.Pattern[str]


class PathPattern:
    """A path below a folder, with a `*` where a subject's name stands and `{word}` where another word does.

    Places match within one folder or file name, at least one character and no hidden files. The same place may stand in several parts,
    where it must hold the same text. Every other character stands for itself, but the case of a file's ending does not count.

    Raises:
        ArgumentError: for a pattern that is no path below the folder, or without any place.
    """

    def __init__(self, key: str, text: Any) -> None:
        parts = PurePath(text).parts if isinstance(text, str) else ()
        if not parts or PurePath(text).is_absolute() or not _apart(text):
            raise ArgumentError(
                f"the pattern {key}={text!r} must be a path below the folder with exactly one * where the subject's name stands "
                "(or the same name in several folders), or with {words} that make up its name; no two places may touch"
            )
        self.text = text
        self._parts = [_part(part, last=number == len(parts) - 1) for number, part in enumerate(parts)]
        self._may_be_folder = not _ENDING.search(parts[-1])

    @property
    def places(self) -> list[str]:
        """The places, each once, in order; "*" for the name's."""
        return list(dict.fromkeys(place for part in self._parts for place in part.places))

    def filled(self, words: dict[str, str]) -> str:
        """The pattern with the words that are known."""
        return _PLACE.sub(lambda match: words.get(match[1] or NAME, match[0]), self.text)

    def search(self, root: Path) -> list[Found]:
        """All that fits below `root`, in the order of the file system.

        Raises:
            SubjectError: for a link that leads nowhere, a name that can be read in two ways, a path that fits only with two texts for one
                place (unless another fits with the first of them), or a folder that cannot be listed.
        """
        fitting: list[Found] = []
        unlike: list[Found] = []
        for path, pairs in self._search(root, 0, ()):
            words: dict[str, str] = {}
            same = [words.setdefault(place, text) == text for place, text in pairs]
            (fitting if all(same) else unlike).append(Found(path, words))
        for found in unlike:
            if not any(found.words == other.words for other in fitting):
                raise SubjectError(
                    f"{found.path} fits {self.text!r} only with two texts for one place, the first of which is {found.words}: "
                    "rename it, or give {words} in the place of one *"
                )
        return fitting

    def _search(self, parent: Path, number: int, pairs: _Pairs) -> Iterator[tuple[Path, _Pairs]]:
        part, last = self._parts[number], number == len(self._parts) - 1
        if part.fixed:
            candidates = [(parent / part.text, pairs)]
        else:
            candidates = [(path, pairs + new) for path in _members(parent) if (new := self._fit(part, path)) is not None]
        for path, found in candidates:
            if path.is_symlink() and not path.exists():
                raise SubjectError(f"{path} fits {self.text!r}, and is a link to {path.readlink()}, which is not there: mend or remove it")
            if not last and path.is_dir():
                yield from self._search(path, number + 1, found)
            if last and (path.is_file() or (self._may_be_folder and path.is_dir())):
                yield path, found

    def _fit(self, part: _Part, path: Path) -> _Pairs | None:
        """The text at each place of a part, if a name fits."""
        name = normalize("NFC", path.name)
        match, other = part.greedy.fullmatch(name), part.lazy.fullmatch(name)
        if match is None or other is None or (name.startswith(".") and not part.text.startswith(".")):
            return None
        if match.groups() != other.groups():
            raise SubjectError(
                f"{path} fits {self.text!r} in two ways, with {match.groups()} and {other.groups()} for {part.places}: use one place there"
            )
        return tuple(zip(part.places, match.groups(), strict=True))


def _apart(text: str) -> bool:
    """Whether there are places, no two of which touch."""
    spans = [match.span() for match in _PLACE.finditer(text)]
    return bool(spans) and all(one[1] < two[0] for one, two in pairwise(spans))


def _part(text: str, last: bool) -> _Part:
    given, text = text, normalize("NFC", text)
    ending = _ENDING.search(text) if last else None
    stem = text[: ending.start()] if ending else text
    places: list[str] = []
    greedy = lazy = ""
    position = 0
    for match in _PLACE.finditer(stem):
        literal = re.escape(stem[position : match.start()])
        greedy, lazy = greedy + literal + "(.+)", lazy + literal + "(.+?)"
        places.append(match[1] or NAME)
        position = match.end()
    rest = re.escape(stem[position:]) + (f"(?i:{re.escape(ending[0])})" if ending else "")
    fixed = not places and not ending and text.isascii()  # letters with accents may be composed in another way on disk
    return _Part(given, fixed, tuple(places), re.compile(greedy + rest, re.DOTALL), re.compile(lazy + rest, re.DOTALL))


def _members(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise SubjectError(f"the folder {folder} cannot be listed ({error.strerror}): check who may read it") from error
