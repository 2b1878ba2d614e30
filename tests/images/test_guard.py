"""A child that crashes, hangs, eats memory or leaves makes an error that names the file, and the next request is served."""

import ast
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from patchflow.errors import ImageFileError
from patchflow.images import guard
from patchflow.images.guard import ask

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits are Linux's")

PROGRAM = """
import importlib.util, os, signal, sys, time
spec = importlib.util.spec_from_file_location("decoder", {decoder!r})
decoder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(decoder)

def crash(request): os.kill(os.getpid(), signal.SIGSEGV)
def spin(request):
    while True: pass
def hog(request): return {{}}, bytes(4 << 30)
def leave(request): os._exit(3)
def vanish(request): os._exit(0)
def sleep(request): time.sleep(60)
def chatter(request): os.system("echo noise"); print("noise", flush=True); return {{"said": request["word"], "pid": os.getpid()}}, b"abcd"
def fail(request): raise ValueError("so\\n it is")

decoder._task = lambda name: globals()[name]
answers = os.dup(1)
os.dup2(2, 1)
decoder.serve(os.fdopen(0, "rb", buffering=0), os.fdopen(answers, "wb"))
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(decoder=str(guard._PROGRAM)))
    children: list[guard._Child] = []
    monkeypatch.setattr(guard, "_PROGRAM", program)
    monkeypatch.setattr(guard, "_idle", children)
    yield tmp_path / "scan.dcm"
    while children:
        children.pop().end()


def echo(path: Path, word: str = "w") -> int:
    into = bytearray(4)
    answer = ask(path, "chatter", 0, memoryview(into), word=word)
    assert answer["said"] == word
    assert bytes(into) == b"abcd"
    return int(answer["pid"])


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("crash", r"its decoder crashed \(SIGSEGV\)"),
        ("leave", "its decoder ended unexpectedly"),
        ("vanish", "its decoder ended unexpectedly"),
        ("hog", "more memory than its size justifies"),
        ("fail", "so it is; fetch"),
        ("missing", "'missing'; fetch"),
    ],
)
def test_what_goes_wrong_there_is_an_error_here(path: Path, task: str, message: str) -> None:
    started = time.monotonic()
    with pytest.raises(ImageFileError, match=message) as caught:
        ask(path, task, 0)
    assert str(path) in str(caught.value)
    assert time.monotonic() - started < 5
    echo(path)


def test_processor_time_is_limited_for_each_request(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_SECONDS", 1)
    started = time.monotonic()
    with pytest.raises(ImageFileError, match="took more than 1 s of processor time"):
        ask(path, "spin", 0)
    assert time.monotonic() - started < 5
    echo(path)


def test_and_so_is_waiting(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    echo(path)
    monkeypatch.setattr(guard, "_PATIENCE", 0.3)
    monkeypatch.setattr(guard, "_SECONDS", 0)
    with pytest.raises(ImageFileError, match=r"scan\.dcm cannot be read: its decoder gave no answer"):
        ask(path, "sleep", 0)


def test_one_child_serves_one_request_after_another(path: Path) -> None:
    assert len({echo(path, str(number)) for number in range(5)}) == 1


def test_threads_have_children_of_their_own(path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda n: bool(echo(path, str(n))), range(40))) == [True] * 40
    assert 1 <= len(guard._idle) <= 4


def test_a_child_that_left_while_idle_is_replaced(path: Path) -> None:
    first = echo(path)
    os.kill(first, 9)
    guard._idle[0]._process.wait()
    assert echo(path) != first


def test_more_than_was_asked_for(path: Path) -> None:
    with pytest.raises(ImageFileError, match="sent what was not asked for"):
        ask(path, "chatter", 0, memoryview(bytearray(3)), word="w")
    echo(path)


def _in_fork(path: Path, queue: multiprocessing.Queue) -> None:
    queue.put(echo(path))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_starts_a_child_of_its_own(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    here, queue = echo(path), context.Queue()
    process = context.Process(target=_in_fork, args=(path, queue))
    process.start()
    there = queue.get(timeout=30)
    process.join()
    assert there != here
    assert echo(path) == here


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom patchflow.images import guard\n"
        "try:\n    guard.ask(Path('none.h5'), 'hdf5', 0, inner='')\nexcept OSError: pass\n"
        "print(guard._idle[0]._process.pid, flush=True)\nimport os; os._exit(0)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for _ in range(100):
        if not Path(f"/proc/{int(out.stdout)}").exists() or "zombie" in Path(f"/proc/{int(out.stdout)}/status").read_text():
            return
        time.sleep(0.05)
    pytest.fail("the child is still there")


def test_the_program_imports_nothing_of_patchflow() -> None:
    tree = ast.parse(guard._PROGRAM.with_name("decoder.py").read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in names if name.startswith("patchflow")]
