"""Atomic writing: all or nothing, umask, links, devices, and clear errors."""

from __future__ import annotations

import os
import stat

import pytest

from flambeau.errors import FlambeauError
from flambeau.io import atomic_write


def test_writes_text_and_bytes(tmp_path):
    with atomic_write(tmp_path / "a.txt", "w") as file:
        file.write("é")
    with atomic_write(tmp_path / "b.bin") as file:
        file.write(b"\0\1")
    assert (tmp_path / "a.txt").read_bytes() == "é".encode() and (tmp_path / "b.bin").read_bytes() == b"\0\1"
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.bin"]


def test_an_error_in_the_block_keeps_the_old_file_and_leaves_nothing(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyError), atomic_write(target, "w") as file:
        file.write("new")
        raise KeyError("mine")
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_an_os_error_of_the_block_passes_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a"):
        (tmp_path / "missing").read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path, mask):
    old = os.umask(mask)
    try:
        with atomic_write(tmp_path / "a") as file:
            file.write(b"x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with atomic_write(tmp_path / "link", "w") as file:
        file.write("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


@pytest.mark.skipif(os.name != "posix", reason="devices")
def test_a_device_is_written_not_replaced():
    with atomic_write("/dev/null") as file:
        file.write(b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_clear_errors(tmp_path):
    (tmp_path / "file").write_text("")
    cases = {
        tmp_path / "no" / "a": "does not exist",
        tmp_path: "it is a folder",
        tmp_path / "file" / "a": "not a folder",
        tmp_path / ("n" * 300): "too long",
    }
    for path, words in cases.items():
        with pytest.raises(FlambeauError, match=words) as caught, atomic_write(path):
            pytest.fail("the block must not run")
        assert caught.value.mend


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(FlambeauError, match="permission denied"), atomic_write(tmp_path / "a"):
            pass
    finally:
        tmp_path.chmod(0o700)


def test_a_bad_mode_is_refused(tmp_path):
    with pytest.raises(ValueError, match="mode"), atomic_write(tmp_path / "a", "a"):
        pass
