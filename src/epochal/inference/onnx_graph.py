"""A network as an ONNX graph that begins with pixels or tokens: what it does before its first layer is in the graph."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from epochal.config.instantiate import target_class
from epochal.core.errors import ConfigError
from epochal.core.protocols import AdversarialNetwork, EncoderDecoder
from epochal.core.specs import Frames, Images, Series, Tokens
from epochal.inference.notebook import LoadedRun
from epochal.models.bert import BERT
from epochal.models.seq2seq import Seq2Seq
from epochal.tasks.patches import MaskedPatch, NextPatch

BATCH, LENGTH, TARGET_LENGTH = "batch", "length", "target_length"  # axes of any size
ROWS, STEPS = 3, 7  # of the example that is traced
SHORTER = 3  # steps of one that is compared
CLOSE = 1e-3  # largest difference between the graph and the network, beside the largest output
MISSING = "to=onnx needs packages that are not installed: pip install 'epochal[onnx]'"


class Pixels(nn.Module):
    """uint8 pixels (..., C, H, W) to what the network reads: the normalisation of its data.

    Args:
        data: A data module of images or videos, restored.
    """

    def __init__(self, data: Any) -> None:
        super().__init__()
        images = getattr(data, "_images", data)  # digits that data composes its images of
        if images.image_range == "symmetric":
            scale, shift = torch.tensor(1 / 127.5), torch.tensor(-1.0)
        else:
            scale, shift = 1 / (255 * images.std.view(-1, 1, 1)), (-images.mean / images.std).view(-1, 1, 1)
        self.scale: Tensor
        self.shift: Tensor
        self.order: Tensor | None
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.register_buffer("order", images._order if getattr(images, "permuted", False) else None)

    def forward(self, pixels: Tensor) -> Tensor:
        if self.order is not None:
            pixels = pixels.flatten(2).index_select(2, self.order).view(pixels.shape)
        return pixels.to(torch.float32) * self.scale + self.shift


class Network(nn.Module):
    """A network whose further inputs have a fixed order.

    Args:
        model: The network.
        pixels: What its first input goes through.
        names: Of its further inputs, at most three.
        fixed: Further arguments.
    """

    def __init__(self, model: nn.Module, pixels: nn.Module, names: Sequence[str], fixed: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.pixels, self.names, self.fixed = model, pixels, tuple(names), fixed

    def forward(self, inputs: Tensor, second: Tensor | None = None, third: Tensor | None = None) -> Any:
        further = dict(zip(self.names, (second, third)))
        return self.model(self.pixels(inputs), **further, **self.fixed)


class Painter(nn.Module):
    """A generator whose images are uint8 pixels (B, C, H, W); a conditional one also takes classes (B,)."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, noise: Tensor, classes: Tensor | None = None) -> Tensor:
        drawn = self.generator(noise) if classes is None else self.generator(noise, classes)
        return ((drawn + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


@dataclass
class Graph:
    """A network with an example of its inputs.

    Attributes:
        module: Called with the example's tensors, in order.
        example: By the name of the input.
        axes: Of each input, the axes of any size by their name.
        outputs: Their names.
        unused: Inputs that the network does not read, which are none of the graph's.
        notes: Sentences that the user should know.
        checked: A sentence about how it was compared with the network; may be empty.
    """

    module: nn.Module
    example: dict[str, Tensor]
    axes: dict[str, dict[int, str]]
    outputs: tuple[str, ...]
    notes: list[str] = field(default_factory=list)
    unused: tuple[str, ...] = ()
    checked: str = "Not compared with the network: onnxruntime is not installed."

    def described(self) -> dict[str, Any]:
        """Its inputs, for config.json."""
        inputs = {
            name: {
                "type": str(tensor.dtype).removeprefix("torch."),
                "shape": [self.axes[name].get(axis, size) for axis, size in enumerate(tensor.shape)],
            }
            for name, tensor in self.example.items()
            if name not in self.unused
        }
        return {"inputs": inputs, "outputs": list(self.outputs)}


@torch.no_grad()
def write(run: LoadedRun, file: Path) -> Graph:
    """Writes the graph, with axes of any size for the batch and for the length of texts, series and videos.

    Where the network cannot be traced with the lengths of padded rows, or with any length, that is given up, which a note
    says. Where onnxruntime is installed, its outputs for other inputs than the traced ones are compared.

    Raises:
        ConfigError: If the package onnx is missing, the network cannot be traced, or its graph computes something else.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(MISSING) from error
    failure: Exception | None = None
    for graph in graphs(run):
        try:
            with quiet():
                trace(graph, file)
            read = {each.name for each in onnx.load(str(file)).graph.input}
            graph.unused = tuple(name for name in graph.example if name not in read)
            check(graph, file)
            return graph
        except Exception as error:  # of many classes, torch's and onnxruntime's
            failure = error
    reason = next((line for line in str(failure).splitlines() if line.strip()), type(failure).__name__)
    raise ConfigError(
        f"model={run.config.model.name} cannot be written as a graph ({reason.strip()[:200]}); to=safetensors goes with it."
    ) from failure


def graphs(run: LoadedRun) -> Iterator[Graph]:
    """What can be tried, best first."""
    best = make_graph(run)
    yield best
    if "lengths" in best.example:
        yield make_graph(run, lengths=False)
    if not isinstance(run.specs[0], Images):
        graph = make_graph(run, lengths=False, any_length=False)
        count = next(iter(graph.example.values())).shape[1]
        graph.notes.append(f"It reads rows of {count:,} steps only, the longest that its data has.")
        yield graph


def make_graph(run: LoadedRun, *, lengths: bool = True, any_length: bool = True) -> Graph:
    """The network of a run with inputs that it can be traced with.

    Args:
        run: Whose network.
        lengths: Whether it reads the lengths of padded rows, if it can.
        any_length: Whether rows may be of any length; else they have the length of the run's data.
    """
    model: Any = run.model
    inputs = run.specs[0]
    if isinstance(model, AdversarialNetwork):
        noise = {"noise": model.sample_noise(ROWS)}
        if (classes := getattr(model, "num_classes", None)) is not None:
            noise["classes"] = torch.arange(ROWS) % classes
        return Graph(Painter(model.generator), noise, {name: {0: BATCH} for name in noise}, ("images",))
    steps = 0 if isinstance(inputs, Images) else min(STEPS, inputs.length) if any_length else inputs.length
    first, axes = _first(inputs, steps, any_length)
    name = {Images: "images", Tokens: "tokens", Frames: "frames", Series: "series"}[type(inputs)]
    example, every = {name: first}, {name: axes}
    for further, (tensor, free) in _further(run, steps, lengths).items():
        example[further], every[further] = tensor, free if further != "segments" else axes
    task = target_class(run.config.task._target_)
    pixels = Pixels(run.data) if isinstance(inputs, Images | Frames) else nn.Identity()
    fixed = {"causal": True} if issubclass(task, NextPatch) else {}
    pair = getattr(getattr(model, "head", None), "next_sentence", None) is not None
    network = Network(model, pixels, list(example)[1:], fixed).eval()
    graph = Graph(network, example, every, ("outputs", "next_sentence") if pair else ("outputs",))
    if _reads_lengths(run) and "lengths" not in example:
        graph.notes.append("It reads rows without padding: all rows of a batch are of one length.")
    return graph


def _further(run: LoadedRun, steps: int, lengths: bool) -> dict[str, tuple[Tensor, dict[int, str]]]:
    """Examples of a network's inputs after the first, with their axes of any size."""
    model: Any = run.model
    found: dict[str, tuple[Tensor, dict[int, str]]] = {}
    if isinstance(model, EncoderDecoder):
        outputs: Any = run.specs[1]
        target = torch.randint(outputs.vocab_size, (ROWS, min(STEPS - 2, outputs.length)))
        found["target"] = target, {0: BATCH, 1: TARGET_LENGTH}
    if (
        lengths and _reads_lengths(run) and not isinstance(model, Seq2Seq)
    ):  # which packs rows; ONNX has no operator for it
        found["lengths"] = torch.arange(steps, steps - ROWS, -1).clamp(min=1), {0: BATCH}
        if isinstance(model, BERT) and getattr(run.data, "pairs", False):
            found["segments"] = (torch.arange(steps) > 2).long().repeat(ROWS, 1), {}
    if issubclass(target_class(run.config.task._target_), MaskedPatch):
        count = model.grid[0] * model.grid[1]
        found["mask"] = torch.arange(ROWS * count).view(ROWS, count) % 2 == 0, {0: BATCH}
    return found


def _reads_lengths(run: LoadedRun) -> bool:
    """Whether padded rows need their lengths; a language model sees no padding before it is over."""
    taken = "lengths" in inspect.signature(run.model.forward).parameters
    causal = target_class(run.config.task._target_).head == "next_token"
    return taken and not isinstance(run.specs[0], Images) and not causal


def _first(inputs: Any, steps: int, any_length: bool) -> tuple[Tensor, dict[int, str]]:
    """An example of the inputs of a spec, and its axes of any size."""
    axes = {0: BATCH, **({1: LENGTH} if any_length else {})}
    if isinstance(inputs, Tokens):
        return torch.randint(inputs.vocab_size, (ROWS, steps)), axes
    if isinstance(inputs, Series):
        return torch.randn(ROWS, steps, inputs.channels), axes
    shape = (inputs.channels, inputs.height, inputs.width)
    if isinstance(inputs, Images):
        return torch.randint(256, (ROWS, *shape), dtype=torch.uint8), {0: BATCH}
    return torch.randint(256, (ROWS, steps, *shape), dtype=torch.uint8), axes


def trace(graph: Graph, file: Path) -> None:
    """Writes the graph to a file."""
    example = tuple(graph.example.values())
    if any(isinstance(module, nn.RNNBase) for module in graph.module.modules()):
        # the newer exporter unrolls recurrent layers, which fixes the number of steps; this one has operators for them
        torch.onnx.export(
            graph.module,
            example,
            str(file),
            input_names=list(graph.example),
            output_names=list(graph.outputs),
            dynamic_axes={**graph.axes, graph.outputs[0]: {0: BATCH}},
            opset_version=17,
            dynamo=False,
        )
        return
    made = torch.onnx.export(
        program(graph),
        example,
        input_names=list(graph.example),
        output_names=list(graph.outputs),
        dynamo=True,
        verbose=False,
    )
    assert made is not None
    made.save(str(file), external_data=False)


def program(graph: Graph) -> torch.export.ExportedProgram:
    """The traced network.

    Raises:
        Exception: Of many classes, if an axis that may have any size was fixed.
    """
    arguments = list(inspect.signature(graph.module.forward).parameters)
    shapes = {
        argument: {axis: torch.export.Dim.DYNAMIC for axis in graph.axes[name]}
        for argument, name in zip(arguments, graph.example)
    }
    return torch.export.export(graph.module, tuple(graph.example.values()), dynamic_shapes=shapes, strict=False)


def check(graph: Graph, file: Path) -> None:
    """Compares the graph with the network, on one row and on more rows and steps than it was traced with.

    Raises:
        ConfigError: If they differ.
    """
    try:
        import onnxruntime
    except ImportError:
        return
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    largest = 0.0
    for given in others(graph):
        expected = graph.module(*given.values())
        found = session.run(None, {name: tensor.numpy() for name, tensor in given.items() if name not in graph.unused})
        for ours, theirs in zip(expected if isinstance(expected, tuple) else (expected,), found, strict=True):
            difference = np.abs(ours.float().numpy() - theirs.astype(np.float32)).max(initial=0)
            largest = max(largest, float(difference) / max(1.0, ours.abs().max().item()))
    if not largest <= CLOSE:
        raise ConfigError(
            f"The graph's outputs differ from the network's by {largest:.1e}; to=safetensors has no graph."
        )
    graph.checked = f"Compared with the network in onnxruntime: outputs differ by at most {largest:.0e}."


def others(graph: Graph) -> Iterator[dict[str, Tensor]]:
    """Its example, and others of fewer rows and, where these may be of any length, of fewer steps."""
    yield graph.example
    yield {name: tensor[:1] for name, tensor in graph.example.items()}
    if any(1 in axes for axes in graph.axes.values()):
        fewer = {
            name: tensor[:2, :SHORTER] if 1 in graph.axes[name] else tensor[:2]
            for name, tensor in graph.example.items()
        }
        if "lengths" in fewer:
            fewer["lengths"] = torch.tensor([SHORTER, SHORTER - 1])
        yield fewer


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what the exporters print to themselves."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
