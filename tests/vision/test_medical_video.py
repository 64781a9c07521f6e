"""DICOM, NIfTI and video, with files that are written here by the formats' own libraries."""

import sys

import numpy as np
import pytest

from flambeau.errors import FlambeauError, MissingExtraError
from flambeau_vision import medical, video


def dicom(path, **changes):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4) * 100
    data.Rows, data.Columns, data.SamplesPerPixel = 3, 4, 1
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation, data.PhotometricInterpretation = 15, 0, "MONOCHROME2"
    data.RescaleSlope, data.RescaleIntercept, data.PixelSpacing = 2, -1000, [0.5, 0.7]
    data.WindowCenter, data.WindowWidth = [40, 300], [400, 1500]
    data.PixelData = pixels.tobytes()
    for key, value in changes.items():
        setattr(data, key, value)
    assert pydicom
    data.save_as(path, enforce_file_format=True)
    return pixels


def test_dicom_keeps_units_spacing_and_window(tmp_path):
    pixels = dicom(tmp_path / "a.dcm")
    scan = medical.load_dicom(tmp_path / "a.dcm")
    np.testing.assert_array_equal(scan.array, pixels.astype(np.float32) * 2 - 1000)
    assert scan.spacing == (0.5, 0.7) and scan.window == (40, 400) and scan.array.dtype == np.float32
    picture = scan.picture()
    assert picture.dtype == np.uint8 and picture[0, 0] == 0 and picture[-1, -1] == 255
    dicom(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(medical.load_dicom(tmp_path / "b.dcm").picture(), 255 - picture)


def test_dicom_that_cannot_be_read(tmp_path):
    dicom(tmp_path / "cut.dcm", PixelData=b"\0\0")
    (tmp_path / "text.dcm").write_text("hello")
    for name, cause in (("cut", "cannot be read"), ("text", "not a DICOM"), ("none", "no such file")):
        with pytest.raises(FlambeauError, match=cause):
            medical.load_dicom(tmp_path / f"{name}.dcm")


def test_nifti_keeps_spacing_and_affine(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    affine = np.diag([1.5, 2.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "a.nii.gz")
    scan = medical.load_nifti(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(scan.array, array)
    assert scan.spacing == (1.5, 2.0, 3.0) and np.array_equal(scan.affine, affine)
    picture = scan.picture()
    assert picture.min() == 0 and picture.max() == 255
    data = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(FlambeauError, match="not a whole NIfTI"):
        medical.load_nifti(tmp_path / "cut.nii.gz")


def test_windows():
    assert medical.apply_window(np.array([0.0, 1.0]), (1, 1)).tolist() == [0, 255]
    with pytest.raises(ValueError, match="width"):
        medical.apply_window(np.zeros(2), (0, 0))


def test_video_round_trip(tmp_path):
    pytest.importorskip("av")
    frames = [np.full((33, 48, 3), 25 * n, np.uint8) for n in range(8)]
    path = tmp_path / "a.mp4"
    assert video.write_frames(path, frames, fps=12.5) == 8 and video.frame_rate(path) == 12.5
    back = list(video.read_frames(path))
    assert len(back) == 8 and back[0].shape == (32, 48, 3)
    assert max(abs(int(frame.mean()) - 25 * n) for n, frame in enumerate(back)) <= 3
    assert len(list(video.read_frames(path, every=3))) == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]


def test_videos_that_cannot_be_read_or_written(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "text.mp4").write_text("hello")
    for name, cause in (("text", "not a video"), ("none", "no such file")):
        with pytest.raises(FlambeauError, match=cause):
            next(video.read_frames(tmp_path / f"{name}.mp4"))
    for frames, cause in (
        ([], "no frames"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)], "frame 1 is"),
    ):
        with pytest.raises(FlambeauError, match=cause):
            video.write_frames(tmp_path / "b.mp4", frames)
    with pytest.raises(FlambeauError, match="cannot write"):
        video.write_frames(tmp_path / "none" / "b.mp4", [np.zeros((8, 8, 3), np.uint8)])
    assert not (tmp_path / "b.mp4").exists() and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("pydicom", lambda: medical.load_dicom("x.dcm")),
        ("nibabel", lambda: medical.load_nifti("x.nii")),
        ("av", lambda: next(video.read_frames("x.mp4"))),
    ],
)
def test_a_missing_extra_names_the_pip_line(module, call, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError) as caught:
        call()
    assert "pip install" in caught.value.mend and "flambeau-vision[" in caught.value.mend
