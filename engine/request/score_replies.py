"""Engine events of a score -> the content of its reply."""

from typing import Any, ClassVar

from unveil.engine.catalog import ServedModel
from unveil.engine.messages import RequestEvent, Score, Scored
from unveil.engine.request.score_planning import ScorePlan
from unveil.model.decoding.scoring_chain import PositionScore, Term, summarise
from unveil.model.tokenizers.base import Template


class ScoreComposer:
    """One request to score, whose terms come in any sequence; a `engine.request.composers.Composer`."""

    id_prefix: ClassVar[str] = "score"
    timings: ClassVar[tuple[str, ...]] = ("queue_seconds", "total_seconds")

    def __init__(self, plan: ScorePlan, model: ServedModel) -> None:
        self._plan = plan
        self._model = model
        self._terms: list[list[Term]] = [[] for _ in plan.chains]

    def command(self, request_id: str) -> Score:
        """What the engine is to do."""
        return Score(request_id, self._model.name, self._model.weights_version, self._plan.chains)

    def add(self, event: RequestEvent) -> None:
        """Takes in one event."""
        if isinstance(event, Scored):
            self._terms[event.index].append(event.term)

    def reply(self) -> dict[str, Any]:
        """All of a finished reply but its head and its timings."""
        return {
            "seed": self._plan.seed,
            "num_orders": self._plan.num_orders,
            "scores": [self._score(i, template) for i, template in enumerate(self._plan.templates)],
            "usage": {
                "positions": self._plan.num_scored,
                "forwards": sum(map(len, self._terms)),
            },
        }

    def _score(self, prompt_index: int, template: Template) -> dict[str, Any]:
        n = self._plan.num_orders
        orders = self._terms[prompt_index * n : (prompt_index + 1) * n]
        score = summarise(orders, is_drawn=self._plan.is_drawn)
        return {
            "prompt_index": prompt_index,
            "nelbo": score.nelbo.mean,
            "standard_error": score.nelbo.standard_error,
            "log_likelihood": score.log_likelihood,
            "terms": [self._term(template, position) for position in score.positions],
        }

    def _term(self, template: Template, score: PositionScore) -> dict[str, Any]:
        position = score.position
        token_id = template.tokens[position]
        return {
            "position": position,
            "name": self._model.tokenizer.name(position),
            "token_id": token_id,
            "token": self._model.tokenizer.token(position, token_id),
            "value": template.known[position],
            "nats": score.nats.mean,
            "standard_error": score.nats.standard_error,
            "mean_step": score.mean_step,
        }
