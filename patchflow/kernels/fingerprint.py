"""A number of 64 bits that tells arrays of different bytes apart, at the speed of memory: to find copies, not to resist forgers."""

import numpy as np
import numpy.typing as npt

from patchflow.kernels.jit import inlined, kernel
from patchflow.types import Array

_PRIMES = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
_MASK = 2**64 - 1
_STRIPE = 32
_P1, _P2, _LEFT, _RIGHT = np.uint64(_PRIMES[0]), np.uint64(_PRIMES[1]), np.uint64(31), np.uint64(33)


class Fingerprint:
    """XXH64 with seed 0 of bytes that come in pieces (Collet, "xxHash fast digest algorithm", version 0.1.1).

    Two different volumes agree once in 2^64 by accident. Releases the GIL; agrees with `plain_fingerprint` of all pieces together.
    """

    def __init__(self) -> None:
        self._lanes = _start()
        self._rest = np.empty(0, np.uint8)
        self._length = 0

    def add(self, array: Array) -> None:
        """Take in the bytes of a C-contiguous array, whose shape and dtype do not count."""
        data = array.reshape(-1).view(np.uint8)
        self._length += data.size
        if self._rest.size:
            data = np.concatenate([self._rest, data])
        whole = data.size // _STRIPE * _STRIPE
        _stripes(data[:whole].view(np.uint64), self._lanes)
        self._rest = data[whole:].copy()

    def number(self) -> int:
        """0 to 2^64 - 1, of all that came so far."""
        return _finish([int(lane) for lane in self._lanes], self._rest.tobytes(), self._length)


def plain_fingerprint(array: Array) -> int:
    """What `Fingerprint` computes of one array, by Python's own integers."""
    data = array.tobytes()
    whole = len(data) // _STRIPE * _STRIPE
    lanes = [int(lane) for lane in _start()]
    for start in range(0, whole, 8):
        lane = start // 8 % 4
        lanes[lane] = _round(lanes[lane], int.from_bytes(data[start : start + 8], "little"))
    return _finish(lanes, data[whole:], len(data))


def _start() -> npt.NDArray[np.uint64]:
    first, second = _PRIMES[:2]
    return np.array([(first + second) & _MASK, second, 0, -first & _MASK], np.uint64)


def _round(lane: int, word: int) -> int:
    return _turned(lane + word * _PRIMES[1] & _MASK, 31) * _PRIMES[0] & _MASK


def _turned(number: int, bits: int) -> int:
    return (number << bits | number >> (64 - bits)) & _MASK


def _finish(lanes: list[int], rest: bytes, length: int) -> int:
    """Bring the lanes together, take in the bytes that fill no stripe, and mix."""
    one, two, three, four, five = _PRIMES
    if length >= _STRIPE:
        total = sum(_turned(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & _MASK
        for lane in lanes:
            total = ((total ^ _round(0, lane)) * one + four) & _MASK
    else:
        total = five
    total = (total + length) & _MASK
    while len(rest) >= 8:
        total = (_turned(total ^ _round(0, int.from_bytes(rest[:8], "little")), 27) * one + four) & _MASK
        rest = rest[8:]
    if len(rest) >= 4:
        total = (_turned(total ^ int.from_bytes(rest[:4], "little") * one & _MASK, 23) * two + three) & _MASK
        rest = rest[4:]
    for byte in rest:
        total = _turned(total ^ byte * five & _MASK, 11) * one & _MASK
    for shift, prime in ((33, two), (29, three)):
        total = (total ^ total >> shift) * prime & _MASK
    return total ^ total >> 32


@inlined
def _next(lane, word):  # type: ignore[no-untyped-def]
    lane += word * _P2
    return (lane << _LEFT | lane >> _RIGHT) * _P1


@kernel
def _stripes(words, lanes):  # type: ignore[no-untyped-def]
    a, b, c, d = lanes[0], lanes[1], lanes[2], lanes[3]
    for start in range(0, words.size, 4):
        a = _next(a, words[start])
        b = _next(b, words[start + 1])
        c = _next(c, words[start + 2])
        d = _next(d, words[start + 3])
    lanes[0], lanes[1], lanes[2], lanes[3] = a, b, c, d
