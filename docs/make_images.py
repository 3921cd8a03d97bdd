"""Draw the pictures of the README: ``python docs/make_images.py``."""

from __future__ import annotations

from pathlib import Path

import torch

import pullback as pb

IMAGES = Path(__file__).parent / "images"


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    inp = torch.eye(4, 5, requires_grad=True)
    out = (inp + 10).pow(3).t()
    first = pb.cotangents.rows(out, {0: 1.0})
    record = pb.record(out, first, inputs={"inp": inp})
    record.plot().savefig(IMAGES / "record.png", dpi=110, bbox_inches="tight")
    weighed = pb.sensitivity(
        out,
        {"inp": inp},
        {
            "uniform": pb.cotangents.normalized(pb.cotangents.ones(out)),
            "first row": pb.cotangents.normalized(first),
            "last row": pb.cotangents.normalized(pb.cotangents.rows(out, {-1: 1.0})),
        },
    )
    weighed.plot().savefig(IMAGES / "sensitivity.png", dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
