"""Which module of a source tree imports which, read from the text: nothing is imported. Follows imports to the end."""

import ast
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

# When an import happens: with the module, when a function of it runs, or never (under TYPE_CHECKING).
When = Literal["module", "function", "types"]
ALWAYS: tuple[When, ...] = ("module", "function", "types")
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Import(NamedTuple):
    name: str  # dotted, with what is taken from the module: `from a.b import c` is a.b.c
    when: When


class Visit(NamedTuple):
    """A module whose imports are followed; of a package that only holds what was asked for, `__init__` runs."""

    module: str
    is_parent: bool


@dataclass(frozen=True)
class Tree:
    """Python files in folders below a root, imported under a prefix: model/a.py as `unveil.model.a`.

    A module's name here is its path, `model.a`. The folder that the prefix names has no further prefix: unveil/cli.py
    is imported as `unveil.cli`, and its name is that. Links to folders are not followed: no file is read twice.
    """

    root: Path
    folders: Sequence[str]
    prefix: str = ""

    @cached_property
    def modules(self) -> dict[str, Path]:
        return {self._module(path): path for path in self.files}

    @cached_property
    def files(self) -> list[Path]:
        found = [
            Path(folder) / name
            for top in self.folders
            for folder, _, names in os.walk(self.root / top, followlinks=False)
            for name in names
            if name.endswith(".py")
        ]
        return sorted(found)

    def within(self, rooms: Collection[str]) -> list[str]:
        """The modules that are one of these rooms or in one."""
        return [module for module in self.modules if any(is_within(module, room) for room in rooms)]

    def reached(self, module: str, *, when: Collection[When] = ALWAYS) -> dict[str, list[str]]:
        """All that a module imports in the end, each with the way there: modules of the tree by their names here,
        others by their first name. Imports with the module are always followed, others if they are named.

        Packages on the way are followed, and count only where they are asked for."""
        start = Visit(module, is_parent=False)
        found = {module: [module]}
        ways = {start: [module]}
        waiting = deque([start])
        while waiting:
            here = waiting.popleft()
            for visit in self._next(here, when):
                way = [*ways[here], visit.module]
                if not visit.is_parent:
                    found.setdefault(visit.module, way)
                if visit not in ways and visit.module in self.modules:
                    ways[visit] = way
                    waiting.append(visit)
        return found

    def ways(self, modules: Iterable[str], forbidden: Collection[str], *, when: Collection[When] = ALWAYS) -> list[str]:
        """How these modules come to import what they must not, a line each."""
        reached = [self.reached(module, when=when) for module in modules]
        return [" > ".join(ways[name]) for ways in reached for name in sorted(set(forbidden) & set(ways))]

    def imports(self, module: str) -> list[Import]:
        if module not in self._imports:
            self._imports[module] = list(imports_of(self.modules[module]))
        return self._imports[module]

    @cached_property
    def _imports(self) -> dict[str, list[Import]]:
        return {}

    def _next(self, here: Visit, when: Collection[When]) -> Iterator[Visit]:
        yield from self._parents(here.module)
        for name, time in self.imports(here.module):
            if time == "module" or (time in when and not here.is_parent):
                place = self._place(name)
                known = [above for above in (place, *_above(place)) if above in self.modules]
                yield Visit(known[0] if known else name.partition(".")[0], is_parent=False)

    def _parents(self, module: str) -> Iterator[Visit]:
        """The packages whose `__init__` runs before a module, that of the prefix among them."""
        for package in (*_above(module), self.prefix.rstrip(".")):
            if package in self.modules and package != module:
                yield Visit(package, is_parent=True)

    def _place(self, name: str) -> str:
        """An imported name as it is called here; others' names have none, and so have our own without their prefix."""
        if not name.startswith(self.prefix) and name != self.prefix.rstrip("."):
            return ""
        rest = name.removeprefix(self.prefix)
        return rest if rest.partition(".")[0] in self.folders else name

    def _module(self, path: Path) -> str:
        parts = path.relative_to(self.root).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_within(module: str, room: str) -> bool:
    return f"{module}.".startswith(f"{room}.")


def imports_of(path: Path) -> Iterator[Import]:
    """What a file imports, inside functions, under TYPE_CHECKING and by `import_module("...")`, too."""
    waiting: list[tuple[ast.AST, When]] = [(ast.parse(path.read_text(encoding="utf-8")), "module")]
    while waiting:
        node, when = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, when) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports must be absolute"
            yield from (Import(f"{node.module}.{alias.name}", when) for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += [(child, "types") for child in node.body] + [(child, when) for child in node.orelse]
        else:
            if (name := _asked_for_by_name(node)) is not None:
                yield Import(name, when)
            inside: When = "function" if isinstance(node, Function | ast.Lambda) else when
            waiting += [(child, inside) for child in ast.iter_child_nodes(node)]


def functions_of(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Function):
            yield node


def num_lines(function: Function) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def _asked_for_by_name(node: ast.AST) -> str | None:
    """ "a.b" of `import_module("a.b")`."""
    if not isinstance(node, ast.Call) or not ast.unparse(node.func).endswith(("import_module", "__import__")):
        return None
    first = node.args[0] if node.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


def _above(module: str) -> list[str]:
    """The packages that a module is in, the nearest first."""
    parts = module.split(".")
    return [".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]
