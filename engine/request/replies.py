"""Engine events -> the content of replies to /generate, the same values whole and streamed, and to /order."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from unveil.engine.catalog import ServedModel
from unveil.engine.messages import Generate, Rank, Ranked, RequestEvent, Revealed, SampleDone, Unrevealed
from unveil.engine.request.planning import Plan
from unveil.model.decoding.canvas import Canvas, Reveal, SamplingParams, Trials, Weights
from unveil.model.tokenizers.base import Value
from unveil.model.tokenizers.table.columns import MISSING, outward


class GenerateComposer:
    """One request to generate; a `engine.request.composers.Composer`. Revealed values come from here streamed and
    whole."""

    id_prefix: ClassVar[str] = "gen"
    timings: ClassVar[tuple[str, ...]] = ("queue_seconds", "first_reveal_seconds", "total_seconds")

    def __init__(self, plan: Plan, model: ServedModel, *, has_logprobs: bool) -> None:
        self._plan = plan
        self._model = model
        self._has_logprobs = has_logprobs
        self._reveals: list[list[dict[str, Any]]] = [[] for _ in plan.samples]
        self._logprobs: list[list[float]] = [[] for _ in plan.samples]
        self._num_unrevealed = [0] * len(plan.samples)
        self._num_steps = 0
        self._done: list[SampleDone] = []

    def command(self, request_id: str) -> Generate:
        """What the engine is to do."""
        return Generate(request_id, self._model.name, self._model.weights_version, self._plan.canvases)

    def add(self, event: RequestEvent) -> None:
        """Takes in one event, for `reply`."""
        if isinstance(event, Revealed):
            self._revealed(event)
        elif isinstance(event, Unrevealed):
            self._unrevealed(event)
        elif isinstance(event, SampleDone):
            self._done.append(event)

    def reply(self) -> dict[str, Any]:
        """All of a finished reply but its head and its timings, its samples in the order of the request."""
        samples = [self._sample(event) for event in sorted(self._done, key=lambda event: event.index)]
        return {"samples": samples, **self.ending()}

    def ending(self) -> dict[str, Any]:
        """What is said once all samples are done: of the condition, if there is one, and the usage."""
        return {**self._condition(), "usage": self.usage()}

    def start(self) -> dict[str, Any]:
        """What a stream's `start` says beside its head: the names of all positions, or None where they have none, and
        an iterator over the samples."""
        names = [self._model.tokenizer.name(i) for i in range(self._plan.samples[0].canvas.length)]
        return {"names": names if any(name is not None for name in names) else None, "samples": self._starts()}

    def shown(self, event: RequestEvent) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events of a stream, with their data, that follow from one of the engine's. Instead of `add`."""
        if isinstance(event, Revealed):
            place = self._place(event.index)
            for reveal in self._revealed(event):
                yield "reveal", {**place, **reveal}
        elif isinstance(event, Unrevealed):
            self._unrevealed(event)
            yield "unreveal", {**self._place(event.index), "step": event.step, "positions": list(event.positions)}
        elif isinstance(event, SampleDone):
            self._done.append(event)
            yield "sample", self._sample(event)

    def _starts(self) -> Iterator[dict[str, Any]]:
        """Of each sample: `canvas` has the known values and null where `hidden` is. Samples of one prompt share their
        lists."""
        template, shared = None, dict[str, Any]()
        for sample in self._plan.samples:
            if sample.template is not template:
                template = sample.template
                hidden = [i for i, is_hidden in enumerate(template.hidden) if is_hidden]
                shared = {"canvas": [template.known.get(i) for i in range(len(template.tokens))], "hidden": hidden}
            place = {"prompt_index": sample.prompt_index, "sample_index": sample.sample_index}
            yield {**place, "seed": sample.canvas.seed, **shared}

    def _revealed(self, event: Revealed) -> list[dict[str, Any]]:
        """Takes in one step of one sample; gives its reveals as the reply has them."""
        shown = [self._reveal(reveal) for reveal in event.reveals]
        self._reveals[event.index] += shown
        self._logprobs[event.index] += [reveal.logprob for reveal in event.reveals]
        return shown

    def _unrevealed(self, event: Unrevealed) -> None:
        """Takes back what one step took back: the last reveals of a sample."""
        num = len(event.positions)
        del self._reveals[event.index][-num:], self._logprobs[event.index][-num:]
        self._num_unrevealed[event.index] += num

    def _place(self, index: int) -> dict[str, int]:
        """Where a sample belongs in the request."""
        sample = self._plan.samples[index]
        return {"prompt_index": sample.prompt_index, "sample_index": sample.sample_index}

    def _sample(self, event: SampleDone) -> dict[str, Any]:
        """A finished sample, as the reply has it. To be asked once a sample, when it is done."""
        index = event.index
        self._num_steps += event.num_forwards
        values = self._values(index)
        assert all(value is not None for value in values)
        output, text = self._model.tokenizer.output(values)
        logprob = {"logprob": math.fsum(self._logprobs[index])} if self._has_logprobs else {}
        return {
            **self._place(index),
            "seed": self._plan.samples[index].canvas.seed,
            "output": output,
            "text": text,
            "reveals": self._reveals[index],
            **logprob,
            "finish_reason": event.outcome,
            **self._searched(event),
        }

    def _searched(self, event: SampleDone) -> dict[str, int]:
        """What a sample's search cost, if there was one."""
        if self._plan.samples[event.index].canvas.search is None:
            return {}
        return {"num_forwards": event.num_forwards, "num_unrevealed": self._num_unrevealed[event.index]}

    def _condition(self) -> dict[str, Any]:
        """What `where` came to, of each prompt; None of one that leaves nothing of it open."""
        tallies = {sample.prompt_index: ConditionTally() for sample in self._plan.samples}
        for event in sorted(self._done, key=lambda event: event.index):
            sample = self._plan.samples[event.index]
            if event.trials is not None:
                tallies[sample.prompt_index].add(event.trials, sample.canvas.params)
        found = [tally.reply() for tally in tallies.values()]
        return {"condition": found} if any(found) else {}

    def usage(self) -> dict[str, int]:
        """What has been done so far, in tokens and steps."""
        return {
            "prompt_tokens": self._plan.num_prompt_tokens,
            "generated_tokens": sum(map(len, self._reveals)),
            "denoising_steps": self._num_steps,
        }

    def _reveal(self, reveal: Reveal) -> dict[str, Any]:
        tokenizer = self._model.tokenizer
        value = tokenizer.value(reveal.position, reveal.token_id, reveal.uniform)
        logprobs: Mapping[str, float | None] = {"logprob": reveal.logprob, "order_logprob": reveal.order_logprob}
        return {
            "step": reveal.step,
            "position": reveal.position,
            "name": tokenizer.name(reveal.position),
            "token_id": reveal.token_id,
            "token": tokenizer.token(reveal.position, reveal.token_id),
            "value": outward(value) if tokenizer.domain == "table" else value,
            **(logprobs if self._has_logprobs else {}),
            **self._top(reveal),
        }

    def _top(self, reveal: Reveal) -> dict[str, Any]:
        """The likeliest tokens of a reveal, where they were asked for."""
        if not self._plan.samples[0].canvas.params.top_logprobs:
            return {}
        token = self._model.tokenizer.token
        found = [{"token_id": i, "token": token(reveal.position, i), "logprob": logprob} for i, logprob in reveal.top]
        return {"top_logprobs": found}

    def _values(self, index: int) -> list[Any]:
        """The values of a sample's canvas so far, in position order, None where hidden."""
        known: Mapping[int, Value] = self._plan.samples[index].template.known
        shown = {reveal["position"]: reveal["value"] for reveal in self._reveals[index]}
        revealed = {position: MISSING if value is None else value for position, value in shown.items()}
        return [known.get(i, revealed.get(i)) for i in range(self._plan.samples[index].canvas.length)]


class ConditionTally:
    """What the samples of one condition came to, one after the other."""

    def __init__(self) -> None:
        self._weights, self._num_samples, self._num_exact, self._is_single = Weights(), 0, 0, False

    def add(self, trials: Trials, params: SamplingParams) -> None:
        """One sample more, decoded by these."""
        assert params.condition is not None
        self._weights = self._weights.and_all(trials.weights)
        self._num_samples += 1
        self._num_exact += trials.is_exact
        self._is_single = len(params.condition.parts) == 1 and not params.condition.rules

    def reply(self) -> dict[str, Any] | None:
        """As the reply has it; None without a sample."""
        if self._weights.num == 0:
            return None
        is_known = self._weights.num > 1 or self._is_single
        return {
            "probability": self._weights.mean,
            "standard_error": self._weights.standard_error if is_known else None,
            "attempts": self._weights.num,
            "samples": self._num_samples,
            "exact_samples": self._num_exact,
            "effective_samples": self._weights.effective_number,
        }


class OrderComposer:
    """One request for the probabilities of the next position; a `engine.request.composers.Composer`."""

    id_prefix: ClassVar[str] = "order"
    timings: ClassVar[tuple[str, ...]] = ()

    def __init__(self, canvas: Canvas, model: ServedModel) -> None:
        self._canvas = canvas
        self._model = model
        self._probabilities: tuple[tuple[int, float], ...] = ()

    def command(self, request_id: str) -> Rank:
        """What the engine is to do."""
        return Rank(request_id, self._model.name, self._model.weights_version, self._canvas)

    def add(self, event: RequestEvent) -> None:
        """Takes in one event."""
        if isinstance(event, Ranked):
            self._probabilities = event.probabilities

    def reply(self) -> dict[str, Any]:
        """All of a finished reply but its head: hidden positions, likeliest first."""
        ranked = sorted(self._probabilities, key=lambda pair: (-pair[1], pair[0]))
        name = self._model.tokenizer.name
        return {"positions": [{"position": i, "name": name(i), "probability": p} for i, p in ranked]}
