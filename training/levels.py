"""Where the keys of a recipe stand in its file: in tables of their own, or under `[advanced]` if few people need them.

A key is marked where it is declared, `weight_decay: Advanced[float] = 0.01`, and is then written
`[advanced.optimizer] weight_decay`. In code both are one object, `recipe.optimizer`.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar, get_args

from pydantic import BaseModel


class _Mark:
    """Of a key that stands under `[advanced]`."""


_MARK, ADVANCED = _Mark(), "advanced"
T = TypeVar("T")
Advanced = Annotated[T, _MARK]


class Table(NamedTuple):
    """A table of a recipe: the models that it may be, and the key that chooses between them where there are several."""

    models: tuple[type[BaseModel], ...]
    discriminator: str | None

    def model(self, given: Mapping[str, Any]) -> type[BaseModel] | None:
        """The model that the keys `given` are of; None where they choose none."""
        if self.discriminator is None:
            return self.models[0]
        tag = given.get(self.discriminator)
        return next((m for m in self.models if m.model_fields[self.discriminator].default == tag), None)


def tables(recipe: type[BaseModel]) -> dict[str, Table]:
    """The tables of a recipe by name. Keys at its top have none."""
    found = {}
    for name, field in recipe.model_fields.items():
        models = get_args(field.annotation) or (field.annotation,)
        if all(isinstance(model, type) and issubclass(model, BaseModel) for model in models):
            found[name] = Table(models, field.discriminator if isinstance(field.discriminator, str) else None)
    return found


def is_advanced(model: type[BaseModel], key: str) -> bool:
    """Whether a key of a table stands under `[advanced]`."""
    field = model.model_fields.get(key)
    return field is not None and _MARK in field.metadata


def fold(recipe: type[BaseModel], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as in a file, with the tables under `advanced` put into those that they belong to.

    Raises ValueError in one line for a key that stands in the wrong place, or under `advanced` and is unknown.
    """
    folded, known = {name: value for name, value in fields.items() if name != ADVANCED}, tables(recipe)
    advanced = fields.get(ADVANCED, {})
    if not isinstance(advanced, Mapping):
        raise ValueError(f"{ADVANCED}: must be a table, such as [{ADVANCED}.optimizer]")
    for name, hidden in advanced.items():
        if name not in known:
            raise ValueError(f"{ADVANCED}.{name}: unknown key")
        if not isinstance(hidden, Mapping):
            raise ValueError(f"{ADVANCED}.{name}: must be a table")
    for name, table in known.items():
        plain, hidden = folded.get(name, {}), advanced.get(name, {})
        if isinstance(plain, Mapping) and (name in folded or hidden):
            folded[name] = _merged(name, table, plain, hidden)
    return folded


def unfold(recipe: type[BaseModel], fields: Mapping[str, Any]) -> dict[str, Any]:
    """What `fold` undoes: every key of the tables in `fields` to where a file has it."""
    known, plain = tables(recipe), dict(fields)
    advanced: dict[str, dict[str, Any]] = {}
    for name in known.keys() & fields.keys():
        model = known[name].model(fields[name])
        if model is not None:
            hidden = {key: value for key, value in fields[name].items() if is_advanced(model, key)}
            plain[name] = {key: value for key, value in fields[name].items() if key not in hidden}
            advanced |= {name: hidden} if hidden else {}
    return {**plain, ADVANCED: {name: advanced[name] for name in known if name in advanced}} if advanced else plain


def keys(recipe: type[BaseModel], *, advanced: bool) -> Iterator[str]:
    """The keys that stand under `[advanced]`, or all others, as `table.key`; each once for all models of its table."""
    found = tables(recipe)
    if not advanced:
        yield from (name for name in recipe.model_fields if name not in found)
    for name, table in found.items():
        own = dict.fromkeys(
            path
            for m in table.models
            for key in m.model_fields
            if is_advanced(m, key) == advanced
            for path in _paths(m, key)
        )
        yield from (f"{ADVANCED}.{name}.{key}" if advanced else f"{name}.{key}" for key in own)


def _paths(model: type[BaseModel], key: str) -> Iterator[str]:
    """A key, and those of the tables in it where it names several, as columns do."""
    yield key
    for inner in get_args(model.model_fields[key].annotation):
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from (f"{key}.NAME.{name}" for name in inner.model_fields)


def _merged(name: str, table: Table, plain: Mapping[str, Any], hidden: Mapping[str, Any]) -> dict[str, Any]:
    model = table.model(plain)
    if model is None:
        return {**plain, **hidden}  # pydantic says what is wrong with the choice
    for key in plain:
        if is_advanced(model, key):
            raise ValueError(f"{name}.{key}: unknown key; it is {ADVANCED}.{name}.{key}")
    for key in hidden:
        if key not in model.model_fields:
            raise ValueError(f"{ADVANCED}.{name}.{key}: unknown key{_choice(table, plain)}")
        if not is_advanced(model, key):
            raise ValueError(f"{ADVANCED}.{name}.{key}: unknown key; it is {name}.{key}")
    return {**plain, **hidden}


def _choice(table: Table, plain: Mapping[str, Any]) -> str:
    return "" if table.discriminator is None else f' with {table.discriminator} = "{plain[table.discriminator]}"'
