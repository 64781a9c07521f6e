"""An interpreter for the part of pickle's byte code that data are made of.

It imports nothing and calls nothing but the builders of a table that the caller passes, each of which checks its
arguments. A global that is not in the table ends the reading at once. What the byte code may spend is limited: the
standard library's unpickler allocates whatever a memo index or a length claims, and hashes tuples that share their
parts for ever.

The byte code is documented in the standard library's ``pickletools``.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..dtypes import dtype
from .errors import CheckpointError, damaged, refused

__all__ = ["Builder", "Internal", "Reader"]

MAX_OBJECTS = 4_000_000  # containers and built objects of one file
MAX_DEPTH = 500
MAX_KEY_PARTS = 1000  # parts of one tuple used as a key
MAX_TUPLE_KEYS = 20_000  # hashes of tuples can be made to collide; those of strings cannot
_DICTS = (dict, OrderedDict, defaultdict, Counter)
_KEYS = (str, bytes, int, float, bool, type(None), dtype)


class Internal:
    """Something that a pickle uses on the way and that must not be in its result: a class, a storage."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Builder(Internal):
    """A global that may be called: `call` gets the reader and the arguments, and checks them."""

    name: str
    call: Callable[..., Any]


class _Mark:
    """Stands on the stack where a MARK was."""


_MARK = _Mark()


class Reader:
    """Reads pickles from a buffer.

    Args:
        data: the bytes; a memoryview or an mmap will do.
        name: of the file, for errors.
        find: gives the value of a global by module and name; raises `CheckpointError` for one that is not allowed.
        persistent: gives the object of a persistent id; raises for one that it does not know.
        set_state: gives an object that a builder made its state; raises for one that takes none.
        start: where the first pickle begins.
        file_size: bytes of the whole file, which bound what may be copied; the buffer's size when left out.
    """

    def __init__(
        self,
        data: Any,
        name: str,
        find: Callable[[str, str], Any],
        persistent: Callable[[Any], Any],
        set_state: Callable[[Reader, Any, Any], None],
        start: int = 0,
        file_size: int | None = None,
    ) -> None:
        self.data = data
        self.name = name
        self.find = find
        self.persistent = persistent
        self.set_state = set_state
        self.position = start
        self.end = len(data)
        self._objects = MAX_OBJECTS
        # Each byte of the file may be copied a few times, not once for every two bytes of byte code.
        self._bytes = 4 * (file_size or self.end) + 1_000_000
        self._tuple_keys = MAX_TUPLE_KEYS

    def load(self) -> Any:
        """The next pickle's object; `position` is then after it.

        Raises:
            CheckpointError: the byte code is damaged, wants what it may not, or spends too much.
        """
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        try:
            result = self._run()
            self._check_depth(result)
        except (CheckpointError, ImportError):  # an installation that is broken is not the file's fault
            raise
        except Exception as error:  # whatever nonsense the byte code led to
            what = f"{type(error).__name__}: {str(error)[:80]}" if str(error) else type(error).__name__
            raise damaged(self.name, f"its pickle makes no sense at byte {self.position} ({what})") from error
        finally:
            self.stack, self.memo = [], {}
        return result

    def spend(self, objects: int = 1, nbytes: int = 0) -> None:
        """Takes from what the file may allocate."""
        self._objects -= objects
        self._bytes -= nbytes
        if self._objects < 0 or self._bytes < 0:
            raise CheckpointError(
                f"{self.name} is refused: its pickle builds more objects than a file of its size should need",
                "save tensors rather than many small Python objects",
            )

    def key(self, value: Any) -> Any:
        """`value`, when it is cheap to hash: text, bytes, a number, None, or a small tuple of them."""
        if type(value) in _KEYS:
            return value
        if not isinstance(value, tuple):
            raise self.bad(f"a {type(value).__name__} as the key of a dict or member of a set")
        self._tuple_keys -= 1
        parts, waiting = 0, [value]
        while waiting:
            for part in waiting.pop():
                parts += 1
                if isinstance(part, tuple):
                    waiting.append(part)
                elif type(part) not in _KEYS:
                    raise self.bad(f"a tuple with a {type(part).__name__} as a key")
                if parts > MAX_KEY_PARTS or self._tuple_keys < 0:
                    raise self.bad("too many or too big tuples as keys")
        return value

    def bad(self, why: str) -> CheckpointError:
        """The error for byte code that no sound file has."""
        return damaged(self.name, f"its pickle has {why}")

    # the machine

    def _run(self) -> Any:
        codes, stop = _CODES, ord(".")
        while True:
            if self.position >= self.end:
                raise CheckpointError(f"{self.name} is cut off inside its pickle", "download or copy the file again")
            code = self.data[self.position]
            self.position += 1
            if code == stop:
                (result,) = self.stack
                if result is _MARK:
                    raise self.bad("no object")
                return result
            action = codes.get(code)
            if action is None:
                raise CheckpointError(
                    f"{self.name} is refused: its pickle uses the operation {_op_name(code)}, which data do not need",
                    "save plain data and tensors with PyTorch's own torch.save",
                )
            action(self)

    def _take(self, count: int) -> bytes:
        start, stop = self.position, self.position + count
        if stop > self.end:
            raise damaged(self.name, f"its pickle claims {count:,} bytes where {self.end - start:,} are left")
        self.position = stop
        return bytes(self.data[start:stop])

    def _unpack(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _line(self) -> str:
        piece = bytes(self.data[self.position : self.position + 1000])
        length = piece.find(b"\n")
        if length < 0:
            raise self.bad("a name without an end")
        self.position += length + 1
        return piece[:length].decode("utf-8")

    def _pop_mark(self) -> list[Any]:
        stack = self.stack
        place = len(stack) - 1
        while stack[place] is not _MARK:  # IndexError when there is none
            place -= 1
        items = stack[place + 1 :]
        del stack[place:]
        return items

    def _pop(self, count: int = 1) -> list[Any]:
        if len(self.stack) < count:
            raise self.bad("an operation without operands")
        items = self.stack[-count:]
        if any(item is _MARK for item in items):
            raise self.bad("a mark as an operand")
        del self.stack[-count:]
        return items

    def _top(self, *kinds: type) -> Any:
        top = self.stack[-1]
        if type(top) not in kinds:
            raise self.bad(f"an operation on a {type(top).__name__} that it does not have")
        return top

    def _push_new(self, value: Any) -> None:
        self.spend()
        self.stack.append(value)

    def _number(self, count: int) -> None:
        if count > 256:
            raise self.bad(f"a whole number of {count:,} bytes")
        self.stack.append(int.from_bytes(self._take(count), "little", signed=True))

    def _old_text(self, count: int) -> None:
        raw = self._take(count)
        try:
            self.stack.append(raw.decode("utf-8"))
        except UnicodeDecodeError:  # Python 2 kept bytes in its texts
            self.stack.append(raw)

    def _put(self, index: int) -> None:
        if self.stack[-1] is _MARK:
            raise self.bad("a mark in its memo")
        self.memo[index] = self.stack[-1]

    def _tuple(self, count: int) -> None:
        self._push_new(tuple(self._pop(count)))

    def _set_items(self, items: list[Any]) -> None:
        target = self._top(*_DICTS)
        if len(items) % 2:
            raise self.bad("a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self.key(key)] = value

    def _reduce(self) -> None:
        builder, arguments = self._pop(2)
        if not isinstance(builder, Builder) or type(arguments) is not tuple:
            raise self.bad(f"a call of a {type(builder).__name__}")
        self._push_new(_called(self, builder, arguments))

    def _build(self) -> None:
        (state,) = self._pop()
        if self.stack[-1] is _MARK:
            raise self.bad("a state for a mark")
        self.set_state(self, self.stack[-1], state)

    def _stack_global(self) -> None:
        module, name = self._pop(2)
        if type(module) is not str or type(name) is not str:
            raise self.bad("a global whose name is not a text")
        self._push_new(self.find(module, name))

    def _check_depth(self, result: Any) -> None:
        """Refuses what contains itself or is nested too deeply for those who walk over it by recursion."""
        heights: dict[int, int] = {}  # 0 while its parts are being looked at
        waiting: list[tuple[Any, bool]] = [(result, False)]
        while waiting:
            item, done = waiting.pop()
            if isinstance(item, Internal):
                cause = f"it holds a {getattr(item, 'name', type(item).__name__)} where a value should be"
                raise refused(self.name, cause, "save tensors and plain data")
            if not isinstance(item, (list, tuple, *_DICTS)):
                continue
            if done:
                height = 1 + max((heights.get(id(part), 0) for part in _parts(item)), default=0)
                if height > MAX_DEPTH:
                    raise CheckpointError(
                        f"{self.name} is refused: its objects are nested more than {MAX_DEPTH} deep", "save flat data"
                    )
                heights[id(item)] = height
            elif id(item) not in heights:
                heights[id(item)] = 0
                waiting.append((item, True))
                waiting.extend((part, False) for part in _parts(item))
            elif heights[id(item)] == 0:
                raise CheckpointError(f"{self.name} is refused: an object in it contains itself", "save plain data")


def _parts(item: Any) -> Any:
    return item.values() if isinstance(item, dict) else item


def _called(reader: Reader, builder: Builder, arguments: tuple[Any, ...]) -> Any:
    try:
        return builder.call(reader, *arguments)
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise reader.bad(f"arguments that {builder.name} does not take ({str(error)[:80]})") from error


def _op_name(code: int) -> str:
    import pickletools

    names = {ord(operation.code): operation.name for operation in pickletools.opcodes}
    return names.get(code, f"{code:#04x}")


def _proto(reader: Reader) -> None:
    version = reader._unpack("<B")
    if version > 5:
        raise reader.bad(f"the protocol {version}, which does not exist")


def _frame(reader: Reader) -> None:
    length = reader._unpack("<Q")
    if reader.position + length > reader.end:
        raise damaged(reader.name, f"its pickle claims a frame of {length:,} bytes, which is not there")


def _pop_one(reader: Reader) -> None:
    reader.stack.pop()


def _text(reader: Reader, layout: str) -> None:
    reader.stack.append(reader._take(reader._unpack(layout)).decode("utf-8", "surrogatepass"))


def _bytes(reader: Reader, layout: str) -> None:
    reader.stack.append(reader._take(reader._unpack(layout)))


def _append(reader: Reader) -> None:
    (item,) = reader._pop()
    reader._top(list).append(item)


def _appends(reader: Reader) -> None:
    items = reader._pop_mark()
    reader._top(list).extend(items)


def _add_items(reader: Reader) -> None:
    items = reader._pop_mark()
    reader._top(set).update(map(reader.key, items))


def _frozenset(reader: Reader) -> None:
    reader._push_new(frozenset(map(reader.key, reader._pop_mark())))


def _global(reader: Reader) -> None:
    module, name = reader._line(), reader._line()
    reader._push_new(reader.find(module, name))


def _persistent(reader: Reader) -> None:
    (key,) = reader._pop()
    reader._push_new(reader.persistent(key))


def _new_object(reader: Reader) -> None:
    kind, arguments = reader._pop(2)
    if not isinstance(kind, Builder) or type(arguments) is not tuple:
        raise reader.bad(f"a new object of a {type(kind).__name__}")
    reader._push_new(_called(reader, kind, arguments))


_ACTIONS: dict[bytes, Callable[[Reader], Any]] = {
    b"\x80": _proto,
    b"\x95": _frame,
    b"(": lambda r: r.stack.append(_MARK),
    b"0": _pop_one,
    b"1": lambda r: r._pop_mark(),
    b"2": lambda r: r.stack.extend(r._pop() * 2),
    b"N": lambda r: r.stack.append(None),
    b"\x88": lambda r: r.stack.append(True),
    b"\x89": lambda r: r.stack.append(False),
    b"J": lambda r: r.stack.append(r._unpack("<i")),
    b"K": lambda r: r.stack.append(r._unpack("<B")),
    b"M": lambda r: r.stack.append(r._unpack("<H")),
    b"\x8a": lambda r: r._number(r._unpack("<B")),
    b"\x8b": lambda r: r._number(r._unpack("<I")),
    b"G": lambda r: r.stack.append(r._unpack(">d")),
    b"X": lambda r: _text(r, "<I"),
    b"\x8c": lambda r: _text(r, "<B"),
    b"\x8d": lambda r: _text(r, "<Q"),
    b"U": lambda r: r._old_text(r._unpack("<B")),
    b"T": lambda r: r._old_text(r._unpack("<I")),
    b"B": lambda r: _bytes(r, "<I"),
    b"C": lambda r: _bytes(r, "<B"),
    b"\x8e": lambda r: _bytes(r, "<Q"),
    b"\x96": lambda r: r._push_new(bytearray(r._take(r._unpack("<Q")))),
    b"]": lambda r: r._push_new([]),
    b"}": lambda r: r._push_new({}),
    b"\x8f": lambda r: r._push_new(set()),
    b")": lambda r: r.stack.append(()),
    b"\x85": lambda r: r._tuple(1),
    b"\x86": lambda r: r._tuple(2),
    b"\x87": lambda r: r._tuple(3),
    b"t": lambda r: r._push_new(tuple(r._pop_mark())),
    b"l": lambda r: r._push_new(r._pop_mark()),
    b"a": _append,
    b"e": _appends,
    b"s": lambda r: r._set_items(r._pop(2)),
    b"u": lambda r: r._set_items(r._pop_mark()),
    b"\x90": _add_items,
    b"\x91": _frozenset,
    b"h": lambda r: r.stack.append(r.memo[r._unpack("<B")]),
    b"j": lambda r: r.stack.append(r.memo[r._unpack("<I")]),
    b"q": lambda r: r._put(r._unpack("<B")),
    b"r": lambda r: r._put(r._unpack("<I")),
    b"\x94": lambda r: r._put(len(r.memo)),
    b"c": _global,
    b"\x93": lambda r: r._stack_global(),
    b"Q": _persistent,
    b"R": lambda r: r._reduce(),
    b"\x81": _new_object,
    b"b": lambda r: r._build(),
}
_CODES: Mapping[int, Callable[[Reader], Any]] = {code[0]: action for code, action in _ACTIONS.items()}
