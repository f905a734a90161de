"""Data sets as LightningDataModules, which have specs (`epochal.core.specs`) and yield `Batch`es."""

from epochal.data.batching import Batch
from epochal.data.captions import CaptionData
from epochal.data.conversations import ConversationData, PreferenceData
from epochal.data.datamodule import DataModule
from epochal.data.digit_captions import DigitCaptions
from epochal.data.images import ImageData
from epochal.data.in_context import InContextLinear, InContextSymbols
from epochal.data.letter_tasks import LetterTasks
from epochal.data.moving_digits import MovingDigits
from epochal.data.pairs import PairData
from epochal.data.points import Points
from epochal.data.reviews import ReviewConversations, ReviewPreferences, SentenceHalf
from epochal.data.sentences import SentenceData, SwappedWords
from epochal.data.synthetic import Adding, Copy, Reverse
from epochal.data.text import PythonStdlib, TextData
from epochal.data.text_mix import TextMix

__all__ = [
    "Adding",
    "Batch",
    "CaptionData",
    "ConversationData",
    "Copy",
    "DataModule",
    "DigitCaptions",
    "ImageData",
    "InContextLinear",
    "InContextSymbols",
    "LetterTasks",
    "MovingDigits",
    "PairData",
    "Points",
    "PreferenceData",
    "PythonStdlib",
    "Reverse",
    "ReviewConversations",
    "ReviewPreferences",
    "SentenceData",
    "SentenceHalf",
    "SwappedWords",
    "TextData",
    "TextMix",
]
