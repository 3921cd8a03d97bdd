"""``pb.ledger``: every writer of .grad in order, and a balance that does not hide one."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pullback as pb
from pullback.backward.entries import Entry, place_text

HERE = Path(__file__)


def line_of(mark: str) -> str:
    """``test_ledger.py:12``: the one line that ends with this mark."""
    found = [
        k for k, text in enumerate(HERE.read_text().splitlines(), 1) if text.endswith(f"# {mark}")
    ]
    assert len(found) == 1, (mark, found)
    return f"{HERE.name}:{found[0]}"


def kinds(book: pb.Ledger, name: str) -> list[str]:
    return [entry.kind for entry in book.account(name).entries]


def leaf(*entries: float) -> Tensor:
    return torch.tensor(entries, requires_grad=True)


def test_deposits_with_output_line_cotangent_and_amount() -> None:
    w = leaf(1.0, 2.0)
    with pb.ledger({"w": w}) as book:
        out = w * 3
        out.backward(torch.tensor([1.0, 0.0]))  # first deposit
        (w * w).sum().backward()  # second deposit
    first, second = book.entries
    assert [e.kind for e in book.entries] == ["deposit", "deposit"]
    assert (first.place, second.place) == (line_of("first deposit"), line_of("second deposit"))
    assert first.amount == pytest.approx(3.0)
    assert second.amount == pytest.approx(20**0.5)
    assert second.norm == pytest.approx(float(w.grad.norm()))
    assert first.engine_call is not None
    assert second.engine_call is not None
    root = first.engine_call.roots[0]
    assert root.shape == (2,)
    assert root.call is not None
    assert root.call.code == "w * 3"
    assert root.cotangent is not None
    assert root.cotangent.code == "one_hot"
    assert second.engine_call.roots[0].cotangent is None
    assert book.balanced


def test_why_twice_as_large() -> None:
    w = leaf(1.0)
    with pb.ledger({"w": w}) as book:
        for _ in range(2):
            w.sum().backward()  # twice
    told = str(book)
    assert "2 deposits since the ledger began" in told
    assert f"backward at {line_of('twice')} (2 times)" in told.replace("\n  ", " ")
    assert "Nothing emptied it in between" in told.replace("\n  ", " ")


def test_who_zeroed_it() -> None:
    w = leaf(1.0)
    with pb.ledger({"w": w}) as book:
        w.sum().backward()
        w.grad.zero_()  # by hand
    assert kinds(book, "w") == ["deposit", "zero"]
    assert f"zeros, by zero_ at {line_of('by hand')}" in str(book).replace("\n  ", " ")
    assert book.entries[-1].norm == 0


def test_set_to_none_and_never_written() -> None:
    w, b = leaf(1.0), leaf(1.0)
    with pb.ledger({"w": w, "b": b}) as book:
        w.sum().backward()
        w.grad = None  # emptied
    assert kinds(book, "w") == ["deposit", "none"]
    assert kinds(book, "b") == []
    told = str(book).replace("\n  ", " ")
    assert f"set to None, by grad = None at {line_of('emptied')}, after 1 deposit" in told
    assert "never written: the backward that ran did not reach it" in told


def test_deleting_grad_is_setting_it_to_none() -> None:
    w = leaf(1.0)
    with pb.ledger({"w": w}) as book:
        w.sum().backward()
        del w.grad
    assert kinds(book, "w") == ["deposit", "none"]
    assert book.balanced


NEVER: dict[str, tuple[Callable[[Tensor, Tensor], object], str]] = {
    "nothing ran": (lambda w, b: None, "no backward ran in the block"),
    "autograd.grad": (
        lambda w, b: torch.autograd.grad((w + b).sum(), w),
        "only autograd.grad ran",
    ),
    "inputs=": (lambda w, b: (w + b).sum().backward(inputs=[w]), "left it out"),
    "raised": (lambda w, b: w.detach().sum().backward(), "raised: element 0 of tensors"),
}


@pytest.mark.parametrize("name", NEVER)
def test_never_written_says_why(name: str) -> None:
    w, b = leaf(1.0), leaf(1.0)
    run, words = NEVER[name]
    with pb.ledger({"w": w, "b": b}) as book:
        try:
            run(w, b)
        except RuntimeError:
            assert name == "raised"
    told = str(book).split("\nb\n")[-1] if name == "inputs=" else str(book)
    assert words in told.replace("\n  ", " ")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh())


def seeded() -> tuple[Net, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = Net()
    return net, torch.optim.AdamW(net.parameters(), lr=0.1)


def batches(count: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        yield torch.randn(5, 4, generator=generator)


def accumulate(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for k, batch in enumerate(batches(4)):
        net(batch).pow(2).mean().backward()
        if k % 2:
            nn.utils.clip_grad_norm_(net.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()


def two_losses(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for batch in batches(2):
        optimizer.zero_grad(set_to_none=False)
        out = net(batch)
        out.mean().backward(retain_graph=True)
        out.pow(2).mean().backward()
        nn.utils.clip_grad_value_(net.parameters(), 0.01)
        optimizer.step()


def scaled(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for batch in batches(2):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = net(batch).pow(2).mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()


def closures(net: nn.Module, _: torch.optim.Optimizer) -> None:
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=2)
    batch = next(batches(1))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = net(batch).pow(2).mean()
        loss.backward()
        return loss

    optimizer.step(closure)


LOOPS: dict[str, tuple[Callable[[nn.Module, torch.optim.Optimizer], None], list[str]]] = {
    "accumulation": (accumulate, ["deposit", "deposit", "clip", "read", "none"] * 2),
    "two losses": (
        two_losses,
        [
            "deposit",
            "deposit",
            "clip",
            "clip",
            "read",
            "zero",
            "deposit",
            "deposit",
            "clip",
            "clip",
            "read",
        ],
    ),
    "amp": (
        scaled,
        ["deposit", "unscale", "clip", "read", "none", "deposit", "unscale", "clip", "read"],
    ),
}


@pytest.mark.parametrize("name", LOOPS)
def test_training_loops(name: str) -> None:
    run, expected = LOOPS[name]
    plain, optimizer = seeded()
    run(plain, optimizer)
    net, optimizer = seeded()
    with pb.ledger(net, contents=True) as book:
        run(net, optimizer)
    assert book.balanced, book.unlogged
    for parameter in plain.state_dict():
        assert kinds(book, parameter) == expected
        assert torch.equal(plain.state_dict()[parameter], net.state_dict()[parameter])
    for one, other in zip(plain.parameters(), net.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.equal(one.grad, other.grad)


def test_a_closure_inside_a_step_is_the_users_program() -> None:
    net, optimizer = seeded()
    with pb.ledger(net, contents=True) as book:
        closures(net, optimizer)
    assert book.balanced
    assert {"deposit", "none"} <= set(kinds(book, "first.weight"))


def test_the_loss_scale_is_told_until_it_is_divided_out() -> None:
    net, optimizer = seeded()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with pb.ledger(net) as book:
        scaler.scale(net(next(batches(1))).mean()).backward()
        before = str(book)
        scaler.unscale_(optimizer)
    call = book.account("first.bias").entries[0].engine_call
    assert call is not None
    assert call.scale == 1024.0
    assert "loss scale 1024" in before
    assert "has not been" in before
    assert "has not been" not in str(book)
    ratio = book.account("first.bias").entries[0].norm / book.account("first.bias").entries[1].norm
    assert ratio == pytest.approx(1024.0)


def test_ddp_with_one_process(tmp_path: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", rank=0, world_size=1, init_method=f"file://{tmp_path / 'store'}"
    )
    try:
        plain, optimizer = seeded()
        accumulate(plain, optimizer)
        net, _ = seeded()
        wrapped = nn.parallel.DistributedDataParallel(net)
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
        with pb.ledger(net, contents=True) as book:
            accumulate(wrapped, optimizer)
    finally:
        torch.distributed.destroy_process_group()
    assert book.balanced, book.unlogged
    assert book.account("first.weight").counts["deposit"] == 4
    for name, value in plain.state_dict().items():
        assert torch.equal(value, net.state_dict()[name])


def test_hooks_after_a_deposit_are_named() -> None:
    def halve(parameter: Tensor) -> None:
        parameter.grad.mul_(0.5)

    def empty(parameter: Tensor) -> None:
        parameter.grad = None

    w, b = leaf(2.0), leaf(2.0)
    w.register_post_accumulate_grad_hook(halve)
    b.register_post_accumulate_grad_hook(empty)
    with pb.ledger({"w": w, "b": b}) as book:
        (w + b).sum().backward()
        (w + b).sum().backward()
    assert kinds(book, "w") == ["deposit", "hook"] * 2
    assert kinds(book, "b") == ["deposit", "hook"] * 2
    assert all(entry.note.endswith("halve") for entry in book.account("w").entries if entry.note)
    assert book.balanced
    assert float(w.grad) == 0.75


def test_a_tensor_that_retains_its_gradient() -> None:
    w = leaf(2.0)
    h = w * 3
    h.retain_grad()
    with pb.ledger({"h": h}) as book:
        (h * h).sum().backward()
    assert kinds(book, "h") == ["deposit"]
    assert float(h.grad) == 12.0
    assert book.balanced


def test_create_graph_replaces_the_tensor_and_is_a_deposit() -> None:
    w = leaf(2.0)
    with pb.ledger({"w": w}) as book:
        for _ in range(2):
            with warnings.catch_warnings(action="ignore"):  # torch warns once of the cycle
                (w**3).sum().backward(create_graph=True)
    assert kinds(book, "w") == ["deposit", "deposit"]
    assert book.balanced


def by_data(w: Tensor) -> None:
    w.grad.data.mul_(2)


def by_slice(w: Tensor) -> None:
    w.grad.view(-1)[0] = 5.0


def by_out(w: Tensor) -> None:
    torch.add(torch.ones(1), torch.ones(1), out=w.grad)


def by_assignment(w: Tensor) -> None:
    w.grad = torch.full((1,), 3.0)


def by_foreach(w: Tensor) -> None:
    torch._foreach_add_([w.grad], 1.0)


def by_augmented_assignment(w: Tensor) -> None:
    w.grad /= 4


WRITERS = {
    by_data: ("write", True),
    by_slice: ("write", False),
    by_out: ("write", False),
    by_assignment: ("set", False),
    by_foreach: ("write", False),
    by_augmented_assignment: ("write", False),
}


@pytest.mark.parametrize("write", WRITERS, ids=lambda f: f.__name__)
def test_writes_by_hand_have_their_line(write: Callable[[Tensor], None]) -> None:
    w = leaf(1.0)
    with pb.ledger({"w": w}, contents=True) as book:
        w.sum().backward()
        write(w)
    kind, behind = WRITERS[write]
    entry = book.entries[-1]
    assert (entry.kind, entry.behind) == (kind, behind)
    first = write.__code__.co_firstlineno
    assert entry.place == f"{HERE.name}:{first + 1}"
    assert book.balanced


def test_augmented_assignment_keeps_what_was_there_before() -> None:
    w = leaf(1.0)
    with pb.ledger({"w": w}) as book:
        for _ in range(2):
            w.sum().backward()
        w.grad /= 2  # their mean
    account = book.account("w")
    assert [entry.kind for entry in account.since_empty] == ["deposit", "deposit", "write"]
    assert "2 deposits" in str(book)
    assert f"written to in place, by div_ at {line_of('their mean')}" in str(book)
    assert repr(account) == "<Account of w: 2 deposit, 1 write>"


def through_numpy(w: Tensor) -> None:
    w.grad.numpy()[0] = 9.0


def in_another_thread(w: Tensor) -> None:
    thread = threading.Thread(target=lambda: w.grad.add_(1.0))
    thread.start()
    thread.join()


def replaced_unseen(w: Tensor) -> None:
    with torch._C.DisableTorchFunction():
        w.grad = torch.zeros(1)


def emptied_unseen(w: Tensor) -> None:
    with torch._C.DisableTorchFunction():
        w.grad = None


@pytest.mark.parametrize(
    "write", [through_numpy, in_another_thread, replaced_unseen, emptied_unseen]
)
@pytest.mark.parametrize("then", [True, False], ids=["with an event after", "at the end"])
def test_an_unlogged_writer_unbalances_the_book(
    write: Callable[[Tensor], None], then: bool
) -> None:
    w = leaf(1.0)
    with pb.ledger({"w": w}) as book:
        w.sum().backward()  # before the writer
        write(w)
        if then:
            w.sum().backward()  # after the writer
    assert not book.balanced
    assert [e.tensor for e in book.unlogged] == ["w"]
    after = line_of("after the writer") if then else "the end of the block"
    assert after in book.unlogged[0].note
    assert "Out of balance" in str(book)


def test_contents_sees_a_writer_that_nobody_was_handed_to() -> None:
    w = leaf(1.0)
    w.sum().backward()
    alias = w.grad.numpy()
    found = []
    for contents in (False, True):
        with pb.ledger({"w": w}, contents=contents) as book:
            alias[0] += 1
        found.append(book.balanced)
    assert found == [True, False]


def test_swapped_entries_are_a_change() -> None:
    w = leaf(1.0, 2.0)
    with pb.ledger({"w": w}) as book:
        (w * w).sum().backward()
        entries = w.grad.numpy()
        entries[:] = entries[::-1].copy()
    assert not book.balanced


def test_reads_of_numpy_alone_keep_the_balance() -> None:
    w = leaf(1.0)
    with pb.ledger({"w": w}) as book:
        w.sum().backward()
        assert np.asarray(w.grad)[0] == 1
        w.sum().backward()
    assert book.balanced


def test_threads_have_their_own_calls_but_their_deposits_count() -> None:
    w = leaf(1.0)
    with pb.ledger({"w": w}) as book:
        thread = threading.Thread(target=lambda: w.sum().backward())
        thread.start()
        thread.join()
    assert kinds(book, "w") == ["deposit"]
    assert book.entries[0].place.startswith(HERE.name)
    assert book.balanced


def test_what_held_before_is_told() -> None:
    w = leaf(1.0)
    w.sum().backward()
    with pb.ledger({"w": w}) as book:
        w.sum().backward()
    assert "added to what .grad held when the ledger began" in str(book).replace("\n  ", " ")


def test_old_entries_are_counted_only() -> None:
    w = leaf(1.0)
    with pb.ledger({"w": w}, limit=5) as book:
        for _ in range(20):
            w.sum().backward()
    account = book.account(w)
    assert (len(account.entries), account.dropped, account.deposits_since_empty) == (5, 15, 20)
    assert "20 deposits" in str(book)


def test_nothing_stays_after_the_block() -> None:
    from torch.optim.optimizer import _global_optimizer_pre_hooks

    w = leaf(1.0)
    node = (w * 1).grad_fn.next_functions[0][0]
    before = len(_global_optimizer_pre_hooks)
    with pytest.raises(ZeroDivisionError), pb.ledger({"w": w}) as book:
        _ = 1 / 0
    assert len(_global_optimizer_pre_hooks) == before
    w.sum().backward()
    assert book.entries == ()
    assert node is not None
    assert pb.record(w.sum()).hooks == ()


def test_blocks_nest_and_end_in_any_order() -> None:
    w = leaf(1.0)
    outer, inner = pb.ledger({"w": w}), pb.ledger({"w": w})
    outer.__enter__()
    inner.__enter__()
    w.sum().backward()
    outer.__exit__(None, None, None)
    w.sum().backward()
    inner.__exit__(None, None, None)
    w.sum().backward()
    assert (len(outer.entries), len(inner.entries)) == (1, 2)
    assert outer.balanced
    assert inner.balanced


def test_a_parameter_moved_to_another_dtype_is_watched_on() -> None:
    net, _ = seeded()
    with pb.ledger(net) as book:
        net.double()
        net(next(batches(1)).double()).sum().backward()
    assert kinds(book, "first.weight") == ["deposit"]
    assert book.balanced


def test_a_parameter_thawed_inside_the_block() -> None:
    net, _ = seeded()
    net.first.weight.requires_grad_(False)
    with pb.ledger(net) as book:
        net(next(batches(1))).sum().backward()
        net.first.weight.requires_grad_(True)
        net(next(batches(1))).sum().backward()
    assert kinds(book, "first.weight") == ["deposit"]
    assert kinds(book, "first.bias") == ["deposit", "deposit"]


def test_sparse_and_complex_gradients() -> None:
    embedding = nn.Embedding(5, 2, sparse=True)
    z = torch.ones(2, dtype=torch.complex64, requires_grad=True)
    with pb.ledger([embedding.weight, z], contents=True) as book:
        for _ in range(2):
            embedding(torch.tensor([1, 1])).sum().backward()
            (z * z.conj()).real.sum().backward()
    assert book.account(z).counts["deposit"] == 2
    assert book.account(embedding.weight).counts["deposit"] == 2
    assert book.balanced


def test_refusals() -> None:
    with pytest.raises(pb.TreeError, match="not a tensor"):
        pb.ledger({"w": 3})
    with pytest.raises(pb.ArgumentError, match="limit"):
        pb.ledger(leaf(1.0), limit=0)
    book = pb.ledger({"w": leaf(1.0)})
    with pytest.raises(pb.ArgumentError, match="watches `w`"):
        book.account("v")
    with book, pytest.raises(pb.ArgumentError, match="open already"):
        book.__enter__()


def test_entries_are_words_and_places() -> None:
    from pullback.backward.events import UserCall

    assert place_text(UserCall("f", "/a/b/train.py", 3, "f()")) == "train.py:3"
    assert Entry(1, "read", "w", UserCall("f", "", 0, "")).place == ""
