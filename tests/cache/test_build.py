import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

import patchflow as pf
from patchflow.cache import build, make
from patchflow.files import machine_memory
from patchflow.images.write import write_nifti

L = pf.PatchLocation


def subject(number=0, shape=(12, 10, 8), **metadata):
    rng = np.random.default_rng(number)
    return pf.Subject(
        f"s{number}",
        image=pf.ScalarImage(rng.integers(-500, 900, shape).astype(np.int16)),
        label=pf.LabelMap(rng.integers(0, 3, shape).astype(np.uint8)),
        **metadata,
    )


def subjects(count=3):
    return [subject(number, age=number) for number in range(count)]


def inodes(cache):
    """What tells an entry file from one written later (inode numbers alone are given anew)."""
    return {entry.name: (entry.path.stat().st_ino, entry.path.stat().st_mtime_ns) for entry in cache}


def no_temporary_files(folder):
    return not [path for path in folder.rglob("*") if ".tmp" in path.name]


def quiet(given, folder, **options):
    return pf.build_cache(given, folder, progress=False, **options)


@pytest.mark.parametrize("layout", ["contiguous", "compressed"])
def test_building_again_builds_nothing(tmp_path, layout):
    first = quiet(subjects(), tmp_path / "c", layout=layout)
    manifest = (first.folder / "manifest.json").read_bytes()
    again = quiet(subjects(), tmp_path / "c", layout=layout)
    assert inodes(again) == inodes(first)
    assert (again.folder / "manifest.json").read_bytes() == manifest


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda: subject(1, age=99), {}),
        (lambda: pf.Subject("s1", image=subject(7)["image"], label=subject(1)["label"], age=1), {}),
        (lambda: pf.Subject("s1", image=subject(1)["image"], age=1), {}),
        (lambda: pf.Subject("s1", label=subject(1)["label"], image=subject(1)["image"], age=1), {}),
        (lambda: pf.Subject("s1", image=pf.LabelMap(subject(1)["image"].data.astype(np.int16)), label=subject(1)["label"], age=1), {}),
        (
            lambda: pf.Subject(
                "s1", **{k: type(i)(i.data.astype(i.dtype), np.diag([2, 1, 1, 1])) for k, i in subject(1).images.items()}, age=1
            ),
            {},
        ),
    ],
    ids=["metadata", "voxels", "images", "order", "kind", "affine"],
)
def test_an_entry_is_built_anew_when_its_source_changed(tmp_path, change, options):
    before = inodes(quiet(subjects(), tmp_path, layout="contiguous"))
    changed = change()
    cache = quiet([subjects()[0], changed, subjects()[2]], tmp_path, layout="contiguous", **options)
    after = inodes(cache)
    assert [name for name in before if before[name] != after[name]] == ["s1"]
    assert list(cache["s1"].images) == list(changed.images)
    assert cache["s1"].metadata == changed.metadata
    np.testing.assert_array_equal(cache["s1"].affine, changed.affine)


def test_entries_are_built_anew_for_other_preprocessing_or_layout(tmp_path):
    first = inodes(quiet(subjects(), tmp_path, layout="contiguous"))
    second = inodes(quiet(subjects(), tmp_path, layout="contiguous", preprocess=pf.Pipeline([pf.preprocess.Clamp(0, 5)])))
    third = inodes(quiet(subjects(), tmp_path, layout="compressed", preprocess=pf.Pipeline([pf.preprocess.Clamp(0, 5)])))
    assert len({*first.values(), *second.values(), *third.values()}) == 9


def test_a_stale_cache_says_that_it_is_stale(tmp_path):
    old = quiet(subjects(), tmp_path, layout="contiguous")
    quiet(subjects(), tmp_path, layout="contiguous", preprocess=pf.Pipeline([pf.preprocess.Clamp(0, 5)]))
    with pytest.raises(pf.CacheDamagedError, match="built anew or replaced since"):
        old[0].read("image", L((0, 0, 0), (2, 2, 2)))


def test_other_subjects_entries_stay_and_are_used_again(tmp_path):
    before = inodes(quiet(subjects(), tmp_path, layout="contiguous"))
    fewer = quiet(subjects()[:1], tmp_path, layout="contiguous")
    assert fewer.names == ("s0",)
    assert inodes(quiet(subjects(), tmp_path, layout="contiguous")) == before


def test_the_manifest_is_made_again_from_the_entries(tmp_path):
    first = quiet(subjects(), tmp_path, layout="contiguous")
    before = inodes(first)
    for spoil in (lambda path: path.unlink(), lambda path: path.write_bytes(b""), lambda path: os.truncate(path, 100)):
        spoil(tmp_path / "manifest.json")
        again = quiet(subjects(), tmp_path, layout="contiguous")
        assert inodes(again) == before
        assert again.names == ("s0", "s1", "s2")


def test_damaged_entry_files_are_built_anew(tmp_path):
    cache = quiet(subjects(), tmp_path, layout="contiguous")
    os.truncate(cache["s1"].path, 5000)
    assert quiet(subjects(), tmp_path, layout="contiguous").verify() == []


def test_any_executor_gives_the_same_cache(tmp_path):
    pipeline = pf.Pipeline([pf.preprocess.ZNormalize()])
    caches = [quiet(subjects(), tmp_path / "here", preprocess=pipeline)]
    caches.append(quiet(subjects(), tmp_path / "workers", preprocess=pipeline, num_workers=2))
    with ThreadPoolExecutor(2) as threads:
        caches.append(quiet(subjects(), tmp_path / "threads", preprocess=pipeline, executor=threads))
        assert threads.submit(int, 3).result() == 3  # it was not shut down
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as processes:
        caches.append(quiet(subjects(), tmp_path / "processes", preprocess=pipeline, executor=processes))
    for cache in caches[1:]:
        assert cache._manifest == caches[0]._manifest
        assert cache.verify() == []
        for one, other in zip(cache, caches[0], strict=True):
            whole = L((0, 0, 0), one.shape)
            np.testing.assert_array_equal(one.read("image", whole), other.read("image", whole))
        assert no_temporary_files(cache.folder)


def broken(values):
    """Fails for the subject whose image begins with 7777."""
    if values["image"][0, 0, 0, 0] == 7777:
        raise RuntimeError("broken step")
    return values


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_names_the_subject_and_keeps_what_is_finished(tmp_path, num_workers):
    bad = subject(1)["image"].data.astype(np.int16)
    bad[0, 0, 0, 0] = 7777
    given = [subject(0), pf.Subject("s1", image=pf.ScalarImage(bad), label=subject(1)["label"]), subject(2)]
    pipeline = pf.Pipeline([broken])
    with pytest.raises(pf.CacheError, match="subject 's1' could not be cached: RuntimeError: broken step"):
        quiet(given, tmp_path / "c", preprocess=pipeline, num_workers=num_workers, layout="contiguous")
    entries = {path.name: path.stat().st_ino for path in (tmp_path / "c" / "entries").iterdir()}
    assert "s0.h5" in entries
    assert no_temporary_files(tmp_path / "c")
    mended = quiet([subject(0), subject(1), subject(2)], tmp_path / "c", preprocess=pipeline, layout="contiguous")
    assert mended["s0"].path.stat().st_ino == entries["s0.h5"]


def test_unreadable_files_name_subject_and_file(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", np.zeros((4, 5, 6), np.int16), np.eye(4))
    data = (tmp_path / "a.nii.gz").read_bytes()
    given = pf.Subject("s", image=pf.ScalarImage(tmp_path / "a.nii.gz"))
    assert given.shape == (4, 5, 6)
    (tmp_path / "a.nii.gz").write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    with pytest.raises(pf.ImageFileError, match=r"subject 's'.*'image'.*a\.nii\.gz"):
        quiet([given], tmp_path / "c")
    nan = np.zeros((4, 5, 6), np.float32)
    nan[1, 2, 3] = np.nan
    with pytest.raises(pf.ImageError, match=r"subject 's'.*\(1, 2, 3\).*ReplaceNonFinite"):
        quiet([pf.Subject("s", image=pf.ScalarImage(nan))], tmp_path / "c")
    assert no_temporary_files(tmp_path)


def test_a_disk_that_is_full(tmp_path, monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(pf.CacheError, match=r"subject 's0': the disk.*is full: .*s0\.h5.*[Ff]ree some room.*finished are kept"):
        quiet(subjects(), tmp_path / "c", layout="contiguous")
    assert no_temporary_files(tmp_path)
    monkeypatch.setattr(os, "pwrite", write)
    assert len(quiet(subjects(), tmp_path / "c", layout="contiguous")) == 3


def test_a_manifest_that_cannot_be_written_is_an_error_and_one_that_is_there_already_is_left_alone(tmp_path, monkeypatch):
    first = quiet(subjects(), tmp_path / "c", layout="contiguous")

    def refused(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "write_bytes", refused)
    assert inodes(quiet(subjects(), tmp_path / "c", layout="contiguous")) == inodes(first)
    with pytest.raises(pf.CacheError, match=r"manifest\.json cannot be written \(Read-only file system\).*finished are kept"):
        quiet(subjects(2), tmp_path / "c", layout="contiguous")
    assert pf.open_cache(tmp_path / "c").names == first.names
    assert no_temporary_files(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="file size limits are signals elsewhere")
@pytest.mark.parametrize("layout", ["contiguous", "compressed"])
def test_a_file_that_cannot_grow(tmp_path, layout):
    """The same with a real limit, which HDF5's own writing meets as well."""
    script = f"""
        import resource, sys, numpy as np, patchflow as pf
        import patchflow.cache.build
        voxels = np.random.default_rng(0).integers(0, 30000, (80, 80, 80)).astype(np.int16)
        small = pf.Subject("small", image=pf.ScalarImage(voxels[:9, :9, :9].copy()))
        large = pf.Subject("large", image=pf.ScalarImage(voxels))
        pf.build_cache([small], {str(tmp_path / "c")!r}, layout={layout!r}, progress=False)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        try:
            pf.build_cache([small, large], {str(tmp_path / "c")!r}, layout={layout!r}, progress=False)
        except pf.CacheError as error:
            sys.exit(f"caught {{error}}")
    """
    done = run(script)
    assert "caught subject 'large': the disk" in done.stderr, done.stderr
    assert "large.h5" in done.stderr
    assert no_temporary_files(tmp_path)
    assert sorted(path.name for path in (tmp_path / "c" / "entries").iterdir()) == ["small.h5"]


def run(script):
    return subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, check=False)


SLOW_BUILD = """
    import sys, time, numpy as np, patchflow as pf
    sys.path.insert(0, {here!r})
    from test_build import subjects
    from patchflow.cache import make
    write = make.write_entry
    def slow(path, *rest):
        write(path, *rest)
        if "s2.h5" in path.name:
            print("writing", flush=True)
            time.sleep(60)
    make.write_entry = slow
    pf.build_cache(subjects(4), {folder!r}, layout="contiguous", progress=False)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_build_that_was_stopped_goes_on(tmp_path, end):
    script = textwrap.dedent(SLOW_BUILD.format(here=os.path.dirname(__file__), folder=str(tmp_path / "c")))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout.readline() == "writing\n"  # the third entry is written, but has not got its name
    process.send_signal(end)
    assert process.wait(30) != 0
    process.stdout.close()
    entries = tmp_path / "c" / "entries"
    whole = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in entries.glob("*.h5")}
    assert sorted(whole) == ["s0.h5", "s1.h5"]
    assert no_temporary_files(tmp_path) == (end == signal.SIGINT)
    with pytest.raises(pf.CacheError, match="missing"):
        pf.open_cache(tmp_path / "c")
    cache = quiet(subjects(4), tmp_path / "c", layout="contiguous")
    assert {name: (entries / name).stat().st_ino for name in whole} == {name: inode for name, (inode, _) in whole.items()}
    assert {name: (entries / name).stat().st_mtime_ns for name in whole} == {name: mtime for name, (_, mtime) in whole.items()}
    assert cache.names == ("s0", "s1", "s2", "s3")
    assert cache.verify() == []
    assert no_temporary_files(tmp_path)


def test_interrupt_with_workers_stops_what_has_not_begun(tmp_path, monkeypatch):
    started, made = threading.Event(), []

    def slow(task):
        made.append(task.subject.name)
        started.set()
        time.sleep(0.3)
        return make.make_entry(task)

    def interrupted(futures):
        started.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "make_entry", slow)
    monkeypatch.setattr(build, "as_completed", interrupted)
    with ThreadPoolExecutor(1) as pool, pytest.raises(KeyboardInterrupt):
        quiet(subjects(6), tmp_path / "c", executor=pool)
    assert len(made) <= 2
    assert no_temporary_files(tmp_path)
    assert sorted(path.stem for path in (tmp_path / "c" / "entries").iterdir()) == made


def die(values):
    os._exit(3)


class NeverStarts(Executor):
    """The second task waits for a worker that never comes, and nobody is told when it is cancelled."""

    def __init__(self):
        self.futures = []

    def submit(self, fn, /, *args, **kwargs):
        self.futures.append(Future())
        if len(self.futures) == 1:
            self.futures[0].set_exception(OSError("the first worker is lost"))
        return self.futures[-1]


@pytest.mark.timeout(20)
def test_an_error_does_not_wait_for_tasks_that_never_began(tmp_path):
    executor = NeverStarts()
    with pytest.raises(OSError, match="the first worker is lost"):
        quiet(subjects(2), tmp_path / "cache", executor=executor)
    assert executor.futures[1].cancelled()


def test_a_worker_that_dies_is_an_error(tmp_path):
    with pytest.raises(pf.CacheError, match=r"a worker that was building the cache died.*fewer workers"):
        quiet(subjects(2), tmp_path / "c", preprocess=pf.Pipeline([die]), num_workers=1)


def test_preprocessing_that_cannot_be_sent_to_workers(tmp_path):
    pipeline = pf.Pipeline([lambda values: values])
    with pytest.raises(pf.ArgumentError, match=r"cannot be sent to worker processes.*num_workers=0"):
        quiet(subjects(2), tmp_path / "c", preprocess=pipeline, num_workers=1)
    assert len(quiet(subjects(2), tmp_path / "c", preprocess=pipeline)) == 2


def test_an_executor_that_cannot_work_is_an_error(tmp_path):
    with ThreadPoolExecutor() as ended:
        pass
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        for executor, options in ((ended, {}), ("dask", {}), (processes, {"preprocess": pf.Pipeline([lambda values: values])})):
            with pytest.raises(pf.CacheError, match="could not carry out the build"):
                quiet(subjects(2), tmp_path / "c", executor=executor, **options)
    assert len(quiet(subjects(2), tmp_path / "c")) == 2


BUILD_WITH_WORKERS = """
    import os, sys, time, patchflow as pf
    sys.path.insert(0, {here!r})
    from test_build import subjects

    def wait(values):
        print(os.getpid(), flush=True)
        time.sleep(60)

    if __name__ == "__main__":
        pf.build_cache(subjects(4), {folder!r}, preprocess=pf.Pipeline([wait]), num_workers=2, progress=False)
"""


def test_a_script_without_the_main_guard_is_told_so(tmp_path):
    script = tmp_path / "build.py"
    text = textwrap.dedent(BUILD_WITH_WORKERS.format(here=os.path.dirname(__file__), folder=str(tmp_path / "c")))
    script.write_text(text.replace('if __name__ == "__main__":', "if True:"))
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=50)
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines()[-1].startswith("patchflow.errors.CacheError: a worker that was building the cache died")
    assert 'put what the script does under `if __name__ == "__main__":`' in ended.stderr


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for processes there")
def test_workers_end_with_a_build_that_is_killed(tmp_path):
    script = tmp_path / "build.py"
    script.write_text(textwrap.dedent(BUILD_WITH_WORKERS.format(here=os.path.dirname(__file__), folder=str(tmp_path / "c"))))
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    workers = [int(process.stdout.readline()) for _ in range(2)]
    process.kill()
    process.wait(30)
    process.stdout.close()
    until = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{worker}") for worker in workers):
        assert time.monotonic() < until, "a worker outlives the build"
        time.sleep(0.05)


def test_two_builds_in_one_folder_take_turns(tmp_path, monkeypatch):
    write, running, most = make.write_entry, [], []

    def watched(path, *rest):
        running.append(path)
        most.append(len(running))
        time.sleep(0.05)
        write(path, *rest)
        running.remove(path)

    monkeypatch.setattr(make, "write_entry", watched)
    results = []
    threads = [threading.Thread(target=lambda: results.append(inodes(quiet(subjects(), tmp_path, layout="contiguous")))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]  # the second found all done
    assert results[0] == results[1]


def test_names_that_clash(tmp_path):
    with pytest.raises(pf.SubjectError, match="two subjects are named 's0'"):
        quiet([subject(0), subject(0)], tmp_path / "c")
    upper = pf.Subject("S0", image=subject(0)["image"])
    with pytest.raises(pf.SubjectError, match="'s0' and 'S0' would be one file"):
        quiet([subject(0), upper], tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.int64(3), r"metadata 'age' is a numpy\.int64"),
        (float("nan"), "metadata 'age' is nan"),
        ([1, {"x": {3}}], r"metadata 'age'\[1\]\['x'\] is a builtins\.set"),
        ({1: 2}, "metadata 'age' has the key 1"),
    ],
)
def test_metadata_that_json_cannot_keep(tmp_path, value, message):
    with pytest.raises(pf.SubjectError, match=f"subject 's0': {message}"):
        quiet([subject(0, age=value)], tmp_path / "c")


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(pf.CacheError, match=r"holds other things \(thesis\.tex\) and no cache"):
        quiet(subjects(), tmp_path)
    (tmp_path / "manifest.json").write_text('{"name": "an app"}')
    with pytest.raises(pf.CacheError, match="holds other things"):
        quiet(subjects(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "thesis.tex"]
    with pytest.raises(pf.CacheError, match="cannot be used for a cache"):
        quiet(subjects(), tmp_path / "thesis.tex")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "fast"}, "layout must be"),
        ({"num_workers": -1}, "num_workers must be"),
        ({"num_workers": 1.0}, "num_workers must be"),
        ({"preprocess": lambda values: values}, r"write pf\.Pipeline"),
        ({"num_workers": 1, "executor": ThreadPoolExecutor()}, "not both"),
    ],
)
def test_arguments_that_cannot_be_used(tmp_path, options, message):
    with pytest.raises(pf.ArgumentError, match=message):
        quiet(subjects(), tmp_path / "c", **options)
    assert not (tmp_path / "c").exists()


def test_no_subjects_and_no_subject(tmp_path):
    with pytest.raises(pf.ArgumentError, match="no subjects"):
        quiet([], tmp_path / "c")
    with pytest.raises(pf.ArgumentError, match=r"must be pf\.Subject"):
        quiet(["s0"], tmp_path / "c")
    for given in (subject(), None):
        with pytest.raises(pf.ArgumentError, match=r"must be a list of pf\.Subject"):
            quiet(given, tmp_path / "c")


def test_auto_layout_goes_by_memory_and_says_why(tmp_path, monkeypatch, caplog):
    nbytes = 3 * 12 * 10 * 8 * 3  # int16 and uint8 of three subjects
    monkeypatch.setattr(build, "machine_memory", lambda: nbytes / 0.6 + 1)
    cache = quiet(subjects(), tmp_path / "a")
    assert cache.layout == "contiguous"
    assert cache.layout_reason == "8.4 KiB of voxels fit in 60% of the 14.1 KiB of memory"
    assert f"layout contiguous for {tmp_path / 'a'}: 8.4 KiB" in caplog.text
    monkeypatch.setattr(build, "machine_memory", lambda: nbytes / 0.6 - 1)
    cache = quiet(subjects(), tmp_path / "b")
    assert cache.layout == "compressed"
    assert "do not fit" in repr(cache)


def test_memory_is_that_of_this_machine():
    assert 2**26 < machine_memory() < 2**50


def test_shapes_may_differ_between_subjects(tmp_path):
    given = [subject(0, (5, 6, 7)), subject(1, (1, 90, 4)), subject(2, (60, 1, 1))]
    cache = quiet(given, tmp_path)
    assert [entry.shape for entry in cache] == [(5, 6, 7), (1, 90, 4), (60, 1, 1)]


def test_progress_bar_counts_subjects(tmp_path, capsys):
    pf.build_cache(subjects(), tmp_path)
    assert "3/3" in capsys.readouterr().err
