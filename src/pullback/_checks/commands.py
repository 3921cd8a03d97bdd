"""What the commands ask of a user's files and options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from .._errors import ArgumentError
from .words import article, dtype_text


def target_text(caller: str, text: str) -> tuple[str, str]:
    """``FILE.py:FUNC`` cut in two."""
    file, colon, name = text.rpartition(":")
    if not colon or not file or not name:
        raise ArgumentError(
            f"{caller}: {text!r} names no function of a file; write FILE.py:FUNC, such as "
            f"{file or text or 'model.py'}:residual."
        )
    return file, name


def file_is_there(caller: str, what: str, path: Path) -> None:
    if path.is_dir():
        raise ArgumentError(f"{caller}: {what} {path} is a folder; name a file.")
    if not path.exists():
        raise ArgumentError(f"{caller}: there is no file {path}; give the path of {what}.")


def no_such_function(caller: str, path: Path, name: str, there: Sequence[str]) -> ArgumentError:
    known = ", ".join(there) if there else "none"
    return ArgumentError(
        f"{caller}: {path} defines no {name!r}. Functions that it defines: {known}."
    )


def not_callable(caller: str, path: Path, name: str, value: object) -> ArgumentError:
    return ArgumentError(
        f"{caller}: {name!r} of {path} is {article(value)}, which cannot be called. Name a "
        f"function, or an object such as an nn.Module."
    )


def no_point(caller: str, path: Path, name: str, conventions: Sequence[str]) -> ArgumentError:
    own, shared = conventions
    return ArgumentError(
        f"{caller}: at which point? Pass --at x.pt, a file written by torch.save(x, 'x.pt'), or "
        f"define in {path} a function {own}() or {shared}() that returns the arguments of {name}: "
        f"a tensor, or a tuple of all of them."
    )


def point_file(caller: str, path: Path, detail: str) -> ArgumentError:
    return ArgumentError(
        f"{caller}: --at {path} cannot be read: {detail}\nIt must be a file that torch.save wrote, "
        f"of a tensor, a tuple or list of arguments, or a dict: torch.save(x, {str(path)!r})."
    )


def empty_point(caller: str, source: str) -> ArgumentError:
    return ArgumentError(
        f"{caller}: {source} gives no arguments; give a tensor, or a tuple of all arguments."
    )


def output_suffix(caller: str, option: str, path: Path, allowed: Sequence[str]) -> None:
    if path.is_dir():
        raise ArgumentError(f"{caller}: {option} {path} is a folder; name a file.")
    if path.suffix.lower() not in allowed:
        raise ArgumentError(
            f"{caller}: {option} {path} ends in {path.suffix or 'nothing'!r}; the ending chooses "
            f"the format, and must be {_either(allowed)}."
        )


def same_file(caller: str, first: str, second: str, path: Path) -> ArgumentError:
    return ArgumentError(f"{caller}: {first} and {second} both name {path}; give each its own.")


def dense_needs_torch(caller: str, path: Path) -> ArgumentError:
    return ArgumentError(
        f"{caller}: --layout strided does not fit --out {path}: {path.suffix} holds sparse "
        f"matrices. Write --out {path.with_suffix('.pt')}, or choose --layout csr or coo."
    )


def dtype_not_for_scipy(caller: str, path: Path, dtype: str) -> ArgumentError:
    return ArgumentError(
        f"{caller}: the entries are of dtype {dtype}, which SciPy's sparse matrices do not hold, "
        f"so {path} cannot be written. Write --out {path.with_suffix('.pt')}, or give a point of "
        f"float32 or float64."
    )


def argnums_text(caller: str, text: str) -> int | tuple[int, ...]:
    """``0`` is one position, ``0,2`` (or ``0,``) several."""
    try:
        places = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        places = ()
    if not places:
        raise ArgumentError(
            f"{caller}: --argnums is {text!r}; it must be a position such as 0, or several such "
            f"as 0,2."
        )
    return places if "," in text else places[0]


def names_text(caller: str, option: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """``a,b``: some of ``known``, or none."""
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in names:
        if name not in known:
            raise ArgumentError(
                f"{caller}: {option} names {name!r}; there is {' and '.join(known)}. Separate "
                f"several with a comma, and write {option} '' for none."
            )
    return names


def positive(caller: str, option: str, value: int) -> None:
    if value < 1:
        raise ArgumentError(f"{caller}: {option} is {value}; it must be at least 1.")


def no_such_problem(caller: str, name: str, known: Sequence[str]) -> ArgumentError:
    return ArgumentError(
        f"{caller}: there is no problem {name!r}. Name one of {', '.join(known)}, or a function "
        f"of a file: FILE.py:FUNC."
    )


def real_tensor_first(caller: str, name: str, args: tuple[object, ...]) -> None:
    first = args[0]
    if isinstance(first, Tensor) and first.is_floating_point():
        return
    what = dtype_text(first.dtype) + " tensor" if isinstance(first, Tensor) else article(first)
    raise ArgumentError(
        f"{caller}: the first argument of {name} is {what}; `bench` differentiates by it, and it "
        f"must be a tensor of real floating-point numbers."
    )


def plan_has_mode(caller: str, path: Path, planned: str, asked: str) -> None:
    if asked not in ("auto", planned):
        raise ArgumentError(
            f"{caller}: --plan {path} is there already, and of mode {planned}, not {asked}. Name a "
            f"file that is not there, and the plan of mode {asked} is made and written to it; or "
            f"leave --mode out."
        )


def _either(allowed: Sequence[str]) -> str:
    return f"{', '.join(allowed[:-1])} or {allowed[-1]}"


def no_such_order(word: str) -> ArgumentError:
    return ArgumentError(f"there is no {word!r} here; h lists what there is.")


def order_form(form: str) -> ArgumentError:
    return ArgumentError(f"write it so: {form}")


def count_of_numbers(given: int, wanted: int) -> ArgumentError:
    return ArgumentError(
        f"{given} numbers were given, but the cotangent has {wanted}; give so many, in C order, or "
        f"one for all."
    )
