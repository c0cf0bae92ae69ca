"""Text prompts with holes, lossless tokens and files."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unveil.model.errors import ArtifactError, PromptError
from unveil.model.tokenizers import load_tokenizer
from unveil.model.tokenizers.base import Template, Tokenizer
from unveil.model.tokenizers.text import TextTokenizer

CORPUS = 'The cat sat on the mat.\nThe  dog\tdidn\'t; "é" ate 12 e\u0301clairs [on] the mat\r\n\n' * 20


@cache
def trained(kind: str) -> TextTokenizer:
    if kind == "characters":
        return TextTokenizer.train_characters([CORPUS], length=32, default_length=8)
    return TextTokenizer.train_bpe([CORPUS], vocab_size=50, length=32, default_length=8)


KINDS = ["characters", "bpe"]
in_alphabet = st.text(alphabet=sorted(set(CORPUS)), max_size=60)


def refusal(prompt: object, *, length: int | None = None) -> tuple[str, str | None]:
    with pytest.raises(PromptError) as caught:
        trained("characters").encode(prompt, length=length)
    return str(caught.value), caught.value.param


def fold(tokenizer: TextTokenizer, template: Template, fill: int) -> str:
    values = [template.known.get(i, tokenizer.value(i, fill, 0.5)) for i in range(len(template.tokens))]
    return str(tokenizer.output(values)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_it_offers_the_protocol_of_every_tokenizer(kind: str) -> None:
    tokenizer: Tokenizer = trained(kind)
    assert (tokenizer.domain, tokenizer.length, tokenizer.default_length) == ("text", 32, 8)
    assert tokenizer.describe() == {"kind": kind, "vocabulary_size": tokenizer.vocabulary_sizes[0]}
    assert tokenizer.name(0) is None
    tokenizer.encode(tokenizer.example_prompt())


def test_a_bpe_has_pieces_longer_than_a_character_and_the_size_asked_for() -> None:
    tokenizer = trained("bpe")
    assert tokenizer.vocabulary_sizes == (50,)
    assert " the" in {tokenizer.token(0, i) for i in range(50)}


@pytest.mark.parametrize("kind", KINDS)
@given(text=in_alphabet)
def test_tokens_joined_are_the_text(kind: str, text: str) -> None:
    tokenizer = trained(kind)
    assert "".join(tokenizer.token(0, int(i)) for i in tokenizer.ids(text)) == text


@pytest.mark.parametrize("kind", KINDS)
@given(left=in_alphabet.map(lambda t: t[:10]), right=in_alphabet.map(lambda t: t[:10]), size=st.integers(1, 12))
def test_what_is_around_a_hole_comes_back_unchanged(kind: str, left: str, right: str, size: int) -> None:
    tokenizer = trained(kind)
    template = tokenizer.encode(f"{left}[MASK:{size}]{right}")
    assert sum(template.hidden) == size
    assert fold(tokenizer, template, fill=7) == left + tokenizer.token(0, 7) * size + right


def test_one_hole_hides_one_token_and_several_add_up() -> None:
    template = trained("characters").encode("a[MASK]t[MASK:3]")
    assert template.hidden == (False, True, False, True, True, True)
    assert template.known == {0: "a", 2: "t"}


@pytest.mark.parametrize(("length", "num_new"), [(None, 8), (1, 1), (29, 29)])
def test_without_a_hole_new_tokens_follow(length: int | None, num_new: int) -> None:
    template = trained("characters").encode("cat", length=length)
    assert template.hidden == (False,) * 3 + (True,) * num_new


def test_without_appending_a_text_stays_as_it_is_unless_a_length_is_given() -> None:
    tokenizer = trained("characters")
    assert tokenizer.encode("cat", append=False).hidden == (False,) * 3
    assert tokenizer.encode("c[MASK]t", append=False) == tokenizer.encode("c[MASK]t")
    assert tokenizer.encode("cat", length=2, append=False) == tokenizer.encode("cat", length=2)
    assert tokenizer.encode("", append=False).tokens == ()
    longest = tokenizer.encode("cat " * 8, append=False)
    assert longest.hidden == (False,) * 32


def test_an_empty_prompt_is_all_new() -> None:
    assert trained("characters").encode("").hidden == (True,) * 8


def test_what_only_resembles_a_hole_is_text() -> None:
    corpus = "[MASK:12 [mask] x]"
    tokenizer = TextTokenizer.train_characters([corpus], length=64, default_length=4)
    for prompt in ("[mask]", "[MASK", "[MASK:12", "MASK]", "[[mask]]"):
        assert "".join(map(str, tokenizer.encode(prompt).known.values())) == prompt


@pytest.mark.parametrize("hole", ["[MASK:0]", "[MASK:33]", "[MASK:x]", "[MASK:]", "[MASK:-1]", "[MASK: 3]", "[MASK:٣]"])
def test_a_hole_of_no_possible_size_is_refused(hole: str) -> None:
    message = f"{hole} (character 3 of the prompt): a hole's size must be an integer between 1 and 32, as in [MASK:12]"
    assert refusal(f"at{hole}") == (message, None)


def test_refusals_word_by_word() -> None:
    assert refusal("cat[MASK:2]s§") == ('the model does not know "§" (character 13 of the prompt)', None)
    assert refusal("t\ud800") == ('the model does not know "\\ud800" (character 2 of the prompt)', None)
    assert refusal("a[MASK:32]" * 100_000) == ("the prompt has 3200000 hidden tokens, the model takes at most 32", None)
    assert refusal("a" * 30) == ("30 known and 8 hidden tokens are 38, the model takes at most 32", None)
    assert refusal("cat", length=30) == ("3 known and 30 hidden tokens are 33, the model takes at most 32", "length")
    assert refusal("cat", length=0) == ("length must be an integer between 1 and 32, got 0", "length")
    assert refusal("c[MASK]t", length=3) == ("length is only valid with prompts that have no [MASK]", "length")
    assert refusal({"age": 39}) == ("a text prompt must be a string, got an object", None)
    assert refusal(None) == ("a text prompt must be a string, got null", None)
    assert refusal(f"[MASK:{'9' * 10_000}]")[0].startswith("[MASK:9999")


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_loads_as_the_same_one(kind: str, tmp_path: Path) -> None:
    tokenizer = trained(kind)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path, "text", length=32, default_length=8)
    assert loaded.describe() == tokenizer.describe()
    assert loaded.encode("The cat[MASK:3]") == tokenizer.encode("The cat[MASK:3]")
    assert (loaded.length, loaded.default_length) == (32, 8)


def saved(change: dict[str, Any], *, model: dict[str, Any] | None = None) -> str:
    spec = json.loads(TextTokenizer.train_characters(["abc"], length=4, default_length=2)._library.to_str())
    return json.dumps(spec | change | {"model": spec["model"] | (model or {})})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "is not a text tokenizer: Model missing. at line 1 column 2"),
        ("[1", "is not a text tokenizer: invalid type: sequence, expected struct Tokenizer at line 1 column 1"),
        (saved({"normalizer": {"type": "NFC"}}), "cannot be used: a BPE without normalizer is needed"),
        (saved({"pre_tokenizer": {"type": "Whitespace"}}), "cannot be used: its pre-tokenizer may lose text"),
        (
            saved({}, model={"vocab": {"a": 0, "b": 2}}),
            "cannot be used: its ids do not count from 0 without gaps",
        ),
        (
            saved({}, model={"vocab": {"a": 0, "ab": 1}}),
            'cannot be used: its tokens use "b", which is no token',
        ),
        (saved({}, model={"vocab": {}}), "cannot be used: its ids do not count from 0 without gaps"),
        (saved({}, model={"type": "WordLevel", "unk_token": "a"}), None),
    ],
)
def test_a_file_that_is_damaged_or_would_lose_text_is_refused(tmp_path: Path, text: str, reason: str | None) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(ArtifactError) as caught:
        TextTokenizer.load(path, length=4, default_length=2)
    assert "\n" not in str(caught.value)
    if reason is not None:
        assert str(caught.value) == f"tokenizer.json {reason}"


def test_a_missing_file_and_a_config_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(ArtifactError, match=r"tokenizer.json cannot be read: No such file or directory"):
        TextTokenizer.load(path, length=4, default_length=2)
    path.write_text(saved({}))
    with pytest.raises(ArtifactError, match="the artifact's config has length 4 and default_length 5"):
        TextTokenizer.load(path, length=4, default_length=5)
