"""Data sets as LightningDataModules; each tells its facts (`epochal.facts`) and yields `Batch`es."""

from epochal.data.base import Batch, Data
from epochal.data.images import ImageData
from epochal.data.text import PythonStdlib, TextData

__all__ = ["Batch", "Data", "ImageData", "PythonStdlib", "TextData"]
