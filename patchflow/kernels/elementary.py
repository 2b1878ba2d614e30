"""Logarithm, exponential, sine and cosine in float32, written so that loops over them vectorise.

LLVM does not vectorise calls into the C library; these are short polynomials on the bits of a float, good to about 2e-7, with the same
result bit for bit on every processor (but in kernels that allow a multiplication and an addition to be rounded together). All are inlined
into the kernels that use them.
"""

import numpy as np

from patchflow.kernels.jit import inlined

_f = np.float32
_i = np.int32
_SMALLEST = _f(np.finfo(np.float32).tiny)
_LN2 = _f(0.6931471805599453)
_SQRT_HALF_BITS = _i(0x3F3504F3)
# exp2 on [-0.5, 0.5], fitted with the least greatest error and 1 at 0: within 1e-7
_E1, _E2, _E3, _E4, _E5 = _f(0.69314724), _f(0.24022235), _f(0.055503085), _f(0.009671861), _f(0.0013407237)
# log2(1 + x) / x for 1 + x from sqrt(1/2) to sqrt(2), fitted in the same way: within 5e-8 of log2(1 + x)
_L0, _L1, _L2, _L3 = _f(1.4426948), _f(-0.7213571), _f(0.4809394), _f(-0.3600881)
_L4, _L5, _L6, _L7 = _f(0.28670853), _f(-0.25006127), _f(0.23688254), _f(-0.14575733)
# sine and cosine on [-pi/4, pi/4]: Taylor series, next terms below 2e-9 and 3e-8
_S3, _S5, _S7, _S9 = _f(-1 / 6), _f(1 / 120), _f(-1 / 5040), _f(1 / 362880)
_C2, _C4, _C6, _C8 = _f(-1 / 2), _f(1 / 24), _f(-1 / 720), _f(1 / 40320)


@inlined
def log2_parts(x):  # type: ignore[no-untyped-def]
    """For a normal x > 0: the int32 e and the float32 ln(m), |ln m| <= ln(2) / 2, with x = m 2^e."""
    bits = _f(x).view(np.int32)
    exponent = _i(_i(bits - _SQRT_HALF_BITS) >> _i(23))
    m = _i(bits - _i(exponent << _i(23))).view(np.float32)
    s = (m - _f(1)) / (m + _f(1))  # ln m = 2 artanh(s), |s| <= 0.172
    t = s * s
    series = _f(1) + t * (_f(1 / 3) + t * (_f(1 / 5) + t * (_f(1 / 7) + t * _f(1 / 9))))
    return exponent, _f(2) * s * series


@inlined
def log(x):  # type: ignore[no-untyped-def]
    """Natural logarithm of a normal float32 > 0."""
    exponent, rest = log2_parts(x)
    return _f(exponent) * _LN2 + rest


@inlined
def exp2(x):  # type: ignore[no-untyped-def]
    """2^x to 2e-7 of it; 0 below -126.5 (no subnormals) and infinite from 127.5 on."""
    x = min(max(_f(x), _f(-127)), _f(128))
    whole = _f(np.floor(x + _f(0.5)))
    t = x - whole
    series = _f(1) + t * (_E1 + t * (_E2 + t * (_E3 + t * (_E4 + t * _E5))))
    return series * _i(_i(_i(whole) + _i(127)) << _i(23)).view(np.float32)


@inlined
def power(x, exponent):  # type: ignore[no-untyped-def]
    """x^exponent to 1e-6 of the larger of it and 1, for an exponent > 0; 0 for an x below the normal numbers."""
    bits = _f(max(_f(x), _SMALLEST)).view(np.int32)
    whole = _i(_i(bits - _SQRT_HALF_BITS) >> _i(23))
    m = _i(bits - _i(whole << _i(23))).view(np.float32) - _f(1)
    series = _L0 + m * (_L1 + m * (_L2 + m * (_L3 + m * (_L4 + m * (_L5 + m * (_L6 + m * _L7))))))  # no division, as in log2_parts
    result = exp2(exponent * (_f(whole) + m * series))
    return _f(0) if x < _SMALLEST else result


@inlined
def sin_cos(x):  # type: ignore[no-untyped-def]
    """Sine and cosine for |x| <= pi / 4."""
    t = x * x
    sine = x + x * t * (_S3 + t * (_S5 + t * (_S7 + t * _S9)))
    cosine = _f(1) + t * (_C2 + t * (_C4 + t * (_C6 + t * _C8)))
    return sine, cosine
