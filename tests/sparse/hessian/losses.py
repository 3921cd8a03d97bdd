"""Losses of logits, a row per sample, each with the exact pattern of its Hessian."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from .functions import Bools, Func
from .masks import Objective, blocks, diagonal, full, nothing, number

# Losses of logits, a row per sample

WANTED = number(4, 3, seed=2)
SHARES = WANTED.softmax(1)
LABELS = torch.tensor([2, 0, 1, 1])
SIGNS = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)[:, None]


def _of_losses(reduction: str) -> dict[str, Objective]:
    each, sample, none = diagonal(12), blocks(4, 3), nothing(12)
    table: dict[str, tuple[Func, Bools]] = {
        "mse": (lambda x: F.mse_loss(x, WANTED, reduction=reduction), each),
        "huber": (lambda x: F.huber_loss(x, WANTED, reduction=reduction, delta=0.3), each),
        "smooth_l1": (lambda x: F.smooth_l1_loss(x, WANTED, reduction=reduction, beta=0.3), each),
        "l1": (lambda x: F.l1_loss(x, WANTED, reduction=reduction), none),
        "bce_with_logits": (
            lambda x: F.binary_cross_entropy_with_logits(x, WANTED, reduction=reduction),
            each,
        ),
        "bce": (
            lambda x: F.binary_cross_entropy(x.sigmoid(), WANTED / 2, reduction=reduction),
            each,
        ),
        "soft_margin": (lambda x: F.soft_margin_loss(x, SIGNS, reduction=reduction), each),
        "poisson_nll": (lambda x: F.poisson_nll_loss(x, WANTED, reduction=reduction), each),
        "kl_div": (
            lambda x: getattr(F.kl_div(x.log_softmax(1), SHARES, reduction="none"), reduction)(),
            sample,
        ),
        "cross_entropy": (lambda x: F.cross_entropy(x, LABELS, reduction=reduction), sample),
        "cross_entropy, smoothed": (
            lambda x: F.cross_entropy(x, LABELS, reduction=reduction, label_smoothing=0.1),
            sample,
        ),
        "cross_entropy of shares": (
            lambda x: F.cross_entropy(x, SHARES, reduction=reduction),
            sample,
        ),
        "nll of log_softmax": (
            lambda x: F.nll_loss(x.log_softmax(1), LABELS, reduction=reduction),
            sample,
        ),
        "cosine_similarity": (
            lambda x: getattr(F.cosine_similarity(x, WANTED), reduction)(),
            sample,
        ),
        "multilabel_soft_margin": (
            lambda x: F.multilabel_soft_margin_loss(x, WANTED.round(), reduction=reduction),
            each,
        ),
    }
    return {
        f"{name}, {reduction}": Objective(func, (4, 3), mask)
        for name, (func, mask) in table.items()
    }


IGNORED = torch.tensor([2, -100, 1, 0])
LOSSES = {
    **_of_losses("sum"),
    **_of_losses("mean"),
    "cross_entropy with a sample ignored": Objective(
        lambda x: F.cross_entropy(x, IGNORED), (4, 3), np.kron(np.diag([1, 0, 1, 1]), full(3)) > 0
    ),
    "logistic": Objective(lambda w: F.softplus(-SIGNS[:, 0] * (WANTED @ w)).sum(), (3,), full(3)),
    "gaussian_nll of the variance": Objective(
        lambda s: F.gaussian_nll_loss(WANTED[0], WANTED[1], s.exp()), (3,), diagonal(3)
    ),
}
