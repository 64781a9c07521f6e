"""Small matrix products inside Numba's kernels: a tile of 6 x 16 numbers that stays in registers.

Numba cannot hold vectors in variables, so the tile's code is written out for LLVM, with vectors of 8 numbers (the
processor's own width may be another: LLVM splits or joins them).
"""

from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

__all__ = ["COLUMNS", "ROWS", "product"]

ROWS, COLUMNS = 6, 16
_WIDTH = 8
_VECTOR, _FLOAT = ir.VectorType(ir.FloatType(), _WIDTH), ir.FloatType()
_ADDED = ("contract",)


def _splat(builder: Any, value: Any) -> Any:
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    order = ir.Constant(ir.VectorType(ir.IntType(32), _WIDTH), [0] * _WIDTH)
    return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), order)


@intrinsic
def tile(
    typing: Any, a: Any, a_at: Any, a_row: Any, a_step: Any, b: Any, b_at: Any, b_step: Any, c: Any, c_at: Any,
    c_row: Any, count: Any, add: Any,
) -> Any:  # fmt: skip
    """The 6 x 16 numbers from c[c_at] on = (or, with `add`, +=) sum over k < count of a[.., k] * b[k, ..].

    Positions and steps count elements of the vectors a, b and c.
    """
    whole = types.int64
    signature = types.void(a, whole, whole, whole, b, whole, whole, c, whole, whole, whole, types.boolean)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, a_at, a_row, a_step, b, b_at, b_step, c, c_at, c_row, count, add = args

        def pointer(kind: Any, array: Any, at: Any) -> Any:
            return builder.gep(context.make_array(kind)(context, builder, array).data, [at])

        def load(place: Any) -> Any:
            value = builder.load(builder.bitcast(place, _VECTOR.as_pointer()))
            value.align = 4
            return value

        kinds = signature.args
        a_rows = [
            builder.gep(pointer(kinds[0], a, a_at), [builder.mul(a_row, ir.Constant(a_row.type, i))])
            for i in range(ROWS)
        ]
        c_rows = [
            builder.gep(pointer(kinds[7], c, c_at), [builder.mul(c_row, ir.Constant(c_row.type, i))])
            for i in range(ROWS)
        ]
        b_first = pointer(kinds[4], b, b_at)
        places = [
            builder.gep(row, [ir.Constant(ir.IntType(64), j * _WIDTH)])
            for row in c_rows
            for j in range(COLUMNS // _WIDTH)
        ]
        zero = ir.Constant(_VECTOR, [0.0] * _WIDTH)
        before = builder.block
        start = builder.append_basic_block("tile.start")
        loop = builder.append_basic_block("tile.loop")
        done = builder.append_basic_block("tile.done")
        builder.cbranch(add, start, loop)
        builder.position_at_end(start)
        given = [load(place) for place in places]
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(count.type)
        k.add_incoming(ir.Constant(count.type, 0), before)
        k.add_incoming(ir.Constant(count.type, 0), start)
        sums = []
        for value in given:
            phi = builder.phi(_VECTOR)
            phi.add_incoming(zero, before)
            phi.add_incoming(value, start)
            sums.append(phi)
        b_row = builder.gep(b_first, [builder.mul(k, b_step)])
        columns = [
            load(builder.gep(b_row, [ir.Constant(ir.IntType(64), j * _WIDTH)])) for j in range(COLUMNS // _WIDTH)
        ]
        offset = builder.mul(k, a_step)
        after = []
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fmuladd.v{_WIDTH}f32"
        )
        for i in range(ROWS):
            value = _splat(builder, builder.load(builder.gep(a_rows[i], [offset])))
            for j, column in enumerate(columns):
                after.append(builder.call(fma, [value, column, sums[i * len(columns) + j]]))
        following = builder.add(k, ir.Constant(count.type, 1))
        k.add_incoming(following, builder.block)
        for phi, value in zip(sums, after, strict=True):
            phi.add_incoming(value, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
        builder.position_at_end(done)
        for place, value in zip(places, after, strict=True):
            builder.store(value, builder.bitcast(place, _VECTOR.as_pointer())).align = 4
        return context.get_dummy_value()

    return signature, generate


@numba.njit(error_model="numpy", boundscheck=False)
def product(a, a_at, a_row, a_step, b, b_at, b_panel, b_step, c, c_at, c_row, m, n, count, add):
    """c (m x n) = a b, or += with `add`; m and n are rounded up to whole tiles, of which all memory must exist.

    b lies in panels of 16 columns, `b_panel` elements apart.
    """
    for j in range(0, n, COLUMNS):
        for i in range(0, m, ROWS):
            tile(a, a_at + i * a_row, a_row, a_step, b, b_at + j // COLUMNS * b_panel, b_step, c, c_at + i * c_row + j,
                 c_row, count, add)  # fmt: skip
