"""Products of a few rows with a matrix that is used again and again, for kernels that Numba compiles.

The matrix lies in memory as panels of 16 columns, each of them row by row (`packed`): a product then reads it from
the first number to the last, and nothing is rearranged from one time step to the next. Numba cannot hold vectors in
variables, so the innermost loops are written out for LLVM with vectors of 8 numbers (where the processor's own
vectors have another width, LLVM splits them). Each number of a product is a sum in the order of the rows of the
matrix, whatever the tile: how rows are divided among tiles and threads does not change a bit.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

__all__ = ["COLUMNS", "multiply", "packed"]

COLUMNS = 16
_LANES = 8
_FLOAT, _WHOLE = ir.FloatType(), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, _LANES)
_FIRST = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
_UNDEFINED = ir.Constant(_VECTOR, ir.Undefined)
_FUSED = ("contract",)  # may become a fused multiply-add


def packed(matrix: np.ndarray) -> np.ndarray:
    """The panels (n, K, 16) of a matrix (K, columns), the last one filled up with zeros."""
    rows, columns = matrix.shape
    count = -(-columns // COLUMNS)
    if count * COLUMNS != columns:
        wide = np.zeros((rows, count * COLUMNS), matrix.dtype)
        wide[:, :columns] = matrix
        matrix = wide
    return np.ascontiguousarray(matrix.reshape(rows, count, COLUMNS).transpose(1, 0, 2))


def _tile(rows: int, panels: int) -> Callable:
    """`tile(a, a_row, b, b_panel, k, c, c_row)`: `rows` rows times `panels` panels, their results in registers.

    a, b and c are addresses; a_row, b_panel and c_row count numbers from one row or panel to the next.
    """

    @intrinsic
    def tile(typing: Any, a: Any, a_row: Any, b: Any, b_panel: Any, k: Any, c: Any, c_row: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            a, a_row, b, b_panel, k, c, c_row = args

            def number(value: int) -> Any:
                return ir.Constant(_WHOLE, value)

            def moved(address: Any, step: Any, times: int, more: int = 0) -> Any:
                offset = builder.add(builder.mul(step, number(4 * times)), number(4 * more))
                return builder.add(address, offset)

            def load(address: Any, kind: Any) -> Any:
                value = builder.load(builder.inttoptr(address, kind.as_pointer()))
                value.align = 4
                return value

            cells = [(r, p, half) for p in range(panels) for half in (0, _LANES) for r in range(rows)]
            a_rows = [moved(a, a_row, r) for r in range(rows)]
            b_panels = [moved(b, b_panel, p) for p in range(panels)]
            before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
            builder.branch(loop)
            builder.position_at_end(loop)
            i = builder.phi(_WHOLE)
            i.add_incoming(number(0), before)
            sums = {}
            for cell in cells:
                sums[cell] = builder.phi(_VECTOR)
                sums[cell].add_incoming(ir.Constant(_VECTOR, [0.0] * _LANES), before)
            spread = []
            for row in a_rows:
                one = builder.insert_element(_UNDEFINED, load(moved(row, i, 1), _FLOAT), ir.Constant(ir.IntType(32), 0))
                spread.append(builder.shuffle_vector(one, _UNDEFINED, _FIRST))
            results = {}
            for r, p, half in cells:
                if r == 0:
                    column = load(moved(b_panels[p], i, COLUMNS, half), _VECTOR)
                results[r, p, half] = builder.fadd(
                    sums[r, p, half], builder.fmul(spread[r], column, flags=_FUSED), flags=_FUSED
                )
                sums[r, p, half].add_incoming(results[r, p, half], loop)
            following = builder.add(i, number(1))
            i.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, k), loop, after)
            builder.position_at_end(after)
            for (r, p, half), result in results.items():
                place = moved(c, c_row, r, p * COLUMNS + half)
                builder.store(result, builder.inttoptr(place, _VECTOR.as_pointer())).align = 4
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), generate

    return tile


# At most 8 sums: with their factors they fit 16 registers, and they hide how long a multiply-add takes.
_rows4, _rows3, _rows2_panels2, _rows2 = _tile(4, 1), _tile(3, 1), _tile(2, 2), _tile(2, 1)
_row1_panels4, _row1 = _tile(1, 4), _tile(1, 1)


@numba.njit(error_model="numpy", boundscheck=False)
def multiply(a, a_from, panels, c, c_from, rows):
    """c[c_from + i] = a[a_from + i] @ matrix for i < rows, with the panels of the matrix.

    The arrays are C-contiguous float32; the rows of `a` have at least K numbers, those of `c` as many as the panels
    have columns.
    """
    count, k = panels.shape[0], panels.shape[1]
    a_row, c_row, panel = a.shape[1], c.shape[1], k * COLUMNS
    first_a = np.intp(a.ctypes.data) + 4 * a_row * a_from
    first_b = np.intp(panels.ctypes.data)
    first_c = np.intp(c.ctypes.data) + 4 * c_row * c_from
    fours = rows // 4 * 4
    for p in range(count):
        b = first_b + 4 * panel * p
        for i in range(0, fours, 4):
            _rows4(first_a + 4 * a_row * i, a_row, b, panel, k, first_c + 4 * (c_row * i + COLUMNS * p), c_row)
    done = fours
    if rows - done == 3:
        at_a, at_c = first_a + 4 * a_row * done, first_c + 4 * c_row * done
        for p in range(count):
            _rows3(at_a, a_row, first_b + 4 * panel * p, panel, k, at_c + 4 * COLUMNS * p, c_row)
    elif rows - done == 2:
        pairs = count // 2 * 2
        at_a, at_c = first_a + 4 * a_row * done, first_c + 4 * c_row * done
        for p in range(0, pairs, 2):
            _rows2_panels2(at_a, a_row, first_b + 4 * panel * p, panel, k, at_c + 4 * COLUMNS * p, c_row)
        if pairs < count:
            _rows2(at_a, a_row, first_b + 4 * panel * pairs, panel, k, at_c + 4 * COLUMNS * pairs, c_row)
    elif rows - done == 1:
        wholes = count // 4 * 4
        at_a, at_c = first_a + 4 * a_row * done, first_c + 4 * c_row * done
        for p in range(0, wholes, 4):
            _row1_panels4(at_a, a_row, first_b + 4 * panel * p, panel, k, at_c + 4 * COLUMNS * p, c_row)
        for p in range(wholes, count):
            _row1(at_a, a_row, first_b + 4 * panel * p, panel, k, at_c + 4 * COLUMNS * p, c_row)
