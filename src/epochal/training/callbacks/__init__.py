"""What happens beside the training: checkpoints, the run's record, and what a person sees."""

from epochal.training.callbacks.checkpoints import Checkpoints
from epochal.training.callbacks.explain import Explain
from epochal.training.callbacks.progress import Progress
from epochal.training.callbacks.record import Record
from epochal.training.checkpoint_io import AtomicCheckpointIO, load_weights, read_checkpoint

__all__ = ["AtomicCheckpointIO", "Checkpoints", "Explain", "Progress", "Record", "load_weights", "read_checkpoint"]
