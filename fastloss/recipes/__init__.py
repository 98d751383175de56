"""Losses of whole tasks: documented sums of losses for detection, segmentation and language."""

from .base import Result
from .detection import retinanet, ssd_multibox, yolo
from .language import language_model, seq2seq, summarization
from .segmentation import unet

__all__ = ["Result", "language_model", "retinanet", "seq2seq", "ssd_multibox", "summarization", "unet", "yolo"]
