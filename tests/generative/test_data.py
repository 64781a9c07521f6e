"""Reading pictures and writing grids."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from flambeau.errors import FlambeauError, UsageError
from flambeau_generative.data import FixedNoise, Images, read_csv, read_idx, read_images
from flambeau_generative.grid import make_grid, save_grid

from .conftest import bars, write_idx


@given(pixels=arrays(np.uint8, st.tuples(*[st.integers(1, 5)] * 3)), packed=st.booleans())
def test_idx_files_come_back(tmp_path_factory, pixels, packed):
    path = tmp_path_factory.mktemp("idx") / ("a-images-idx3-ubyte" + ".gz" * packed)
    assert np.array_equal(read_idx(write_idx(path, pixels)), pixels)


@given(data=st.binary(max_size=60), packed=st.booleans())
def test_what_is_no_idx_file_is_refused(tmp_path_factory, data, packed):
    path = tmp_path_factory.mktemp("idx") / ("a.gz" if packed else "a")
    path.write_bytes(data)
    with pytest.raises(FlambeauError, match="not a whole idx file"):
        read_idx(path)


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"0", lambda d: b"\1" + d[1:]])
def test_damaged_idx_files(tmp_path, change):
    data = struct.pack(">IIII", 0x803, *bars().shape) + bars().tobytes()
    (tmp_path / "a").write_bytes(change(data))
    with pytest.raises(FlambeauError, match="not a whole idx file"):
        read_idx(tmp_path / "a")
    (tmp_path / "b.gz").write_bytes(gzip.compress(data)[:-20])
    with pytest.raises(FlambeauError, match="not a whole idx file"):
        read_idx(tmp_path / "b.gz")


def test_a_single_file_is_divided(tmp_path):
    pixels = bars(23)
    write_idx(tmp_path / "t10k-images-idx3-ubyte", pixels)
    train, test = (read_images(tmp_path, split).pixels for split in ("train", "test"))
    assert np.array_equal(test[:, 0], pixels[4::5])
    assert len(train) + len(test) == 23
    assert train.shape[1:] == (1, 8, 8)


def test_two_files_are_taken_as_named(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", bars(7))
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", bars(3))
    assert [len(read_images(tmp_path, split)) for split in ("train", "test")] == [7, 3]
    write_idx(tmp_path / "t10k-images-idx3-ubyte", bars(3))
    with pytest.raises(FlambeauError, match="both the test split"):
        read_images(tmp_path)


def write_table(path, pixels, label=True):
    names = ["label"] * label + [f"pixel{number}" for number in range(pixels[0].size)]
    lines = [",".join(names)]
    lines += [",".join(map(str, [9] * label + image.reshape(-1).tolist())) for image in pixels]
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize("label", [True, False])
def test_tables_of_pixels(tmp_path, name, label):
    assert np.array_equal(read_csv(write_table(tmp_path / name, bars(4), label)), bars(4))
    assert len(read_images(tmp_path / name)) == 4


@pytest.mark.parametrize(
    "text",
    ["", "label,p\n", "label,p\n1,300\n", "label,p\n1,-1\n", "label,p\n1,x\n", "label,p,q\n1,2,3\n", "label,p\n1,2,3\n",
     "label,p\n1,2\n1\n", "label\n1\n", "label,p\n1,99999999\n", "label,p\n\xff\xfe"],
)  # fmt: skip
def test_damaged_tables(tmp_path, text):
    (tmp_path / "a.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(FlambeauError, match="not a table of pixels"):
        read_csv(tmp_path / "a.csv")


def test_a_folder_of_pictures_of_any_kind(tmp_path):
    (tmp_path / "deep").mkdir()
    Image.new("RGB", (40, 20), (255, 0, 0)).save(tmp_path / "a.jpg")
    Image.new("RGBA", (9, 30), (0, 0, 0, 0)).save(tmp_path / "deep" / "b.png")
    Image.new("L", (5, 5), 7).save(tmp_path / "c.bmp")
    Image.fromarray(np.full((6, 6), 200 * 256, np.uint16)).save(tmp_path / "d.png")
    pixels = read_images(tmp_path, "train", size=8).pixels
    assert pixels.shape == (4, 3, 8, 8)
    assert pixels[0, 0].min() > 250
    assert pixels[0, 1].max() < 5
    assert (pixels[1] == 7).all()
    assert (pixels[2] == 200).all()
    assert (pixels[3] == 255).all()  # transparent: the paper is white
    assert read_images(tmp_path, "train").pixels.shape[2:] == (32, 32)
    assert read_images(tmp_path, "train", channels=1).pixels.shape[1] == 1


def test_equal_grey_squares_keep_their_size(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for number in range(2):
            Image.fromarray(bars(2)[number]).save(tmp_path / split / f"{number}.png")
    assert np.array_equal(read_images(tmp_path, "test").pixels[:, 0], bars(2))
    assert read_images(tmp_path, "test", size=16, channels=3).pixels.shape == (2, 3, 16, 16)


def test_bad_folders(tmp_path):
    with pytest.raises(FlambeauError, match="no such file"):
        read_images(tmp_path / "nowhere")
    with pytest.raises(FlambeauError, match="no pictures"):
        read_images(tmp_path)
    with pytest.raises(UsageError, match="no split"):
        read_images(tmp_path, "val")
    with pytest.raises(UsageError, match="channels"):
        read_images(tmp_path, channels=2)
    (tmp_path / "text.txt").write_text("nothing")
    with pytest.raises(FlambeauError, match="neither an idx nor a csv"):
        read_images(tmp_path / "text.txt")
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(FlambeauError, match="test split has no pictures"):
        read_images(tmp_path, "test")
    (tmp_path / "b.png").write_bytes(b"nothing")
    with pytest.raises(FlambeauError, match=r"b\.png: not a picture"):
        read_images(tmp_path)
    Image.effect_noise((40, 40), 50).save(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:700])
    with pytest.raises(FlambeauError, match=r"b\.png: broken picture"):
        read_images(tmp_path)


def test_fixed_noise_belongs_to_the_picture():
    images = Images(bars(6)[:, None])
    first, second = (FixedNoise(images, lambda rng, index, image: (rng.normal(), index, image.shape)) for _ in range(2))
    assert first[3][1:] == second[3][1:]
    assert first[3][1] != first[4][1]
    assert first[3][2:] == (3, (1, 8, 8))
    other = FixedNoise(images, first.draw, seed=1)
    assert other[3][1] != first[3][1]


def test_real_data(mnist_folder, fashion_folder):
    assert read_images(mnist_folder, "train").pixels.shape == (8000, 1, 28, 28)
    assert read_images(mnist_folder, "test", size=32).pixels.shape == (2000, 1, 32, 32)
    assert len(read_images(fashion_folder, "train")) + len(read_images(fashion_folder, "test")) == 1000


@given(count=st.integers(1, 9), columns=st.integers(1, 12), scale=st.integers(1, 3), channels=st.sampled_from([1, 3]))
def test_every_picture_has_its_place_in_the_grid(count, columns, scale, channels):
    images = np.random.default_rng(0).random((count, channels, 3, 3))
    grid = make_grid(images, columns, padding=1, scale=scale).reshape(
        -1, min(columns, count) * (3 * scale + 1) + 1, channels
    )
    assert grid.shape[0] == -(-count // min(columns, count)) * (3 * scale + 1) + 1
    row, column = divmod(count - 1, min(columns, count))
    top, left = (1 + place * (3 * scale + 1) for place in (row, column))
    last = grid[top : top + 3 * scale : scale, left : left + 3 * scale : scale]
    assert np.array_equal(last, np.round(images[-1].transpose(1, 2, 0) * 255).astype(np.uint8))


def test_grids_are_refused_or_written_whole(tmp_path):
    with pytest.raises(ValueError, match="needs pictures"):
        make_grid(np.zeros((3, 2, 4, 4)))
    with pytest.raises(FlambeauError, match="folder does not exist"):
        save_grid(tmp_path / "nowhere" / "a.png", np.zeros((3, 1, 4, 4)))
    save_grid(tmp_path / "a.png", np.linspace(-1, 2, 48).reshape(3, 1, 4, 4), scale=2)
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (22, 22)
        assert image.mode == "L"
