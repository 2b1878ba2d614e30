"""The program in which foreign DICOM and HDF5 files are parsed; `guard.py` starts it and says why.

It reads requests from its standard input and writes answers to its standard output: eight bytes of length and a JSON object each. An
answer's "bytes" says how many bytes of voxels follow it. It imports nothing of patchflow, and what a request needs only when it comes.
"""

import json
import math
import os
import select
import sys
import time
import warnings
from collections.abc import Callable
from typing import IO, Any

Answer = tuple[dict[str, Any], Any]
"""What is answered, and voxels sent after it: an object with a buffer, or b""."""

_IDLE_SECONDS = 60.0
_MOST_TEXT = 400


class Refused(Exception):  # noqa: N818, it never leaves this program
    """What is wrong with a file, and the mend."""


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until they end, or none comes for a minute."""
    first = _receive(requests)
    if first is None:
        return
    sys.path[:] = first["path"]
    warnings.simplefilter("ignore")
    while select.select([requests], [], [], _IDLE_SECONDS)[0] and (request := _receive(requests)) is not None:
        try:
            task = _task(request["task"])
            _limit(request["memory"], request["seconds"])
            answer, voxels = task(request)
        except Refused as error:
            answer, voxels = {"error": str(error)}, b""
        except MemoryError:
            answer, voxels = {"error": "it asks for more memory than its size justifies; fetch or write it again"}, b""
        except Exception as error:
            text = " ".join(str(error).split())[:_MOST_TEXT]
            answer, voxels = {"error": f"{text or type(error).__name__}; fetch or write it again"}, b""
        _send(answers, answer, memoryview(voxels).cast("B"))


def _task(name: str) -> Callable[[dict[str, Any]], Answer]:
    """A task, after the import of all that it needs, which is not to count against its limits."""
    import numpy  # noqa: F401

    if name.startswith("dicom"):
        import pydicom

        pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
        return dicom_header if name == "dicom" else dicom_frames
    import h5py  # noqa: F401

    return hdf5_header if name == "hdf5" else hdf5_voxels


def _limit(memory: int, seconds: int) -> None:
    """Limit address space and processor time to what is used now and so much more."""
    if sys.platform != "linux":
        return
    import resource

    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _receive(file: IO[bytes]) -> dict[str, Any] | None:
    size = _exactly(file, 8)
    data = size and _exactly(file, int.from_bytes(size, "little"))
    request: dict[str, Any] | None = json.loads(data) if data else None
    return request


def _exactly(file: IO[bytes], count: int) -> bytes:
    """So many bytes of an unbuffered file, or none at its end."""
    data = b""
    while len(data) < count:
        piece = file.read(count - len(data))
        if not piece:
            return b""
        data += piece
    return data


def _send(file: IO[bytes], answer: dict[str, Any], voxels: memoryview) -> None:
    data = json.dumps({**answer, "bytes": len(voxels)}).encode()
    file.write(len(data).to_bytes(8, "little") + data)
    file.write(voxels)
    file.flush()


_TEXTS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesDescription",
    "Modality",
    "ImageType",
    "PhotometricInterpretation",
    "EchoTime",
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
]
_INTEGERS = [
    "SamplesPerPixel",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "NumberOfFrames",
]
_NUMBERS_AND_GROUPS = [
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "GridFrameOffsetVector",
    "DoseGridScaling",
]
_IMPLICIT, _EXPLICIT, _BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_PIXELS = {0x0008: "FloatPixelData", 0x0009: "DoubleFloatPixelData", 0x0010: "PixelData"}


def dicom_header(request: dict[str, Any]) -> Answer:
    """What a DICOM file says of its frames; for one that does not begin as DICOM only {"dicom": False}, and whether it begins as "text".

    Answers the values of `_TEXTS` and `_INTEGERS` (None for those that are missing); "syntax"; "native" (voxels lie in the file as they
    are); "pixels" ([name of the element, first byte, bytes], None where it cannot be told without decompressing); "lut"; and "frames": for
    each, in the file's order, "position", "orientation", "spacing", "thickness", "between", "slope" and "inter", None where missing.
    """
    import pydicom

    with open(request["path"], "rb") as file:
        start = file.read(132)
        if start[128:] != b"DICM":
            return {"dicom": False, "text": not any(byte < 32 and byte not in b"\t\n\f\r" for byte in start)}, b""
        file.seek(0)
        ds = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[*_TEXTS, *_INTEGERS, *_NUMBERS_AND_GROUPS])
        syntax = str(ds.file_meta.get("TransferSyntaxUID") or "")
        native = syntax in (_IMPLICIT, _EXPLICIT, _BIG)
        pixels = _pixels(file, syntax) if native else None
    answer: dict[str, Any] = {"dicom": True, "syntax": syntax, "native": native, "pixels": pixels}
    answer.update({key: _text(ds, key) for key in _TEXTS})
    answer.update({key: _integer(ds, key) for key in _INTEGERS})
    answer["SOPClassUID"] = answer["SOPClassUID"] or str(ds.file_meta.get("MediaStorageSOPClassUID") or "")
    answer["lut"] = "ModalityLUTSequence" in ds
    answer["frames"] = [] if answer["Rows"] is None else _frames(ds, answer["NumberOfFrames"] or 1)
    return answer, b""


def _pixels(file: IO[bytes], syntax: str) -> list[Any] | None:
    """The element at which parsing stopped."""
    order: Any = "big" if syntax == _BIG else "little"
    start, head = file.tell(), file.read(12)
    group, element = (int.from_bytes(head[place : place + 2], order) for place in (0, 2))
    if group != 0x7FE0 or element not in _PIXELS:
        return None
    long = syntax == _IMPLICIT
    length = int.from_bytes(head[4:8] if long else head[8:12], order)
    return [_PIXELS[element], start + (8 if long else 12), length]


def _text(ds: Any, key: str) -> str | None:
    value = ds.get(key)
    if value is None or value == "":
        return None
    return "\\".join(map(str, value)) if isinstance(value, (list, tuple)) or hasattr(value, "append") else str(value)


def _integer(ds: Any, key: str) -> int | None:
    value = ds.get(key)
    return None if value is None else int(value)


def _floats(ds: Any, key: str, count: int) -> Any:
    """The values of an element: a float, or a list where `count` is above 1; None where it is missing or empty."""
    value = ds.get(key)
    if value is None or value == "":
        return None
    values = [float(part) for part in ([value] if isinstance(value, (int, float, str)) else value)]
    if len(values) != count:
        raise ValueError(f"{key} has {len(values)} values, not {count}")
    return values if count > 1 else values[0]


def _frames(ds: Any, count: int) -> list[dict[str, Any]]:
    per_frame, shared = ds.get("PerFrameFunctionalGroupsSequence"), ds.get("SharedFunctionalGroupsSequence")
    if per_frame is not None or shared is not None:
        if len(per_frame or []) != count:
            raise ValueError(f"it says that it has {count} frames, and describes {len(per_frame or [])}")
        return [_frame([group, *(shared or [])[:1]]) for group in per_frame]
    frame = _described(ds)
    if ds.get("DoseGridScaling") is not None:  # a radiotherapy dose
        frame["slope"], frame["inter"] = float(ds.DoseGridScaling), 0.0
        if count > 1:
            return _along_normal(ds, frame, count)
    if count > 1:
        raise Refused(f"it has {count} frames and does not say where they lie (no functional groups): convert it to NIfTI")
    return [frame]


def _along_normal(ds: Any, frame: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The frames of a dose, PS3.3 C.8.8.3.2: at distances from the first along the normal of their plane."""
    offsets = [float(offset) for offset in ds.get("GridFrameOffsetVector") or []]
    if len(offsets) != count or offsets[0] != 0 or frame["position"] is None or frame["orientation"] is None:
        raise Refused("its GridFrameOffsetVector does not place its frames relative to the first: convert it to NIfTI")
    a, b = frame["orientation"][:3], frame["orientation"][3:]
    normal = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
    return [{**frame, "position": [p + t * n for p, n in zip(frame["position"], normal, strict=True)]} for t in offsets]


def _described(ds: Any) -> dict[str, Any]:
    return {
        "position": _floats(ds, "ImagePositionPatient", 3),
        "orientation": _floats(ds, "ImageOrientationPatient", 6),
        "spacing": _floats(ds, "PixelSpacing", 2),
        "thickness": _floats(ds, "SliceThickness", 1),
        "between": _floats(ds, "SpacingBetweenSlices", 1),
        "slope": _floats(ds, "RescaleSlope", 1),
        "inter": _floats(ds, "RescaleIntercept", 1),
    }


_GROUPS = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence", "PixelValueTransformationSequence")


def _frame(groups: list[Any]) -> dict[str, Any]:
    """One frame of an enhanced file, from its own functional groups and those that all frames share."""
    found: dict[str, Any] = {}
    for name in _GROUPS:
        for group in groups:
            if group.get(name):
                found.update({key: value for key, value in _described(group[name][0]).items() if value is not None})
                break
    return {key: found.get(key) for key in ("position", "orientation", "spacing", "thickness", "between", "slope", "inter")}


_JPEG_2000 = ("pylibjpeg", "gdcm", "pillow")
"""pydicom's names of decoders, the best first. For JPEG 2000, pylibjpeg is OpenJPEG."""

_OTHERS = ("pydicom", "gdcm", "pyjpegls", "pillow")
"""For JPEG and JPEG-LS, pylibjpeg is libjpeg, which makes up what is missing of a frame that was cut, and says nothing: it is not used."""


def dicom_frames(request: dict[str, Any]) -> Answer:
    """Voxels of `count` frames from `first` on, as they are stored, of the given `shape` (rows, columns) and `dtype`."""
    import numpy as np
    import pydicom
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import JPEG2000TransferSyntaxes

    shape, first, count = tuple(request["shape"]), request["first"], request["count"]
    result = np.empty((count, *shape), request["dtype"])
    ds = pydicom.dcmread(request["path"])
    syntax = ds.file_meta.TransferSyntaxUID
    decoder = get_decoder(syntax)
    names = _JPEG_2000 if syntax in JPEG2000TransferSyntaxes else _OTHERS
    plugin = next((name for name in names if name in decoder.available_plugins), "")
    if decoder.is_encapsulated and not plugin:
        return {"error": f"nothing is installed that decodes {syntax.name}: pip install 'patchflow[dicom]'"}, b""
    decoded = decoder.iter_array(ds, indices=range(first, first + count), raw=True, decoding_plugin=plugin)
    for number in range(count):
        try:
            frame, _ = next(decoded)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            reason = f"{plugin}: the voxels are damaged" if "NoneType" in reason else reason  # how GDCM's plugin says so
            raise ValueError(f"frame {first + number} of {syntax.name} cannot be decoded: {reason}") from error
        if frame.shape != shape or frame.dtype.kind != result.dtype.kind or frame.itemsize > result.itemsize:
            raise ValueError(f"frame {first + number} decodes to shape {frame.shape} of {frame.dtype}, not {shape} of {result.dtype}")
        result[number] = frame
    return {}, result


_BUILT_IN = {1, 2, 3, 4, 5, 6, 32000}  # HDF5's own filters, and h5py's LZF
_MOST_NAMES = 20


def hdf5_header(request: dict[str, Any]) -> Answer:
    """What an HDF5 file says of one of its datasets: the `inner` one, else "volume", else the only one.

    Answers "name"; "shape"; "dtype"; "affine" (None where the dataset has no such attribute); "offset" (its first byte, None unless its
    bytes lie in the file as they are); "stored" (bytes that it takes in the file); "filters" (their numbers); "slices" (along axis I of a
    chunk).
    """
    import h5py
    import numpy as np

    with h5py.File(request["path"], "r") as file:
        dataset = _dataset(file, request)
        plan = dataset.id.get_create_plist()
        layout = plan.get_layout()
        if layout == h5py.h5d.VIRTUAL or plan.get_external_count():
            raise Refused(f"the voxels of {dataset.name} lie in other files: copy them into one")
        filters = [plan.get_filter(number)[0] for number in range(plan.get_nfilters())]
        if layout == h5py.h5d.CHUNKED and dataset.shape:
            wanted = math.prod(-(-size // step) for size, step in zip(dataset.shape, dataset.chunks, strict=True))
            if dataset.id.get_num_chunks() != wanted:
                raise Refused(f"{dataset.id.get_num_chunks()} of {wanted} chunks of {dataset.name} were written: write it again")
        exact = dataset.dtype.kind in "biuf" and dataset.id.get_type().equal(h5py.h5t.py_create(dataset.dtype, logical=True))
        affine = None
        if "affine" in dataset.attrs:
            if dataset.attrs.get_id("affine").shape != (4, 4):
                raise ValueError(f"the attribute affine of {dataset.name} is not 4x4")
            affine = np.asarray(dataset.attrs["affine"], np.float64).tolist()
        return {
            "name": dataset.name,
            "shape": list(dataset.shape or ()),
            "dtype": dataset.dtype.str if dataset.dtype.kind in "biuf" else str(dataset.dtype)[:80],
            "affine": affine,
            "offset": dataset.id.get_offset() if exact and layout == h5py.h5d.CONTIGUOUS else None,
            "stored": dataset.id.get_storage_size(),
            "filters": filters,
            "slices": dataset.chunks[-3] if dataset.chunks and len(dataset.chunks) > 2 else 1,
        }, b""


def hdf5_voxels(request: dict[str, Any]) -> Answer:
    """Slices `first` to `first + count` along axis I of a channel of the dataset `inner`, in C order and the machine's byte order."""
    import h5py
    import numpy as np

    with h5py.File(request["path"], "r") as file:
        dataset = _dataset(file, request)
        plan = dataset.id.get_create_plist()
        if {plan.get_filter(number)[0] for number in range(plan.get_nfilters())} - _BUILT_IN:
            _import_filters()
        part = slice(request["first"], request["first"] + request["count"])
        voxels = dataset[part] if dataset.ndim == 3 else dataset[request["channel"], part]
    return {}, np.ascontiguousarray(voxels, voxels.dtype.newbyteorder("="))


def _dataset(file: Any, request: dict[str, Any]) -> Any:
    import h5py

    inner = request["inner"] or ("volume" if "volume" in file else "")
    if not inner:
        names: list[str] = []
        file.visititems(lambda name, thing: names.append(name) if isinstance(thing, h5py.Dataset) else None)
        if len(names) != 1:
            shown = ", ".join(sorted(names)[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
            raise Refused(f"it holds {len(names)} datasets ({shown}): choose one as 'file.h5:/name'")
        inner = names[0]
    if inner not in file or not isinstance(file[inner], h5py.Dataset):
        raise Refused(f"it has no dataset {inner!r}: choose one that it has, as 'file.h5:/name'")
    dataset = file[inner]
    if dataset.file.filename != file.filename:
        raise Refused(f"{inner!r} is a link to another file, {dataset.file.filename}: give that one")
    return dataset


def _import_filters() -> None:
    """Make compression plugins known to HDF5, where they are installed."""
    try:
        import hdf5plugin  # noqa: F401
    except ImportError as error:
        raise Refused("it is compressed by a plugin of HDF5: pip install hdf5plugin") from error


if __name__ == "__main__":
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not get between the answers
    serve(os.fdopen(0, "rb", buffering=0), os.fdopen(answers, "wb"))
