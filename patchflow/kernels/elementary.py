"""Logarithm, exponential, sine and cosine in float32, written so that loops over them vectorise.

LLVM does not vectorise calls into the C library; these are short polynomials on the bits of a float, good to about 2e-7, with the same
result bit for bit on every processor. All are inlined into the kernels that use them.
"""

import numba
import numpy as np

_f = np.float32
_i = np.int32
_LN2 = _f(0.6931471805599453)
_SQRT_HALF_BITS = _i(0x3F3504F3)
# exp2 on [-0.5, 0.5]: the Taylor series of e^(t ln 2), whose next term is below 6e-9
_E1, _E2, _E3 = _f(0.6931471805599453), _f(0.2402265069591007), _f(0.05550410866482158)
_E4, _E5, _E6, _E7 = _f(0.009618129107628477), _f(0.0013333558146428443), _f(0.00015403530393381608), _f(1.5252733804059841e-05)
# sine and cosine on [-pi/4, pi/4]: Taylor series, next terms below 2e-9 and 3e-8
_S3, _S5, _S7, _S9 = _f(-1 / 6), _f(1 / 120), _f(-1 / 5040), _f(1 / 362880)
_C2, _C4, _C6, _C8 = _f(-1 / 2), _f(1 / 24), _f(-1 / 720), _f(1 / 40320)


@numba.njit(inline="always", error_model="numpy")
def log2_parts(x):  # type: ignore[no-untyped-def]
    """For a normal x > 0: the int32 e and the float32 ln(m), |ln m| <= ln(2) / 2, with x = m 2^e."""
    bits = _f(x).view(np.int32)
    exponent = _i(_i(bits - _SQRT_HALF_BITS) >> _i(23))
    m = _i(bits - _i(exponent << _i(23))).view(np.float32)
    s = (m - _f(1)) / (m + _f(1))  # ln m = 2 artanh(s), |s| <= 0.172
    t = s * s
    series = _f(1) + t * (_f(1 / 3) + t * (_f(1 / 5) + t * (_f(1 / 7) + t * _f(1 / 9))))
    return exponent, _f(2) * s * series


@numba.njit(inline="always", error_model="numpy")
def log(x):  # type: ignore[no-untyped-def]
    """Natural logarithm of a normal float32 > 0."""
    exponent, rest = log2_parts(x)
    return _f(exponent) * _LN2 + rest


@numba.njit(inline="always", error_model="numpy")
def exp2(x):  # type: ignore[no-untyped-def]
    """2^x; 0 below -126.5 (no subnormals) and infinite from 127.5 on."""
    x = min(max(_f(x), _f(-127)), _f(128))
    whole = _f(np.floor(x + _f(0.5)))
    t = x - whole
    series = _f(1) + t * (_E1 + t * (_E2 + t * (_E3 + t * (_E4 + t * (_E5 + t * (_E6 + t * _E7))))))
    return series * _i(_i(_i(whole) + _i(127)) << _i(23)).view(np.float32)


@numba.njit(inline="always", error_model="numpy")
def sin_cos(x):  # type: ignore[no-untyped-def]
    """Sine and cosine for |x| <= pi / 4."""
    t = x * x
    sine = x + x * t * (_S3 + t * (_S5 + t * (_S7 + t * _S9)))
    cosine = _f(1) + t * (_C2 + t * (_C4 + t * (_C6 + t * _C8)))
    return sine, cosine
