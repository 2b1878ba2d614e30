"""Pages of documentation as a user would follow them: their Python and their command lines, run in order, with what they show checked.

What a page may hold, by the words after the three backticks of a block:

- `python`: runs; later blocks see its names. Comments right below a `print(...)` are what it prints; `...` in one stands for any text.
- `python raises`: the last statement raises; comments below it are the error, "Class: message", on as many lines as it takes.
- `python NAME`, with the name of a package: runs where that is installed, and is compiled in any case. `python NAME raises` likewise.
- `bash`: lines that begin with `patchflow` run through the command line and must return 0, or N below which stands `# exit code N`.
  Other comments below one are lines that it prints. Lines that begin with anything else are not run.
- `yaml FILE`: is written to FILE in the working folder.
"""

import ast
import contextlib
import importlib.util
import io
import linecache
import re
import shlex
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code of a page: its language, the words after that, the line where its text begins, and its text."""

    language: str
    words: tuple[str, ...]
    line: int
    text: str

    @property
    def packages(self) -> list[str]:
        return [word for word in self.words if word != "raises"]

    @property
    def is_installed(self) -> bool:
        return all(importlib.util.find_spec(name) is not None for name in self.packages)


def blocks_of(page: Path) -> list[Block]:
    """The blocks that do something, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        if match[1] in ("python", "bash") or (match[1] == "yaml" and match[2].strip()):
            found.append(Block(match[1], tuple(match[2].split()), text[: match.start(3)].count("\n") + 1, match[3]))
    return found


class Reader:
    """Someone who follows a page from its top, as in a notebook: names are those of `__main__`, which has no file.

    Args:
        page: the page.
        names: what is there before its first block.
    """

    def __init__(self, page: Path, **names: Any) -> None:
        self.page = page
        self.module = types.ModuleType("__main__")
        self.module.__dict__.update(names)
        blocks = [block for block in blocks_of(page) if block.language == "python"]
        lines = [""] * (page.read_text(encoding="utf-8").count("\n") + 1)
        for block in blocks:
            lines[block.line - 1 : block.line - 1 + block.text.count("\n")] = block.text.splitlines()
        self.lines = [f"{line}\n" for line in lines]
        self.file = f"<{page.name}>"

    def __enter__(self) -> "Reader":
        self._before = sys.modules["__main__"]
        sys.modules["__main__"] = self.module
        # The page's Python line for line, so that the source of what it defines can be found.
        linecache.cache[self.file] = (sum(map(len, self.lines)), None, self.lines, self.file)
        return self

    def __exit__(self, *_: object) -> None:
        sys.modules["__main__"] = self._before
        del linecache.cache[self.file]

    def run(self) -> int:
        """Follow the page; gives how many blocks were run."""
        count = 0
        for block in blocks_of(self.page):
            if block.language == "yaml":
                Path(block.words[0]).write_text(block.text, encoding="utf-8")
                continue
            if block.language == "bash":
                count += self._command_lines(block)
                continue
            tree = ast.parse("\n" * (block.line - 1) + block.text, self.file)
            if block.is_installed:
                self._python(tree, "raises" in block.words)
                count += 1
        return count

    def _python(self, tree: ast.Module, raises: bool) -> None:
        for number, statement in enumerate(tree.body):
            last = number + 1 == len(tree.body)
            code = compile(ast.Module([statement], []), self.file, "exec")
            told, end = io.StringIO(), statement.end_lineno or 0
            shown = list(self._comments_below(end))
            if raises and last:
                self._check_error(code, shown, end)
                continue
            with contextlib.redirect_stdout(told):
                exec(code, self.module.__dict__)
            if shown and _is_print(statement):
                check_shown(shown, told.getvalue().splitlines(), f"{self.page.name}, line {end}")

    def _check_error(self, code: types.CodeType, shown: list[str], line: int) -> None:
        where = f"{self.page.name}, line {line}"
        try:
            exec(code, self.module.__dict__)
        except Exception as error:
            check_shown([" ".join(shown)], [" ".join(f"{type(error).__name__}: {error}".split())], where)
            return
        raise AssertionError(f"{where}: no error, where the page shows {shown}")

    def _comments_below(self, line: int) -> Iterator[str]:
        for text in self.lines[line:]:
            if not text.startswith("#"):
                return
            yield text[1:].strip()

    def _command_lines(self, block: Block) -> int:
        from patchflow.cli import main

        count, lines = 0, block.text.replace("\\\n", " ").splitlines()
        for number, text in enumerate(lines):
            if not text.startswith("patchflow"):
                continue
            shown = []
            for below in lines[number + 1 :]:
                if not below.startswith("#"):
                    break
                shown.append(below[1:].strip())
            codes = [int(line.removeprefix("exit code ")) for line in shown if line.startswith("exit code ")]
            out, errors = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
                code = _returned(main, shlex.split(text)[1:])
            told = f"{out.getvalue()}{errors.getvalue()}"
            assert code == (codes[0] if codes else 0), f"{self.page.name}: {text!r} returned {code} and told:\n{told}"
            expected = [line for line in shown if not line.startswith("exit code ")]
            if expected:
                check_shown(expected, (errors if code == 2 else out).getvalue().splitlines(), f"{self.page.name}: {text!r}")
            count += 1
        return count


def check_shown(shown: list[str], told: list[str], where: str) -> None:
    """Check that what a page shows is what was told: each line in turn; "..." is any text, and on a line of its own any lines."""
    pattern = ""
    for line in shown:
        pattern += r"(?:.*\n)*?" if line == "..." else ".*".join(re.escape(part) for part in line.split("...")) + "\n"
    text = "".join(f"{line.strip()}\n" for line in told)
    assert re.fullmatch(pattern, text), f"{where} shows\n" + "\n".join(shown) + f"\nand this was told:\n{text}"


def _is_print(statement: ast.stmt) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "print"


def _returned(main: Any, arguments: list[str]) -> int:
    try:
        return int(main(arguments) or 0)
    except SystemExit as error:
        return int(error.code or 0)
