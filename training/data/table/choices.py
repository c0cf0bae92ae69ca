"""What a user says of columns on the command line, put into a recipe's `[data]`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from unveil.model.errors import UnveilError
from unveil.model.tokenizers.table.numbers import marks_of


@dataclass(frozen=True, slots=True)
class ColumnOptions:
    """Column names; `date` and `numeric` hold `NAME` or `NAME=FORMAT`, `bins` `NUMBER` (every column's) or
    `NAME=NUMBER`."""

    drop: Sequence[str] = ()
    categorical: Sequence[str] = ()
    numeric: Sequence[str] = ()
    date: Sequence[str] = ()
    bins: Sequence[str] = ()
    rule: Sequence[str] = ()

    def put_into(self, data: dict[str, Any]) -> dict[str, Any]:
        """The recipe's `[data]` with these choices, which go before its own. Raises UnveilError naming the option."""
        given = [
            f"--{name}" for name in ("drop", "categorical", "numeric", "date", "bins", "rule") if getattr(self, name)
        ]
        if not given:
            return data
        if data.get("kind") != "table":
            raise UnveilError(
                f"{given[0]}: is only valid with a table of yours; the recipe's data is {data.get('kind')}"
            )
        self._check_kinds()
        drop = dict.fromkeys([*data.get("drop", ()), *self.drop])
        chosen = {name: dict(choice) for name, choice in data.get("columns", {}).items()}
        for name, choice in self._choices():
            chosen.setdefault(name, {}).update(choice)
            drop.pop(name, None)  # to choose a kind for what the recipe drops is to keep it
        columns = {name: choice for name, choice in chosen.items() if name not in self.drop}
        rules = list(dict.fromkeys([*data.get("rules", ()), *self.rule]))
        merged = {**data, "drop": list(drop), "columns": columns, "rules": rules}
        for bins in self.bins:
            if bins.isdecimal():
                merged["max_bins"] = int(bins)
        return {key: value for key, value in merged.items() if value not in ([], {})}

    def _choices(self) -> Iterable[tuple[str, dict[str, Any]]]:
        yield from ((name, {"kind": "categorical", "format": None}) for name in self.categorical)
        for name, number_format in map(_with_format, self.numeric):
            yield name, {"kind": "numeric", "format": number_format}
        for text in self.date:
            name, _, date_format = text.rpartition("=") if "=" in text else (text, "", None)
            yield name, {"kind": "date", "format": date_format}
        for text in self.bins:
            if not text.isdecimal():
                name, _, number = text.rpartition("=")
                if not name or not number.isdecimal():
                    raise UnveilError(f"--bins {text}: must be a number, or NAME=NUMBER")
                yield name, {"max_bins": int(number)}

    def _check_kinds(self) -> None:
        """A column is named by one option alone."""
        dates = [text.rpartition("=")[0] or text for text in self.date]
        numeric = [name for name, _ in map(_with_format, self.numeric)]
        by_option = {"--drop": self.drop, "--categorical": self.categorical, "--numeric": numeric, "--date": dates}
        seen: dict[str, str] = {}
        for option, names in by_option.items():
            for name in names:
                if name in seen and seen[name] != option:
                    raise UnveilError(f'column "{name}" is named by {seen[name]} and by {option}')
                seen[name] = option


def _with_format(text: str) -> tuple[str, str | None]:
    """`NAME=1.234,56` as name and format; a name may have an equals sign of its own."""
    name, _, example = text.rpartition("=")
    return (name, example) if name and marks_of(example) is not None else (text, None)
