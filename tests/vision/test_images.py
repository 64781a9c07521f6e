"""Reading pictures of every kind, and refusing what is not one."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flambeau.errors import FlambeauError
from flambeau_vision.images import find_images, load_image, load_mask, save_image, save_png


@pytest.fixture
def photo():
    ys, xs = np.mgrid[:24, :32]
    return np.stack([ys * 8, xs * 6, (ys + xs) * 3], axis=-1).astype(np.uint8)


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_path_bytes_and_stream_agree(photo, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    data = path.read_bytes()
    for source in (path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data), path.open("rb")):
        out = load_image(source)
        assert out.dtype == np.uint8
        np.testing.assert_array_equal(out, photo)


MODES = {
    "PNG": ["L", "1", "P", "RGBA", "LA", "I;16"],
    "TIFF": ["L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr", "I;16", "LAB"],
    "JPEG": ["L", "CMYK", "YCbCr"],
    "GIF": ["L", "1", "P", "RGBA", "LA"],
    "WEBP": ["L", "P", "RGBA", "LA"],
}


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in MODES.items() for mode in modes])
def test_every_mode_becomes_rgb(photo, kind, mode):
    steps = {"LA": ("L", "LA"), "I;16": ("L", "I", "I;16")}.get(mode, (mode,))
    image = Image.fromarray(photo)
    for step in steps:
        image = image.convert(step)
    data = encoded(image, kind)
    out = load_image(data)
    assert out.shape == photo.shape
    assert out.dtype == np.uint8
    grey = photo.astype(float) @ [0.299, 0.587, 0.114]
    tolerance = {"CMYK": 30, "LAB": 30}.get(mode, 16)
    assert np.abs(out.astype(float).mean() - grey.mean()) < tolerance


def test_transparent_pixels_lie_on_white():
    rgba = np.zeros((2, 2, 4), dtype=np.uint8)
    rgba[0, 0] = (255, 0, 0, 255)
    rgba[0, 1] = (0, 0, 0, 128)
    out = load_image(encoded(Image.fromarray(rgba)))
    assert out[0, 0].tolist() == [255, 0, 0]
    assert out[1, 1].tolist() == [255, 255, 255]
    assert abs(int(out[0, 1, 0]) - 127) <= 1


def test_a_transparent_palette_colour_is_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    out = load_image(encoded(image, transparency=0))
    assert out[0].tolist() == [[255, 255, 255], [200, 100, 50]]


@pytest.mark.parametrize(("top", "depth"), [(65535, 65535), (4095, 4095), (1000, 1023), (200, 255)])
def test_sixteen_bit_pictures_are_scaled_by_the_bits_they_use(top, depth):
    grey = np.linspace(0, top, 100).astype(np.uint16).reshape(10, 10)
    out = load_image(encoded(Image.fromarray(grey)))
    np.testing.assert_allclose(out[..., 0], grey * (255 / depth), atol=1)
    assert (out[..., 0] == out[..., 2]).all()


def test_float_pictures():
    unit = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    np.testing.assert_array_equal(load_image(encoded(Image.fromarray(unit), "TIFF"))[..., 0], np.rint(unit * 255))
    wide = unit * 1000 - 400
    wide[0, 0] = np.nan
    out = load_image(encoded(Image.fromarray(wide), "TIFF"))
    assert out.max() == 255
    assert out.min() == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(photo, orientation):
    turned = {
        1: photo,
        2: photo[:, ::-1],
        3: photo[::-1, ::-1],
        4: photo[::-1],
        5: photo.transpose(1, 0, 2),
        6: np.rot90(photo, 1),
        7: photo[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(photo, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(turned)), exif=exif)
    np.testing.assert_array_equal(load_image(data), photo)


def test_broken_exif_is_ignored(photo):
    data = encoded(Image.fromarray(photo), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    np.testing.assert_array_equal(load_image(data), photo)


def test_an_animation_gives_its_first_frame(photo):
    frames = [Image.fromarray(photo), Image.fromarray(255 - photo)]
    data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(load_image(data), photo)


def png(width, height, raw=b""):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def bad_inputs(folder):
    good = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)), "JPEG")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "cut.jpg").write_bytes(good[: len(good) // 2])
    (folder / "text.jpg").write_text("no picture here\n")
    (folder / "bomb.png").write_bytes(png(50_000, 50_000))
    (folder / "lying.png").write_bytes(png(64, 64, b"too short"))
    (folder / "folder.jpg").mkdir()
    return {
        "missing.jpg": "no such file",
        "empty.jpg": "empty",
        "cut.jpg": "truncated",
        "text.jpg": "not a picture",
        "bomb.png": "million pixels",
        "lying.png": "truncated or broken",
        "folder.jpg": "folder",
    }


def test_bad_files_have_a_cause_and_a_mend(tmp_path):
    for name, cause in bad_inputs(tmp_path).items():
        with pytest.raises(FlambeauError, match=cause) as caught:
            load_image(tmp_path / name)
        assert name in caught.value.cause
        assert "\n" not in caught.value.cause + caught.value.mend
        assert caught.value.mend


def test_no_read_permission(tmp_path, photo):
    path = tmp_path / "secret.png"
    save_png(path, photo)
    path.chmod(0)
    if _readable(path):
        pytest.skip("this user reads everything")
    with pytest.raises(FlambeauError, match="cannot read"):
        load_image(path)


def _readable(path):
    try:
        return bool(path.read_bytes())
    except PermissionError:
        return False


def test_the_pixel_limit_is_an_argument(photo):
    data = encoded(Image.fromarray(photo))
    assert load_image(data, max_pixels=photo.shape[0] * photo.shape[1]).shape == photo.shape
    with pytest.raises(FlambeauError, match="pixels"):
        load_image(data, max_pixels=photo.shape[0] * photo.shape[1] - 1)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_never_raise_anything_else(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    image = Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))
    raw = bytearray(encoded(image, data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"]))))
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))]
    try:
        out = load_image(bytes(raw), max_pixels=1_000_000)
    except FlambeauError as error:
        assert error.mend
    else:
        assert out.ndim == 3
        assert out.shape[2] == 3


def test_masks_keep_their_indices(tmp_path):
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
    palette = np.random.default_rng(0).integers(0, 255, (12, 3), dtype=np.uint8)
    save_png(tmp_path / "mask.png", mask, palette)
    np.testing.assert_array_equal(load_mask(tmp_path / "mask.png"), mask)
    np.testing.assert_array_equal(load_image(tmp_path / "mask.png"), palette[mask])
    save_png(tmp_path / "grey.png", mask)
    np.testing.assert_array_equal(load_mask(tmp_path / "grey.png"), mask)
    wide = (mask.astype(np.uint16) * 1000).astype(np.uint16)
    out = load_mask(encoded(Image.fromarray(wide)))
    assert out.dtype == np.int32
    np.testing.assert_array_equal(out, wide)


def test_a_colour_picture_is_no_mask(photo):
    with pytest.raises(FlambeauError, match="class index"):
        load_mask(encoded(Image.fromarray(photo)))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_saving_replaces_whole_files_only(tmp_path, photo, suffix):
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"old")
    save_image(path, Image.fromarray(photo))
    assert load_image(path).shape == photo.shape
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["nowhere/out.png", "out.txt", "out"])
def test_saving_where_it_cannot_be(tmp_path, photo, name):
    with pytest.raises(FlambeauError) as caught:
        save_png(tmp_path / name, photo)
    assert caught.value.mend
    assert list(tmp_path.iterdir()) == []


def test_find_images(tmp_path, photo):
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).write_bytes(encoded(Image.fromarray(photo)))
    (tmp_path / "inner.png").mkdir()
    assert [path.name for path in find_images(tmp_path)] == ["a.JPG", "b.png"]
    with pytest.raises(FlambeauError, match="no pictures"):
        find_images(tmp_path / "inner.png")
