"""K-fold cross-validation: groups stay together, classes are shared out."""

from collections.abc import Hashable, Iterable, Mapping, Sequence

from patchflow import seeding
from patchflow.errors import ArgumentError, SubjectError
from patchflow.subjects.splits import Described, Key, Split, fold_of, unique, values_of
from patchflow.types import count


def k_fold(
    subjects: Iterable[Described], folds: int = 5, *, seed: int = 0, group: Key | None = None, stratify: Key | None = None
) -> list[Split]:
    """Splits in which every subject validates once.

    Groups are shuffled and dealt out one after another, the largest first, each to the fold that has fewest subjects of its classes, and of
    those to the one that has fewest in all. Without groups, folds differ by at most one subject, and by at most one of each class. The
    result depends on the names, classes, groups and the seed, and not on the order of the subjects.

    Args:
        subjects: subjects or entries.
        folds: how many, at least 2.
        seed: of the order in which they are dealt out.
        group: metadata that subjects have in common that must stay together, such as "patient"; or a function of a subject.
        stratify: metadata that every fold shall have in like shares, such as "site"; or a function of a subject that gives a class.

    Returns:
        A split for each fold, with the names in sorted order.

    Raises:
        ArgumentError: for fewer groups than folds, or `stratify` with no two subjects of a class on average.
        SubjectError: for a subject without that metadata, a group that is None, or two subjects of one name.
    """
    folds = count(folds, "folds", 2)
    every = unique(subjects)
    groups = values_of(every, group) if group is not None else {name: name for name in every}
    classes = values_of(every, stratify) if stratify is not None else dict.fromkeys(every, 0)
    _check_groups(groups, group, folds)
    kinds = sorted(set(classes.values()), key=repr)
    if stratify is not None and 2 * len(kinds) > len(every):
        raise ArgumentError(f"{stratify!r} makes {len(kinds)} classes of {len(every)} subjects: give a function that makes fewer")
    members: dict[Hashable, list[str]] = {}
    for name in sorted(every):
        members.setdefault(groups[name], []).append(name)
    tallies = {one: [sum(classes[name] == kind for name in names) for kind in kinds] for one, names in members.items()}
    shuffled = list(members)
    shuffled = [shuffled[place] for place in seeding.generator(seed).permutation(len(shuffled))]
    shuffled.sort(key=lambda one: (-len(members[one]), [-tally for tally in tallies[one]]))  # keeps the order of those that are alike
    sums = [[0] * len(kinds) for _ in range(folds)]
    place: dict[Hashable, int] = {}
    for one in shuffled:
        place[one] = min(range(folds), key=lambda fold: (_crowding(sums[fold], tallies[one]), sum(sums[fold]), fold))
        sums[place[one]] = [before + more for before, more in zip(sums[place[one]], tallies[one], strict=True)]
    where = {name: place[groups[name]] for name in sorted(every)}
    return [fold_of(where, lambda found, fold=fold: found == fold) for fold in range(folds)]  # type: ignore[misc]


def _crowding(sums: Sequence[int], tally: Sequence[int]) -> int:
    """How many pairs of one class a group would make with the subjects of a fold."""
    return sum(before * more for before, more in zip(sums, tally, strict=True))


def _check_groups(groups: Mapping[str, Hashable], group: Key | None, folds: int) -> None:
    for name, value in groups.items():
        if value is None:
            raise SubjectError(f"subject {name!r} has no {group!r}, which says with whom it must stay together: fill it in")
    if len(set(groups.values())) < folds:
        what = "subjects" if group is None else f"groups by {group!r}"
        raise ArgumentError(f"{len(set(groups.values()))} {what} do not make {folds} folds: ask for fewer folds")
