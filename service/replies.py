"""Engine events -> the content of replies, the same values whole and streamed."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from model.canvas import Reveal
from model.tokenizers.base import Value
from service.catalog import Model
from service.messages import RequestEvent, Revealed, SampleDone
from service.planning import Plan


class Composer:
    """Folds one request's events into its reply. Revealed values come from here both streamed and whole."""

    def __init__(self, plan: Plan, model: Model, *, has_logprobs: bool) -> None:
        self._plan = plan
        self._model = model
        self._has_logprobs = has_logprobs
        self._reveals: list[list[dict[str, Any]]] = [[] for _ in plan.samples]
        self._logprobs: list[list[float]] = [[] for _ in plan.samples]
        self._num_steps = 0

    def start(self) -> Iterator[dict[str, Any]]:
        """What a stream's `start` says of each sample: `canvas` has the known values and null where `hidden` is. To be
        asked before anything is revealed; samples of one prompt share their lists."""
        template, shared = None, dict[str, Any]()
        for sample in self._plan.samples:
            if sample.template is not template:
                template = sample.template
                hidden = [i for i, is_hidden in enumerate(template.hidden) if is_hidden]
                shared = {"canvas": [template.known.get(i) for i in range(len(template.tokens))], "hidden": hidden}
            place = {"prompt_index": sample.prompt_index, "sample_index": sample.sample_index}
            yield {**place, "seed": sample.canvas.seed, **shared}

    def names(self) -> list[str | None] | None:
        """The name of each position, or None where positions have none."""
        names = [self._model.tokenizer.name(i) for i in range(len(self._plan.samples[0].canvas.tokens))]
        return names if any(name is not None for name in names) else None

    def revealed(self, event: Revealed) -> list[dict[str, Any]]:
        """Takes in one step of one sample; gives its reveals as the reply has them."""
        shown = [self._reveal(reveal) for reveal in event.reveals]
        self._reveals[event.index] += shown
        self._logprobs[event.index] += [reveal.logprob for reveal in event.reveals]
        return shown

    def place(self, index: int) -> dict[str, int]:
        """Where a sample belongs in the request."""
        sample = self._plan.samples[index]
        return {"prompt_index": sample.prompt_index, "sample_index": sample.sample_index}

    def sample(self, event: SampleDone) -> dict[str, Any]:
        """A finished sample, as the reply has it. To be asked once a sample, when it is done."""
        index = event.index
        self._num_steps += event.num_forwards
        values = self._values(index)
        assert all(value is not None for value in values)
        output, text = self._model.tokenizer.output(values)
        logprob = {"logprob": math.fsum(self._logprobs[index])} if self._has_logprobs else {}
        return {
            **self.place(index),
            "seed": self._plan.samples[index].canvas.seed,
            "output": output,
            "text": text,
            "reveals": self._reveals[index],
            **logprob,
            "finish_reason": "complete",
        }

    def reply(self, events: Iterable[RequestEvent]) -> dict[str, Any]:
        """All of a finished reply but its head and its timings, its samples in the order of the request."""
        done = []
        for event in events:
            if isinstance(event, Revealed):
                self.revealed(event)
            elif isinstance(event, SampleDone):
                done.append(event)
        samples = [self.sample(event) for event in sorted(done, key=lambda event: event.index)]
        return {"samples": samples, "usage": self.usage()}

    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self._plan.num_prompt_tokens,
            "generated_tokens": sum(map(len, self._reveals)),
            "denoising_steps": self._num_steps,
        }

    def _reveal(self, reveal: Reveal) -> dict[str, Any]:
        tokenizer = self._model.tokenizer
        logprobs: Mapping[str, float | None] = {"logprob": reveal.logprob, "order_logprob": reveal.order_logprob}
        return {
            "step": reveal.step,
            "position": reveal.position,
            "name": tokenizer.name(reveal.position),
            "token_id": reveal.token_id,
            "token": tokenizer.token(reveal.position, reveal.token_id),
            "value": tokenizer.value(reveal.position, reveal.token_id, reveal.uniform),
            **(logprobs if self._has_logprobs else {}),
        }

    def _values(self, index: int) -> list[Any]:
        """The values of a sample's canvas so far, in position order, None where hidden."""
        known: Mapping[int, Value] = self._plan.samples[index].template.known
        revealed = {reveal["position"]: reveal["value"] for reveal in self._reveals[index]}
        return [known.get(i, revealed.get(i)) for i in range(self._plan.samples[index].canvas.length)]
