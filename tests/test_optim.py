import pytest
import torch

from epochal.optim import inverse_sqrt


def rates(total_steps, **arguments):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    schedule, seen = inverse_sqrt(optimizer, total_steps, **arguments), []
    for _ in range(total_steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_inverse_sqrt_is_the_formula_of_the_paper_with_the_learning_rate_at_its_peak():
    paper = [min(step**-0.5, step * 40**-1.5) for step in range(1, 201)]
    assert rates(200, warmup=40) == pytest.approx([0.5 * rate / max(paper) for rate in paper])


def test_inverse_sqrt_takes_its_warm_up_as_steps_or_as_a_fraction_of_all():
    assert rates(200, warmup=0.2) == rates(200, warmup=40)
    assert rates(4, warmup=0)[0] == 0.5, "without one it begins at the top"
