"""What kernels ask of the processor that numba has no word for: four neighbours in one register, and memory fetched ahead of its use."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic


def _sum_of_sixteen(typing: Any, flat: Any, first: Any, plane: Any, row: Any, along: Any, across: Any) -> Any:
    four = types.UniTuple(flat.dtype, 4)  # type: ignore[no-untyped-call]
    signature = four(flat, types.uint64, types.uint64, types.uint64, four, four)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        number = context.get_value_type(signature.args[0].dtype)
        vector, places = ir.VectorType(number, 4), [ir.Constant(ir.IntType(32), n) for n in range(4)]
        size = 4 if isinstance(number, ir.FloatType) else 8
        total = None
        for a in range(4):
            for b in range(4):
                at = builder.add(
                    args[1], builder.add(*(builder.mul(step, ir.Constant(step.type, n)) for step, n in ((args[2], a), (args[3], b))))
                )
                pointer = builder.bitcast(builder.gep(array.data, [at]), vector.as_pointer())
                weight = builder.fmul(builder.extract_value(args[4], a), builder.extract_value(args[5], b))
                one = builder.insert_element(ir.Constant(vector, ir.Undefined), weight, places[0])
                spread = builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), 4), [0] * 4))
                term = builder.fmul(spread, builder.load(pointer, align=size))
                total = term if total is None else builder.fadd(total, term)
        return context.make_tuple(builder, signature.return_type, [builder.extract_element(total, place) for place in places])

    return signature, build


sum_of_sixteen: Callable[..., Any] = intrinsic(_sum_of_sixteen)
"""For kernels: (flat, first, plane, row, along, across) -> four numbers, of which the nth is the sum over a, b < 4 of
along[a] across[b] flat[first + a plane + b row + n].

Args:
    flat: 1D, C-contiguous, float32 or float64; nothing checks that positions lie within.
    first, plane, row: uint64.
    along, across: tuples of four numbers of the dtype of `flat`.
"""


def _fetch_ahead(typing: Any, flat: Any, at: Any) -> Any:
    signature = types.void(flat, types.uint64)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, byte, number = context.make_array(signature.args[0])(context, builder, args[0]), ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        pointer = builder.bitcast(builder.gep(array.data, [args[1]]), byte)
        builder.call(function, [pointer, number(0), number(3), number(1)])  # to read; into the nearest cache; data
        return context.get_dummy_value()

    return signature, build


fetch_ahead: Callable[..., Any] = intrinsic(_fetch_ahead)
"""For kernels: (flat, at) -> nothing; flat[at] (1D, C-contiguous, at a uint64) is on its way into the nearest cache.

`at` may lie beyond the array: processors drop a fetch that would fail.
"""
