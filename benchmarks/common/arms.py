"""The arms of a comparison: one recipe with other orders, at equal forwards."""

from unveil.benchmarks.common.runs import Fields
from unveil.training.config import Recipe
from unveil.training.levels import unfold
from unveil.training.order_config import GlobalOrder

KINDS = ("uniform", "global", "fixed")
_SCHEDULE = ("warmup", "anneal", "exploration", "spread", "reading")


def arm_of(recipe: Recipe, kind: str) -> Recipe:
    """The recipe with uniform orders, the learned one, or left to right, on the same schedule.

    Uniform orders are trained in a masked network, whose positions all read each other, a prefix at a time: it has as
    many layers as the others have with those of their queries. The recipe's steps have to be settled.
    """
    assert isinstance(recipe.order, GlobalOrder)
    recipe = recipe.model_copy(update={"name": kind})
    if kind == "global":
        return recipe
    if kind == "fixed":
        schedule = {key: getattr(recipe.order, key) for key in _SCHEDULE}
        return with_order(recipe, {"method": "fixed", "positions": "left_to_right", **schedule})
    masked = {"layers": recipe.layers + recipe.query_layers, "query_layers": 0}
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update=masked)})
    return with_order(recipe, {"method": "uniform"})


def with_order(recipe: Recipe, order: Fields) -> Recipe:
    """The recipe with another order, given with all of its keys in one table."""
    fields, own = recipe.model_dump(mode="json", exclude={"order"}), unfold(Recipe, {"order": order})
    return Recipe.model_validate({**fields, **own, "advanced": {**fields["advanced"], **own.get("advanced", {})}})
