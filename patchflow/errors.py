"""Every error that patchflow raises on purpose.

    PatchflowError
    ├── ArgumentError        (ValueError)    an argument that cannot be used: a float patch size, an overlap as large as the patch
    ├── UnknownNameError     (KeyError)      no image, class or subject of that name
    ├── ImageError           (ValueError)    voxels or a header that cannot be used: NaN, no voxels, labels that are not integers
    │   └── ImageFileError   (OSError too)   a file that is missing, truncated, damaged or of another format
    ├── SubjectError         (ValueError)    images of one subject that do not belong together, two subjects of one name
    ├── CacheError           (OSError)       a cache that cannot be built or opened
    │   ├── CacheFormatError                 written in another format version
    │   └── CacheDamagedError                a manifest, entry or block that is not what was written
    ├── SamplerError         (ValueError)    a subject from which a sampler cannot draw
    ├── TransformError       (ValueError)    a transform that was given or returned something unusable
    ├── MemoryBudgetError    (ValueError)    a budget too small for the work asked
    ├── WorkerError          (RuntimeError)  a worker that raised or died; names the subject and the patch
    └── InferenceError       (ValueError)    predictions that cannot be stitched

Each also is the built-in error that it resembles, so that `except ValueError` works as expected. A message says what was wrong with
what (subject, file, value) and what to do about it.
"""


class PatchflowError(Exception):
    """Root of every error raised on purpose."""


class ArgumentError(PatchflowError, ValueError):
    """An argument that cannot be used."""


class UnknownNameError(PatchflowError, KeyError):
    """No image, class or subject of that name."""

    def __str__(self) -> str:  # KeyError prints the repr of its message, quotes and escapes included
        return str(self.args[0]) if self.args else ""


class ImageError(PatchflowError, ValueError):
    """Voxels or a header that cannot be used."""


class ImageFileError(ImageError, OSError):
    """A file that is missing, truncated, damaged or of another format."""


class SubjectError(PatchflowError, ValueError):
    """Images that do not belong together, or subjects that cannot stand side by side."""


class CacheError(PatchflowError, OSError):
    """A cache that cannot be built or opened."""


class CacheFormatError(CacheError):
    """A cache written in another format version."""


class CacheDamagedError(CacheError):
    """A manifest, entry or block that is not what was written."""


class SamplerError(PatchflowError, ValueError):
    """A subject from which a sampler cannot draw."""


class TransformError(PatchflowError, ValueError):
    """A transform that was given or returned something unusable."""


class MemoryBudgetError(PatchflowError, ValueError):
    """A memory budget too small for the work asked."""


class WorkerError(PatchflowError, RuntimeError):
    """A worker that raised or died; the message names the subject and the patch."""


class InferenceError(PatchflowError, ValueError):
    """Predictions that cannot be stitched into a volume."""
