"""``flambeau train``, ``evaluate`` and ``predict`` on pictures, as a person types them."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from .test_models import TINY, write_blobs, write_street


def flambeau(folder, *arguments, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "flambeau", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path)
    return path


def test_a_segmenter_from_training_to_prediction(tmp_path, photo):
    data = tmp_path / "data"
    data.mkdir()
    write_street(data)
    options = ["--set", f"model={json.dumps(TINY)}", "--set", "crop=32,32", "--set", "late_crop=40,40"]
    out, err = flambeau(
        tmp_path, "train", "dilated_fpn", "--data", data, "--epochs", 2, "--output", "run", "--json", *options
    )
    scores = json.loads(out)
    assert set(scores) == {"mean_iou", "pixel_accuracy", "iou"}
    assert "epoch 2/2" in err
    assert {"curve.png", "history.csv", "model.safetensors"} <= {path.name for path in (tmp_path / "run").iterdir()}

    out, _ = flambeau(tmp_path, "evaluate", "run", "--data", data, "--split", "val", "--json")
    assert json.loads(out)["mean_iou"] == pytest.approx(scores["mean_iou"])

    out, err = flambeau(tmp_path, "predict", "run", photo, "nowhere.png", "-o", "seen", "--jsonl", code=1)
    first, second = map(json.loads, out.splitlines())
    assert (tmp_path / first["path"]).is_file()
    assert sum(first["output"].values()) == pytest.approx(1, abs=0.01)
    assert second["error"] == "no such file"
    assert err.splitlines()[0] == "error: nowhere.png: no such file"

    _, err = flambeau(tmp_path, "train", "dilated_fpn", "--data", data, "--set", "crops=32,32", code=2)
    assert "did you mean 'crop'" in err
    _, err = flambeau(tmp_path, "train", "dilated_fpn", "--data", tmp_path, "--output", "other", code=1)
    assert "train.zip" in err
    assert not (tmp_path / "other").exists()


def test_a_classifier_from_training_to_prediction(tmp_path, photo):
    data = tmp_path / "data"
    data.mkdir()
    write_blobs(data)
    options = ["--set", 'model={"widths": [4, 6, 8], "layers": [1, 1, 1]}', "--batch-size", 4]
    out, _ = flambeau(
        tmp_path, "train", "resnet20", "--data", data, "--epochs", 1, "--output", "run", "--json", *options
    )
    out2, _ = flambeau(tmp_path, "evaluate", "run", "--data", data, "--json")
    assert json.loads(out2)["accuracy"] == json.loads(out)["accuracy"]
    out, _ = flambeau(tmp_path, "predict", "run", photo, "--json")
    assert set(json.loads(out)[0]["output"]) == {"blue", "red"}
