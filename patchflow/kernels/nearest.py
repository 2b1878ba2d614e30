"""The voxel nearest to each source point: floor(x + 0.5) along each axis, so that ties go to the higher index."""

import numpy as np

from patchflow.kernels.jit import kernel
from patchflow.kernels.linear import look_up, read
from patchflow.kernels.places import affine_voxels, row_is_inside, voxels
from patchflow.kernels.points import CHUNK, row_points
from patchflow.kernels.rows import CONSTANT, fold_points, nth_row


@kernel
def nearest_rows(flat, steps, box, shape, stages, start, size, fill, values, outside, out):  # type: ignore[no-untyped-def]
    """Fill `out`, with stored voxels where `values` is None, else with values as read; of coarse stages the nearer sample counts."""
    low = np.float64(box[0][0]), np.float64(box[0][1]), np.float64(box[0][2])
    last = np.float64(box[1][0] - 1), np.float64(box[1][1] - 1), np.float64(box[1][2] - 1)
    high = np.nextafter(last[0] + 1, 0), np.nextafter(last[1] + 1, 0), np.nextafter(last[2] + 1, 0)
    shift = -(box[0][0] * steps[1] + box[0][1] * steps[2] + box[0][2])
    jumps = np.float64(steps[1]), np.float64(steps[2])
    channels = out.size // (size[0] * size[1] * size[2])
    points, spare = np.empty(3 * CHUNK), np.empty(16 * CHUNK)
    offsets, flags = np.empty(CHUNK, np.int64), np.empty(CHUNK, np.bool_)
    for n in range(size[0] * size[1]):
        i, j = nth_row(n, size)
        for k in range(0, size[2], CHUNK):
            count = min(CHUNK, size[2] - k)
            at = start[0] + i, start[1] + j, start[2] + k
            inside = count
            if row_is_inside(stages, *at, 0.5, low, high, count):
                affine_voxels(stages, *at, 0.5, count, jumps, last, offsets)
            else:
                row_points(stages, *at, -1, start[2], points, spare, count)
                inside = voxels(points, 0.5, count, jumps, low, high, last, flags, offsets)
                if inside < count and outside != CONSTANT:
                    fold_points(points, count, shape, outside)
                    inside = voxels(points, 0.5, count, jumps, low, high, last, flags, offsets)
            for c in range(channels):
                end = ((c * size[0] + i) * size[1] + j) * size[2] + k
                row = out[end : end + count]
                for q in range(count):
                    stored = flat[np.uint64(offsets[q] + c * steps[0] + shift)]  # unsigned: signed positions would be tested for < 0
                    if values is None:
                        row[q] = stored
                    else:
                        row[q] = np.float32(read(look_up(values[5], stored), values[0], values[1], values[2], values[3]))
                if inside < count:
                    for q in range(count):
                        row[q] = row[q] if flags[q] else fill
