"""Hostile and damaged checkpoints: one clear error each, nothing run, little memory, little time."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import struct
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flambeau
from flambeau.io import CheckpointError

MEMORY = 64 * 2**20  # peak, for files of a few KB
SECONDS = 20  # generous: the machine may be busy; what is refused takes milliseconds


def refused(path: Path, tmp_path: Path, words: str = "model") -> CheckpointError:
    """The error that loading gives, with all that every refusal owes."""
    before = set(os.listdir(tmp_path))
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(CheckpointError, match=words) as caught:
            flambeau.load(path)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - start < SECONDS
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and caught.value.mend
    assert set(os.listdir(tmp_path)) == before, "something was run"
    return caught.value


def archive(pickled: bytes, storages: dict[str, bytes] | None = None, root: str = "archive", **more: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        out.writestr(f"{root}/data.pkl", pickled)
        out.writestr(f"{root}/version", b"3\n")
        for key, content in (storages or {}).items():
            out.writestr(f"{root}/data/{key}", content)
        for key, content in more.items():
            out.writestr(f"{root}/{key}", content)
    return file.getvalue()


def legacy(pickled: bytes, tail: bytes = b"") -> bytes:
    facts = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, facts))
    return head + pickled + tail


class Calls:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.how = (function, arguments)

    def __reduce__(self):
        return self.how


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def attacks(sentinel: str) -> dict[str, bytes]:
    """Pickles that run something when a trusting reader reads them, by name."""
    make = f"open({sentinel!r}, 'w').close()"
    command = f"touch {sentinel}"
    found = {
        "os.system": pickle.dumps(Calls(os.system, command), 2),
        "os.system, protocol 0": pickle.dumps(Calls(os.system, command), 0),
        "os.system, protocol 5": pickle.dumps({"w": [Calls(os.system, command)]}, 5),
        "eval": pickle.dumps(Calls(eval, make), 2),
        "exec": pickle.dumps(Calls(exec, make), 4),
        "open": pickle.dumps(Calls(open, sentinel, "w"), 2),
        "getattr": pickle.dumps(Calls(getattr, Calls(__import__, "os"), "system"), 2),
        "import": pickle.dumps(Calls(__import__, "antigravity"), 2),
    }
    call = b"(" + text(command) + b"tR."
    for module in ("posix", "nt", "os", "subprocess", "sys", "builtins", "torch.os", "torch._utils.os"):
        found[f"GLOBAL {module}.system"] = b"\x80\x02c" + module.encode() + b"\nsystem\n" + call
    found |= {
        "STACK_GLOBAL": b"\x80\x04" + text("os") + text("system") + b"\x93" + call,
        "STACK_GLOBAL, dotted": b"\x80\x04" + text("torch") + text("os.system") + b"\x93" + call,
        "STACK_GLOBAL, by attribute": b"\x80\x04" + text("collections") + text("OrderedDict.__init__.__globals__")
        + b"\x93" + call,
        "STACK_GLOBAL, no texts": b"\x80\x04K\x01K\x02\x93.",
        "STACK_GLOBAL, name from parts": b"\x80\x04" + text("torch") + b"c_codecs\nencode\n(" + text("os.system")
        + b"tR\x93.",
        "INST": b"(" + text(command) + b"ios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + text(command) + b"o.",
        "EXT1": b"\x80\x02\x82\x01.",
        "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
        "NEWOBJ_EX": b"\x80\x04ccollections\nOrderedDict\n)}\x92.",
        "NEXT_BUFFER": b"\x80\x05\x97.",
        "PERSID": b"Pos.system\n.",
        "REDUCE of data": b"\x80\x02" + text("os.system") + call,
        "REDUCE of a dtype": b"\x80\x02ctorch\nfloat32\n" + call,
        "REDUCE of a storage class": b"\x80\x02ctorch\nFloatStorage\n(K\x01tR.",
        "BUILD of attributes": b"\x80\x02]}" + text("__class__") + text("x") + b"sb.",
        "BUILD of a class": b"\x80\x02ccollections\nOrderedDict\n}" + text("update") + b"K\x01sb.",
        "whole model": b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81}b.",
        "numpy objects": b"\x80\x02cnumpy\ndtype\n(" + text("O8") + b"\x89\x88tR.",
        "numpy by name": b"\x80\x02cnumpy.testing._private.utils\nrunstring\n(" + text(make) + b"}tR.",
        "functools.partial": b"\x80\x02cfunctools\npartial\n(cos\nsystem\n" + text(command) + b"tR)R.",
        "default factory": b"\x80\x02ccollections\ndefaultdict\n(cos\nsystem\ntR.",
        "default factory, built": b"\x80\x02ccollections\ndefaultdict\n(ccollections\nCounter\ntR.",
        "rebuild from type": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nctorch\nTensor\n("
        + text(command) + b"t}tR.",
        "codecs": b"\x80\x02c_codecs\ndecode\n(" + text(command) + b"tR.",
        "encoding by name": b"\x80\x02c_codecs\nencode\n(" + text("a") + text("idna") + b"tR.",
    }  # fmt: skip
    return found


def bombs() -> dict[str, bytes]:
    """Pickles that a careless reader answers with much memory or time."""
    nested = b"\x80\x02(K\x01t" + b"".join(b"q\x01h\x01h\x01h\x01\x87" for _ in range(60))
    encode = b"c_codecs\nencode\nq\x00" + text("a" * 20000) + b"(" + text("b" * 20000) + text("latin1") + b"tq\x010"
    big = 2**31 - 1
    return {
        "BINBYTES": b"\x80\x03B" + struct.pack("<I", big) + b"x.",
        "BINBYTES8": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
        "BYTEARRAY8": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"x.",
        "BINUNICODE": b"\x80\x02X" + struct.pack("<I", big) + b"x.",
        "BINUNICODE8": b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b"x.",
        "BINSTRING": b"\x80\x02T" + struct.pack("<i", -1) + b"x.",
        "LONG4": b"\x80\x02\x8b" + struct.pack("<i", big) + b"x.",
        "LONG4, negative": b"\x80\x02\x8b" + struct.pack("<i", -5) + b"x.",
        "a number of 60 KB": b"\x80\x02\x8b" + struct.pack("<i", 60000) + b"\x7f" * 60000 + b".",
        "FRAME": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"N.",
        "PROTO 200": b"\x80\xc8N.",
        "bytearray by size": b"\x80\x02c__builtin__\nbytearray\n(J" + struct.pack("<i", big) + b"tR.",
        "bytes by size": b"\x80\x02c__builtin__\nbytes\n(J" + struct.pack("<i", big) + b"tR.",
        "range as a list": b"\x80\x02c__builtin__\nset\n(c__builtin__\nxrange\n(K\x00J" + struct.pack("<i", big)
        + b"K\x01tRtR.",
        "shared tuples as a key": nested + b"q\x02}h\x02Ns.",
        "shared tuples in a set": nested + b"q\x02c__builtin__\nset\n(](h\x02etR.",
        "lists, deep": b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".",
        "tuples, deep": b"\x80\x02)" + b"\x85" * 5000 + b".",
        "a list in itself": b"\x80\x02]q\x00h\x00a.",
        "a dict in itself": b"\x80\x02}q\x00K\x01h\x00s.",
        "one text encoded often": b"\x80\x02](" + encode + b"h\x00h\x01R0" * 5000 + b"e.",
        "one list copied often": b"\x80\x02](" + b"K\x01" * 5000 + b"eq\x00\x85q\x01c__builtin__\nset\nq\x020"
        + b"h\x02h\x01R0" * 20000 + b"N.",
        "POP of nothing": b"\x80\x020.",
        "TUPLE without a mark": b"\x80\x02t.",
        "APPEND to nothing": b"\x80\x02Na.",
        "APPEND to a tuple": b"\x80\x02)Na.",
        "SETITEM on a list": b"\x80\x02]NNs.",
        "SETITEMS, odd": b"\x80\x02}(NNNu.",
        "a list as a key": b"\x80\x02}]Ns.",
        "a mark as the result": b"\x80\x02(.",
        "two results": b"\x80\x02NN.",
        "no result": b"\x80\x02.",
        "no end": b"\x80\x02N",
        "MEMO that is not there": b"\x80\x02j\xff\xff\xff\xff.",
        "MEMO of a mark": b"\x80\x02(q\x00h\x00.",
        "unknown operation": b"\x80\x02\xff.",
        "text that is none": b"\x80\x02X\x02\0\0\0\xff\xff.",
        "bytes after the end": b"\x80\x02N.N.",
        "numpy, empty and big": b"\x80\x02cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(" + text("V999999999")
        + b"\x89\x88tRC\x00tR.",
        "numpy, S0": b"\x80\x02cnumpy.core.numeric\n_frombuffer\n(C\x00cnumpy\ndtype\n(" + text("S0")
        + b"\x89\x88tR(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft" + text("C") + b"tR.",
        "numpy, too few bytes": b"\x80\x02cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(" + text("f8")
        + b"\x89\x88tRC\x01atR.",
        "a class as the result": b"\x80\x02c__builtin__\nset\n.",
        "a storage class inside": b"\x80\x02]ctorch\nFloatStorage\na.",
    }  # fmt: skip


def persistent(
    kind: str = "FloatStorage", key: bytes | None = None, place: str = "cpu", count: bytes = b"K\x04"
) -> bytes:
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + (key or text("0")) + text(place) + count + b"tQ"


def tensor(
    storage: bytes | None = None, offset: bytes = b"K\0", size: bytes = b"K\x02K\x02", stride: bytes = b"K\x02K\x01"
) -> bytes:
    storage = persistent() if storage is None else storage
    grad = b"\x89ccollections\nOrderedDict\n)R"
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + offset
        + b"("
        + size
        + b"t("
        + stride
        + b"t"
        + grad
        + b"tR."
    )


def whole(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def lies() -> dict[str, bytes]:
    """Tensors that are not in their storage, and storages that are not what they claim."""
    return {
        "sizes too big": tensor(size=b"K\x03K\x02"),
        "sizes huge": tensor(size=whole(2**40) + b"K\x02"),
        "sizes overflow": tensor(size=whole(2**62) + whole(2**62)),
        "sizes overflow to 4": tensor(size=whole(2**63) + whole(2**63 + 4)),
        "sizes negative": tensor(size=whole(-2) + whole(-2)),
        "sizes of True": tensor(size=b"\x88\x88"),
        "size not a number": tensor(size=text("2") + b"K\x02"),
        "many dimensions": tensor(size=b"K\x01" * 65, stride=b"K\x01" * 65),
        "strides missing": tensor(stride=b"K\x01"),
        "stride negative": tensor(stride=whole(-2) + b"K\x01", offset=b"K\x03"),
        "stride leaves": tensor(stride=b"K\x03K\x01"),
        "stride overflows": tensor(stride=whole(2**61) + b"K\x01"),
        "a view of 2**60 elements": tensor(size=whole(2**60) + b"K\x08", stride=b"K\x00K\x00"),
        "offset leaves": tensor(offset=b"K\x01"),
        "offset negative": tensor(offset=whole(-1), size=b"K\x01", stride=b"K\x01"),
        "offset a float": tensor(offset=b"G" + bytes(8)),
        "count lies": tensor(persistent(count=b"K\x08")),
        "count huge": tensor(persistent(count=whole(2**61))),
        "count beyond 64 bits": tensor(persistent(count=whole(2**70))),
        "count negative": tensor(persistent(count=whole(-1))),
        "count not a number": tensor(persistent(count=b"N")),
        "key not there": tensor(persistent(key=text("7"))),
        "key outside": tensor(persistent(key=text("../data.pkl"))),
        "key absolute": tensor(persistent(key=text("/etc/passwd"))),
        "key a number": tensor(persistent(key=b"K\0")),
        "key a list": tensor(persistent(key=b"]")),
        "meta": tensor(persistent(place="meta")),
        "no storage": tensor(b"N"),
        "a storage class as the storage": tensor(b"ctorch\nFloatStorage\n"),
        "persistent id a number": tensor(b"K\0Q"),
        "persistent id of something else": tensor(b"(" + text("module") + text("os") + text("a") + text("b") + b"tQ"),
        "persistent id, short": tensor(b"(" + text("storage") + b"tQ"),
        "quantised": tensor(persistent("QInt8Storage")),
        "one storage of two sizes": b"\x80\x02(" + persistent() + persistent("DoubleStorage") + b"t.",
        "booleans of 63": tensor(persistent("BoolStorage", count=b"K\x10")),
        "storage as the result": b"\x80\x02" + persistent() + b".",
    }


FOUR = np.arange(4, dtype=np.float32).tobytes()


@pytest.mark.parametrize("form", [archive, legacy], ids=["zip", "legacy"])
def test_nothing_is_run(form, tmp_path):
    sentinel = tmp_path / "was_run"
    path = tmp_path / "model.pt"
    for name, content in attacks(str(sentinel)).items():
        path.write_bytes(form(content))
        error = refused(path, tmp_path)
        assert not sentinel.exists() and "antigravity" not in sys.modules, name
        assert error.exit_code == 1


def test_the_attacks_are_real(tmp_path):
    """The same pickles do run when the standard library reads them: the test above can fail."""
    sentinel = tmp_path / "was_run"
    content = attacks(str(sentinel))
    for name in ("os.system", "eval", "exec", "STACK_GLOBAL", "INST", "OBJ", "GLOBAL posix.system"):
        pickle.loads(content[name])
        assert sentinel.exists(), name
        sentinel.unlink()


@pytest.mark.parametrize("name", bombs())
def test_bombs(name, tmp_path):
    (tmp_path / "model.pt").write_bytes(archive(bombs()[name]))
    refused(tmp_path / "model.pt", tmp_path)


def test_memo_index_costs_nothing(tmp_path):
    """A memo slot of 2**32 - 1 is only a number; the standard library's reader would make room for all of them."""
    path = tmp_path / "model.pt"
    path.write_bytes(archive(b"\x80\x02]r\xff\xff\xff\xff."))
    tracemalloc.start()
    assert flambeau.load(path) == []
    assert tracemalloc.get_traced_memory()[1] < MEMORY
    tracemalloc.stop()


def test_many_small_objects_are_too_many(tmp_path):
    (tmp_path / "model.pt").write_bytes(archive(b"\x80\x02" + b"]0" * 5_000_000 + b"N."))
    with pytest.raises(CheckpointError, match="more objects"):
        flambeau.load(tmp_path / "model.pt")


@pytest.mark.parametrize("name", lies())
def test_lies_about_tensors(name, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(archive(lies()[name], {"0": b"\x3f" * 16}))
    refused(path, tmp_path)
    path.write_bytes(legacy(lies()[name], pickle.dumps(["0"], 2) + struct.pack("<q", 4) + b"\x3f" * 16))
    if name != "a storage class as the storage":
        refused(path, tmp_path)


def test_the_honest_ones_load(tmp_path):
    """What the lies are variations of is read."""
    path = tmp_path / "model.pt"
    path.write_bytes(archive(tensor(), {"0": FOUR}))
    assert flambeau.load(path).tolist() == [[0, 1], [2, 3]]
    path.write_bytes(legacy(tensor(), pickle.dumps(["0"], 2) + struct.pack("<q", 4) + FOUR))
    assert flambeau.load(path).tolist() == [[0, 1], [2, 3]]
    path.write_bytes(archive(tensor(size=b"K\0K\x05"), {"0": FOUR}))
    assert tuple(flambeau.load(path).shape) == (0, 5)


def test_legacy_storages_that_lie(tmp_path):
    path = tmp_path / "model.pt"
    keys = pickle.dumps(["0"], 2)
    for tail in (
        keys + struct.pack("<q", 5) + FOUR,
        keys + struct.pack("<q", -1) + FOUR,
        keys + struct.pack("<q", 2**62) + FOUR,
        keys + struct.pack("<q", 4) + FOUR[:-1],
        keys + struct.pack("<q", 4) + FOUR + b"more",
        pickle.dumps(["1"], 2) + struct.pack("<q", 4) + FOUR,
        pickle.dumps(["0", "0"], 2) + struct.pack("<q", 4) + FOUR,
        pickle.dumps({}, 2) + struct.pack("<q", 4) + FOUR,
        pickle.dumps([], 2),
        b"",
    ):
        path.write_bytes(legacy(tensor(), tail))
        refused(path, tmp_path)


def patched(content: bytes, mark: bytes, offset: int, value: bytes, last: bool = False) -> bytes:
    place = (content.rfind(mark) if last else content.find(mark)) + offset
    return content[:place] + value + content[place + len(value) :]


def zips() -> dict[str, tuple[bytes, str]]:
    """Archives whose table of contents is wrong or wants too much, and a word of the refusal."""
    good = archive(tensor(), {"0": FOUR})
    found = {}

    def packed(method: int) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as out:
            out.writestr("archive/data.pkl", tensor())
            out.writestr("archive/data/0", bytes(16))
        return file.getvalue()

    found["deflated"] = packed(zipfile.ZIP_DEFLATED), "compressed"
    found["bzip2"] = packed(zipfile.ZIP_BZIP2), "compressed"
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("archive/data.pkl", tensor(persistent(count=whole(10**7)), size=whole(10**7), stride=b"K\x01"))
        out.writestr("archive/data/0", bytes(4 * 10**7))
    found["zip bomb"] = bomb.getvalue(), "compressed"
    for name, path in (
        ("absolute path", "/etc/cron.d/evil"),
        ("parent path", "archive/../../evil"),
        ("back-slashes", "archive\\..\\evil"),
        ("drive", "C:/evil"),
    ):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as out:
            out.writestr("archive/data.pkl", tensor())
            info = zipfile.ZipInfo("x")
            info.filename = path
            out.writestr(info, b"evil")
        found[name] = file.getvalue(), "path"
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as out, pytest.warns(UserWarning):
        out.writestr("archive/data.pkl", tensor())
        out.writestr("archive/data.pkl", b"\x80\x02N.")
    found["the same name twice"] = twice.getvalue(), "twice"
    two = io.BytesIO()
    with zipfile.ZipFile(two, "w") as out:
        out.writestr("one/data.pkl", tensor())
        out.writestr("two/data.pkl", tensor())
    found["two archives"] = two.getvalue(), "two archives"
    central, end = b"PK\1\2", b"PK\5\6"
    huge = struct.pack("<I", 0x7FFFFFFF)
    found |= {
        "size lies in the table": (patched(good, central, 20, huge * 2), "model"),
        "two sizes in the table": (patched(good, central, 24, huge), "two sizes"),
        "size of a storage is bigger": (patched(good, central, 20, struct.pack("<II", 20, 20), True), "model"),
        "place lies in the table": (patched(good, central, 42, huge), "not where"),
        "two entries in one place": (patched(good, central, 42, struct.pack("<I", 0), True), "model"),
        "other name at the place": (patched(good, b"archive/version", 0, b"archive/Version"), "two names"),
        "table of contents elsewhere": (patched(good, end, 16, huge, True), "place"),
        "length of the table lies": (patched(good, end, 12, huge, True), "place"),
        "number of entries lies": (patched(good, end, 8, b"\x09\0\x09\0", True), "entries"),
        "no entries claimed": (patched(good, end, 8, bytes(4), True), "entries"),
        "number of entries differs": (patched(good, end, 10, b"\x09\0", True), "parts"),
        "64-bit table that is not there": (patched(good, end, 8, b"\xff\xff" * 2, True), "64-bit"),
        "comment lies": (patched(good, end, 20, b"\5\0", True), "cut off"),
        "encrypted": (patched(good, central, 8, b"\1\0"), "encrypted"),
        "something before it": (b"#!/bin/sh\n" + good, "model"),
        "something after it": (good + b"evil", "cut off"),
        "byte order of the moon": (archive(tensor(), {"0": FOUR}, byteorder=b"moon"), "byte order"),
        "no data.pkl": (archive(tensor()).replace(b"data.pkl", b"date.pkl"), "no data.pkl"),
        "storage too long": (archive(tensor(), {"0": FOUR * 3}), "should have"),
        "storage too short": (archive(tensor(), {"0": FOUR[:-1]}), "should have"),
        "empty": (b"PK\5\6" + bytes(18), "no data.pkl"),
    }
    return found


@pytest.mark.parametrize("name", zips())
def test_zip_files_that_lie(name, tmp_path):
    content, words = zips()[name]
    (tmp_path / "model.pt").write_bytes(content)
    refused(tmp_path / "model.pt", tmp_path, words)
    assert not Path("/etc/cron.d/evil").exists()


@pytest.fixture(scope="module")
def sound() -> dict[str, bytes]:
    """A file of about 20 KB in each format."""
    tree = {"w": flambeau.arange(4000.0), "b": flambeau.ones(3, 5), "n": [1, 2.5, "text", None], "step": 7}
    file = io.BytesIO()
    flambeau.save(tree, file, format="torch")
    values = np.arange(4000, dtype=np.float32).tobytes()
    old = tensor(persistent(count=b"M" + struct.pack("<H", 4000)), size=b"M\xa0\x0f", stride=b"K\x01")
    return {
        "zip": file.getvalue(),
        "legacy": legacy(old, pickle.dumps(["0"], 2) + struct.pack("<q", 4000) + values),
    }


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_cut_at_every_kilobyte(form, sound, tmp_path):
    content, path = sound[form], tmp_path / "model.pt"
    path.write_bytes(content)
    flambeau.load(path)
    for length in [*range(1024, len(content), 1024), *range(16, 512, 7), *range(len(content) - 300, len(content))]:
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError) as caught:
            flambeau.load(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("form", ["zip", "legacy"])
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_random_bytes_changed(form, sound, data):
    """A changed byte of a tensor is another tensor; anywhere else it is refused or harmless, never another error."""
    content = bytearray(sound[form])
    ends = st.integers(0, 1500) | st.integers(len(content) - 1500, len(content) - 1)
    for position, value in data.draw(st.lists(st.tuples(ends, st.integers(0, 255)), min_size=1, max_size=4)):
        content[position] = value
    try:
        flambeau.load(io.BytesIO(bytes(content)))
    except flambeau.FlambeauError as error:
        assert error.mend


CODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]


PARTS = [b"cos\nsystem\n", b"ccollections\nOrderedDict\n", b"K\x01", text("a"), persistent(), b"(", b")", b"e", b"u"]


@settings(max_examples=500, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(CODES) | st.binary(max_size=4) | st.sampled_from(PARTS),
        max_size=40,
    )
)
def test_random_byte_code(parts):
    try:
        flambeau.load(io.BytesIO(archive(b"\x80\x02" + b"".join(parts) + b".", {"0": FOUR})))
    except CheckpointError:
        pass
