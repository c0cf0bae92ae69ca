"""What every tokenizer offers. Knows no domain, no network and no HTTP."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from unveil.model.errors import PromptError
from unveil.model.tokenizers.wording import shown

Domain = Literal["table", "text", "smiles", "grid"]
Value = str | int | float


class Share(NamedTuple):
    """Of what a token can show, the values between two shares of its mass (numbers inside a bin)."""

    token_id: int
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt as a canvas: ids, which are hidden (0 there), and the known values exactly as the user gave them."""

    tokens: tuple[int, ...]
    hidden: tuple[bool, ...]
    known: Mapping[int, Value] = field(default_factory=dict)

    @property
    def num_given(self) -> int:
        """Known positions that show something: the end of a molecule is known, too, where its prompt says it."""
        return sum(value != "" for value in self.known.values())


Contradiction = Callable[[Sequence[int], Sequence[bool]], str | None]


def contradiction_of(tokenizer: "Tokenizer") -> Contradiction | None:
    """A tokenizer's own check of a canvas, where its domain has one: tokens and which are hidden -> what is wrong, in
    words, however the hidden ones are filled, or None."""
    check: Contradiction | None = getattr(tokenizer, "contradiction", None)
    return check


class Conditional(Protocol):
    """A tokenizer whose samples can be asked to meet a condition."""

    def condition(self, where: object, *, length: int) -> Mapping[int, tuple[Share, ...]]:
        """What positions of a canvas of this length may show: of each that is not free, its tokens. Raises PromptError,
        with `param` the column to blame where there is one."""
        ...


def condition_of(tokenizer: "Tokenizer", where: object, template: Template) -> dict[int, tuple[Share, ...]]:
    """What the hidden positions of a template may show so that a condition is met. Raises PromptError."""
    if not hasattr(tokenizer, "condition"):
        raise PromptError(f"a {tokenizer.domain} takes no condition")
    found = tokenizer.condition(where, length=len(template.tokens))
    known = [i for i in found if i in template.known]
    if known and tokenizer.domain == "table":
        name = tokenizer.name(known[0]) or ""
        raise PromptError(f"{shown(name)} is given by the prompt", param=name)
    return {i: shares for i, shares in found.items() if template.hidden[i]}


class Tokenizer(Protocol):
    """Turns a domain's prompts into templates and reveals into values.

    `vocabulary_sizes` has one entry a position where positions have vocabularies of their own (tables: ids count from 0
    in each column), and one entry in all where they share it. `length` is the longest canvas; `default_length` is the
    number of new tokens where a prompt leaves it open.
    """

    @property
    def domain(self) -> Domain: ...
    @property
    def length(self) -> int: ...
    @property
    def default_length(self) -> int: ...
    @property
    def vocabulary_sizes(self) -> tuple[int, ...]: ...
    @property
    def end_id(self) -> int | None:
        """The id behind which nothing but itself stands; None where there is none."""
        ...

    def encode(self, prompt: object, *, length: int | None = None, append: bool = True) -> Template:
        """Raises PromptError, with `param` the column to blame where there is one; "length" names the length.

        With `append` false a prompt without holes stays as it is, unless a `length` is given.
        """
        ...

    def token(self, position: int, token_id: int) -> str:
        """The token's printable name (a level, an interval, a piece of text)."""
        ...

    def value(self, position: int, token_id: int, uniform: float) -> Value:
        """What the output will show for this token; `uniform` in (0, 1) picks a number inside its bin."""
        ...

    def name(self, position: int) -> str | None:
        """The column's name, or None where positions have none."""
        ...

    def output(self, values: Sequence[Value]) -> tuple[Any, str]:
        """All values of a finished canvas, in position order -> (`output`, `text`) of the reply."""
        ...

    def describe(self) -> dict[str, Any]:
        """JSON for `/v1/models`: columns with levels and ranges, or the vocabulary's size."""
        ...

    def example_prompt(self) -> Any:
        """A prompt that `encode` takes."""
        ...

    def save(self, path: Path) -> None:
        """Writes `tokenizer.json`."""
        ...
