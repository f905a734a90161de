"""What every objective shares: how gradients are clipped."""

import pytest
import torch

from epochal.tasks import Regression

OPTIONS = {"optimizer": None, "scheduler": None, "total_steps": 1}


@pytest.mark.parametrize("scale", [0.01, 0.999, 1.0, 1.001, 100.0])
def test_gradients_are_clipped_to_the_bit_as_torch_does(scale):
    model = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Linear(5, 3))
    torch.manual_seed(1)
    gradients = [torch.randn_like(p) for p in model.parameters()]
    length = torch.nn.utils.get_total_norm(gradients)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        parameter.grad = gradient * scale / length
    expected = [p.grad.clone() for p in model.parameters()]
    twin = [torch.nn.Parameter(torch.zeros_like(p)) for p in expected]
    for parameter, gradient in zip(twin, expected, strict=True):
        parameter.grad = gradient
    torch.nn.utils.clip_grad_norm_(twin, 1.0)

    task = Regression(model=model, **OPTIONS)
    task.configure_gradient_clipping(torch.optim.SGD(model.parameters(), lr=1.0), 1.0)

    assert all(torch.equal(p.grad, q.grad) for p, q in zip(model.parameters(), twin, strict=True))
