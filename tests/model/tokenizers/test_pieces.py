"""The pieces of models trained elsewhere: holes, what the user wrote, marks, what is refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tests.model.foreign import TOKENS, character_tokenizer, word_tokenizer
from unveil.model.errors import ArtifactError, PromptError
from unveil.model.tokenizers.pieces import PieceTokenizer

MASK = TOKENS.index("[MASK]")


def _words(*, length: int = 12) -> PieceTokenizer:
    return PieceTokenizer(word_tokenizer(marks=True), mask_id=MASK, length=length, default_length=3)


def _bytes() -> PieceTokenizer:
    """Byte-level BPE as RoBERTa has it: a mask that takes the space before it, pieces that are no whole character."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(["<s>", "<mask>", *alphabet])}
    library = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<s>", AddedToken("<mask>", lstrip=True, normalized=False)])
    return PieceTokenizer(library, mask_id=1, length=20, default_length=2)


def _text(tokenizer: PieceTokenizer, prompt: str, revealed: dict[int, str]) -> str:
    """The output once each hidden position has the piece that is named."""
    template = tokenizer.encode(prompt)
    assert {p for p, is_hidden in enumerate(template.hidden) if is_hidden} == set(revealed)
    ids = {p: TOKENS.index(token) for p, token in revealed.items()}
    values = [
        tokenizer.value(p, ids[p], 0.5) if is_hidden else template.known[p]
        for p, is_hidden in enumerate(template.hidden)
    ]
    return tokenizer.output(values)[1]


def test_a_filled_prompt_reads_as_it_was_written() -> None:
    assert _text(_words(), "the cat [MASK] on the [MASK].", {2: "sat", 5: "mat"}) == "the cat sat on the mat."
    assert _text(_words(), "[MASK] cat[MASK:2]", {0: "the", 2: "##s", 3: "sat"}) == "the cats sat"
    assert _text(_words(), "  the\tcat ", {4 - 2: "sat", 3: "on", 4: "mat"}) == "  the\tcat sat on mat"


def test_what_is_known_comes_back_with_its_white_space() -> None:
    template = _words().encode("the   cat sat ", append=False)
    assert "".join(map(str, template.known.values())) == "the   cat sat "
    assert template.tokens == tuple(TOKENS.index(word) for word in ("the", "cat", "sat"))
    assert not any(template.hidden)


def test_positions_count_from_0_and_marks_are_none() -> None:
    template = _words().encode("[MASK:2] mat")
    assert template.hidden == (True, True, False)
    assert template.tokens == (0, 0, TOKENS.index("mat"))


def test_without_holes_new_tokens_follow() -> None:
    assert _words().encode("the cat").hidden == (False, False, True, True, True)
    assert _words().encode("", length=2).hidden == (True, True)
    with pytest.raises(PromptError, match=r"is only valid with prompts that have no \[MASK\]") as refused:
        _words().encode("[MASK]", length=2)
    assert refused.value.param == "length"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("the dog [MASK]", 'does not know "dog"'),
        ("the [SEP] [MASK]", r"\[SEP\] is a special token of the model, not text"),
        ("[MASK:0]", "an integer between 1 and 12"),
        ("the the the [MASK:10]", "3 known and 10 hidden tokens are 13, the model takes at most 12"),
        (7, "a text prompt must be a string, got 7"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(prompt: object, message: str) -> None:
    with pytest.raises(PromptError, match=message) as refused:
        _words().encode(prompt)
    assert "\n" not in str(refused.value)


def test_bytes_take_the_space_before_a_mask_and_split_characters_are_shown_as_such() -> None:
    tokenizer = _bytes()
    template = tokenizer.encode("a [MASK]é")
    assert template.hidden == (False, True, False, False)
    assert "".join(str(template.known[p]) for p in (0, 2, 3)) == "aé"
    assert tokenizer.value(1, tokenizer.line_ids(" ")[0], 0.5) == " "
    assert tokenizer.value(1, tokenizer.line_ids("é")[0], 0.5) == "\ufffd"
    with pytest.raises(PromptError, match="<mask> is the model's own mask; a hole is written"):
        tokenizer.encode("a <mask>")


def test_a_special_token_that_is_drawn_has_a_name_and_no_text() -> None:
    tokenizer = PieceTokenizer(character_tokenizer(), mask_id=MASK, length=5, default_length=2)
    assert tokenizer.token(0, 3) == "[SEP]"
    assert tokenizer.value(0, 3, 0.5) == ""
    assert tokenizer.token(1, TOKENS.index("a")) == tokenizer.value(1, TOKENS.index("a"), 0.5) == "a"


def test_a_file_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    _words().save(tmp_path / "tokenizer.json")
    loaded = PieceTokenizer.load(tmp_path / "tokenizer.json", mask_id=MASK, length=12, default_length=3)
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()
    assert loaded.encode("the [MASK]") == _words().encode("the [MASK]")
    assert loaded.vocabulary_sizes == (len(TOKENS),)
    assert loaded.resized(2).default_length == 2
    assert loaded.encode(loaded.example_prompt()).hidden == (True,) * 3


def test_a_damaged_or_unfitting_file_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(ArtifactError, match=r"tokenizer\.json cannot be read"):
        PieceTokenizer.load(path, mask_id=MASK, length=12, default_length=3)
    path.write_text("{}")
    with pytest.raises(ArtifactError, match="is not a text tokenizer"):
        PieceTokenizer.load(path, mask_id=MASK, length=12, default_length=3)
    _words().save(path)
    with pytest.raises(ArtifactError, match="has no token 999"):
        PieceTokenizer.load(path, mask_id=999, length=12, default_length=3)
    with pytest.raises(ArtifactError, match="length 2 and default_length 3"):
        PieceTokenizer.load(path, mask_id=MASK, length=2, default_length=3)


class _Counting:
    """A library's tokenizer that counts what it decodes."""

    def __init__(self, library: Tokenizer) -> None:
        self._library = library
        self.decoded: list[list[int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def decode(self, ids: Sequence[int], **options: Any) -> str:
        self.decoded.append(list(ids))
        return str(self._library.decode(ids, **options))

    def decode_batch(self, batch: Sequence[Sequence[int]], **options: Any) -> list[str]:
        return [self.decode(ids, **options) for ids in batch]


def test_a_reply_decodes_the_pieces_that_it_shows_once_each_and_not_the_vocabulary() -> None:
    library = _Counting(word_tokenizer(marks=True))
    tokenizer = PieceTokenizer(cast("Tokenizer", library), mask_id=MASK, length=12, default_length=3)
    at_load = len(library.decoded)
    for _ in range(2):
        assert tokenizer.value(0, TOKENS.index("cat"), 0.5) == tokenizer.token(0, TOKENS.index("cat")) == "cat"
        assert tokenizer.value(1, TOKENS.index("cat"), 0.5) == " cat"
        assert tokenizer.value(7, TOKENS.index("##s"), 0.5) == "s"
    assert [ids[-1] for ids in library.decoded[at_load:]] == [TOKENS.index(token) for token in ("cat", "cat", "##s")]
    assert at_load < len(TOKENS) / 2


def test_every_piece_reads_alone_and_behind_another_as_the_library_decodes_it() -> None:
    for tokenizer, library in ((_words(), word_tokenizer(marks=True)), (_bytes(), _bytes()._library)):
        anchor = next(i for i in range(len(tokenizer._pieces)) if library.decode([i]).isalnum())
        for i in set(range(tokenizer.vocabulary_sizes[0])) - tokenizer.special_ids:
            assert tokenizer.value(0, i, 0.5) == library.decode([i])
            assert library.decode([anchor]) + tokenizer.value(3, i, 0.5) == library.decode([anchor, i])
