"""Vectors of eight float32 for Numba's kernels, and the two loops that LLVM does not find by itself.

A kernel that keeps a matrix of vectors in registers (a matrix product, an 8x8 transposition, a transform of tiles) is
written with these; plain loops stay plain, LLVM vectorises them. `load` and `store` take an array of one dimension and
the position of the first of eight elements, and check nothing. LLVM splits the vectors where a processor's are shorter.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

__all__ = [
    "Code", "load", "product4", "product6", "store", "tile_from_places", "tile_strided", "tile_to_places", "transpose",
    "zero",
]  # fmt: skip

_FLOAT, _LANES = ir.FloatType(), 8
_VECTOR = ir.VectorType(_FLOAT, _LANES)
_FUSED = ("contract",)


class _Vector(types.Type):
    def __init__(self) -> None:
        super().__init__(name="float32x8")


_vector = _Vector()


@register_model(_Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


# -- emitting code ----------------------------------------------------------------------------------------------------
def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [index])


def _load(builder: Any, pointer: Any) -> Any:
    return builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)


def _store(builder: Any, pointer: Any, value: Any) -> None:
    builder.store(value, builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)


def _splat(builder: Any, number: Any) -> Any:
    single = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return _shuffle(builder, single, single, [0] * _LANES)


def _shuffle(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))


def _multiply_add(builder: Any, total: Any, a: Any, b: Any) -> Any:
    return builder.fadd(total, builder.fmul(a, b, flags=_FUSED), flags=_FUSED)


def _is_array(kind: Any) -> bool:
    return isinstance(kind, types.Array) and kind.ndim == 1 and kind.dtype == types.float32


class Code:
    """Arithmetic of vectors in a function that is being compiled, for `tile` transforms."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder

    def _number(self, number: float) -> Any:
        return ir.Constant(_VECTOR, [float(number)] * _LANES)

    def add(self, a: Any, b: Any) -> Any:
        """a + b"""
        return self._builder.fadd(a, b, flags=_FUSED)

    def sub(self, a: Any, b: Any) -> Any:
        """a - b"""
        return self._builder.fsub(a, b, flags=_FUSED)

    def scale(self, number: float, a: Any) -> Any:
        """number * a"""
        return self._builder.fmul(self._number(number), a, flags=_FUSED)

    def fma(self, a: Any, number: float, b: Any) -> Any:
        """a + number * b"""
        return _multiply_add(self._builder, a, self._number(number), b)


# -- vectors ----------------------------------------------------------------------------------------------------------
@intrinsic
def load(typing, array, index):
    """The eight elements of `array` from `index` on."""

    def code(context, builder, signature, args):
        return _load(builder, _pointer(context, builder, signature.args[0], *args))

    return (_vector(array, types.intp), code) if _is_array(array) else None


@intrinsic
def store(typing, array, index, value):
    """Writes `value` into the eight elements of `array` from `index` on."""

    def code(context, builder, signature, args):
        _store(builder, _pointer(context, builder, signature.args[0], *args[:2]), args[2])
        return context.get_dummy_value()

    return (types.void(array, types.intp, _vector), code) if _is_array(array) else None


@intrinsic
def zero(typing):
    """Eight zeros."""

    def code(context, builder, signature, args):
        return ir.Constant(_VECTOR, None)

    return _vector(), code


# -- transforms of tiles ----------------------------------------------------------------------------------------------
Transform = Callable[[Code, list], list]


def _both_ways(builder: Any, transform: Transform, values: list[list[Any]]) -> list[Any]:
    """`transform` of all columns, then of all rows."""
    code = Code(builder)
    columns = [transform(code, list(column)) for column in zip(*values, strict=True)]
    return [value for row in zip(*columns, strict=True) for value in transform(code, list(row))]


def _strided(builder: Any, at: Any, step: Any, i: int) -> Any:
    return builder.add(at, builder.mul(step, ir.Constant(step.type, i)))


def _listed(context: Any, builder: Any, kind: Any, places: Any, at: Any, i: int) -> Any:
    return builder.load(_pointer(context, builder, kind, places, builder.add(at, ir.Constant(at.type, i))))


def tile_from_places(transform: Transform, size: int) -> Any:
    """Transforms the tile of `size` x `size` vectors that begin at places[at], places[at + 1] ... in `buffer`.

    Result i goes to out[to + i * step].
    """

    @intrinsic
    def tile(typing, buffer, places, at, out, to, step):
        def code(context, builder, signature, args):
            kinds = signature.args
            buffer, places, at, out, to, step = args

            def read(i):
                index = _listed(context, builder, kinds[1], places, at, i)
                return _load(builder, _pointer(context, builder, kinds[0], buffer, index))

            result = _both_ways(builder, transform, [[read(i * size + j) for j in range(size)] for i in range(size)])
            for i, value in enumerate(result):
                _store(builder, _pointer(context, builder, kinds[3], out, _strided(builder, to, step, i)), value)
            return context.get_dummy_value()

        n = types.intp
        return types.void(buffer, places, n, out, n, n), code

    return tile


def tile_to_places(transform: Transform, size: int) -> Any:
    """The reverse of `tile_from_places`: vector i is read at source[at + i * step]; `shift` is added to the results."""

    @intrinsic
    def tile(typing, source, at, step, shift, buffer, places, to):
        def code(context, builder, signature, args):
            kinds = signature.args
            source, at, step, shift, buffer, places, to = args

            def read(i):
                return _load(builder, _pointer(context, builder, kinds[0], source, _strided(builder, at, step, i)))

            result = _both_ways(builder, transform, [[read(i * size + j) for j in range(size)] for i in range(size)])
            for i, value in enumerate(result):
                index = _listed(context, builder, kinds[5], places, to, i)
                value = builder.fadd(value, shift)
                _store(builder, _pointer(context, builder, kinds[4], buffer, index), value)
            return context.get_dummy_value()

        n = types.intp
        return types.void(source, n, n, _vector, buffer, places, n), code

    return tile


def tile_strided(transform: Transform, size: int) -> Any:
    """Vector i of the tile is read at source[at + i * step], result i goes to out[to + i * out_step]."""

    @intrinsic
    def tile(typing, source, at, step, out, to, out_step):
        def code(context, builder, signature, args):
            kinds = signature.args
            source, at, step, out, to, out_step = args

            def read(i):
                return _load(builder, _pointer(context, builder, kinds[0], source, _strided(builder, at, step, i)))

            result = _both_ways(builder, transform, [[read(i * size + j) for j in range(size)] for i in range(size)])
            for i, value in enumerate(result):
                _store(builder, _pointer(context, builder, kinds[3], out, _strided(builder, to, out_step, i)), value)
            return context.get_dummy_value()

        n = types.intp
        return types.void(source, n, n, out, n, n), code

    return tile


# -- loops ------------------------------------------------------------------------------------------------------------
_UNPACK = [0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]
_PAIRS = [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]
_HALVES = [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]


@intrinsic
def transpose(typing, source, start, step, target, to, to_step):
    """Eight rows of eight at `start`, `start + step` ... become the columns of `target` at `to`, `to + to_step` ..."""

    def code(context, builder, signature, args):
        def at(array, base, stride, row):
            index = builder.add(base, builder.mul(stride, ir.Constant(stride.type, row)))
            return _pointer(context, builder, signature.args[array], args[array], index)

        rows = [_load(builder, at(0, args[1], args[2], i)) for i in range(8)]
        pairs = [_shuffle(builder, rows[i], rows[i + 1], way) for i in (0, 2, 4, 6) for way in _UNPACK]
        fours = [
            _shuffle(builder, pairs[base + high], pairs[base + high + 2], way)
            for base in (0, 4)
            for high in (0, 1)
            for way in _PAIRS
        ]
        columns = [_shuffle(builder, fours[i], fours[i + 4], way) for way in _HALVES for i in range(4)]
        for i, column in enumerate(columns):
            _store(builder, at(3, args[4], args[5], i), column)
        return context.get_dummy_value()

    if not (_is_array(source) and _is_array(target)):
        return None
    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), code


def _product(rows: int) -> Any:
    @intrinsic
    def product(typing, a, a0, a_row, a_k, b, b0, c, c0, c_row, k, more):
        def code(context, builder, signature, args):
            kinds = signature.args
            a, a0, a_row, a_k, b, b0, c, c0, c_row, k, more = args
            index = k.type
            acc = [[cgutils.alloca_once(builder, _VECTOR) for _ in range(2)] for _ in range(rows)]
            base = [builder.add(a0, builder.mul(a_row, ir.Constant(index, i))) for i in range(rows)]

            def target(i, j):
                at = builder.add(c0, builder.add(builder.mul(c_row, ir.Constant(index, i)), ir.Constant(index, 8 * j)))
                return _pointer(context, builder, kinds[6], c, at)

            with builder.if_else(builder.icmp_signed("!=", more, ir.Constant(more.type, 0))) as (then, otherwise):
                with then:
                    for i in range(rows):
                        for j in range(2):
                            builder.store(_load(builder, target(i, j)), acc[i][j])
                with otherwise:
                    for i in range(rows):
                        for j in range(2):
                            builder.store(ir.Constant(_VECTOR, None), acc[i][j])
            with cgutils.for_range(builder, k) as loop:
                at = builder.add(b0, builder.mul(loop.index, ir.Constant(index, 16)))
                right = [
                    _load(builder, _pointer(context, builder, kinds[4], b, builder.add(at, ir.Constant(index, 8 * j))))
                    for j in range(2)
                ]
                step = builder.mul(loop.index, a_k)
                for i in range(rows):
                    number = builder.load(_pointer(context, builder, kinds[0], a, builder.add(base[i], step)))
                    left = _splat(builder, number)
                    for j in range(2):
                        total = builder.load(acc[i][j])
                        builder.store(_multiply_add(builder, total, left, right[j]), acc[i][j])
            for i in range(rows):
                for j in range(2):
                    _store(builder, target(i, j), builder.load(acc[i][j]))
            return context.get_dummy_value()

        if not (_is_array(a) and _is_array(b) and _is_array(c)):
            return None
        n = types.intp
        return types.void(a, n, n, n, b, n, c, n, n, n, n), code

    product.__doc__ = f"""c (+)= a b, for {rows} rows and 16 columns: one accumulator in registers for each element.

    Element (i, t) of a lies at a0 + i * a_row + t * a_k, row t of b at b0 + 16 t, row i of c at c0 + i * c_row;
    `more` is 0 where c holds nothing yet.
    """
    return product


product4, product6 = _product(4), _product(6)
