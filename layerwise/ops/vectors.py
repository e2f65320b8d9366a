"""Loops over rows of numbers, sixteen at a time: compilers do not find them where a row is short.

They are written as LLVM's vectors, which it turns into what a processor has. Rows are those of C-contiguous float32
matrices of one width, a multiple of `LANES`; a row's number is a np.uintp, and `which` a tuple of them.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
"""numbers that are taken at once, as many as a vector holds at most"""

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_ZERO = ir.Constant(_VECTOR, [0.0] * LANES)
_FAST = ("reassoc", "nsz", "nnan", "contract")


def _intrinsic(function: Callable[..., Any]) -> Any:
    """Numba's own, which takes the first argument away."""
    return intrinsic(function)


@_intrinsic
def dot(typing, sums, which, maps, j):  # type: ignore[no-untyped-def]
    """The product of maps[j] and the sum of the rows `which` of `sums`."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        table, others = (_Matrix(context, builder, signature.args[i], arguments[i]) for i in (0, 2))
        rows = [table.row(number) for number in _parts(builder, arguments[1])]
        right = others.row(arguments[3])

        def add(at: Any, total: Any) -> Any:
            product = builder.fmul(_sum(builder, rows, at), _load(builder, right, at), flags=_FAST)
            return builder.fadd(total, product, flags=_FAST)

        total = _over(builder, others.width, add)
        reduce = ir.FunctionType(_FLOAT, [_FLOAT, _VECTOR])
        name = f"llvm.vector.reduce.fadd.v{LANES}f32"
        function = cgutils.get_or_insert_function(builder.module, reduce, name)  # type: ignore[no-untyped-call]
        return builder.call(function, [ir.Constant(_FLOAT, 0.0), total], fastmath=_FAST)

    return types.float32(sums, which, maps, j), generate


@_intrinsic
def add_scaled(typing, sums, which, factor, out, j):  # type: ignore[no-untyped-def]
    """Add to out[j] the sum of the rows `which` of `sums`, times a float32."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        table, others = (_Matrix(context, builder, signature.args[i], arguments[i]) for i in (0, 3))
        rows = [table.row(number) for number in _parts(builder, arguments[1])]
        target, factor = others.row(arguments[4]), _spread(builder, arguments[2])

        def add(at: Any, nothing: Any) -> Any:
            product = builder.fmul(_sum(builder, rows, at), factor, flags=_FAST)
            total = builder.fadd(_load(builder, target, at), product, flags=_FAST)
            builder.store(total, _at(builder, target, at), align=4)
            return nothing

        _over(builder, others.width, add)
        return context.get_dummy_value()

    return types.void(sums, which, factor, out, j), generate


@_intrinsic
def put_sum(typing, left, i, right, j, out, k):  # type: ignore[no-untyped-def]
    """Write left[i] + right[j] to out[k]."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        matrices = [_Matrix(context, builder, signature.args[n], arguments[n]) for n in (0, 2, 4)]
        first, second, target = (m.row(arguments[n]) for m, n in zip(matrices, (1, 3, 5), strict=True))

        def add(at: Any, nothing: Any) -> Any:
            builder.store(_sum(builder, [first, second], at), _at(builder, target, at), align=4)
            return nothing

        _over(builder, matrices[2].width, add)
        return context.get_dummy_value()

    return types.void(left, i, right, j, out, k), generate


class _Matrix:
    """A matrix in the code that is generated."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        array = context.make_array(kind)(context, builder, value)
        self.builder, self.data = builder, array.data
        self.width = _parts(builder, array.shape)[-1]

    def row(self, number: Any) -> Any:
        """A pointer to a row's first number."""
        return self.builder.gep(self.data, [self.builder.mul(number, self.width)])


def _over(builder: Any, width: Any, step: Callable[[Any, Any], Any]) -> Any:
    """A loop over the vectors of a row, at 0, LANES, …; step takes and gives a vector, zero at first."""
    before, body, behind = builder.block, builder.append_basic_block("row"), builder.append_basic_block("done")
    builder.branch(body)
    builder.position_at_end(body)
    at, value = builder.phi(width.type), builder.phi(_VECTOR)
    at.add_incoming(ir.Constant(width.type, 0), before)
    value.add_incoming(_ZERO, before)
    result, following = step(at, value), builder.add(at, ir.Constant(width.type, LANES))
    at.add_incoming(following, body)
    value.add_incoming(result, body)
    builder.cbranch(builder.icmp_unsigned("<", following, width), body, behind)
    builder.position_at_end(behind)
    return result


def _parts(builder: Any, value: Any) -> list[Any]:
    return list(cgutils.unpack_tuple(builder, value))  # type: ignore[no-untyped-call]


def _at(builder: Any, row: Any, at: Any) -> Any:
    return builder.bitcast(builder.gep(row, [at]), _VECTOR.as_pointer())


def _load(builder: Any, row: Any, at: Any) -> Any:
    return builder.load(_at(builder, row, at), align=4)


def _sum(builder: Any, rows: list[Any], at: Any) -> Any:
    total = _load(builder, rows[0], at)
    for row in rows[1:]:
        total = builder.fadd(total, _load(builder, row, at), flags=_FAST)
    return total


def _spread(builder: Any, number: Any) -> Any:
    """A vector of one number over and over."""
    vector = ir.Constant(_VECTOR, ir.Undefined)
    for lane in range(LANES):
        vector = builder.insert_element(vector, number, ir.Constant(ir.IntType(32), lane))
    return vector
