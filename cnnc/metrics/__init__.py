"""Metrics: counted inside the graph, in sums that add up exactly over batches of any size."""

from cnnc.metrics.accuracy import Accuracy, TopKAccuracy
from cnnc.metrics.confusion import ConfusionMatrix, MeanIoU, Precision, Recall
from cnnc.metrics.image import PSNR
from cnnc.metrics.metric import Metric

__all__ = [
    "PSNR",
    "Accuracy",
    "ConfusionMatrix",
    "MeanIoU",
    "Metric",
    "Precision",
    "Recall",
    "TopKAccuracy",
]
