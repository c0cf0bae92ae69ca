"""The arms of a comparison: one recipe with other orders, at equal forwards."""

from training.config import Recipe

KINDS = ("uniform", "global", "fixed")


def arm_of(recipe: Recipe, kind: str, *, length: int) -> Recipe:
    """The recipe with uniform orders, the learned one (with its candidates), or left to right.

    Where it has teacher forcing, a step of which takes each row through as two streams, uniform orders go without it,
    which is better for them (`benchmarks/teacher_forcing.py`), in a network whose positions all read each other, for
    twice as many steps. The recipe's steps have to be settled.
    """
    fields = recipe.model_dump(mode="json")
    fixed = list(range(length)) if kind == "fixed" else None
    order = {**fields["order"], "kind": kind, "fixed": fixed}
    if kind != "global":
        order["candidates"] = []
    if kind == "uniform" and recipe.optimizer.teacher_forcing:
        fields["model"]["attends"] = "all"
        fields["optimizer"] |= {"teacher_forcing": False, "steps": 2 * recipe.optimizer.num_steps}
    return Recipe.model_validate({**fields, "name": kind, "order": order})
