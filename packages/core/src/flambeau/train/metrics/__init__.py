"""Streaming metrics: ``update`` with batches, ``compute`` at the end; docs/metrics.md has them all in a table.

Every metric has ``update(...)``, ``compute()``, ``reset()``, ``merge(other)`` (for runs on parts of the data), and
``state_dict()``/``load_state_dict()``. They take Tensors or arrays. Class scores have their classes in dimension 1:
(N, C) or (N, C, H, W), with targets (N) or (N, H, W). They keep counts and sums, so they use the same memory for any
number of samples; those that cannot say so. NaN is refused where it arrives, since it would otherwise hide in an
average. ``compute()`` before any sample is an error.
"""

from .base import Mean, Metric
from .calibration import CalibrationError
from .classification import (
    F1,
    Accuracy,
    BalancedAccuracy,
    BrierScore,
    CohenKappa,
    ConfusionMatrix,
    FBeta,
    LogLoss,
    MatthewsCorrelation,
    MultilabelAccuracy,
    Precision,
    Recall,
    Specificity,
)  # fmt: skip
from .detection import MeanAveragePrecision
from .ranking import AUROC, AveragePrecision
from .regression import MAE, MAPE, MSE, R2, RMSE, ExplainedVariance, PearsonCorrelation, SpearmanCorrelation
from .segmentation import Dice, HausdorffDistance, MeanIoU, PixelAccuracy
from .text import CER, ROUGE, WER, Perplexity, SQuAD
from .translation import BLEU, CHRF

__all__ = [
    "AUROC", "BLEU", "CER", "CHRF", "F1", "MAE", "MAPE", "MSE", "R2", "RMSE", "ROUGE", "WER", "Accuracy",
    "AveragePrecision", "BalancedAccuracy", "BrierScore", "CalibrationError", "CohenKappa", "ConfusionMatrix", "Dice",
    "ExplainedVariance", "FBeta", "HausdorffDistance", "LogLoss", "MatthewsCorrelation", "Mean",
    "MeanAveragePrecision", "MeanIoU", "Metric", "MultilabelAccuracy", "PearsonCorrelation", "Perplexity",
    "PixelAccuracy", "Precision", "Recall", "SQuAD", "SpearmanCorrelation", "Specificity",
]  # fmt: skip
