"""The explorer's module: one file without dependencies, whose parts do what they say (by node)."""

from __future__ import annotations

import json
import math
import re
import shutil
import struct
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.draw.test_draw_html import HOSTILE

import pullback.draw.explorer.page as host
from pullback.draw import Page, Sentence
from pullback.draw.explorer import framed, module, style, to_html
from pullback.draw.numbers import number

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")
TOP_LEVEL = re.compile(r"^(?:async )?(?:function|class|const|let) (\w+)", re.MULTILINE)
PARTS = Path(host.__file__).parent


def run(script: str, given: Any = None) -> Any:
    """What ``script`` gives for ``given``, with the module's own names in scope."""
    body = module().replace("export { mount };", "")
    read = "const given = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
    program = f"{body}\n{read}\nconsole.log(JSON.stringify((() => {{ {script} }})()));"
    assert NODE is not None
    done = subprocess.run(
        [NODE, "-e", program],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_module_imports_nothing_and_names_everything_once() -> None:
    text = module()
    assert re.findall(r"^\s*import\b", text, re.MULTILINE) == []
    assert re.findall(r"^export .*", text, re.MULTILINE) == ["export { mount };"]
    names = TOP_LEVEL.findall(text)
    assert sorted(names) == sorted(set(names))
    assert "mount" in names


def test_every_part_is_in_the_module_after_what_it_imports() -> None:
    assert {path.stem for path in PARTS.glob("*.js")} == set(host.PARTS)
    for path in PARTS.glob("*.js"):
        text = path.read_text()
        assert text.count("\n") <= 450, path.name
        for name in re.findall(r'from "\./(\w+)\.js"', text):
            assert host.PARTS.index(name) < host.PARTS.index(path.stem), path.name


def test_nothing_is_fetched_and_no_markup_is_made_of_strings() -> None:
    text = module() + style()
    addresses = re.findall(r"https?://[^\"')\s]+", text)
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}
    for risky in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "url(",
    ):
        assert risky not in text.replace("url(#pbx-tip)", ""), risky


def test_hostile_text_cannot_leave_its_script_or_frame() -> None:
    document = {"title": "</script><script>alert(1)</script>\u2028<!--"}
    page = to_html(document, Page(HOSTILE, (Sentence(HOSTILE),)))
    inside = page.split('id="document">')[1].split("</script>")[0]
    assert json.loads(inside) == document
    assert "<script>alert" not in page
    assert page.count("<script") == 3
    frame = framed(page)
    assert frame.count("<") == 2
    assert 'sandbox="allow-scripts"' in frame


@needs_node
def test_numbers_are_written_as_python_writes_them() -> None:
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**63, 3000)
    any_bits = [struct.unpack("<d", struct.pack("<q", int(b)))[0] for b in bits]
    usual = (random.standard_normal(3000) * 10 ** random.uniform(-8, 9, 3000)).tolist()
    halves = [1000.5, 1001.5, 100.25, 100.75, 0.125, 2.0005, 12345.0, 1234500.0, 1235500.5, 9999.5]
    edges = [0.0, -0.0, 1.0, -1.0, 999999.0, 1e6, 1e-4, 9.9995e-5, 0.1 + 0.2, 363.0, 1.2e-7]
    values = [x for x in (*any_bits, *usual, *halves, *edges) if math.isfinite(x)]
    written = run("return given.map(number)", values)
    wrong = [(x, a, number(x)) for x, a in zip(values, written, strict=True) if a != number(x)]
    assert wrong == []
    assert run("return [NaN, Infinity, -Infinity].map(number)") == ["nan", "inf", "-inf"]


@needs_node
def test_subscripts_and_matrices_follow_c_order() -> None:
    shapes = [[], [5], [2, 3], [2, 3, 4]]
    for shape in shapes:
        size = int(np.prod(shape))
        found = run(f"return [...Array({size}).keys()].map((k) => subscript(given, k))", shape)
        places = [list(place) for place in np.ndindex(*shape)]
        assert found == [str(place) if place else "" for place in places]


def random_graph(seed: int) -> list[dict[str, Any]]:
    """Nodes in execution order, each with a few edges forward, calls and modules at random."""
    random = np.random.default_rng(seed)
    size = int(random.integers(2, 60))
    nodes = []
    for i in range(size):
        later = range(i + 1, min(size, i + 1 + int(random.integers(1, 20))))
        count = min(len(later), int(random.integers(1, 4)))
        targets = random.choice(list(later), count, replace=False) if count else []
        call = None
        if random.random() < 0.8:
            line = int(random.integers(1, 8))
            call = {"file": "a.py", "line": line, "code": f"f{line}", "module": f"m{line % 3}"}
        edges = [{"to": int(t), "slot": 0} for t in targets]
        nodes.append({"name": f"N{i}", "leaf": None, "edges": edges, "call": call})
    return nodes


@needs_node
@pytest.mark.parametrize("grouping", ["node", "call", "module"])
def test_groups_are_a_graph_without_cycles_that_loses_no_edge(grouping: str) -> None:
    for seed in range(12):
        nodes = random_graph(seed)
        found = run(f"return grouped(given, '{grouping}', new Set())", nodes)
        members = sorted(i for box in found["boxes"] for i in box["members"])
        assert members == list(range(len(nodes)))
        order = {k: set() for k in range(len(found["boxes"]))}
        for arrow in found["arrows"]:
            order[arrow["from"]].add(arrow["to"])
        assert acyclic(order)
        between = {
            (i, k)
            for i, node in enumerate(nodes)
            for k, edge in enumerate(node["edges"])
            if found["boxOf"][i] != found["boxOf"][edge["to"]]
        }
        assert {tuple(e) for arrow in found["arrows"] for e in arrow["edges"]} == between
        if grouping == "node":
            assert len(found["boxes"]) == len(nodes)


def acyclic(next_of: dict[int, set[int]]) -> bool:
    waiting = {k: sum(k in after for after in next_of.values()) for k in next_of}
    ready = [k for k, n in waiting.items() if n == 0]
    seen = 0
    while ready:
        seen += 1
        for to in next_of[ready.pop()]:
            waiting[to] -= 1
            if waiting[to] == 0:
                ready.append(to)
    return seen == len(next_of)


def test_acyclic_sees_a_cycle() -> None:
    assert acyclic({0: {1}, 1: set()})
    assert not acyclic({0: {1}, 1: {0}})


@needs_node
def test_a_line_that_runs_again_on_its_own_result_is_not_one_box() -> None:
    """A loop's two lines alternate: neither is a group, for each would feed the other."""
    nodes = [
        {
            "name": f"N{i}",
            "leaf": None,
            "edges": [{"to": i + 1, "slot": 0}] if i < 5 else [],
            "call": {"file": "a.py", "line": i % 2, "code": "", "module": ""},
        }
        for i in range(6)
    ]
    found = run("return grouped(given, 'call', new Set())", nodes)
    assert [box["members"] for box in found["boxes"]] == [[i] for i in range(6)]
    for node in nodes:
        node["call"]["line"] = 1
    assert len(run("return grouped(given, 'call', new Set())", nodes)["boxes"]) == 1


@needs_node
def test_layers_go_by_longest_path_and_boxes_do_not_overlap() -> None:
    for seed in range(12):
        nodes = random_graph(seed)
        script = """
          const { boxes, arrows } = grouped(given, "node", new Set());
          return { ...placed(boxes, arrows), arrows, BOX };
        """
        found = run(script, nodes)
        assert found == run(script, nodes)
        box, places = found["BOX"], found["places"]
        rank = [0] * len(nodes)
        for i, node in enumerate(nodes):
            for edge in node["edges"]:
                rank[edge["to"]] = max(rank[edge["to"]], rank[i] + 1)
        assert [round(p["y"] / box["layer"]) for p in places] == rank
        for layer in found["layers"]:
            xs = [places[k]["x"] for k in layer]
            assert all(b - a >= box["width"] + box["gap"] - 1e-6 for a, b in pairwise(xs))
        for route, arrow in zip(found["routes"], found["arrows"], strict=True):
            assert route[0] == places[arrow["from"]]
            assert route[-1] == places[arrow["to"]]


@needs_node
def test_a_chain_stays_straight_whatever_hangs_on_it() -> None:
    size = 120
    nodes = []
    for i in range(0, 2 * size, 2):
        edges = [{"to": i + 1, "slot": 0}] + (
            [{"to": i + 2, "slot": 0}] if i + 2 < 2 * size else []
        )
        nodes += [
            {"name": "spine", "leaf": None, "edges": edges, "call": None},
            {"name": "side", "leaf": None, "edges": [], "call": None},
        ]
    script = """
      const { boxes, arrows } = grouped(given, "node", new Set());
      return placed(boxes, arrows).places.map((place) => place.x);
    """
    spine = run(script, nodes)[::2]
    assert max(spine) - min(spine) < 2 * 176
