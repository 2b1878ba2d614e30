"""What a BIDS data set's tables say of its participants and sessions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patchflow.errors import SubjectError
from patchflow.notices import say
from patchflow.subjects.tables import read_table

Unit = tuple[str, str]
"""A participant and a session, as the entities sub and ses have them; "" where there are no sessions."""


def name_of(unit: Unit) -> str:
    """The subject's name: "sub-01" or "sub-01_ses-1"."""
    return f"sub-{unit[0]}" + (f"_ses-{unit[1]}" if unit[1] else "")


def facts_of(root: Path, units: Sequence[Unit]) -> dict[Unit, dict[str, Any]]:
    """The metadata of each subject: its participant_id and session_id, and what participants.tsv and ..._sessions.tsv say of it.

    Raises:
        SubjectError: for a table that cannot be read, or has two lines for one name.
    """
    participants = _rows(root / "participants.tsv", "participant_id", "sub-")
    columns = next(iter(participants.values()), {})
    facts: dict[Unit, dict[str, Any]] = {}
    unknown = sorted({name_of((participant, "")) for participant, _ in units if participants and f"sub-{participant}" not in participants})
    if unknown:
        say(f"{root / 'participants.tsv'} has no line for {', '.join(unknown)}: what it tells of others is None for them")
    for participant, session in units:
        person = f"sub-{participant}"
        known = participants.get(person, dict.fromkeys(columns))
        visits = _rows(root / person / f"{person}_sessions.tsv", "session_id", "ses-") if session else {}
        visit = visits.get(f"ses-{session}", dict.fromkeys(next(iter(visits.values()), {})))
        own = {"participant_id": person} | ({"session_id": f"ses-{session}"} if session else {})
        facts[participant, session] = {**known, **visit, **own}
    return facts


def _rows(path: Path, key: str, prefix: str) -> dict[str, dict[str, Any]]:
    """The rows of a table by the name in a column, which some write without its prefix; nothing where there is no table."""
    if not path.exists():
        return {}
    table = read_table(path, [key])
    names = [prefix + cell.removeprefix(prefix) for cell in table.column(key)]
    if len(set(names)) < len(names):
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise SubjectError(f"{path} has two lines for {twice!r} in column {key!r}: remove one")
    columns = {column: table.values(column) for column in table.columns if column != key}
    return {name: {column: values[row] for column, values in columns.items()} for row, name in enumerate(names)}
