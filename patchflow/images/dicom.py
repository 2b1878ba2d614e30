"""DICOM series, a folder or one file of many frames, to volumes.

Headers are parsed by pydicom, and compressed voxels decoded, in a child process (`guard.py`); other voxels are read here as the bytes
that they are. What makes a stack of slices a volume is in `series.py`. The geometry is that of the standard, PS3.3 C.7.6.2.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import numpy as np

from patchflow.errors import ImageFileError
from patchflow.images.content import Content, Header, Source
from patchflow.images.guard import ask
from patchflow.images.series import BIG_ENDIAN, DicomFile, Frame, Stack, chosen, stacked
from patchflow.images.stream import MAX_EXPANSION, file_digest, open_image_file, reading
from patchflow.images.voxels import allocate, slab_depth
from patchflow.kernels.transpose import slab_to_volume
from patchflow.types import Array

_MOST_PARSED = 64 << 20
_LEAST_FRAME = 1 << 20  # an even frame is compressed to next to nothing: so much is always justified
_OWN_SUFFIXES = {".dcm", ".dicom", ".ima"}


def read_header(source: Source) -> Header:
    """What the files of a series say.

    The axes I, J, K are columns, rows, and slices in the order of their places along the normal; the affine is sheared where the gantry was
    tilted. Slices that are scaled alike keep their integers, and are float32 otherwise.

    A folder is searched with all folders in it, linked ones too. Hidden files, DICOMDIR, and files that neither begin as DICOM nor have a
    name like DICOM (ending in .dcm or .ima; or in a number or nothing, unless they are text) are passed over, as are objects of kinds that
    hold no image (reports, plans and the like).

    Raises:
        ImageFileError: naming the file: for one that cannot be read; and for what `series.py` refuses.
    """
    return _header(_stack(source))


def read(source: Source) -> Content:
    """All voxels of a series; the digest is of the digests of its files, in the order of their slices.

    Raises:
        ImageFileError: as `read_header` does, for voxels that cannot be decoded, and for compressed ones for which no decoder is installed.
    """
    stack = _stack(source)
    header = _header(stack)
    array = allocate(header, source.path)
    with ThreadPoolExecutor(1, thread_name_prefix="patchflow-digest") as thread:
        found = thread.submit(_digest, stack)  # meanwhile
        _fill(array, stack, header.dtype)
    return Content(array, stack.affine, header.slope, header.inter, found.result())


def _fill(array: Array, stack: Stack, dtype: np.dtype[Any]) -> None:
    ni, nj, nk = stack.shape[1:]
    depth = slab_depth(nk, ni * nj * dtype.itemsize)
    for first in range(0, nk, depth):
        frames = stack.frames[first : first + depth]
        slab = np.empty((len(frames), nj, ni), dtype)
        for number, voxels in enumerate(_slices(frames, stack)):
            slab[number] = voxels if stack.is_uniform else _scaled(voxels, *stack.scalings[first + number])
        slab_to_volume(slab, array[0], first)


def digest(source: Source) -> str:
    """The digest that `read` gives, without the voxels; raises `ImageFileError` as `read_header` does."""
    return _digest(_stack(source))


def _digest(stack: Stack) -> str:
    return hashlib.sha256("".join(file_digest(file.path) for file in stack.files).encode()).hexdigest()


def _header(stack: Stack) -> Header:
    if not stack.is_uniform:
        return Header(stack.shape, np.dtype(np.float32), stack.affine)
    return Header(stack.shape, stack.dtype, stack.affine, *stack.scalings[0])


def _stack(source: Source) -> Stack:
    path = source.path
    if path.is_dir():
        with reading(path):
            files = chosen((file for name in _files_below(path) if (file := _parsed(name)) is not None), source.series, path)
    else:
        file = _parsed(path)
        if file is None:
            raise ImageFileError(f"{path} is not a DICOM file: it has no DICM at byte 128; write it again with pydicom")
        files = [file]
    stack = stacked(files, path)
    for file in stack.files:
        _check_size(file)
    return stack


def _files_below(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise error

    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        status = os.stat(root)
        if (status.st_dev, status.st_ino) in seen:  # links may lead in circles
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            with reading(path):
                is_file = stat.S_ISREG(path.stat().st_mode)
            if is_file and not name.startswith(".") and name.upper() != "DICOMDIR":
                yield path


def _parsed(path: Path) -> DicomFile | None:
    """What a file says; None for one that is not DICOM and has no name like it."""
    with open_image_file(path) as file:
        size = file.seek(0, os.SEEK_END)
    says = ask(path, "dicom", min(size, _MOST_PARSED))
    if says["dicom"]:
        return DicomFile(path, says)
    suffix = path.suffix.lower()
    if suffix in _OWN_SUFFIXES or ((not suffix or suffix[1:].isdigit()) and not says["text"]):
        raise ImageFileError(f"{path} is not a DICOM file: it has no DICM at byte 128; write it again, or take it out of the folder")
    return None


def _check_size(file: DicomFile) -> None:
    """Refuse voxels that take more bytes than the file has, before memory is taken for them."""
    path, says = file
    size, frames = path.stat().st_size, len(says["frames"])
    claimed = frames * _frame_bytes(says)
    if says["native"]:
        _, start, length = says["pixels"]
        if claimed > length or start + claimed > size or length > claimed + 1:  # values are padded to an even number of bytes
            raise ImageFileError(
                f"{path} is truncated, or its header is wrong: its voxels take {claimed} bytes, and there are "
                f"{max(min(length, size - start), 0)}; fetch it again"
            )
    elif claimed > size * MAX_EXPANSION + frames * _LEAST_FRAME:
        raise ImageFileError(f"{path} has {size} bytes, and its header claims voxels of {claimed}: fetch it again")


def _frame_bytes(says: dict[str, Any]) -> int:
    count: int = says["Rows"] * says["Columns"] * says["BitsAllocated"] // 8
    return count


def _slices(frames: list[Frame], stack: Stack) -> Iterator[Array]:
    """The stored voxels of slices (rows, columns), in the machine's byte order."""
    for file, run in groupby(frames, lambda frame: frame.file):
        path, says = file
        indices = [frame.number for frame in run]
        if says["native"]:
            decoded = (_plain(file, index, stack) for index in indices)
        else:
            first, count = min(indices), max(indices) + 1 - min(indices)
            if count > 2 * len(indices):  # scattered over the file: each by itself
                decoded = (_decoded(file, index, 1, stack)[0] for index in indices)
            else:
                part = _decoded(file, first, count, stack)
                decoded = (part[index - first] for index in indices)
        for voxels in decoded:
            yield _used_bits(voxels, says["BitsStored"], path)


def _plain(file: DicomFile, index: int, stack: Stack) -> Array:
    path, says = file
    voxels = np.empty((stack.shape[2], stack.shape[1]), stack.dtype.newbyteorder(">" if says["syntax"] == BIG_ENDIAN else "<"))
    with reading(path), open_image_file(path) as opened:
        opened.seek(says["pixels"][1] + index * voxels.nbytes)
        _read_into(opened, voxels, path)
    return voxels.astype(stack.dtype, copy=False)


def _decoded(file: DicomFile, first: int, count: int, stack: Stack) -> Array:
    voxels = np.empty((count, stack.shape[2], stack.shape[1]), stack.dtype)
    justified = 2 * file.path.stat().st_size + 4 * voxels.nbytes + 4 * voxels[0].nbytes
    more = {"shape": list(voxels.shape[1:]), "dtype": voxels.dtype.str, "first": first, "count": count}
    ask(file.path, "dicom frames", justified, voxels.reshape(-1).view(np.uint8).data, **more)
    return voxels


def _read_into(file: IO[bytes], voxels: Array, path: Path) -> None:
    rest = voxels.reshape(-1).view(np.uint8).data
    while rest:
        count = file.readinto(rest)  # type: ignore[attr-defined]
        if not count:
            raise ImageFileError(f"{path} is truncated: it ends {len(rest)} bytes too early; fetch it again")
        rest = rest[count:]


def _used_bits(voxels: Array, stored: int, path: Path) -> Array:
    """Voxels of which `stored` low bits count, PS3.5 8.1.1; the others may repeat the sign or be 0, and nothing else."""
    unused = 8 * voxels.itemsize - stored
    if unused == 0:
        return voxels
    cleaned = (voxels << unused) >> unused  # signed integers keep their sign
    wrong = cleaned != voxels
    if voxels.dtype.kind == "i":
        wrong &= (voxels >> stored) != 0
    if wrong.any():
        raise ImageFileError(
            f"{path} uses bits above the {stored} that it says it stores (an overlay, or a wrong BitsStored): write it again without them"
        )
    result: Array = cleaned
    return result


def _scaled(voxels: Array, slope: float, inter: float) -> Array:
    values: Array = (voxels * np.float64(slope) + inter).astype(np.float32)
    return values
