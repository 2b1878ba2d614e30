"""What patchflow tells its user while it works: single lines through the logger "patchflow", shown on stderr unless logging is set up."""

import logging
import sys

_logger = logging.getLogger("patchflow")


class _Stderr(logging.Handler):
    """Writes to whatever `sys.stderr` is at the time, so that redirected output is honoured."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"patchflow: {self.format(record)}\n")


def say(message: str) -> None:
    """Tell the user one line; `logging.getLogger("patchflow").setLevel(logging.WARNING)` silences it."""
    if not _logger.hasHandlers():
        _logger.addHandler(_Stderr())
    if _logger.level == logging.NOTSET:
        _logger.setLevel(logging.INFO)
    _logger.info(message)


def size(nbytes: float) -> str:
    """Bytes as a person reads them: "1.5 GiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(nbytes) < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} TiB"
