"""The house: who may import whom, who may call autograd, who may read torch's private parts."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import pullback

ROOT = Path(pullback.__file__).parent

# From the foundations up; a module imports only from layers above its own in this list, or from
# its own layer where that is a package.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("_errors", "_trees"),
    ("_tracing",),
    ("_torch", "_settings", "_inductor"),
    ("_checks", "_nodeprobes", "draw"),
    ("_capabilities",),
    ("_names", "_engines", "_differences", "_mistakes", "_named", "cotangents"),
    ("_adjoint",),
    ("_linear",),
    ("_products",),
    ("_forward",),
    ("sparse",),
    ("_gram",),
    ("_parts",),
    ("_parted",),
    ("_operator",),
    ("_hessian_operator",),
    ("_jacobian", "_graph_jacobian"),
    ("_hessian", "_gauss_newton"),
    ("_factors",),
    ("_implicit",),
    ("backward",),
    ("testing",),
    ("_rowsums",),
    ("_sensitivity",),
    ("lessons",),
    ("demo", "doctor", "interop", "commands"),
    ("cli",),
    ("__main__",),
)
# Within backward/, in the order of the flow.
BACKWARD: tuple[str, ...] = (
    "verdict",
    "kernels",
    "stats",
    "events",
    "codec",
    "order",
    "formulas",
    "measure",
    "regions",
    "meanings",
    "depth",
    "graph",
    "modules",
    "sites",
    "origins",
    "cuts",
    "mutations",
    "passlog",
    "enginecalls",
    "listeners",
    "optimizersteps",
    "noting",
    "calls",
    "provenance",
    "entries",
    "accounts",
    "deposits",
    "bookkeeper",
    "booktext",
    "ledger",
    "watch",
    "numbering",
    "views",
    "quantities",
    "responses",
    "document",
    "record",
    "targets",
    "offers",
    "outcome",
    "looks",
    "structure",
    "bounds",
    "asking",
    "live",
    "questions",
    "recorder",
    "schedule",
    "steps",
    "aside",
    "onenode",
    "stepping",
    "stops",
    "standing",
    "stepper",
    "reach",
    "accumulation",
    "explain",
    "finite",
    "birth",
    "birthlog",
    "operations",
    "local",
    "userwords",
    "zeros",
    "sighting",
    "forward_values",
    "birth_words",
    "birth_fix",
    "birth_backward",
    "birth_forward",
    "births",
    "statements",
    "question",
    "cuttext",
    "cutways",
    "whyheld",
    "whyunreached",
    "whynone",
    "why",
    "errors",
    "diagnose",
    "growth",
    "overseer",
    "runreport",
    "audit_call",
    "audit_returns",
    "audit_state",
    "audit_forward",
    "audit_mistakes",
    "audit_adjoint",
    "audit_second",
    "audit_sums",
    "audit",
)

# Within sparse/, in the order of the flow; a package counts as one.
SPARSE: tuple[str, ...] = (
    "leaf",
    "reads",
    "trial",
    "state",
    "pattern",
    "unions",
    "draws",
    "arguments",
    "gradient",
    "coloring",
    "dependence",
    "tape",
    "graph",
    "recording",
    "captured",
    "owners",
    "rules",
    "detect",
    "masks",
    "trivial",
    "writes",
    "functional",
    "tryout",
    "capture",
    "backward_graph",
    "products",
    "evaluate",
    "compiled",
    "straight",
    "choice",
    "wanted",
    "cost",
    "lift",
    "blocks",
    "assemble",
    "fused",
    "parts",
    "tails",
    "membership",
    "factored",
    "lifted",
    "plan",
    "storage",
    "holomorphic",
    "samples",
    "layouts",
    "story",
    "study",
    "lifting",
    "shortcut",
    "ready",
    "blockwise",
    "planning",
    "session",
    "cutting",
    "widening",
    "witnesses",
    "blame",
    "crosscheck",
    "given",
    "verify",
    "normal",
    "weights",
)
# Shipped to be read and run: programs of the kind a user would write.
USERS_PROGRAMS = ("demo.", "lessons.sources.", "lessons.checks.")
# One reads and writes the other.
PLAN_AND_FILE = ("plan", "storage")


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports(path: Path) -> Iterator[str]:
    """Every module of pullback that ``path`` imports, function-level imports included."""
    package = list(path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            inner = base + (node.module.split(".") if node.module else [])
            for alias in node.names:
                candidate = [*inner, alias.name]
                found = candidate if is_module(candidate) else inner
                if found:
                    yield ".".join(found)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pullback"):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("pullback"))


def is_module(parts: list[str]) -> bool:
    target = ROOT.joinpath(*parts)
    return target.with_suffix(".py").exists() or (target / "__init__.py").exists()


def layer(module: str) -> int:
    head = module.split(".")[0]
    return next(k for k, names in enumerate(LAYERS) if head in names)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    module = name_of(path)
    if module == "__init__":
        return
    for target in imports(path):
        if target in ("pullback", "pullback.lessons") and module.startswith(USERS_PROGRAMS):
            continue  # it imports the public names
        head, own = target.split(".")[0], module.split(".")[0]
        if head == own and "." in module:
            continue
        assert layer(target) < layer(module), f"{module} imports {target}"


def test_the_layers_name_every_module_once() -> None:
    named = [name for names in LAYERS for name in names]
    found = {name_of(path).split(".")[0] for path in modules()} - {"__init__"}
    assert sorted(named) == sorted(found)


def test_backward_follows_its_flow() -> None:
    root = ROOT / "backward"
    assert {path.stem for path in root.iterdir() if path.stem[0] != "_"} == set(BACKWARD)
    for path in root.rglob("*.py"):
        own = path.relative_to(root).parts[0].removesuffix(".py")
        for target in imports(path):
            inner = target.split(".")[1] if target.startswith("backward.") else own
            if own in BACKWARD and inner != own:
                assert BACKWARD.index(inner) < BACKWARD.index(own), f"{own}: {inner}"


def test_sparse_follows_its_flow() -> None:
    root = ROOT / "sparse"
    assert {path.stem for path in root.iterdir() if path.stem[0] != "_"} == set(SPARSE)
    for path in root.rglob("*.py"):
        own = path.relative_to(root).parts[0].removesuffix(".py")
        for target in imports(path):
            inner = target.split(".")[1] if target.startswith("sparse.") else own
            if own in SPARSE and inner != own and (own, inner) != PLAN_AND_FILE:
                assert SPARSE.index(inner) < SPARSE.index(own), f"{own} imports {inner}"


def test_drawing_knows_neither_torch_nor_records() -> None:
    for path in (ROOT / "draw").glob("*.py"):
        tree = ast.parse(path.read_text())
        names = [
            n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and not n.level
        ]
        names += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
        assert not any(name.split(".")[0] == "torch" for name in names), path.name
        assert all(target.startswith("draw") for target in imports(path)), path.name


def attributes(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node)


MAY_DIFFERENTIATE = {
    "_engines",
    "_linear",
    "_products",
    "sparse.writes",
    "sparse.trial",
    "sparse.reads",  # names them, to recognise a user's calls
    "sparse.gradient",
    "sparse.products",
    "sparse.parts",  # J t of a differentiated part
    "sparse.backward_graph",
    "backward.calls",  # names them, to recognise a user's calls
    "backward.enginecalls",  # the same
    "backward.looks",
    "backward.recorder",
    "backward.offers",
    "backward.local",  # a node's operation, run again by itself
    "backward.onenode",
    "backward.audit_second",
    "_nodeprobes",
    "_capabilities",  # its probes
    "_torch.errors",  # names them, to recognise their frames
    "commands.bench_candidates",  # measures torch.func
}


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_few_modules_call_autograd(path: Path) -> None:
    if name_of(path) in MAY_DIFFERENTIATE or name_of(path).startswith(USERS_PROGRAMS):
        return
    calls = {a for a in attributes(path) if a in ("torch.autograd.grad", "torch.autograd.backward")}
    calls |= {a for a in attributes(path) if a.startswith("torch.func.")}
    calls -= {"torch.func.functionalize"}  # rewrites, and differentiates nothing
    assert calls == set()


PRIVATE = (
    "torch._C",
    "torch._dynamo",
    "torch._functorch",
    "torch._guards",
    "torch._inductor",
    "torch._subclasses",
    "torch.autograd._",
    "._sequence_nr",
    "._input_metadata",
)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_private_parts_of_torch_are_read_in_two_places(path: Path) -> None:
    if name_of(path).split(".")[0] in ("_torch", "_settings", "_inductor"):
        return
    text = path.read_text()
    assert [name for name in PRIVATE if name in text] == []


def test_files_are_of_a_size_to_be_read() -> None:
    long = {name_of(p): n for p in modules() if (n := p.read_text().count("\n")) > 400}
    assert long == {}
