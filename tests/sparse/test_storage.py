"""Plans on disk: what is written is read again, and what is no plan is refused in words."""

from __future__ import annotations

import functools
import gc
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import pullback as pb
from pullback.sparse.plan import Plan
from pullback.sparse.storage import FORMAT

INDEX = torch.tensor([3, 0, 2, 1])


def differences(x: Tensor) -> Tensor:
    return (x[1:] - x[:-1]) ** 2


def arrow(x: Tensor) -> Tensor:
    return torch.cat([x.square().sum()[None], x[0] * x[1:].sin()])


def reordered(x: Tensor) -> Tensor:
    return x[INDEX].sin()


def several(state: dict[str, Tensor], scale: Tensor) -> tuple[Tensor, Tensor]:
    return state["a"] * scale, state["z"].real.sum() * scale


X = torch.linspace(0.1, 1, 12, dtype=torch.float64)
STATE = {"a": torch.rand(3), "z": torch.rand(2, dtype=torch.complex64)}
PLANS: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "rows": (differences, (X,), {"mode": "rev", "lift": False}),
    "columns": (differences, (X,), {"mode": "fwd", "lift": False}),
    "lifted": (differences, (X,), {"lift": True}),
    "lifted, without products": (lambda x: 3 * x.roll(1), (X,), {"lift": True}),
    "bidirectional": (arrow, (X,), {"mode": "mixed"}),
    "dense": (differences, (X,), {"mode": "dense"}),
    "full": (lambda x: x.softmax(0), (X,), {}),
    "of a user": (differences, (X,), {"pattern": np.tri(11, 12, 1, dtype=bool)}),
    "with facts": (reordered, (torch.rand(4),), {}),
    "of several": (several, (STATE, torch.rand(())), {"argnums": (0, 1)}),
    "empty": (lambda x: x[:0] * 2, (X,), {}),
    "without entries": (lambda x: torch.zeros(3) + 0 * x.detach()[:3], (X,), {}),
}


@functools.cache
def made(name: str) -> Plan:
    func, args, options = PLANS[name]
    return pb.plan_jacobian(func, *args, **options)


def same(one: Plan, other: Plan) -> bool:
    """Every field, patterns and colorings by content; a lift is worked out again where it is used."""
    plain = [f.name for f in fields(Plan) if f.name not in ("pattern", "colored", "lift")]
    return (
        all(getattr(one, name) == getattr(other, name) for name in plain)
        and one.pattern == other.pattern
        and (one.colored is None) == (other.colored is None)
        and (one.coloring.kind, one.coloring.order) == (other.coloring.kind, other.coloring.order)
        and one.coloring.num_colors == other.coloring.num_colors
        and torch.equal(one.coloring.colors, other.coloring.colors)
        and repr(one) == repr(other)
        and (one.lifted or one.bytes == other.bytes)
    )


def test_the_comparison_can_fail() -> None:
    assert not same(made("rows"), made("columns"))
    assert not same(made("rows"), made("of a user"))


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    plan = made(name)
    plan.save(tmp_path / "plan.npz")
    loaded = pb.Plan.load(tmp_path / "plan.npz")
    assert same(plan, loaded)
    assert loaded.pattern.is_full == plan.pattern.is_full
    loaded.save(str(tmp_path / "again"))
    assert same(plan, pb.Plan.load(str(tmp_path / "again")))


@pytest.mark.parametrize("name", PLANS)
def test_a_loaded_plan_gives_the_same_matrix(name: str, tmp_path: Path) -> None:
    func, args, options = PLANS[name]
    argnums = options.get("argnums", 0)
    made(name).save(tmp_path / "plan")
    found = pb.jacobian(func, argnums, plan=pb.Plan.load(tmp_path / "plan"))(*args)
    expected = pb.jacobian(func, argnums, plan=made(name))(*args)
    assert torch.equal(found.to_dense(), expected.to_dense())


def test_the_file_holds_no_matrix_for_a_full_pattern(tmp_path: Path) -> None:
    plan = pb.plan_jacobian(lambda x: x.softmax(0), torch.rand(500))
    plan.save(tmp_path / "plan")
    assert (tmp_path / "plan").stat().st_size < 20_000
    assert pb.Plan.load(tmp_path / "plan").pattern._indices is None


def test_the_file_holds_arrays_and_json_alone(tmp_path: Path) -> None:
    made("bidirectional").save(tmp_path / "plan")
    with np.load(tmp_path / "plan", allow_pickle=False) as archive:
        assert sorted(archive.files) == ["colors", "head", "indices", "indptr"]
        assert json.loads(archive["head"].tobytes().decode())["format"] == FORMAT


@pytest.fixture
def parts(tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The head and the arrays of a saved plan."""
    made("rows").save(tmp_path / "plan")
    with np.load(tmp_path / "plan") as archive:
        head = json.loads(archive["head"].tobytes().decode())
        return head, {name: archive[name] for name in archive.files if name != "head"}


def written(path: Path, head: Any, arrays: dict[str, Any]) -> Path:
    text = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
    with path.open("wb") as file:
        np.savez(file, head=text, **arrays)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(pb.RecordFormatError) as caught:
        pb.Plan.load(path)
    text = str(caught.value)
    assert text.startswith(f"Plan.load: {path} ")
    return text


class Trap:
    """Unpickling one writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_and_never_executed(tmp_path: Path) -> None:
    for name, write in {
        "npz": lambda file: np.savez(file, head=np.array([Trap(tmp_path / "ran")], dtype=object)),
        "npy": lambda file: np.save(file, np.array([Trap(tmp_path / "ran")], dtype=object)),
        "pickle": lambda file: pickle.dump(Trap(tmp_path / "ran"), file),
        "torch": lambda file: torch.save(Trap(tmp_path / "ran"), file),
    }.items():
        with (tmp_path / name).open("wb") as file:
            write(file)
        assert "is no plan that Plan.save wrote, or it is damaged" in refusal(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_pickled_array_beside_a_good_head_is_refused(
    tmp_path: Path, parts: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    head, arrays = parts
    arrays["indptr"] = np.array([Trap(tmp_path / "ran")], dtype=object)
    refusal(written(tmp_path / "bad", head, arrays))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"PK", b"junk" * 50, b"\x93NUMPY\x01\x00v\x00{", b"{}"])
def test_junk_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(content)
    assert "is no plan that Plan.save wrote, or it is damaged: " in refusal(tmp_path / "bad")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    made("rows").save(tmp_path / "plan")
    whole = (tmp_path / "plan").read_bytes()
    for keep in (0.1, 0.5, 0.9, 0.999):
        (tmp_path / "bad").write_bytes(whole[: int(keep * len(whole))])
        assert "or it is damaged" in refusal(tmp_path / "bad")
        gc.collect()


def test_a_refused_file_is_closed(tmp_path: Path) -> None:
    made("rows").save(tmp_path / "plan")
    (tmp_path / "bad").write_bytes((tmp_path / "plan").read_bytes()[:-50])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert outcome(tmp_path / "bad") is None
        gc.collect()
    assert seen == []


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        pb.Plan.load(tmp_path / "none")
    with pytest.raises(OSError):
        made("rows").save(tmp_path / "no folder" / "plan")


def test_another_format_is_refused(tmp_path: Path, parts: Any) -> None:
    head, arrays = parts
    path = written(tmp_path / "bad", head | {"format": 99}, arrays)
    assert refusal(path) == (
        f"Plan.load: {path} is written in format 99, and this version reads format {FORMAT}. Plan "
        f"again for it: pb.plan_jacobian(func, *args)."
    )


def test_another_torch_is_refused(tmp_path: Path, parts: Any) -> None:
    head, arrays = parts
    path = written(tmp_path / "bad", head | {"torch": "1.0.0"}, arrays)
    assert refusal(path) == (
        f"Plan.load: {path} was made with torch 1.0.0, and this is torch {torch.__version__}, whose "
        f"backward passes may be others. Plan again for it: pb.plan_jacobian(func, *args)."
    )


def test_another_build_of_the_same_torch_is_read(tmp_path: Path, parts: Any) -> None:
    head, arrays = parts
    other = torch.__version__.partition("+")[0] + "+cu999"
    assert pb.Plan.load(written(tmp_path / "plan", head | {"torch": other}, arrays)).num_products


Change = Callable[[dict[str, Any], dict[str, Any]], None]


def at(name: str, place: int, value: int) -> Change:
    def change(_: dict[str, Any], arrays: dict[str, Any]) -> None:
        arrays[name] = arrays[name].copy()
        arrays[name][place] = value

    return change


def head_is(**values: Any) -> Change:
    return lambda head, _: head.update(values)


def coloring_is(place: int, value: Any) -> Change:
    """Kind, order and number of colors."""

    def change(head: dict[str, Any], _: dict[str, Any]) -> None:
        head["coloring"][place] = value

    return change


def array_is(name: str, make: Callable[[Any], Any]) -> Change:
    return lambda _, arrays: arrays.update({name: make(arrays[name])})


DAMAGE: dict[str, Change] = {
    "a column beyond the last": at("indices", 3, 99),
    "a negative column": at("indices", 3, -1),
    "columns out of order": at("indices", 0, 5),
    "a row start that is less": at("indptr", 4, 0),
    "the first row start is not 0": at("indptr", 0, 1),
    "the last row start is short": at("indptr", -1, 21),
    "a color beyond the last": at("colors", 0, 7),
    "a color below neutral": at("colors", 0, -2),
    "too few colors": array_is("colors", lambda a: a[:-1]),
    "colors of another dtype": array_is("colors", lambda a: a.astype(np.float64)),
    "columns as floats": array_is("indices", lambda a: a.astype(np.float64)),
    "row starts as a matrix": array_is("indptr", lambda a: a[None]),
    "too few row starts": array_is("indptr", lambda a: a[:-1]),
    "no colors": lambda head, arrays: arrays.pop("colors"),
    "no columns": lambda head, arrays: arrays.pop("indices"),
    "another shape": head_is(shape=[11, 11]),
    "a negative shape": head_is(shape=[-1, 12]),
    "no shape": head_is(shape=None),
    "a coloring of another kind": coloring_is(0, "columns"),
    "an unknown coloring": coloring_is(0, "plaid"),
    "another number of colors": coloring_is(2, 1),
    "a lift beside a coloring": head_is(lifted_products=1),
    "a negative number of lifted products": head_is(lifted_products=-1),
    "neither a lift nor a coloring": head_is(coloring=None),
    "a negative number of colors": coloring_is(2, -1),
    "an unknown dtype": head_is(inputs=[["x", [12], "float99"]]),
    "a dtype that is none": head_is(inputs=[["x", [12], "nn"]]),
    "a leaf without a shape": head_is(inputs=[["x", "float64"]]),
    "no inputs": head_is(inputs=None),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused(name: str, tmp_path: Path, parts: Any) -> None:
    head, arrays = parts
    DAMAGE[name](head, arrays)
    said = refusal(written(tmp_path / "bad", head, arrays))
    assert "is no plan that Plan.save wrote, or it is damaged: " in said


# Each of these fields is consistent in itself, and contradicts another.
CONTRADICTIONS: dict[str, Change] = {
    "two rows that share a column have one color": lambda head, arrays: (
        arrays.update(colors=np.zeros_like(arrays["colors"])), head["coloring"].__setitem__(2, 1),
    )[0],
    "a row is in no product": at("colors", 4, -1),
    "inputs of other sizes than the pattern": head_is(inputs=[["x", [5], "float64"]]),
    "outputs of other sizes than the pattern": head_is(outputs=[["output", [5], "float64"]]),
    "an unknown mode": head_is(mode="sideways"),
    "a chunk of none": head_is(chunk_size=0),
    "a mode of the other side": head_is(mode="fwd"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictions_are_refused(name: str, tmp_path: Path, parts: Any) -> None:
    head, arrays = parts
    CONTRADICTIONS[name](head, arrays)
    refusal(written(tmp_path / "bad", head, arrays))


@pytest.mark.parametrize("head", [[], 3, None, "head", [1, 2]])
def test_a_head_that_is_none_is_refused(head: Any, tmp_path: Path, parts: Any) -> None:
    refusal(written(tmp_path / "bad", head, parts[1]))


def test_a_head_that_lacks_a_field_is_refused(tmp_path: Path, parts: Any) -> None:
    head, arrays = parts
    for key in head:
        refusal(written(tmp_path / "bad", {k: v for k, v in head.items() if k != key}, arrays))


def outcome(path: Path) -> Plan | None:
    try:
        return pb.Plan.load(path)
    except pb.RecordFormatError:
        return None


def test_an_archive_that_points_before_its_own_start_is_refused(tmp_path: Path) -> None:
    """One byte more in where the zip's table says that it begins."""
    made("of a user").save(tmp_path / "plan")
    content = bytearray((tmp_path / "plan").read_bytes())
    content[-6] += 1
    (tmp_path / "plan").write_bytes(bytes(content))
    refusal(tmp_path / "plan")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_flipped_bytes_are_refused_or_change_nothing(data: st.DataObject, tmp_path: Path) -> None:
    plan = made("of a user")
    target = tmp_path / "plan"
    plan.save(target)
    content = bytearray(target.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
    target.write_bytes(bytes(content))
    loaded = outcome(target)
    gc.collect(0)
    assert loaded is None or same(plan, loaded)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_hostile_file_with_good_checksums_is_refused_or_harmless(
    data: st.DataObject, tmp_path: Path
) -> None:
    """Numbers in place of numbers: whatever is read, no evaluation along it reads out of bounds."""
    plan = made("bidirectional")
    plan.save(tmp_path / "plan")
    with np.load(tmp_path / "plan") as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    name = data.draw(st.sampled_from(["colors", "indices", "indptr"]))
    array = arrays[name]
    for _ in range(data.draw(st.integers(1, 3))):
        array[data.draw(st.integers(0, len(array) - 1))] = data.draw(st.integers(-3, 40))
    with (tmp_path / "plan").open("wb") as file:
        np.savez(file, **arrays)
    loaded = outcome(tmp_path / "plan")
    if loaded is None:
        return
    try:
        found = pb.jacobian(arrow, plan=loaded, layout=torch.strided)(X)
    except pb.PullbackError:
        return
    torch.testing.assert_close(found, torch.func.jacrev(arrow)(X))


def test_a_zip_of_many_names_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad", "w") as archive:
        for k in range(50):
            archive.writestr(f"../{k}", "x")
    refusal(tmp_path / "bad")


def loaded(tmp_path: Path, name: str = "rows") -> Plan:
    made(name).save(tmp_path / "plan")
    return pb.Plan.load(tmp_path / "plan")


AGAIN = "Plan again for it: pb.plan_jacobian(func, *args)."


def test_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(pb.ArgumentError) as caught:
        pb.jacobian(differences, plan=loaded(tmp_path))(torch.rand(9, dtype=torch.float64))
    assert str(caught.value) == (
        f"jacobian: the plan was made for `x` of shape (12,) and dtype float64, but it has shape "
        f"(9,) and dtype float64. {AGAIN}"
    )


def test_another_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(pb.ArgumentError) as caught:
        pb.jacobian(differences, plan=loaded(tmp_path))(X.float())
    assert str(caught.value) == (
        f"jacobian: the plan was made for `x` of shape (12,) and dtype float64, but it has shape "
        f"(12,) and dtype float32. {AGAIN}"
    )


def test_other_outputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(pb.ArgumentError) as caught:
        pb.jacobian(lambda x: x * 2, plan=loaded(tmp_path))(X)
    assert str(caught.value) == (
        f"jacobian: the plan was made for `output` of shape (11,) and dtype float64, but it has "
        f"shape (12,) and dtype float64. {AGAIN}"
    )


def test_another_number_of_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(pb.ArgumentError) as caught:
        pb.jacobian(lambda p: differences(p[0]), plan=loaded(tmp_path))((X, X))
    assert str(caught.value) == (
        f"jacobian: the plan was made for 1 input tensors, and there are 2. {AGAIN}"
    )


def test_another_function_is_refused_by_the_entry_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(pb.ArgumentError) as caught:
        pb.jacobian(lambda x: x[1:] * x[0], plan=loaded(tmp_path))(X)
    assert str(caught.value) == (
        f"jacobian: the plan does not fit `func`: output element 1 may depend on input element 0, "
        f"and the plan's pattern has no entry (1, 0). {AGAIN}"
    )


def test_a_function_of_a_smaller_pattern_fits(tmp_path: Path) -> None:
    found = pb.jacobian(lambda x: x[1:].sin(), plan=loaded(tmp_path), layout=torch.strided)(X)
    torch.testing.assert_close(found, torch.func.jacrev(lambda x: x[1:].sin())(X))


def test_other_argnums_are_refused(tmp_path: Path) -> None:
    with pytest.raises(pb.ArgumentError) as caught:
        pb.jacobian(lambda a, b: differences(b) * a, argnums=1, plan=loaded(tmp_path))(X[:11], X)
    assert str(caught.value) == (
        "jacobian: the plan was made with argnums=(0,), and this call differentiates argnums=(1,). "
        "Pass the same argnums to both."
    )


def test_another_index_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = loaded(tmp_path, "with facts")
    x = torch.rand(4)
    jac = pb.jacobian(reordered, plan=plan)
    torch.testing.assert_close(jac(x).to_dense(), torch.func.jacrev(reordered)(x))
    monkeypatch.setitem(globals(), "INDEX", torch.tensor([0, 1, 2, 3]))
    for fresh in (jac, pb.jacobian(reordered, plan=plan)):
        with pytest.raises(pb.ArgumentError, match=re.escape(AGAIN)):
            fresh(x)


def test_what_is_no_plan_is_refused() -> None:
    with pytest.raises(pb.ArgumentError) as caught:
        pb.jacobian(differences, plan="plan.npz")  # type: ignore[arg-type]
    assert str(caught.value) == (
        "jacobian: `plan` is a str, not a plan. Make one with pb.plan_jacobian(func, *args), or "
        "read one with pb.Plan.load(path)."
    )
