"""What happens beside the training: checkpoints, the run's record, and what a person sees."""

from epochal.callbacks.checkpoints import AtomicCheckpointIO, Checkpoints, load_weights, read_checkpoint
from epochal.callbacks.explain import Explain
from epochal.callbacks.progress import Progress
from epochal.callbacks.record import Record

__all__ = ["AtomicCheckpointIO", "Checkpoints", "Explain", "Progress", "Record", "load_weights", "read_checkpoint"]
