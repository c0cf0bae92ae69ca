"""Molecules as SMILES, atom by atom, in the `tokenizers` library's own file format.

A token is what a SMILES is made of: an atom (`C`, `Cl`, `[nH]`), a bond, a bracket of a branch, a ring number. A canvas
always has all of the model's positions: those that a molecule does not need hold the end token, which shows as nothing.
It is generated like any other token, so a model learns how long molecules are, and its order may decide that first.

`[MASK]` and `[MASK:12]` are holes wherever they stand; no token is written like that, nor like the end token.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex
from tokenizers import Tokenizer as Library
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from unveil.model.errors import ArtifactError, PromptError
from unveil.model.tokenizers.base import Share, Template, Value
from unveil.model.tokenizers.holes import Hole, Run, parse_holes
from unveil.model.tokenizers.token_lists import token_shares
from unveil.model.tokenizers.wording import quoted

END = "<end>"  # the angle brackets keep it apart from everything that a SMILES can hold
# Every character matches, so that text with anything else in it is split, too, and the place can be named.
PATTERN = r"\[[^\[\]]+\]|Br|Cl|%[0-9]{2}|[\s\S]"
_SPLIT = re.compile(PATTERN)
_WRITTEN = re.compile(r"\[(?!MASK)[^\[\]\s]+\]|Br|Cl|%[0-9]{2}|[BCNOPSFIbcnops0-9()=#$:/\\.~*+-]")
_NEUTRAL = ("truncation", "padding", "added_tokens", "normalizer", "post_processor", "decoder")


def split_smiles(text: str) -> list[str]:
    """The tokens of a SMILES; joined, they are the text."""
    return _SPLIT.findall(text)


def first_foreign(text: str) -> tuple[str, int] | None:
    """The first piece that no SMILES can hold, and the character at which it stands, counted from 1."""
    for match in _SPLIT.finditer(text):
        if not _WRITTEN.fullmatch(match[0]):
            return match[0], match.start() + 1
    return None


class SmilesTokenizer:
    """A `Tokenizer` whose prompts are SMILES with holes. Every position has the same vocabulary; id 0 is the end token.

    A canvas has all positions, always. A hole between known tokens is filled by its number of tokens. New tokens after
    a prompt, and a hole at its end, may come back in part as end tokens: the model decides how many it needs. What
    lies beyond is known to be the end, so that the model closes what is open before it.
    """

    domain: ClassVar[Literal["smiles"]] = "smiles"

    def __init__(self, tokens: Sequence[str], *, length: int, default_length: int | None = None) -> None:
        """`tokens` without the end token; `default_length` new tokens at most where a prompt leaves it open."""
        self._tokens = (END, *tokens)
        self._length = length
        self._default_length = length if default_length is None else default_length
        assert 1 <= self._default_length <= length
        assert len(set(self._tokens)) == len(self._tokens) > 1
        assert all(_WRITTEN.fullmatch(token) for token in tokens), "tokens are what a SMILES is made of"
        self._ids = {token: i for i, token in enumerate(self._tokens)}

    @classmethod
    def train(cls, smiles: Iterable[str], *, length: int, default_length: int | None = None) -> Self:
        """One token for everything that the SMILES are made of, in the order of their characters' code points."""
        tokens = sorted({token for text in smiles for token in split_smiles(text)})
        return cls(tokens, length=length, default_length=default_length)

    @classmethod
    def load(cls, path: Path, *, length: int, default_length: int) -> Self:
        """Reads `tokenizer.json`. Raises ArtifactError, in one line, for anything but a whole SMILES tokenizer."""
        try:
            library = Library.from_str(path.read_text(encoding="utf-8"))
            spec = json.loads(library.to_str())
        except OSError as error:
            raise ArtifactError(f"{path.name} cannot be read: {error.strerror}") from None
        except Exception as error:  # the library raises nothing narrower
            raise ArtifactError(f"{path.name} is not a SMILES tokenizer: {' '.join(str(error).split())}") from None
        problem = _problem(spec)
        if problem is None and not 1 <= default_length <= length:
            problem = f"the artifact's config has length {length} and default_length {default_length}"
        if problem is not None:
            raise ArtifactError(f"{path.name} cannot be used: {problem}")
        vocab: dict[str, int] = spec["model"]["vocab"]
        return cls(sorted(vocab, key=vocab.__getitem__)[1:], length=length, default_length=default_length)

    def save(self, path: Path) -> None:
        library = Library(WordLevel(vocab=self._ids, unk_token="<unk>"))
        library.pre_tokenizer = Split(Regex(PATTERN), "isolated")
        path.write_text(library.to_str(pretty=True) + "\n", encoding="utf-8")

    @property
    def length(self) -> int:
        return self._length

    @property
    def default_length(self) -> int:
        return self._default_length

    @property
    def tokens(self) -> tuple[str, ...]:
        """By id, the end token first."""
        return self._tokens

    @property
    def end_id(self) -> int:
        return 0

    @property
    def vocabulary_sizes(self) -> tuple[int, ...]:
        return (len(self._tokens),)

    def encode(self, prompt: object, *, length: int | None = None, append: bool = True) -> Template:
        """Raises PromptError; `param` is "length" where that is to blame. Not appended to, a prompt without holes is a
        whole molecule, its end included."""
        if not isinstance(prompt, str):
            raise PromptError(f"a SMILES prompt must be a string, got {quoted(prompt)}")
        parts = parse_holes(prompt, longest=self.length)
        has_holes = any(isinstance(part, Hole) for part in parts)
        if length is not None:
            self._check_length(length, has_holes=has_holes)
        ids = [i for part in parts for i in self._part_ids(part)]
        if not has_holes and (append or length is not None):
            ids += [None] * self._num_new(len(ids), length)
        self._check_fit(ids)
        canvas = [*ids, *[0] * (self.length - len(ids))]
        known: dict[int, Value] = {p: self.value(p, i, 0.5) for p, i in enumerate(canvas) if i is not None}
        return Template(tuple(i or 0 for i in canvas), tuple(i is None for i in canvas), known)

    def row(self, smiles: str) -> NDArray[np.int64] | None:
        """A whole molecule as [L] ids, or None where it is too long or holds a token that the model does not know."""
        ids = [self._ids.get(token, -1) for token in split_smiles(smiles)]
        if len(ids) > self.length or min(ids, default=-1) < 1:
            return None
        return np.array([*ids, *[0] * (self.length - len(ids))], dtype=np.int64)

    def texts(self, rows: NDArray[Any]) -> list[str]:
        """[N, L] ids -> SMILES."""
        shown = np.array(["", *self._tokens[1:]], dtype=object)
        return ["".join(tokens) for tokens in shown[rows].tolist()]

    def condition(self, where: object, *, length: int) -> dict[int, tuple[Share, ...]]:
        """See `base.condition_of`; for every position the same tokens (`token_lists`)."""
        return dict.fromkeys(range(length), token_shares(where, self._ids, end_id=self.end_id))

    def token(self, position: int, token_id: int) -> str:  # noqa: ARG002  (every position has the same vocabulary)
        return self._tokens[token_id]

    def value(self, position: int, token_id: int, uniform: float) -> str:  # noqa: ARG002
        return self._tokens[token_id] if token_id else ""

    def name(self, position: int) -> None:  # noqa: ARG002
        return None

    def output(self, values: Sequence[Value]) -> tuple[str, str]:
        text = "".join(str(value) for value in values)
        return text, text

    def describe(self) -> dict[str, Any]:
        return {"kind": "atoms", "vocabulary_size": len(self._tokens), "tokens": list(self._tokens)}

    def example_prompt(self) -> str:
        """A ring to decorate, where the model knows what that takes."""
        example = "c1ccc([MASK:5])cc1"
        known = set(split_smiles(example.replace("[MASK:5]", ""))) <= set(self._tokens)
        return example if known and self.length >= 15 else "[MASK]"

    def _part_ids(self, part: Hole | Run) -> list[int | None]:
        """Token ids, None for each hidden token."""
        if isinstance(part, Hole):
            return [None] * part.size
        ids: list[int | None] = []
        for match in _SPLIT.finditer(part.text):
            token_id = self._ids.get(match[0])
            if token_id is None:
                place = f"character {part.start + match.start() + 1} of the prompt"
                raise PromptError(f"the model does not know {quoted(match[0])} ({place})")
            ids.append(token_id)
        return ids

    def _num_new(self, num_known: int, length: int | None) -> int:
        """As many as asked for; left open, as many as there is room for, up to `default_length`."""
        if length is None:
            return max(min(self.default_length, self.length - num_known), 0)
        if num_known + length > self.length:
            counted = f"{num_known} known and {length} hidden tokens are {num_known + length}"
            raise PromptError(f"{counted}, the model takes at most {self.length}", param="length")
        return length

    def _check_length(self, length: int, *, has_holes: bool) -> None:
        if has_holes:
            raise PromptError("length is only valid with prompts that have no [MASK]", param="length")
        if not 1 <= length <= self.length:
            raise PromptError(f"length must be an integer between 1 and {self.length}, got {length}", param="length")

    def _check_fit(self, ids: Sequence[int | None]) -> None:
        if len(ids) > self.length:
            num_hidden = sum(i is None for i in ids)
            counted = f"{len(ids) - num_hidden} known and {num_hidden} hidden tokens are {len(ids)}"
            raise PromptError(f"{counted}, the model takes at most {self.length}")


def _problem(spec: Mapping[str, Any]) -> str | None:
    """Why a tokenizer of the library is not one of SMILES, or None."""
    model, split = spec["model"], spec["pre_tokenizer"] or {}
    if model.get("type") != "WordLevel" or any(spec[key] for key in _NEUTRAL):
        return "a WordLevel model with nothing around it is needed"
    if (split.get("type"), split.get("behavior"), split.get("pattern")) != ("Split", "Isolated", {"Regex": PATTERN}):
        return "its pre-tokenizer does not split a SMILES into atoms, bonds and rings"
    vocab: dict[str, int] = model["vocab"]
    if len(vocab) < 2 or sorted(vocab.values()) != list(range(len(vocab))) or vocab.get(END) != 0:
        return f"its ids do not count from 0, for {END}, without gaps"
    foreign = [token for token in vocab if token != END and not _WRITTEN.fullmatch(token)]
    return f"its token {quoted(foreign[0])} is no part of a SMILES" if foreign else None
