"""Training: the loop, callbacks, checkpoints, metrics, reporters, options, and the supervised trainer."""

from . import supervised
from .callbacks import Callback, EarlyStopping
from .checkpoint import CheckpointFolder, read_checkpoint, write_checkpoint
from .loop import Counters, Run, fit
from .lr_finder import RateTest, find_lr
from .metrics import F1, MAE, R2, RMSE, Accuracy, ConfusionMatrix, Dice, Mean, MeanIoU, Metric, Perplexity
from .parameters import Freeze, parameter_groups
from .report import HtmlReport
from .reporter import HistoryWriter, LearningCurve, PlainReporter, ProgressBar, reporter
from .schedules import warmup_schedule
from .signals import RunStopped, StopSignals
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
    "Freeze",
    "HistoryWriter",
    "HtmlReport",
    "LearningCurve",
    "Mean",
    "MeanIoU",
    "Metric",
    "Perplexity",
    "PlainReporter",
    "ProgressBar",
    "RateTest",
    "Run",
    "RunStopped",
    "StopSignals",
    "TensorBoard",
    "find_lr",
    "fit",
    "parameter_groups",
    "read_checkpoint",
    "reporter",
    "supervised",
    "warmup_schedule",
    "write_checkpoint",
]
