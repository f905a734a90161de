"""Data sets as LightningDataModules; each tells its facts (`epochal.facts`) and yields `Batch`es."""

from epochal.data.base import Batch, Data
from epochal.data.captions import CaptionData
from epochal.data.digit_captions import DigitCaptions
from epochal.data.images import ImageData
from epochal.data.moving_digits import MovingDigits
from epochal.data.pairs import PairData
from epochal.data.sentences import SentenceData
from epochal.data.synthetic import Adding, Copy, Reverse
from epochal.data.text import PythonStdlib, TextData

__all__ = [
    "Adding",
    "Batch",
    "CaptionData",
    "Copy",
    "Data",
    "DigitCaptions",
    "ImageData",
    "MovingDigits",
    "PairData",
    "PythonStdlib",
    "Reverse",
    "SentenceData",
    "TextData",
]
