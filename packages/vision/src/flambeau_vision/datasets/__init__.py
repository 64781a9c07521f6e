"""Data sets of pictures: classification, segmentation, detection. Nothing is downloaded unless `download` is called.

Each says exactly which file belongs where when something is absent. Broken pictures and annotations are left out with
one warning and listed, or stop the reading with ``strict=True``. A transform draws from ``flambeau.data.sample_rng()``,
so neither the number of workers nor a resumed run changes what it does.
"""

from .detection import CocoDetection, DetectionDataset, VOCDetection
from .download import download
from .files import PictureDataset
from .pictures import (
    CIFAR10,
    CIFAR10_CLASSES,
    MNIST,
    CIFARBinary,
    CSVImages,
    ImageFolder,
    open_classification,
    read_idx,
)
from .segmentation import CITYSCAPES_CLASSES, VOC_CLASSES, CamVid, Cityscapes, MaskDataset, VOCSegmentation

__all__ = [
    "CIFAR10",
    "CIFAR10_CLASSES",
    "CITYSCAPES_CLASSES",
    "MNIST",
    "VOC_CLASSES",
    "CIFARBinary",
    "CSVImages",
    "CamVid",
    "Cityscapes",
    "CocoDetection",
    "DetectionDataset",
    "ImageFolder",
    "MaskDataset",
    "PictureDataset",
    "VOCDetection",
    "VOCSegmentation",
    "download",
    "open_classification",
    "read_idx",
]
