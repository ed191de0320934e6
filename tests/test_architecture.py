"""How the house is built: which room stands on which, and what may stand in a file."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src/graftax"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}

# A room imports only from those before it. What stands beside the rooms is one of its own.
ROOMS = (
    "paths", "structure", "surgery", "operations", "files", "inspect", "scale", "convert", "zoo", "cli",
)  # fmt: skip

# State at the level of a module, each with what bounds it.
CACHES = {
    ("structure/signature.py", "_memo"): "weak: an entry goes with its function or class",
    ("structure/labels.py", "_kept"): "classes of labels, up to a bound",
    ("structure/labels.py", "_passing"): "weak: the classes beyond it",
    ("surgery/names.py", "in_states"): "the oldest goes when there are too many",
    ("surgery/names.py", "removed"): "the oldest goes when there are too many",
}


def name_of(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(file: Path, node: ast.AST) -> list[Path]:
    """The files of graftax that an import statement in `file` names."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names if alias.name.partition(".")[0] == "graftax"]
        return [found for name in names if (found := _file(PACKAGE.parent, name.split(".")))]
    if not isinstance(node, ast.ImportFrom):
        return []
    parts = node.module.split(".") if node.module else []
    if node.level == 0:
        if parts[:1] != ["graftax"]:
            return []
        base = PACKAGE.parent
    else:
        base = file.parents[node.level - 1]
    # `from .room import thing`: a module `thing` in it, or a name that its `__init__` has.
    found = [_file(base, [*parts, alias.name]) or _file(base, parts) for alias in node.names]
    return [each for each in dict.fromkeys(found) if each]


def _file(base: Path, parts: list[str]) -> Path | None:
    path = base.joinpath(*parts)
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if parts and candidate.is_file():
            return candidate
    return None


def arrows() -> Iterator[tuple[Path, Path]]:
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            yield from ((file, other) for other in imported(file, node))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node


def test_every_file_stands_in_a_room():
    assert {room_of(file) for file in FILES} <= {*ROOMS, "__init__", "__main__"}
    assert len(list(arrows())) > 100


def test_a_room_imports_only_from_those_before_it():
    wrong = [
        f"{name_of(file)} imports {name_of(other)}"
        for file, other in arrows()
        if file.parent != PACKAGE or file.stem in ROOMS
        if room_of(other) not in ROOMS[: ROOMS.index(room_of(file)) + 1]
    ]
    assert not wrong


def test_nobody_imports_the_public_names_from_inside():
    wrong = [name_of(file) for file, other in arrows() if other == PACKAGE / "__init__.py"]
    assert set(wrong) <= {"cli.py", "__main__.py"}


def test_no_circle():
    after: dict[Path, set[Path]] = {file: set() for file in FILES}
    for file, other in arrows():
        if other != file:
            after[file].add(other)
    done: set[Path] = set()
    while ready := [file for file in after if file not in done and after[file] <= done]:
        done.update(ready)
    assert not [name_of(file) for file in FILES if file not in done]


def test_no_import_inside_a_function_hides_an_arrow():
    hidden = [
        f"{name_of(file)}:{node.lineno}"
        for file, tree in TREES.items()
        for function in functions(tree)
        for node in ast.walk(function)
        if imported(file, node)
    ]
    assert not hidden


def test_files_stay_under_300_lines():
    lengths = {name_of(file): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert not {name: length for name, length in lengths.items() if length >= 300}


def test_a_public_function_and_a_module_do_not_share_a_name_in_one_package():
    shared = []
    for shown in (file for file in FILES if file.name == "__init__.py"):
        package = shown.parent
        modules = {file.stem for file in package.glob("*.py")}
        modules |= {init.parent.name for init in package.glob("*/__init__.py")}
        for node in TREES[shown].body:
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [alias.asname or alias.name for alias in node.names]
                shared += [f"{name_of(shown)}: {name}" for name in names if name in modules]
    assert not shared


def test_only_one_file_touches_the_markers_of_state():
    touching = [
        name_of(file)
        for file, tree in TREES.items()
        if any(isinstance(n, ast.Attribute) and n.attr == "StateIndex" for n in ast.walk(tree))
    ]
    assert touching == ["surgery/state.py"]


# What Equinox and JAX say nothing of in their documentation, and the one file that touches each. The
# test file of the same name has a test that fails by name when it changes.
PRIVATE = {
    r"\.metadata\.get\(": "paths/fields.py",
    r"type\(eqx\.filter_vmap": "structure/signature.py",
    r"\.__wrapped__\.__get__": "structure/signature.py",
    r"Sequential\.__call__": "structure/stateful.py",
    r"type\(eqx\.Module\)": "structure/node.py",
    r"\.marker\b(?!\()": "surgery/state.py",
    r"delete_init_state": "surgery/state.py",
    r"eqx\.nn\.Shared\(.*\.pytree": "files/shared.py",
    r"default_registry|jax\._src|equinox\._|equinox\.internal": "",
}


def test_what_is_private_to_equinox_and_jax_is_touched_in_one_file_each():
    for pattern, allowed in PRIVATE.items():
        touching = {
            name_of(file) for file in FILES if re.search(pattern, ast.unparse(_without_texts(file)))
        }
        assert touching == ({allowed} if allowed else set()), pattern


def _without_texts(file: Path) -> ast.Module:
    """The code of a file without its docstrings and other texts."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return tree


# --- No state at the level of a module ---

_CHANGES = frozenset(
    "add append appendleft clear discard extend insert pop popitem remove setdefault update".split()
)


def changed_names(function: ast.AST) -> Iterator[str]:
    """Names whose object a function changes, or which it binds anew in its module."""
    for node in ast.walk(function):
        if isinstance(node, ast.Global):
            yield from node.names
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.AugAssign):
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Subscript | ast.Attribute) and isinstance(
                target.value, ast.Name
            ):
                yield target.value.id
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in _CHANGES
            and isinstance(node.func.value, ast.Name)
        ):
            yield node.func.value.id


def local_names(function: ast.AST) -> set[str]:
    """What a function binds itself: arguments, assignments, loops."""
    names = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
    stored = (node for node in ast.walk(function) if isinstance(node, ast.Name))
    names |= {node.id for node in stored if isinstance(node.ctx, ast.Store)}
    return names - {
        name for n in ast.walk(function) if isinstance(n, ast.Global) for name in n.names
    }


def module_names(tree: ast.Module) -> set[str]:
    assigned = (n for n in tree.body if isinstance(n, ast.Assign | ast.AnnAssign))
    targets = (
        t for n in assigned for t in (n.targets if isinstance(n, ast.Assign) else [n.target])
    )
    return {target.id for target in targets if isinstance(target, ast.Name)}


def test_no_function_changes_what_a_module_holds_but_the_caches():
    found = set()
    for file, tree in TREES.items():
        for function in functions(tree):
            changed = set(changed_names(function)) - local_names(function)
            found |= {(name_of(file), name) for name in changed & module_names(tree)}
    assert found <= CACHES.keys()


def lasting(tree: ast.Module) -> Iterator[ast.AST]:
    """What is run once, when the module is: all but the insides of functions."""
    pending: list[ast.AST] = [tree]
    for node in pending:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending.extend(node.decorator_list)
        elif not isinstance(node, ast.Lambda):
            pending.extend(ast.iter_child_nodes(node))


def test_caches_are_bounded():
    unbounded = set()
    for file, tree in TREES.items():
        texts = {ast.unparse(n) for n in lasting(tree) if isinstance(n, ast.Attribute | ast.Call)}
        if any(re.fullmatch(r"functools\.(cache|lru_cache\((maxsize=)?None\))", t) for t in texts):
            unbounded.add((name_of(file), "cache"))
    assert unbounded <= CACHES.keys()


# --- The tests mirror the source ---

# Files without a test file of their own, each with where it is tested.
ELSEWHERE: dict[str, str] = {
    "paths/types.py": "typing/user.py",
}


def sources() -> list[Path]:
    return [file for file in FILES if file.name not in ("__init__.py", "__main__.py")]


@pytest.mark.parametrize("file", sources(), ids=name_of)
def test_each_file_has_a_test_file_of_the_same_name(file: Path):
    mirrored = ROOT / "tests" / file.relative_to(PACKAGE).with_name(f"test_{file.name}")
    elsewhere = ELSEWHERE.get(name_of(file))
    assert mirrored.is_file() != (elsewhere is not None), mirrored
    assert elsewhere is None or (ROOT / "tests" / elsewhere).is_file()
