"""A check that a network of ours computes the same as torchvision's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from epochal.models.pretrained.torchvision import translate

TOLERANCE = 1e-4  # beside the largest value of the tensor; for outputs below one, absolute


def check_parity(ours: Any, theirs: nn.Module, image_shape: tuple[int, int, int] = (3, 224, 224)) -> None:
    """Fails unless the two agree in eval mode: in their outputs, and in the loss's gradient by every parameter.

    Torchvision's network gets random weights and batch statistics, ours the same ones by its `torchvision_keys`.

    Args:
        ours: Built as usual, or quicker, where no buffer is lost by it, on the meta device.
        theirs: With as many classes.
        image_shape: (C, H, W); smaller images than the published ones are quicker.
    """
    torch.manual_seed(1)
    images = torch.randn(2, *image_shape)
    randomise(theirs, torch.randn(8, *image_shape))
    # In single precision the order of a sum decides the sign of a ReLU's input near zero, which a gradient shows:
    # double precision, which takes several times as long, tells that from an error.
    if any(_differences(ours, theirs, images)):
        found = list(_differences(ours, theirs.double(), images.double()))
        assert not found, "; ".join(found)


def randomise(model: nn.Module, images: Tensor) -> None:
    """Random values for every parameter and statistic that preserve the variance of activations at any depth."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and len(parameter) > 1:
            bound = math.sqrt(6 / parameter[0].numel())  # as He et al. 2015, uniform
            nn.init.uniform_(parameter, -bound, bound)
        elif parameter.dim() > 1 or name.endswith("bias"):  # class tokens and positions are of shape (1, ...)
            nn.init.uniform_(parameter, -0.2, 0.2)
        else:
            nn.init.uniform_(parameter, 0.8, 1.2)  # a norm's factor
    model.eval()
    hooks = [m.register_forward_pre_hook(_adapt) for m in model.modules() if isinstance(m, _BatchNorm)]
    if hooks:
        with torch.no_grad():
            model(images)
    for hook in hooks:
        hook.remove()


def _adapt(norm: _BatchNorm, inputs: tuple[Tensor]) -> None:
    """Sets a batch norm's statistics near those of its input; with random ones, 150 layers would overflow."""
    assert norm.running_mean is not None and norm.running_var is not None
    variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
    variance = variance * torch.empty_like(variance).uniform_(0.8, 1.2)
    norm.running_var.copy_(variance.clamp_(min=0.3 * variance.mean().item()))  # few pixels may be all alike
    norm.running_mean.copy_(mean + variance.sqrt() * torch.empty_like(mean).uniform_(-0.2, 0.2))


def _differences(ours: Any, theirs: nn.Module, images: Tensor) -> Iterator[str]:
    """A sentence for each difference."""
    ours.load_state_dict(translate(theirs.state_dict(), ours), strict=True, assign=True)
    expected, gradients = _step(theirs, images)
    found, our_gradients = _step(ours, images)
    assert found.shape == expected.shape
    assert expected.std() > 0.01, "outputs that are all alike prove nothing"
    if (error := _largest(found - expected)) > TOLERANCE * max(1, _largest(expected)):
        yield f"the outputs differ by {error:.2e}"
    # a parameter that is not used in eval mode, such as an auxiliary head's, has no gradient in either
    gradients = translate({n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in gradients.items()}, ours)
    assert gradients.keys() == our_gradients.keys()
    for name, gradient in gradients.items():
        ours_of_it, largest = our_gradients[name].grad, _largest(gradient)
        if (largest > 0) != (ours_of_it is not None):
            yield f"{name} has a part in the output of only one of them"
        elif ours_of_it is not None and (error := _largest(ours_of_it - gradient)) > TOLERANCE * largest:
            yield f"the gradients by {name} differ by {error:.2e}, the largest is {largest:.2e}"


def _step(model: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """Outputs in eval mode (B, classes), and the parameters, with the cross-entropy's gradient."""
    model.eval()
    model.zero_grad(set_to_none=True)
    logits = model(images)
    F.cross_entropy(logits, logits.detach().argmin(1)).backward()  # the least likely class has a gradient for sure
    return logits.detach(), dict(model.named_parameters())


def _largest(tensor: Tensor) -> float:
    return tensor.abs().max().item()
