"""``flambeau-segment``: what it prints and writes, and every way in which a photo or an option can be wrong."""

import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import flambeau_segment.run as application
from flambeau.cli import run
from flambeau_segment.cli import command
from flambeau_vision.draw import STREET_CLASSES, STREET_PALETTE
from flambeau_vision.images import load_image, load_mask

SAMPLE = application.DATA / "sample.jpg"


@pytest.fixture
def app(tmp_path, monkeypatch, capfd):
    """Runs the command in an empty folder; gives exit code, stdout and stderr."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def call(*arguments):
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(command, [str(argument) for argument in arguments], prog_name="flambeau-segment")
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return ended.value.code, out, err

    return call


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """The sample photo, small, in every format and mode that people have."""
    folder = tmp_path_factory.mktemp("photos")
    image = Image.open(SAMPLE).convert("RGB").resize((240, 136))
    image.save(folder / "rgb.jpg", quality=95)
    alpha = image.copy()
    alpha.putalpha(255)
    alpha.save(folder / "rgba.png")
    image.convert("P").save(folder / "palette.gif")
    image.convert("L").save(folder / "grey.png")
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(folder / "sixteen.png")
    image.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    image.convert("1").save(folder / "bits.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", quality=95, exif=exif)
    return folder


def png(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture
def bad(tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    content = SAMPLE.read_bytes()
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    (folder / "text.jpg").write_text("these are words")
    (folder / "bomb.png").write_bytes(png(60_000, 60_000))
    return folder


def two_lines(err, times=1):
    """Whether stderr is pairs of one line of cause and one of mend."""
    lines = err.splitlines()
    return len(lines) == 2 * times and all(
        line.startswith("error: ") if number % 2 == 0 else line.startswith("  mend: ")
        for number, line in enumerate(lines)
    )


def test_the_sample_photo(app):
    code, out, err = app(SAMPLE, "-o", "seen.png", "--mask", "classes.png")
    assert (code, err) == (0, "")
    photo = load_image(SAMPLE)
    height, width = photo.shape[:2]
    mask = load_mask("classes.png")
    assert mask.shape == (height, width)
    np.testing.assert_array_equal(load_image("classes.png"), STREET_PALETTE[mask])
    seen = load_image("seen.png")
    assert seen.shape[0] == height
    assert seen.shape[1] > width
    lines = out.splitlines()
    assert lines[0].endswith(f"{width} x {height}")
    rows = [line.split() for line in lines[1:-2]]
    shares = [float(row[row.index("%") - 1].replace("<", "")) for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.6)
    assert sorted(p.name for p in Path.cwd().iterdir()) == ["classes.png", "seen.png"]


#: What a person sees at (x, y) of the photos that ship.
SEEN = {
    "sample.jpg": {(480, 60): "sky", (480, 460): "road", (847, 200): "tree", (165, 322): "car", (245, 322): "car"},
    "street.jpg": {(450, 90): "sky", (300, 450): "road", (610, 190): "building", (70, 120): "building"},
}


def test_the_samples_are_seen_as_a_person_sees_them(app):
    code, out, err = app("--sample", "--json", "-o", "seen/", "--mask", "masks/")
    assert (code, err) == (0, "")
    names = {entry["index"]: entry["name"] for line in out.splitlines() for entry in json.loads(line)["classes"]}
    for photo, points in SEEN.items():
        assert (Path("seen") / photo.replace(".jpg", "_segmented.png")).is_file()
        mask = load_mask(Path("masks") / photo.replace(".jpg", "_mask.png"))
        assert {point: names[int(mask[point[1], point[0]])] for point in points} == points


def test_json_is_one_object_a_photo(app, photos):
    code, out, err = app(photos / "rgb.jpg", photos / "grey.png", "--json")
    assert (code, err) == (0, "")
    records = [json.loads(line) for line in out.splitlines()]
    assert [Path(record["input"]).name for record in records] == ["rgb.jpg", "grey.png"]
    for record in records:
        assert set(record) == {"input", "width", "height", "classes", "overlay", "mask", "seconds"}
        assert (record["width"], record["height"]) == (240, 136)
        assert Path(record["overlay"]).is_file()
        assert record["mask"] is None
        assert record["seconds"] > 0
        assert sum(entry["pixels"] for entry in record["classes"]) == 240 * 136
        assert sum(entry["share"] for entry in record["classes"]) == pytest.approx(1, abs=1e-4)
        for entry in record["classes"]:
            assert set(entry) == {"index", "name", "pixels", "share"}
            assert STREET_CLASSES[entry["index"]] == entry["name"]


def test_every_kind_of_photo(app, photos):
    code, out, err = app(photos, "--json", "-o", "out")
    assert (code, err) == (0, "")
    records = {Path(record["input"]).name: record for record in map(json.loads, out.splitlines())}
    assert len(records) == 8
    assert all((record["width"], record["height"]) == (240, 136) for record in records.values())
    assert len(list(Path("out").iterdir())) == 8
    road = {name: sum(c["share"] for c in r["classes"] if c["name"] == "road") for name, r in records.items()}
    for name in ("rgba.png", "cmyk.jpg", "turned.jpg"):
        assert road[name] == pytest.approx(road["rgb.jpg"], abs=0.08), name


@pytest.mark.parametrize("size", [(1, 1), (2, 700), (700, 2), (2400, 1600)])
def test_any_size(app, tmp_path, size):
    Image.open(SAMPLE).resize(size).save(tmp_path / "photo.png")
    code, _, err = app(tmp_path / "photo.png", "--mask", "mask.png")
    assert (code, err) == (0, "")
    with Image.open("mask.png") as mask, Image.open("photo_segmented.png") as overlay:
        assert mask.size == size
        assert overlay.size[0] >= size[0]
        assert overlay.size[1] >= size[1]


def test_names_of_results(app, photos, tmp_path):
    assert app(photos / "rgb.jpg")[0] == 0
    assert [path.name for path in Path.cwd().iterdir()] == ["rgb_segmented.png"]
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(photos / "grey.png", other / "rgb.jpg")
    assert app(photos / "rgb.jpg", other / "rgb.jpg", "-o", "both", "--mask", "both")[0] == 0
    assert sorted(path.name for path in Path("both").iterdir()) == [
        "rgb_mask.png",
        "rgb_mask_2.png",
        "rgb_segmented.png",
        "rgb_segmented_2.png",
    ]
    assert app(photos / "rgb.jpg", "-o", "a.jpg")[0] == 0
    with Image.open("a.jpg") as image:
        assert image.format == "JPEG"
    Path("folder").mkdir()
    assert app(photos / "rgb.jpg", "-o", "folder")[0] == 0
    assert app(photos / "rgb.jpg", "-o", "fresh/")[0] == 0
    assert Path("folder/rgb_segmented.png").is_file()
    assert Path("fresh/rgb_segmented.png").is_file()


def test_a_folder_is_not_segmented_twice(app, photos):
    shutil.copy(photos / "rgb.jpg", "street.jpg")
    for _ in range(2):
        code, out, _ = app(".", "--json", "--mask", ".")
        assert code == 0
        assert len(out.splitlines()) == 1
    assert sorted(path.name for path in Path.cwd().iterdir()) == [
        "street.jpg",
        "street_mask.png",
        "street_segmented.png",
    ]


def test_a_photo_is_never_overwritten(app, photos):
    shutil.copy(photos / "rgba.png", "photo.png")
    os.link("photo.png", "link.png")
    before = Path("photo.png").read_bytes()
    for arguments in (("-o", "photo.png"), ("--no-overlay", "--mask", "link.png"), ("-o", "./photo.png")):
        code, out, err = app("photo.png", *arguments)
        assert code == 1
        assert out == ""
        assert two_lines(err)
        assert "overwrite" in err
    assert Path("photo.png").read_bytes() == before


def test_looks(app, photos):
    code, _, _ = app(photos / "rgb.jpg", "-o", "plain.png", "--no-legend", "--alpha", "0")
    assert code == 0
    with Image.open("plain.png") as plain:
        assert plain.size == (240, 136)
    app(photos / "rgb.jpg", "-o", "strong.png", "--no-legend", "--alpha", "1", "--mask", "mask.png")
    strong, colours = load_image("strong.png"), STREET_PALETTE[load_mask("mask.png")]
    assert (strong == colours).all(-1).mean() > 0.8


def test_the_same_photo_gives_the_same_bytes(app, photos):
    results = []
    for name in ("a.png", "b.png"):
        app(photos / "rgb.jpg", "-o", name, "--mask", f"mask_{name}")
        results.append(Path(name).read_bytes() + Path(f"mask_{name}").read_bytes())
    assert results[0] == results[1]


def test_standard_input(tmp_path, photos):
    done = subprocess.run(
        [sys.executable, "-m", "flambeau_segment", "-", "--json"],
        input=(photos / "rgb.jpg").read_bytes(),
        capture_output=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    record = json.loads(done.stdout)
    assert record["input"] == "-"
    assert (tmp_path / "stdin_segmented.png").is_file()
    done = subprocess.run(
        [sys.executable, "-m", "flambeau", "segment", "-"], input=b"", capture_output=True, cwd=tmp_path, text=False
    )
    assert done.returncode == 1
    assert two_lines(done.stderr.decode())
    assert "empty" in done.stderr.decode()


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("missing.jpg", "no such file"),
        ("empty.jpg", "empty"),
        ("cut.jpg", "truncated"),
        ("text.jpg", "not a picture"),
        ("bomb.png", "million pixels"),
    ],
)
def test_bad_photos(app, bad, name, cause):
    code, out, err = app(bad / name, "-o", "out.png", "--mask", "mask.png")
    assert (code, out) == (1, "")
    assert two_lines(err)
    assert cause in err
    assert name in err
    assert list(Path.cwd().iterdir()) == []


def test_the_other_photos_are_still_done(app, bad, photos):
    code, out, err = app(photos / "rgb.jpg", bad, photos / "grey.png", bad / "missing.jpg", "-o", "out")
    assert code == 1
    assert two_lines(err, times=5)
    assert sorted(path.name for path in Path("out").iterdir()) == ["grey_segmented.png", "rgb_segmented.png"]
    assert out.count("240 x 136") == 2
    code, out, _ = app(bad / "cut.jpg", photos / "rgb.jpg", "--json")
    assert code == 1
    first, second = map(json.loads, out.splitlines())
    assert set(first) == {"input", "error", "mend"}
    assert second["width"] == 240


def test_a_folder_without_photos(app, tmp_path):
    (tmp_path / "nothing").mkdir()
    code, out, err = app(tmp_path / "nothing")
    assert (code, out) == (1, "")
    assert two_lines(err)


@pytest.mark.parametrize(
    "arguments",
    [
        ("-o", "nowhere/out.png"),
        ("-o", "out.xyz"),
        ("-o", "file/out.png"),
        ("--no-overlay", "--mask", "mask.jpg"),
        ("--no-overlay", "--mask", "nowhere/mask.png"),
        ("-o", "x" * 300 + ".png"),
    ],
)
def test_outputs_that_cannot_be_written(app, photos, arguments):
    Path("file").write_text("")
    code, out, err = app(photos / "rgb.jpg", *arguments)
    assert (code, out) == (1, "")
    assert two_lines(err)
    assert [path.name for path in Path.cwd().iterdir()] == ["file"]


def test_several_results_need_a_folder(app, photos):
    Path("file.png").write_text("mine")
    code, _, err = app(photos / "rgb.jpg", photos / "grey.png", "-o", "file.png")
    assert code == 1
    assert two_lines(err, times=2)
    assert Path("file.png").read_text() == "mine"


def test_a_read_only_folder(app, photos, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("this user writes everywhere")
    code, _, err = app(photos / "rgb.jpg", "-o", folder / "out.png")
    assert code == 1
    assert two_lines(err)


@pytest.mark.parametrize(
    "arguments",
    [(), ("--colour", "red"), ("--alpha", "2"), ("--alpha", "much"), ("x.jpg", "-o", "-"), ("x.jpg", "-o")],
)
def test_wrong_usage(app, arguments):
    code, out, err = app(*arguments)
    assert code == 2
    assert err
    assert "error" in err or "Usage" in err or "Usage" in out


def test_unknown_models(app, photos, tmp_path):
    for model in ("vision/dilated_fpm", "nowhere.safetensors", str(tmp_path), "vision/resnet18"):
        code, out, err = app(photos / "rgb.jpg", "--model", model)
        assert (code, out) in ((1, ""), (2, ""))
        assert two_lines(err), err
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "header", "empty", "text", "nan", "shape"])
def test_corrupt_weights(app, photos, tmp_path, damage):
    content = (application.DATA / "model.safetensors").read_bytes()
    path = tmp_path / "weights.safetensors"
    if damage == "nan":
        content = content[:-2000] + b"\xff\x7f" * 1000
    elif damage == "shape":
        whole, content = content, content.replace(b'\\"num_classes\\": 11', b'\\"num_classes\\": 12')
        assert content != whole
    else:
        content = {
            "cut": content[:-500],
            "header": b"\xff" * 8 + content[8:],
            "empty": b"",
            "text": b"no weights " * 9,
        }[damage]
    path.write_bytes(content)
    code, out, err = app(photos / "rgb.jpg", "--model", path)
    assert (code, out) == (1, "")
    assert two_lines(err), err
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("damage", ["flip", "missing", "no digest"])
def test_damaged_shipped_weights(app, photos, tmp_path, monkeypatch, damage):
    data = tmp_path / "data"
    shutil.copytree(application.DATA, data)
    monkeypatch.setattr(application, "DATA", data)
    weights = data / "model.safetensors"
    if damage == "flip":
        content = bytearray(weights.read_bytes())
        content[-100] ^= 1
        weights.write_bytes(content)
    else:
        (weights if damage == "missing" else data / "model.safetensors.sha256").unlink()
    code, out, err = app(photos / "rgb.jpg")
    assert (code, out) == (1, "")
    assert two_lines(err)
    assert "pip install" in err


def test_another_model_by_path_and_by_name(app, photos):
    default = app(photos / "rgb.jpg", "--json")[1]
    for model in (application.DATA / "model.safetensors", "vision/dilated_fpn", "dilated_fpn"):
        code, out, _ = app(photos / "rgb.jpg", "--json", "--model", model)
        assert code == 0
        assert json.loads(out)["classes"] == json.loads(default)["classes"]


def test_help_imports_nothing_heavy():
    code = (
        "import sys, runpy; sys.argv = ['flambeau-segment', '--help']\n"
        "try: runpy.run_module('flambeau_segment')\n"
        "except SystemExit as end: assert end.code in (0, None), end.code\n"
        "print(sorted({'numpy', 'PIL', 'flambeau_vision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
    assert "PHOTO" in done.stdout


def test_the_shipped_files():
    weights = application.DATA / "model.safetensors"
    assert weights.stat().st_size <= 4_000_000
    for name in application.SAMPLES:
        assert (application.DATA / name).stat().st_size < 300_000
    assert application.shipped_weights() == str(weights)
    with Image.open(io.BytesIO(SAMPLE.read_bytes())) as image:
        assert image.width <= 960
    card = (application.DATA / "model_card.md").read_text(encoding="utf-8")
    for word in ("CamVid", "licence", "seed", "mean IoU", "flambeau train"):
        assert word in card


@pytest.mark.slow
def test_the_cards_figure_is_what_evaluate_prints(real_data):
    folder = real_data("02_semantic_segmentation/camvid_240x180/test.zip").parent
    done = subprocess.run(
        [sys.executable, "-m", "flambeau", "evaluate", "vision/dilated_fpn", "--data", str(folder), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    scores = json.loads(done.stdout)
    assert scores["images"] == 233
    assert scores["mean_iou"] >= 0.55
    card = (application.DATA / "model_card.md").read_text(encoding="utf-8")
    printed = re.search(r"\*\*mean IoU\*\* \| \*\*([\d.]+)\*\*", card)
    assert scores["mean_iou"] == pytest.approx(float(printed[1]), abs=2e-4)  # other CPUs round otherwise
    for name, value in scores["iou"].items():
        assert value == pytest.approx(float(re.search(rf"\| {name} \| ([\d.]+) \|", card)[1]), abs=2e-3)
