"""Vectors of eight numbers for Numba's kernels: dot products of four rows at a time, written in LLVM's language.

Numba's own loops become vectors as LLVM sees fit, which for 8- and 4-bit integers is not how they run fast. The four
rows lie far apart in memory: processors fetch several streams ahead at once, so that one core draws twice the memory
bandwidth that it draws from a single stream. Nothing here is bound to one processor; LLVM picks the instructions.
"""

from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir
from numba.core import cgutils, types
from numba.extending import intrinsic

__all__ = ["BLOCK", "dot_float32", "dot_int4", "dot_int8"]

BLOCK = 64  # elements that share a scale of the activations; a multiple of 64 for the packing of int4

_F32, _I8, _I16, _I32, _I64 = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_FLOATS, _INTS, _SHORTS = ir.VectorType(_F32, 8), ir.VectorType(_I32, 8), ir.VectorType(_I16, 16)
_STEP = 16  # floats of a row in one step of the loop


def _constant(vector: ir.VectorType, value: float) -> ir.Constant:
    return ir.Constant(vector, [value] * vector.count)


def _shuffle(b: Any, v: Any, lanes: list[int]) -> Any:
    return b.shuffle_vector(v, v, ir.Constant(ir.VectorType(_I32, len(lanes)), lanes))


def _splat(b: Any, value: Any) -> Any:
    undefined = ir.Constant(_FLOATS, ir.Undefined)
    return _shuffle(b, b.insert_element(undefined, value, _I32(0)), [0] * 8)


def _fma(b: Any, x: Any, y: Any, z: Any) -> Any:
    kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
    return b.call(cgutils.get_or_insert_function(b.module, kind, "llvm.fma.v8f32"), [x, y, z])


def _sum(b: Any, v: Any) -> Any:
    for half in (4, 2, 1):
        v = b.fadd(_shuffle(b, v, list(range(half))), _shuffle(b, v, list(range(half, 2 * half))))
    return b.extract_element(v, _I32(0))


def _multiply_pairs(b: Any, x: Any, y: Any) -> Any:
    """Eight sums of two products each of 16-bit integers: one instruction where the processor has it (vpmaddwd)."""
    wide = ir.VectorType(_I32, 16)
    product = b.mul(b.sext(x, wide), b.sext(y, wide))
    return b.add(_shuffle(b, product, list(range(0, 16, 2))), _shuffle(b, product, list(range(1, 16, 2))))


def _load(b: Any, base: Any, offset: Any, kind: Any, align: int) -> Any:
    return b.load(b.bitcast(b.gep(base, [offset]), ir.PointerType(kind)), align=align)


def _loop(b: Any, count: Any, starts: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """`values = body(i, values)` for i from 0 to count - 1; count is at least 1."""
    entry, inside, after = b.block, b.append_basic_block("dot"), b.append_basic_block("dot.end")
    b.branch(inside)
    b.position_at_end(inside)
    i = b.phi(_I64)
    values = [b.phi(start.type) for start in starts]
    i.add_incoming(_I64(0), entry)
    for value, start in zip(values, starts, strict=True):
        value.add_incoming(start, entry)
    results = body(i, list(values))
    following = b.add(i, _I64(1))
    i.add_incoming(following, b.block)
    for value, result in zip(values, results, strict=True):
        value.add_incoming(result, b.block)
    b.cbranch(b.icmp_signed("<", following, count), inside, after)
    b.position_at_end(after)
    return results


def _pointer(context: Any, b: Any, signature: Any, args: Any, place: int) -> Any:
    return context.make_array(signature.args[place])(context, b, args[place]).data


def _tuple(context: Any, b: Any, signature: Any, values: list[Any]) -> Any:
    return context.make_tuple(b, signature.return_type, values)


def dot_float32(rows: int) -> Any:
    """`dot(w, first, stride, x, start, steps)`: the products of `rows` rows of w and one of x, 16 elements a step."""

    @intrinsic
    def dot(typing, w, first, stride, x, start, steps):  # type: ignore[no-untyped-def]
        def generate(context, b, signature, args):  # type: ignore[no-untyped-def]
            w, x = _pointer(context, b, signature, args, 0), _pointer(context, b, signature, args, 3)
            firsts = [b.add(args[1], b.mul(args[2], _I64(r))) for r in range(rows)]

            def body(i: Any, sums: list[Any]) -> list[Any]:
                at = b.mul(i, _I64(_STEP))
                for half in (0, 1):
                    place = b.add(at, _I64(8 * half))
                    values = _load(b, x, b.add(args[4], place), _FLOATS, 4)
                    for r in range(rows):
                        weights = _load(b, w, b.add(firsts[r], place), _FLOATS, 4)
                        sums[2 * r + half] = _fma(b, weights, values, sums[2 * r + half])
                return sums

            sums = _loop(b, args[5], [_constant(_FLOATS, 0.0)] * 2 * rows, body)
            totals = [_sum(b, b.fadd(sums[2 * r], sums[2 * r + 1])) for r in range(rows)]
            return _tuple(context, b, signature, totals)

        long = types.int64
        return types.UniTuple(types.float32, rows)(w, long, long, x, long, long), generate

    return dot


def dot_int8(rows: int) -> Any:
    """`dot(w, first, stride, x, start, scales, block, blocks)`: rows of int8 w, one of int16 x with block scales."""

    @intrinsic
    def dot(typing, w, first, stride, x, start, scales, block, blocks):  # type: ignore[no-untyped-def]
        def generate(context, b, signature, args):  # type: ignore[no-untyped-def]
            w, x, scales = (_pointer(context, b, signature, args, place) for place in (0, 3, 5))
            firsts = [b.add(args[1], b.mul(args[2], _I64(r))) for r in range(rows)]

            def body(i: Any, sums: list[Any]) -> list[Any]:
                at = b.mul(i, _I64(BLOCK))
                products: list[Any] = [None] * rows
                for part in range(0, BLOCK, 16):
                    place = b.add(at, _I64(part))
                    values = _load(b, x, b.add(args[4], place), _SHORTS, 2)
                    for r in range(rows):
                        bytes_ = _load(b, w, b.add(firsts[r], place), ir.VectorType(_I8, 16), 1)
                        product = _multiply_pairs(b, b.sext(bytes_, _SHORTS), values)
                        products[r] = b.add(products[r], product) if part else product
                scale = _splat(b, b.load(b.gep(scales, [b.add(args[6], i)])))
                return [_fma(b, b.sitofp(products[r], _FLOATS), scale, sums[r]) for r in range(rows)]

            sums = _loop(b, args[7], [_constant(_FLOATS, 0.0)] * rows, body)
            return _tuple(context, b, signature, [_sum(b, v) for v in sums])

        long = types.int64
        return types.UniTuple(types.float32, rows)(w, long, long, x, long, scales, long, long), generate

    return dot


def dot_int4(rows: int, halves: bool) -> Any:
    """`dot(w, first, stride, groups, group, group_stride, shift, x, start, zeros, scales, block, blocks)`.

    Rows of w: bytes of two nibbles (unsigned, 8 stands for zero), with a scale in `groups` for each 2**shift blocks of
    64 elements, or for each half of a block with `halves`. A row of x: int16, in each block the 16 elements 0, 4, 8 ..
    first, then 1, 5, 9 ..; `zeros` is what each lane has to start with to take the eights off.
    """

    @intrinsic
    def dot(typing, w, first, stride, groups, group, group_stride, shift, x, start, zeros, scales, block, blocks):  # type: ignore[no-untyped-def]
        def generate(context, b, signature, args):  # type: ignore[no-untyped-def]
            w, groups, x, zeros, scales = (_pointer(context, b, signature, args, place) for place in (0, 3, 7, 9, 10))
            firsts = [b.add(args[1], b.mul(args[2], _I64(r))) for r in range(rows)]
            group_firsts = [b.add(args[4], b.mul(args[5], _I64(r))) for r in range(rows)]
            nibble = _constant(_SHORTS, 15)

            def body(i: Any, sums: list[Any]) -> list[Any]:
                number = b.add(args[11], i)
                zero = _load(b, zeros, b.mul(number, _I64(8)), _INTS, 4)
                products = [zero] * rows
                packed = [_load(b, w, b.add(f, b.mul(i, _I64(BLOCK // 2))), _SHORTS, 1) for f in firsts]
                for n in range(4):
                    values = _load(b, x, b.add(args[8], b.add(b.mul(i, _I64(BLOCK)), _I64(16 * n))), _SHORTS, 2)
                    for r in range(rows):
                        weights = b.lshr(packed[r], _constant(_SHORTS, 4 * n)) if n else packed[r]
                        weights = b.and_(weights, nibble) if n < 3 else weights
                        products[r] = b.add(products[r], _multiply_pairs(b, weights, values))
                scale = _splat(b, b.load(b.gep(scales, [number])))
                for r in range(rows):
                    if halves:
                        pair = _load(b, groups, b.add(group_firsts[r], b.mul(i, _I64(2))), ir.VectorType(_F32, 2), 4)
                        factor = _shuffle(b, pair, [0] * 4 + [1] * 4)
                    else:
                        factor = _splat(b, b.load(b.gep(groups, [b.add(group_firsts[r], b.lshr(i, args[6]))])))
                    sums[r] = _fma(b, b.sitofp(products[r], _FLOATS), b.fmul(factor, scale), sums[r])
                return sums

            sums = _loop(b, args[12], [_constant(_FLOATS, 0.0)] * rows, body)
            return _tuple(context, b, signature, [_sum(b, v) for v in sums])

        long = types.int64
        arguments = (w, long, long, groups, long, long, long, x, long, zeros, scales, long, long)
        return types.UniTuple(types.float32, rows)(*arguments), generate

    return dot
