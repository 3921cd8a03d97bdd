"""The Jacobian of a network's outputs with respect to its inputs, sample by sample.

A network that treats each sample of a batch on its own has a block-diagonal Jacobian: one block of
(outputs x inputs) per sample. The plan finds that from what autograd does, and all blocks come
from as many products as *one* sample has outputs, or from fewer where the weights are fixed linear
maps around what varies. The pattern is also a test: batch normalization in training mode mixes the
samples, and the pattern shows it.

Run it with ``python examples/per_sample_network.py [BATCH]``: 32 samples unless told.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

import pullback as pb

INPUTS, OUTPUTS = 16, 8


def network(*, normalize: bool) -> nn.Sequential:
    torch.manual_seed(0)
    hidden = 24
    middle = nn.BatchNorm1d(hidden) if normalize else nn.Identity()
    return nn.Sequential(
        nn.Linear(INPUTS, hidden), middle, nn.Tanh(), nn.Linear(hidden, OUTPUTS)
    ).double()


def sample_blocks(net: nn.Module, batch: Tensor, plan: pb.Plan) -> Tensor:
    """One block per sample, shape ``(batch, outputs, inputs)``.

    The rows of the CSR matrix come in order and each holds its own sample's inputs, in order; so
    the stored values *are* the blocks, and nothing is gathered.
    """
    matrix = pb.jacobian(net, plan=plan, layout=torch.sparse_csr)(batch)
    return matrix.values().view(len(batch), OUTPUTS, INPUTS)


def is_block_diagonal(pattern: pb.SparsityPattern) -> bool:
    """Whether every entry links an output to an input of the same sample."""
    return bool((pattern.rows // OUTPUTS == pattern.cols // INPUTS).all())


def describe(label: str, plan: pb.Plan) -> None:
    rows, cols = plan.pattern.shape
    share = plan.pattern.nnz / (rows * cols)
    kept = "samples stay apart" if is_block_diagonal(plan.pattern) else "SAMPLES ARE MIXED"
    print(f"{label}: {rows} x {cols}, {share:.1%} nonzero, {plan.num_products} products, {kept}")


def main(batch_size: int = 32) -> None:
    batch = torch.randn(
        batch_size, INPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    net = network(normalize=False)
    plan = pb.plan_jacobian(net, batch)
    describe("plain network", plan)

    blocks = sample_blocks(net, batch, plan)
    expected = torch.func.vmap(torch.func.jacrev(net))(batch)
    print(f"largest difference from jacrev under vmap: {(blocks - expected).abs().max():.1e}")
    gains = torch.linalg.svdvals(blocks)[:, 0]
    print(f"largest gain of a sample: {gains.max():.3f}, smallest: {gains.min():.3f}")

    normalized = network(normalize=True)
    describe("batch norm, training", pb.plan_jacobian(normalized.train(), batch))
    describe("batch norm, evaluation", pb.plan_jacobian(normalized.eval(), batch))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
