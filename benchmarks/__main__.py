"""`python -m benchmarks NAME [options]` runs one benchmark, `python -m benchmarks` lists them all.

A benchmark is a module of a room beside this file with a function `main`. Each prints its figures, states its seeds and
compares both sides in one run; `--help` after the name says what it takes.
"""

import ast
import sys
from importlib import import_module
from pathlib import Path

ROOMS = ("domains", "orders", "serving", "speed")


def found() -> dict[str, Path]:
    """Every benchmark by name, room by room."""
    files = (path for room in ROOMS for path in sorted((Path(__file__).parent / room).glob("*.py")))
    return {path.stem: path for path in files if path.stem != "__init__" and "def main(" in path.read_text()}


def main() -> None:
    """Runs the benchmark that the command line names; exits with 2 where there is none of that name."""
    benchmarks = found()
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("usage: python -m benchmarks NAME [options]\n")
        for known, path in benchmarks.items():
            print(f"  {known:16} {_title(path)}")
        return
    if name not in benchmarks:
        print(f"error: no benchmark is named {name}; known are {', '.join(benchmarks)}", file=sys.stderr)
        raise SystemExit(2)
    sys.argv = [f"python -m benchmarks {name}", *sys.argv[2:]]
    import_module(f"unveil.benchmarks.{benchmarks[name].parent.name}.{name}").main()


def _title(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


if __name__ == "__main__":
    main()
