"""Every pain that users bring to torch's trackers has its program, and its program has a test.

The numbers are those of a survey of 22 kinds of question, from the missing cotangent (1) to the
custom Function that is wrong and silent (22); each names threads at discuss.pytorch.org or GitHub
in its comment.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.backward.broken_programs import BROKEN
from tests.backward.corpus.errors import CASES as ERRORS
from tests.backward.corpus.whys import CASES as WHYS

TESTS = Path(__file__).parents[1]

# Programs of the three corpora: why:..., error:..., born:...; or tests by file and name.
PAINS: dict[int, tuple[str, ...]] = {
    1: ("error:several_numbers", "error:losses_of_devices", "why:a failed backward"),
    2: ("error:same_loss_twice", "error:two_losses", "error:hidden_state", "error:computed_once"),
    3: ("error:augmented", "error:view_of_result", "error:optimizer_step"),  # pytorch#15803
    4: ("why:computed, and not retained",),  # pytorch#30531
    5: ("why:re-bound by to", "why:re-bound by view"),  # pytorch#12627
    6: ("error:under_no_grad", "error:argmax", "error:frozen", "why:the fake fix"),
    7: ("error:non_leaf_to_optimizer", "why:scaled where it is made"),  # pytorch#140469
    8: ("why:detached", "why:read out with item", "why:through numpy", "why:data"),
    9: ("why:two backwards", "why:four micro-batches, not divided"),
    10: ("error:wrong_shape", "error:transposed_shape"),  # pytorch#17893
    11: ("commands/test_run.py:test_a_running_sum_of_losses_is_named_with_its_passes",),
    12: ("commands/test_run.py:test_a_running_sum_of_losses_is_named_with_its_passes",),
    13: ("costs/test_birth_costs.py:def test_",),  # anomaly mode is slow: one look suffices
    14: ("why:inf", "born:sqrt at 0"),  # pytorch#160016
    15: ("born:sqrt under where", "born:sqrt, masked_fill", "why:nan"),  # pytorch#68425
    16: ("error:never_used", "error:view_asked_for", "why:not an ancestor"),  # pytorch#73697
    17: ("error:input_in_place", "error:parameter_update"),  # pytorch#2940
    18: ("backward/test_diagnose.py:unreduced_parameters",),  # pytorch#43259
    19: ("backward/test_pains.py:test_a_full_backward_hook_before_a_write_in_place",),
    20: ("error:checkpoint_of_data", "error:checkpoint_and_grad"),
    21: ("why:inside a compiled region",),  # pytorch#91468
    22: ("why:a Function that returns None", "error:function_shape", "why:scaled by a GradScaler"),
}


def known() -> set[str]:
    return (
        {f"why:{name}" for name in WHYS}
        | {f"error:{case.name}" for case in ERRORS}
        | {f"born:{broken.name}" for broken in BROKEN}
    )


def test_every_pain_has_a_program() -> None:
    assert list(PAINS) == list(range(1, 23))
    for pain, places in PAINS.items():
        assert places, pain
        for place in places:
            kind, _, name = place.partition(":")
            if kind in ("why", "error", "born"):
                assert place in known(), (pain, place)
            else:
                assert re.search(name, (TESTS / kind).read_text()), (pain, place)


def test_programs_that_name_a_pain_name_one_of_these() -> None:
    named = {case.pain for case in WHYS.values() if case.pain is not None}
    assert named <= set(PAINS)


def test_a_full_backward_hook_before_a_write_in_place() -> None:
    """pytorch#61519: the hook puts a node between a module and what writes to its result."""
    import torch
    from torch import nn

    import pullback as pb

    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True))
    model[0].register_full_backward_hook(lambda *_: None)
    failure: RuntimeError | None = None
    with pb.trace():
        try:
            model(torch.ones(1, 2))  # the line
        except RuntimeError as error:
            failure = error
    assert failure is not None
    verdict = pb.diagnose(failure)
    line = next(
        k for k, text in enumerate(Path(__file__).read_text().splitlines(), 1)
        if text.endswith("# the line")
    )  # fmt: skip
    assert verdict.code == "view_in_place"
    assert f"test_pains.py:{line}" in dict(verdict.evidence)["line to change"]
    model[1].inplace = False
    model(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert model[0].weight.grad is not None
