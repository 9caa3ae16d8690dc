"""Residual branches at half the resolution: a quarter of the work, and the shortcut untouched."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from slimseg.graph import costs, edit, ops
from slimseg.graph.graph import Graph
from slimseg.techniques.half_branch import HalfBranch


class Residual(nn.Module):
    def __init__(self, *branch: nn.Module) -> None:
        super().__init__()
        self.before, self.branch, self.add, self.after = (
            nn.Conv2d(3, 8, 1), nn.Sequential(*branch), ops.Add(), nn.Conv2d(8, 4, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.after(self.add(x, self.branch(x)))


def graph_of(*branch: nn.Module, size: tuple[int, int] = (16, 24)) -> Graph:
    torch.manual_seed(0)
    return edit.trace(Residual(*branch).eval(), (1, 3, *size))


def feed_forward() -> list[nn.Module]:
    return [ops.Normalise((1,), 1e-5), nn.Conv2d(8, 32, 1), nn.GELU(), nn.Conv2d(32, 8, 1)]


def test_the_branch_works_on_a_quarter_of_the_pixels() -> None:
    graph = graph_of(*feed_forward())
    (site,) = HalfBranch().find(graph).sites
    edited = HalfBranch().apply(graph, site)
    branch = 16 * 24 * 2 * 8 * 32
    assert costs.total(graph).macs - costs.total(edited).macs == branch * 3 // 4
    image = torch.ones(1, 3, 16, 24) * torch.randn(1, 3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(edited(image), graph(image), atol=1e-5, rtol=1e-5)


def test_odd_sides_come_back_to_their_size() -> None:
    graph = graph_of(*feed_forward(), size=(15, 9))
    edited = HalfBranch().apply(graph, HalfBranch().find(graph).sites[0])
    assert edited.shape(edited.output) == graph.shape(graph.output)


@pytest.mark.parametrize(
    ("branch", "reason"),
    [
        ([nn.Conv2d(8, 8, 3, 2, 1), ops.Resize((16, 24))], "cannot work at any resolution"),
        ([nn.ReLU()], "no layer of its branch has weights"),
    ],
)
def test_other_branches_are_refused(branch: list[nn.Module], reason: str) -> None:
    found = HalfBranch().find(graph_of(*branch))
    assert not found.sites
    assert reason in found.refusals[0].reason
