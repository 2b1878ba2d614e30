"""Going through subjects: each is checked by itself, by several workers at once, and then all together."""

import os
from collections.abc import Iterable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from typing import Any

from patchflow.errors import ArgumentError, SubjectError, WorkerError
from patchflow.quality.cohort import cohort_findings
from patchflow.quality.facts import SubjectFacts
from patchflow.quality.findings import Finding
from patchflow.quality.report import Report, report_of
from patchflow.quality.settings import Settings, settings_from
from patchflow.quality.subject import check_subject
from patchflow.subjects.subject import Subject
from patchflow.types import count


def check_subjects(
    subjects: Iterable[Subject],
    classes: Any = None,
    *,
    island_voxels: int = 3,
    outlier: float = 5.0,
    skip: Iterable[str] = (),
    pictures: bool = True,
    num_workers: int = 0,
    executor: Executor | None = None,
    progress: bool = False,
) -> Report:
    """Read every image of every subject once, to its end, and say what is wrong with it.

        report = pf.check_subjects(pf.find_subjects("data", image="*/image.nii.gz", label="*/label.nii.gz"), classes={1: "liver"})

    A file that cannot be used is a finding, and stops nothing. Each worker holds one image at a time.

    Args:
        subjects: to be checked; several of one name, or none, are findings or an error of their own.
        classes: the labels of label maps: `[1, 2]`, `{1: "liver", 2: "tumour"}`, or such for some of them by name,
            `{"organs": {1: "liver"}, "vessels": [1]}`. 0 need not be named. Other labels are errors. None declares nothing.
        island_voxels: parts of a label of at most this many voxels (26 neighbours) that touch no other label are islands, unless it has
            no larger; 0 for none.
        outlier: the modified z-score, 0.6745 (x - median) / MAD, beyond which a spacing, extent or intensity is far from the others of at
            least six (Iglewicz and Hoaglin, "How to detect and handle outliers", 1993; they advise 3.5 for normal distributions, and
            cohorts of several scanners have longer tails). A MAD below 2 % of the size compared counts as 2 %.
        skip: names of checks to leave out; `patchflow.quality.findings.CHECKS` lists them.
        pictures: whether to draw mid-planes of each subject for `Report.to_html`, about 20 KiB each.
        num_workers: threads that read and check; 0 for this one alone.
        executor: a `concurrent.futures.Executor` of your own instead.
        progress: whether to show a progress bar on stderr.

    Returns:
        A `Report`: findings with levels, facts of each image; `print` it, or write it with `to_json` and `to_html`.

    Raises:
        ArgumentError: for an argument that cannot be used.
        SubjectError: for two subjects of one name.
        WorkerError: when the executor cannot carry out the check.
    """
    settings = settings_from(classes, island_voxels, outlier, skip, pictures)
    chosen = _checked(subjects)
    if executor is not None and num_workers:
        raise ArgumentError("give num_workers or an executor, not both: the executor has its own number of workers")
    workers = count(num_workers, "num_workers", 0)
    own_pool = ThreadPoolExecutor(min(workers, len(chosen)), thread_name_prefix="patchflow-check") if workers else nullcontext(executor)
    with own_pool as running:
        facts = _run(chosen, settings, running, progress)
    own = [finding for subject in facts for finding in subject.findings]
    return report_of([*own, *cohort_findings(facts, settings)], facts)


def run_check(
    subjects: Iterable[Subject],
    *,
    json: str | os.PathLike[str] | None = None,
    html: str | os.PathLike[str] | None = None,
    title: str = "Data check",
    **options: Any,
) -> Report:
    """What `patchflow check` does: check subjects, and write what was asked for.

    Args:
        subjects: as for `check_subjects`.
        json: where to write the JSON report; None for nowhere.
        html: where to write the page; None for nowhere.
        title: of the page.
        **options: of `check_subjects`. Pictures are drawn for a page alone.

    Returns:
        The report. Print it; the exit code is `report.exit_code(strict)`.
    """
    report = check_subjects(subjects, **{"pictures": html is not None, **options})
    if json is not None:
        report.to_json(json)
    if html is not None:
        report.to_html(html, title)
    return report


def _checked(given: Any) -> list[Subject]:
    if isinstance(given, Subject) or not isinstance(given, Iterable):
        raise ArgumentError(f"subjects must be a list of pf.Subject objects, not {given!r}")
    subjects = list(given)
    if not subjects:
        raise ArgumentError("there are no subjects to check")
    seen = set()
    for subject in subjects:
        if not isinstance(subject, Subject):
            raise ArgumentError(f"subjects must be pf.Subject objects, not {subject!r}")
        if subject.name in seen:
            raise SubjectError(f"two subjects are named {subject.name!r}: rename one")
        seen.add(subject.name)
    return subjects


def _run(subjects: list[Subject], settings: Settings, executor: Executor | None, progress: bool) -> list[SubjectFacts]:
    """The facts of all subjects, in order."""
    from tqdm.auto import tqdm  # takes a while to import

    with tqdm(total=len(subjects), desc="checking", unit="subject", disable=not progress) as bar:
        if executor is None:
            facts = []
            for subject in subjects:
                facts.append(check_subject(subject, settings))
                bar.update()
            return facts
        futures: list[Future[SubjectFacts]] = []
        try:
            futures = [executor.submit(check_subject, subject, settings) for subject in subjects]
            for future in as_completed(futures):
                if not isinstance(future.exception(), BrokenExecutor):
                    future.result()
                bar.update()
            return [_result(subject, future) for subject, future in zip(subjects, futures, strict=True)]
        except Exception as error:
            raise WorkerError(
                f"{executor!r} could not carry out the check: {type(error).__name__}: {error}. It must be a concurrent.futures.Executor "
                "that is still running, and able to send the subjects to its workers"
            ) from error
        finally:
            for future in futures:
                future.cancel()


def _result(subject: Subject, future: Future[SubjectFacts]) -> SubjectFacts:
    """What a worker found; that it died, if it did, which a decoder may bring about, is a finding."""
    error = future.exception()
    if not isinstance(error, BrokenExecutor):
        return future.result()
    sentence = f"a worker process died while this subject or one beside it was read ({error})"
    return SubjectFacts(
        subject.name,
        missing=tuple(subject.images),
        findings=[
            Finding(
                "error", "failed", subject.name, None, sentence, "check it alone; its files may crash their decoder, or memory is short"
            )
        ],
    )
