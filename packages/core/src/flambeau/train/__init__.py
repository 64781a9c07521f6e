"""Training: the loop, callbacks, checkpoints, metrics, reporters, options, and the supervised trainer."""

from . import supervised
from .callbacks import Callback, EarlyStopping
from .checkpoint import CheckpointFolder, read_checkpoint, write_checkpoint
from .config import describe_options, from_options, to_plain
from .loop import Counters, Run, fit
from .metrics import F1, MAE, R2, RMSE, Accuracy, ConfusionMatrix, Dice, Mean, MeanIoU, Metric, Perplexity
from .report import HtmlReport
from .reporter import HistoryWriter, LearningCurve, PlainReporter, ProgressBar, reporter
from .tensorboard import TensorBoard

__all__ = [
    "F1",
    "MAE",
    "R2",
    "RMSE",
    "Accuracy",
    "Callback",
    "CheckpointFolder",
    "ConfusionMatrix",
    "Counters",
    "Dice",
    "EarlyStopping",
    "HistoryWriter",
    "HtmlReport",
    "LearningCurve",
    "Mean",
    "MeanIoU",
    "Metric",
    "Perplexity",
    "PlainReporter",
    "ProgressBar",
    "Run",
    "TensorBoard",
    "describe_options",
    "fit",
    "from_options",
    "read_checkpoint",
    "reporter",
    "supervised",
    "to_plain",
    "write_checkpoint",
]
