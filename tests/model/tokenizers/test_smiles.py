"""SMILES prompts with holes: atoms, the end of a molecule, refusals, and the file."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library

from unveil.model.errors import ArtifactError, PromptError
from unveil.model.tokenizers import load_tokenizer
from unveil.model.tokenizers.base import Template, Tokenizer
from unveil.model.tokenizers.smiles import END, PATTERN, SmilesTokenizer, first_foreign, split_smiles

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
CORPUS = [ASPIRIN, "c1cc[nH]c1", "C[C@@H](N)C(=O)[O-]", "ClCCBr", "C%12CC%12", "c1ccncc1", "C/C=C\\C", "S(=O)(=O)C#N"]
TOKENIZER = SmilesTokenizer.train(CORPUS, length=32)
in_vocabulary = st.lists(st.sampled_from(TOKENIZER.tokens[1:]), max_size=10).map("".join)


def refusal(prompt: object, *, length: int | None = None) -> tuple[str, str | None]:
    with pytest.raises(PromptError) as caught:
        TOKENIZER.encode(prompt, length=length)
    return str(caught.value), caught.value.param


def fold(template: Template, fill: str) -> str:
    token_id = TOKENIZER.tokens.index(fill)
    values = [template.known.get(i, TOKENIZER.value(i, token_id, 0.5)) for i in range(len(template.tokens))]
    return TOKENIZER.output(values)[1]


def test_it_offers_the_protocol_of_every_tokenizer() -> None:
    tokenizer: Tokenizer = TOKENIZER
    assert (tokenizer.domain, tokenizer.length, tokenizer.default_length) == ("smiles", 32, 32)
    assert tokenizer.describe()["vocabulary_size"] == tokenizer.vocabulary_sizes[0] == len(TOKENIZER.tokens)
    assert tokenizer.name(0) is None
    assert True in tokenizer.encode(tokenizer.example_prompt()).hidden


def test_a_token_is_an_atom_a_bond_a_branch_or_a_ring() -> None:
    assert split_smiles("C[C@@H]Cl") == ["C", "[C@@H]", "Cl"]
    assert split_smiles("Brc1[nH]c%12c1") == ["Br", "c", "1", "[nH]", "c", "%12", "c", "1"]
    assert split_smiles("[13CH3][O-]") == ["[13CH3]", "[O-]"]


@pytest.mark.parametrize("smiles", CORPUS)
def test_tokens_joined_are_the_molecule(smiles: str) -> None:
    row = TOKENIZER.row(smiles)
    assert row is not None
    assert TOKENIZER.texts(row[None]) == [smiles]


def test_a_whole_row_ends_in_end_tokens_and_one_that_does_not_fit_is_none() -> None:
    row = TOKENIZER.row("ClCCBr")
    assert row is not None
    assert row.tolist()[4:] == [0] * 28
    assert TOKENIZER.row("C" * 33) is None
    assert TOKENIZER.row("[Se]") is None
    assert TOKENIZER.row("") is None


@given(left=in_vocabulary, right=in_vocabulary.filter(bool), size=st.integers(1, 12))
def test_what_is_around_a_hole_comes_back_unchanged(left: str, right: str, size: int) -> None:
    template = TOKENIZER.encode(f"{left}[MASK:{size}]{right}")
    assert sum(template.hidden) == size
    assert fold(template, "C") == left + "C" * size + right
    assert template.num_given == len(split_smiles(left)) + len(split_smiles(right))


def test_the_canvas_is_the_models_and_where_the_prompt_ends_is_known() -> None:
    template = TOKENIZER.encode("c1ccc([MASK:2])cc1")
    assert len(template.tokens) == 32
    assert template.hidden == tuple(i in (6, 7) for i in range(32))
    assert template.known[31] == ""
    assert template.tokens[12:] == (0,) * 20


@pytest.mark.parametrize(("length", "num_new"), [(None, 30), (1, 1), (30, 30)])
def test_without_a_hole_new_tokens_follow_as_many_as_there_is_room_for(length: int | None, num_new: int) -> None:
    template = TOKENIZER.encode("CC", length=length)
    assert template.hidden == tuple(2 <= i < 2 + num_new for i in range(32))


def test_an_empty_prompt_is_all_new_and_a_full_one_is_complete() -> None:
    assert TOKENIZER.encode("").hidden == (True,) * 32
    assert TOKENIZER.encode("C" * 32).hidden == (False,) * 32


def test_what_is_scored_is_the_whole_molecule_its_end_included() -> None:
    template = TOKENIZER.encode("CCO", append=False)
    assert not any(template.hidden)
    assert len(template.tokens) == TOKENIZER.length
    assert set(template.tokens[3:]) == {0}
    assert sum(TOKENIZER.encode("CCO", length=2, append=False).hidden) == 2


def test_a_hole_at_the_end_may_be_left_empty() -> None:
    template = TOKENIZER.encode("CCO[MASK:4]")
    assert template.hidden == tuple(3 <= i < 7 for i in range(32))
    assert fold(template, END) == "CCO"


def test_a_bracket_atom_is_no_hole_and_a_hole_is_no_atom() -> None:
    template = TOKENIZER.encode("[nH][MASK][C@@H][MASK:2][O-]")
    assert template.hidden[:6] == (False, True, False, True, True, False)
    assert [template.known[i] for i in (0, 2, 5)] == ["[nH]", "[C@@H]", "[O-]"]
    with pytest.raises(AssertionError):
        SmilesTokenizer(["C", "[MASK]"], length=4)


def test_no_prompt_can_write_the_end_token() -> None:
    assert refusal(f"C{END}") == ('the model does not know "<" (character 2 of the prompt)', None)


def test_refusals_word_by_word() -> None:
    assert refusal("CC[MASK:2][Se]C") == ('the model does not know "[Se]" (character 11 of the prompt)', None)
    assert refusal("C[mask]") == ('the model does not know "[mask]" (character 2 of the prompt)', None)
    assert refusal("CC[n[MASK]H]") == ('the model does not know "[" (character 3 of the prompt)', None)
    assert refusal("C C") == ('the model does not know " " (character 2 of the prompt)', None)
    assert refusal("C[MASK:0]")[0].startswith("[MASK:0] (character 2 of the prompt): a hole's size must be")
    assert refusal("C" * 33) == ("33 known and 0 hidden tokens are 33, the model takes at most 32", None)
    assert refusal("C" * 30 + "[MASK:3]") == ("30 known and 3 hidden tokens are 33, the model takes at most 32", None)
    assert refusal("CC", length=31) == ("2 known and 31 hidden tokens are 33, the model takes at most 32", "length")
    assert refusal("CC", length=0) == ("length must be an integer between 1 and 32, got 0", "length")
    assert refusal("C[MASK]C", length=3) == ("length is only valid with prompts that have no [MASK]", "length")
    assert refusal({"age": 39}) == ("a SMILES prompt must be a string, got an object", None)


def test_what_no_smiles_can_hold_is_found_where_it_stands() -> None:
    assert first_foreign(ASPIRIN) is None
    assert first_foreign("CC!O") == ("!", 3)
    assert first_foreign("CC[nH") == ("[", 3)
    assert first_foreign("C[MASK]C") == ("[MASK]", 2)


def test_the_file_is_one_of_the_tokenizers_library_and_splits_alike(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path / "tokenizer.json")
    library = Library.from_file(str(tmp_path / "tokenizer.json"))
    for smiles in CORPUS:
        assert library.encode(smiles).tokens == split_smiles(smiles)
        row = TOKENIZER.row(smiles)
        assert row is not None
        assert library.encode(smiles).ids == row[row > 0].tolist()
    loaded = load_tokenizer(tmp_path, "smiles", length=32, default_length=32)
    assert loaded.describe() == TOKENIZER.describe()
    assert loaded.encode("C[MASK:3]") == TOKENIZER.encode("C[MASK:3]")


def _changed(tmp_path: Path, **parts: object) -> Path:
    path = tmp_path / "tokenizer.json"
    TOKENIZER.save(path)
    spec = json.loads(path.read_text())
    model = spec["model"] | {"vocab": parts.pop("vocab", spec["model"]["vocab"])}
    path.write_text(json.dumps(spec | {"model": model} | parts))
    return path


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"normalizer": {"type": "NFC"}}, "a WordLevel model with nothing around it is needed"),
        ({"pre_tokenizer": None}, "its pre-tokenizer does not split a SMILES into atoms, bonds and rings"),
        ({"vocab": {END: 0, "C": 2}}, f"its ids do not count from 0, for {END}, without gaps"),
        ({"vocab": {"C": 0, "N": 1}}, f"its ids do not count from 0, for {END}, without gaps"),
        ({"vocab": {END: 0, "[MASK]": 1}}, 'its token "[MASK]" is no part of a SMILES'),
    ],
)
def test_a_file_that_would_not_split_smiles_is_refused(tmp_path: Path, parts: dict[str, object], reason: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        SmilesTokenizer.load(_changed(tmp_path, **parts), length=8, default_length=8)
    assert str(caught.value) == f"tokenizer.json cannot be used: {reason}"


def test_a_missing_file_a_damaged_one_and_a_config_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(ArtifactError, match=r"tokenizer.json cannot be read: No such file or directory"):
        SmilesTokenizer.load(path, length=8, default_length=8)
    path.write_text("{}")
    with pytest.raises(ArtifactError, match=r"tokenizer.json is not a SMILES tokenizer: "):
        SmilesTokenizer.load(path, length=8, default_length=8)
    TOKENIZER.save(path)
    with pytest.raises(ArtifactError, match="length 8 and default_length 9"):
        SmilesTokenizer.load(path, length=8, default_length=9)
    assert PATTERN in json.loads(path.read_text())["pre_tokenizer"]["pattern"]["Regex"]
