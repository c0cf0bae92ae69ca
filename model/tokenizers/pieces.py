"""The tokenizer of a model trained elsewhere, in the `tokenizers` library's own file format.

The model's own pieces, special tokens and normalisation, as the library applies them. A prompt's holes are written as
the mask's own token, so that text around them is split as the model met it in training. What the user wrote comes back
as it was written, whatever the model sees of it (lower case, say); white space beside a hole belongs to the hole where
the model's pieces bring their own. A piece that is no whole character is shown as U+FFFD.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from tokenizers import Encoding
from tokenizers import Tokenizer as Library

from unveil.model.errors import ArtifactError, PromptError
from unveil.model.tokenizers.base import Template, Value
from unveil.model.tokenizers.holes import Hole, Run, parse_holes
from unveil.model.tokenizers.wording import quoted, shown


class PieceTokenizer:
    """A `Tokenizer` whose prompts are strings with holes. Every position has the same vocabulary.

    `length` is the longest canvas, without the marks that the model puts around it; `default_length` the number of new
    tokens after a prompt without holes.
    """

    domain: ClassVar[Literal["text"]] = "text"

    def __init__(self, library: Library, *, mask_id: int, length: int, default_length: int) -> None:
        assert 1 <= default_length <= length
        self._library = library
        self._mask_id, self._length, self._default_length = mask_id, length, default_length
        by_token = library.get_vocab(with_added_tokens=True)
        assert mask_id in by_token.values()
        self._pieces = [""] * (max(by_token.values()) + 1)
        for piece, token_id in by_token.items():
            self._pieces[token_id] = piece
        self._special = frozenset(i for i, token in library.get_added_tokens_decoder().items() if token.special)
        self._unknown = by_token.get(getattr(library.model, "unk_token", None) or "", -1)
        self._texts: dict[tuple[int, bool], str] = {}
        ids = (i for i in range(len(self._pieces)) if i not in self.special_ids)
        self._anchor = next((i for i in ids if self._decode(i).isalnum()), 0)  # a piece that others may stand behind
        self._anchor_size = len(self._decode(self._anchor))

    @classmethod
    def load(cls, path: Path, *, mask_id: int, length: int, default_length: int) -> Self:
        """Reads `tokenizer.json`. Raises ArtifactError, in one line."""
        try:
            library = Library.from_str(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ArtifactError(f"{path.name} cannot be read: {error.strerror}") from None
        except Exception as error:  # the library raises nothing narrower
            raise ArtifactError(f"{path.name} is not a text tokenizer: {' '.join(str(error).split())}") from None
        if library.id_to_token(mask_id) is None:
            raise ArtifactError(f"{path.name} cannot be used: it has no token {mask_id}, the config's mask_id")
        if not 1 <= default_length <= length:
            reason = f"the artifact's config has length {length} and default_length {default_length}"
            raise ArtifactError(f"{path.name} cannot be used: {reason}")
        return cls(library, mask_id=mask_id, length=length, default_length=default_length)

    def save(self, path: Path) -> None:
        path.write_text(self._library.to_str(pretty=True) + "\n", encoding="utf-8")

    def resized(self, length: int) -> "PieceTokenizer":
        """The same for canvases of another length."""
        default = min(self._default_length, length)
        return PieceTokenizer(self._library, mask_id=self._mask_id, length=length, default_length=default)

    @property
    def length(self) -> int:
        return self._length

    @property
    def default_length(self) -> int:
        return self._default_length

    @property
    def end_id(self) -> None:
        return None

    @property
    def vocabulary_sizes(self) -> tuple[int]:
        return (len(self._pieces),)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids that stand for no text, the unknown token among them."""
        return self._special | ({self._unknown} - {-1}) | {self._mask_id}

    @property
    def empty_ids(self) -> frozenset[int]:
        """Ids below the vocabulary's size that have no token."""
        return frozenset(i for i in range(len(self._pieces)) if self._library.id_to_token(i) is None)

    def encode(self, prompt: object, *, length: int | None = None, append: bool = True) -> Template:
        """Raises PromptError; `param` is "length" where that is to blame."""
        if not isinstance(prompt, str):
            raise PromptError(f"a text prompt must be a string, got {quoted(prompt)}")
        parts = parse_holes(prompt, longest=self.length)
        has_holes = any(isinstance(part, Hole) for part in parts)
        if length is not None:
            self._check_length(length, has_holes=has_holes)
        if not has_holes and (append or length is not None):
            parts.append(Hole(length or self.default_length))
        mask = self._pieces[self._mask_id]
        text = "".join(part.text if isinstance(part, Run) else mask * part.size for part in parts)
        encoding = self._library.encode(text, add_special_tokens=False)
        self._check_pieces(encoding, text, num_holes=sum(part.size for part in parts if isinstance(part, Hole)))
        hidden = tuple(i == self._mask_id for i in encoding.ids)
        self._check_fit(hidden, param=None if length is None else "length")
        tokens = tuple(0 if is_hidden else i for i, is_hidden in zip(encoding.ids, hidden, strict=True))
        return Template(tokens, hidden, _known(encoding, text, hidden))

    def line_ids(self, text: str) -> list[int]:
        """A whole text without holes -> its ids. Raises PromptError for what the model does not know."""
        encoding = self._library.encode(text, add_special_tokens=False)
        self._check_pieces(encoding, text, num_holes=0)
        ids: list[int] = encoding.ids
        return ids

    def token(self, position: int, token_id: int) -> str:
        return self._text(token_id, is_first=position == 0) or self._pieces[token_id]

    def value(self, position: int, token_id: int, uniform: float) -> str:  # noqa: ARG002  (nothing to choose)
        return "" if token_id in self.special_ids else self._text(token_id, is_first=position == 0)

    def name(self, position: int) -> None:  # noqa: ARG002
        return None

    def output(self, values: Sequence[Value]) -> tuple[str, str]:
        text = "".join(str(value) for value in values)
        return text, text

    def describe(self) -> dict[str, Any]:
        return {"kind": "pieces", "vocabulary_size": len(self._pieces)}

    def example_prompt(self) -> str:
        return f"[MASK:{self.default_length}]"

    def _text(self, token_id: int, *, is_first: bool) -> str:
        """What a piece reads as at the start of a text, or behind another piece. Decoded once, when it is asked for:
        a whole vocabulary takes most of a second, and a reply shows few of its pieces."""
        found = self._texts.get((token_id, is_first))
        if found is None:
            found = self._decode(token_id) if is_first else self._decode(self._anchor, token_id)[self._anchor_size :]
            self._texts[token_id, is_first] = found
        return found

    def _decode(self, *ids: int) -> str:
        text: str = self._library.decode(ids, skip_special_tokens=False)
        return text

    def _check_pieces(self, encoding: Encoding, text: str, *, num_holes: int) -> None:
        for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token_id == self._unknown:
                raise PromptError(f"the model does not know {quoted(text[start:end].strip())}")
            if token_id in self._special and token_id != self._mask_id:
                raise PromptError(f"{shown(text[start:end].strip())} is a special token of the model, not text")
        if encoding.ids.count(self._mask_id) != num_holes:
            raise PromptError(f"{shown(self._pieces[self._mask_id])} is the model's own mask; a hole is written [MASK]")

    def _check_length(self, length: int, *, has_holes: bool) -> None:
        if has_holes:
            raise PromptError("length is only valid with prompts that have no [MASK]", param="length")
        if not 1 <= length <= self.length:
            raise PromptError(f"length must be an integer between 1 and {self.length}, got {length}", param="length")

    def _check_fit(self, hidden: Sequence[bool], *, param: str | None) -> None:
        if len(hidden) > self.length:
            counted = f"{hidden.count(False)} known and {hidden.count(True)} hidden tokens are {len(hidden)}"
            raise PromptError(f"{counted}, the model takes at most {self.length}", param=param)


def _known(encoding: Encoding, text: str, hidden: Sequence[bool]) -> dict[int, Value]:
    """Each known piece as the user wrote it, with the white space before it; the last one with what follows it too."""
    known: dict[int, Value] = {}
    end = 0
    for position, ((_, stop), is_hidden) in enumerate(zip(encoding.offsets, hidden, strict=True)):
        if not is_hidden:
            known[position] = text[end:stop]
        end = max(end, stop)
    if known and not hidden[-1]:
        known[len(hidden) - 1] = str(known[len(hidden) - 1]) + text[end:]
    return known
