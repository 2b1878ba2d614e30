"""A worker that raises or dies ends the run at once, naming subject and patch; nothing hangs and nothing is left behind."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from patch_transforms import die_on_rare, fail_on_rare, slow

import patchflow as pf
from patchflow.errors import ArgumentError, WorkerError

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

KINDS = [(0, "thread", None), (2, "thread", None), (2, "process", "fork"), (2, "process", "spawn")]


def shared_memory():
    """Names of shared memory; other programs' semaphores, which come and go, are left out: the queue makes none."""
    return {name for name in os.listdir("/dev/shm") if not name.startswith("sem.")} if os.path.isdir("/dev/shm") else set()


@pytest.mark.parametrize(("workers", "kind", "start"), KINDS)
def test_a_transform_that_raises_ends_the_run(small_cache, small_sampler, workers, kind, start):
    threads, memory = threading.active_count(), shared_memory()
    queue = pf.Queue(
        small_cache, small_sampler, transform=fail_on_rare, num_workers=workers, worker_kind=kind, start_method=start, samples_per_volume=20
    )
    with pytest.raises(WorkerError, match=r"patch \d+ of epoch 0 \(subject 's\d'\) failed.*no such tissue") as caught:
        list(queue)
    epoch, index = map(int, re.search(r"queue\.replay\((\d+), (\d+)\)", str(caught.value)).groups())
    with pytest.raises(Exception, match="no such tissue"):
        queue.replay(epoch, index)
    del caught
    assert multiprocessing.active_children() == []
    assert threading.active_count() <= threads
    assert shared_memory() <= memory


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_worker_that_is_killed_ends_the_run(small_cache, small_sampler, start):
    memory = shared_memory()
    queue = pf.Queue(
        small_cache, small_sampler, transform=die_on_rare, num_workers=2, worker_kind="process", start_method=start, samples_per_volume=20
    )
    began = time.monotonic()
    with pytest.raises(WorkerError, match=r"patch \d+ of epoch 0 \(subject 's\d'\) failed.*killed by signal 9") as caught:
        list(queue)
    assert time.monotonic() - began < 60
    index = int(re.search(r"queue\.replay\(0, (\d+)\)", str(caught.value)).group(1))
    assert index < 80
    assert multiprocessing.active_children() == []
    assert shared_memory() <= memory


def test_a_forked_copy_of_the_consumer_leaves_its_workers_alone(small_cache, small_sampler):
    queue = pf.Queue(small_cache, small_sampler, num_workers=1, worker_kind="process", start_method="fork", persistent_workers=True)
    before = list(queue)
    _, workers = queue._kept
    child = multiprocessing.get_context("fork").Process(target=workers.close)
    child.start()
    child.join(20)
    assert child.exitcode == 0
    assert workers._workers[0].process.is_alive()
    assert len(list(queue)) == len(before)
    queue.close()
    assert multiprocessing.active_children() == []


def test_a_function_that_cannot_be_sent_to_a_process_is_refused(small_cache, small_sampler):
    queue = pf.Queue(
        small_cache, small_sampler, transform=lambda sample, rng: sample, num_workers=1, worker_kind="process", start_method="spawn"
    )
    with pytest.raises(ArgumentError, match="top of a module"):
        next(iter(queue))
    assert multiprocessing.active_children() == []


SCRIPT = """
import sys, time
sys.path.insert(0, {support!r})
import patchflow as pf
from patch_transforms import slow

if __name__ == "__main__":
    cache = pf.open_cache({folder!r})
    queue = pf.Queue(cache, pf.UniformSampler(8), transform=slow, num_workers=2, worker_kind={kind!r}, start_method={start!r},
                     samples_per_volume=100000)
    for number, batch in enumerate(queue):
        if number == 1:
            import multiprocessing
            print(*[child.pid for child in multiprocessing.active_children()], flush=True)
"""


def start_script(cache, kind, start):
    code = SCRIPT.format(support=str(Path(__file__).parents[1] / "support"), folder=str(cache.folder), kind=kind, start=start)
    script = cache.folder.parent / f"endless_{kind}_{start}.py"
    script.write_text(code)
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    return process, [int(pid) for pid in process.stdout.readline().split()]


def assert_gone(pids):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not any(running(pid) for pid in pids):
            return
        time.sleep(0.05)
    raise AssertionError(f"workers {pids} outlived their parent")


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(("kind", "start"), [("thread", None), ("process", "fork"), ("process", "spawn")])
def test_ctrl_c_ends_the_run_at_once_and_leaves_nothing_behind(small_cache, kind, start):
    memory = shared_memory()
    process, workers = start_script(small_cache, kind, start)
    assert len(workers) == (2 if kind == "process" else 0)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process of the group gets it
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert errors.count("Traceback") == 1, errors
    assert "resource_tracker" not in errors
    assert_gone(workers)
    assert shared_memory() <= memory


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_end_when_their_parent_is_killed(small_cache, start):
    memory = shared_memory()
    process, workers = start_script(small_cache, "process", start)
    process.kill()
    process.communicate(timeout=30)
    assert_gone(workers)
    assert shared_memory() <= memory


def test_a_slow_consumer_and_slow_workers_do_not_hang(small_cache, small_sampler):
    queue = pf.Queue(
        small_cache, small_sampler, transform=slow, num_workers=2, worker_kind="process", start_method="fork", batch_size=50, prefetch=1,
        samples_per_volume=50,
    )  # fmt: skip
    assert sum(len(batch["index"]) for batch in queue) == 200
