"""Text in characters or BPE pieces, kept in the `tokenizers` library's own file format.

Lossless: a text's tokens, joined, are the text. Spaces stand inside tokens, nothing is normalised, a character that the
vocabulary lacks is refused. So joining revealed values in position order gives the output.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex
from tokenizers import Tokenizer as Library
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Split
from tokenizers.trainers import BpeTrainer

from unveil.model.errors import ArtifactError, PromptError
from unveil.model.tokenizers.base import Share, Template, Value
from unveil.model.tokenizers.holes import Hole, Run, parse_holes
from unveil.model.tokenizers.token_lists import token_shares
from unveil.model.tokenizers.wording import quoted

# A word, number or run of signs with the space before it; any other white space by itself. Every character matches.
_PIECES = r" ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+|\s"
# Bounds the library's memory for one call; borders between blocks only cost a merge.
_BLOCK = 100_000
_NEUTRAL = ("truncation", "padding", "added_tokens", "normalizer", "post_processor")
_NEUTRAL_MODEL = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")


class TextTokenizer:
    """A `Tokenizer` whose prompts are strings with holes. Every position has the same vocabulary.

    `length` is the longest canvas, `default_length` the number of new tokens after a prompt without holes.
    """

    domain: ClassVar[Literal["text"]] = "text"

    def __init__(self, library: Library, *, length: int, default_length: int) -> None:
        assert 1 <= default_length <= length
        problem = _problem(json.loads(library.to_str()))
        assert problem is None, problem
        self._library = library
        self._length = length
        self._default_length = default_length
        by_token = library.get_vocab(with_added_tokens=False)
        self._tokens = tuple(sorted(by_token, key=by_token.__getitem__))
        self.alphabet = frozenset(token for token in self._tokens if len(token) == 1)

    @classmethod
    def train_characters(cls, texts: Iterable[str], *, length: int, default_length: int) -> Self:
        """One token for each character of the texts, in code point order."""
        characters = sorted(set().union(*texts))
        library = Library(BPE(vocab={c: i for i, c in enumerate(characters)}, merges=[]))
        return cls(library, length=length, default_length=default_length)

    @classmethod
    def train_bpe(cls, texts: Iterable[str], *, vocab_size: int, length: int, default_length: int) -> Self:
        """Every character of the texts, and the commonest pieces of words up to `vocab_size` tokens in all.

        More than `vocab_size` where the texts have more characters than that.
        """
        library = Library(BPE())
        library.pre_tokenizer = Split(Regex(_PIECES), "isolated")
        lines = (line for text in texts for line in text.splitlines(keepends=True))
        trainer = BpeTrainer(vocab_size=vocab_size, special_tokens=[], show_progress=False)
        library.train_from_iterator(lines, trainer)
        return cls(library, length=length, default_length=default_length)

    @classmethod
    def load(cls, path: Path, *, length: int, default_length: int) -> Self:
        """Reads `tokenizer.json`. Raises ArtifactError, in one line, for anything but a whole, lossless tokenizer."""
        try:
            text = path.read_text(encoding="utf-8")
            library = Library.from_str(text)
            problem = _problem(json.loads(library.to_str()))
        except OSError as error:
            raise ArtifactError(f"{path.name} cannot be read: {error.strerror}") from None
        except Exception as error:  # the library raises nothing narrower
            raise ArtifactError(f"{path.name} is not a text tokenizer: {' '.join(str(error).split())}") from None
        if problem is None and not 1 <= default_length <= length:
            problem = f"the artifact's config has length {length} and default_length {default_length}"
        if problem is not None:
            raise ArtifactError(f"{path.name} cannot be used: {problem}")
        return cls(library, length=length, default_length=default_length)

    def save(self, path: Path) -> None:
        path.write_text(self._library.to_str(pretty=True) + "\n", encoding="utf-8")

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
    def vocabulary_sizes(self) -> tuple[int, ...]:
        return (len(self._tokens),)

    def encode(self, prompt: object, *, length: int | None = None, append: bool = True) -> Template:
        """Raises PromptError; `param` is "length" where that is to blame. Text between two holes is split by itself."""
        if not isinstance(prompt, str):
            raise PromptError(f"a text prompt must be a string, got {quoted(prompt)}")
        parts = parse_holes(prompt, longest=self.length)
        has_holes = any(isinstance(part, Hole) for part in parts)
        if length is not None:
            self._check_length(length, has_holes=has_holes)
        if not has_holes and (append or length is not None):
            parts.append(Hole(length or self.default_length))
        ids = [None if i < 0 else i for part in parts for i in self._part_ids(part)]
        self._check_fit(ids, param=None if length is None else "length")
        known: dict[int, Value] = {p: self._tokens[i] for p, i in enumerate(ids) if i is not None}
        return Template(tuple(i or 0 for i in ids), tuple(i is None for i in ids), known)

    def ids(self, text: str) -> NDArray[np.int64]:
        """A long text of this alphabet -> [N] ids."""
        parts = [np.array(self._library.encode(block).ids, dtype=np.int64) for block in _blocks(text)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def batch_ids(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Many texts of this alphabet at once, on all cores -> [N] ids of each."""
        found = iter(self._library.encode_batch([block for text in texts for block in _blocks(text)]))
        none = np.empty(0, dtype=np.int64)
        return [np.concatenate([none, *(next(found).ids for _ in _blocks(text))]).astype(np.int64) for text in texts]

    def line_ids(self, text: str) -> list[int]:
        """A whole text without holes -> its ids. Raises PromptError for what the model does not know."""
        return self._part_ids(Run(text, 0))

    def resized(self, length: int) -> "TextTokenizer":
        """The same for canvases of another length."""
        return TextTokenizer(self._library, length=length, default_length=min(self._default_length, length))

    def condition(self, where: object, *, length: int) -> dict[int, tuple[Share, ...]]:
        """See `base.condition_of`; for every position the same tokens (`token_lists`)."""
        return dict.fromkeys(
            range(length), token_shares(where, {token: i for i, token in enumerate(self._tokens)}, end_id=self.end_id)
        )

    def token(self, position: int, token_id: int) -> str:  # noqa: ARG002  (every position has the same vocabulary)
        return self._tokens[token_id]

    def value(self, position: int, token_id: int, uniform: float) -> str:  # noqa: ARG002
        return self.token(position, token_id)

    def name(self, position: int) -> None:  # noqa: ARG002
        return None

    def output(self, values: Sequence[Value]) -> tuple[str, str]:
        text = "".join(str(value) for value in values)
        return text, text

    def describe(self) -> dict[str, Any]:
        kind = "characters" if len(self.alphabet) == len(self._tokens) else "bpe"
        return {"kind": kind, "vocabulary_size": len(self._tokens)}

    def example_prompt(self) -> str:
        word = max(self._tokens, key=lambda token: (token.strip().isalpha(), len(token)))
        num_new = min(self.default_length, self.length - 1)
        return f"{word}[MASK:{num_new}]" if num_new else "[MASK]"

    def _part_ids(self, part: Hole | Run) -> list[int]:
        """Token ids, or -1 for each hidden token."""
        if isinstance(part, Hole):
            return [-1] * part.size
        for i, character in enumerate(part.text, start=part.start + 1):
            if character not in self.alphabet:
                raise PromptError(f"the model does not know {quoted(character)} (character {i} of the prompt)")
        ids: list[int] = self._library.encode(part.text).ids
        return ids

    def _check_length(self, length: int, *, has_holes: bool) -> None:
        if has_holes:
            raise PromptError("length is only valid with prompts that have no [MASK]", param="length")
        if not 1 <= length <= self.length:
            raise PromptError(f"length must be an integer between 1 and {self.length}, got {length}", param="length")

    def _check_fit(self, ids: Sequence[int | None], *, param: str | None) -> None:
        if len(ids) > self.length:
            num_hidden = sum(i is None for i in ids)
            counted = f"{len(ids) - num_hidden} known and {num_hidden} hidden tokens are {len(ids)}"
            raise PromptError(f"{counted}, the model takes at most {self.length}", param=param)


def _blocks(text: str) -> list[str]:
    return [text[i : i + _BLOCK] for i in range(0, len(text), _BLOCK)]


def _problem(spec: Mapping[str, Any]) -> str | None:
    """Why a tokenizer of the library would lose text, or None."""
    model, split = spec["model"], spec["pre_tokenizer"]
    unwanted = [key for key in _NEUTRAL if spec[key]]
    unwanted += [key for key in _NEUTRAL_MODEL if model.get(key)]
    if model.get("type") != "BPE" or unwanted:
        return f"a BPE without {', '.join(unwanted)} is needed" if unwanted else "its model is not a BPE"
    if split is not None and (split.get("type"), split.get("behavior")) != ("Split", "Isolated"):
        return "its pre-tokenizer may lose text"
    vocab: dict[str, int] = model["vocab"]
    if not vocab or sorted(vocab.values()) != list(range(len(vocab))):
        return "its ids do not count from 0 without gaps"
    lacking = sorted({c for token in vocab for c in token if c not in vocab})
    return f"its tokens use {quoted(lacking[0])}, which is no token" if lacking else None
