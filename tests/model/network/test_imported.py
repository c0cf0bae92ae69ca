"""Imported networks: logits equal to the library's own, marks, padding, order heads, and one name for each tensor."""

import copy
import importlib
from pathlib import Path

import pytest
import torch

from tests.model.foreign import FAMILIES, TOKENS, WIDTH, logits_of, write_folder
from unveil.importers.convert import Converted, Wishes, convert, import_folder
from unveil.model.artifact.folder import load_artifact, save_artifact
from unveil.model.artifact.manifest import CONFIG
from unveil.model.errors import ArtifactError
from unveil.model.network.architecture import Family, ImportedArchitecture, OrderSpec
from unveil.model.network.build import build_network
from unveil.model.network.imported import Imported

MASK, CLS, SEP = (TOKENS.index(token) for token in ("[MASK]", "[CLS]", "[SEP]"))
TEXT = [5, 9, 6, 12, 13, 7, 5, 8, 10, 11]
HIDDEN = [1, 4, 5, 9]


def _converted(folder: Path, family: Family) -> tuple[Converted, torch.Tensor]:
    """An imported model and what the library says of a canvas with holes, at the canvas's positions: [L, V]."""
    network = write_folder(folder, family)
    converted = convert(folder, Wishes())
    before, after = converted.denoiser.architecture.before, converted.denoiser.architecture.after
    shown = [*before, *(MASK if i in HIDDEN else t for i, t in enumerate(TEXT)), *after]
    with torch.no_grad():
        return converted, logits_of(network, family, shown)[len(before) : len(before) + len(TEXT)]


def _canvas(num_rows: int, *, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens = torch.zeros(num_rows, length, dtype=torch.int64)
    tokens[:, : len(TEXT)] = torch.tensor(TEXT)
    hidden = torch.zeros_like(tokens, dtype=torch.bool)
    hidden[:, HIDDEN] = True
    return tokens.masked_fill(hidden, 0), hidden, torch.full((num_rows,), len(TEXT))


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_librarys_own(family: Family, tmp_path: Path) -> None:
    converted, expected = _converted(tmp_path / family, family)
    net = converted.denoiser
    marks = () if family in ("llada", "dream") else (CLS,)
    assert net.architecture.before == marks
    with torch.no_grad():
        logits = net(*_canvas(1, length=len(TEXT))).token_logits[0]
    offered = ~net.get_buffer("absent")
    assert logits.shape == (len(TEXT), len(TOKENS))
    assert torch.isneginf(logits[:, ~offered]).all()
    torch.testing.assert_close(logits[:, offered], expected[:, : len(TOKENS)][:, offered], atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_is_never_looked_at(family: Family, tmp_path: Path) -> None:
    converted, expected = _converted(tmp_path / family, family)
    tokens, hidden, lengths = _canvas(2, length=len(TEXT) + 5)
    tokens[1, len(TEXT) :] = 7
    with torch.no_grad():
        logits = converted.denoiser(tokens, hidden, lengths).token_logits[:, : len(TEXT)]
    offered = ~converted.denoiser.get_buffer("absent")
    torch.testing.assert_close(logits[0], logits[1], atol=0, rtol=0)
    torch.testing.assert_close(logits[0][:, offered], expected[:, : len(TOKENS)][:, offered], atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_hidden_position_says_nothing_of_its_token_and_reaches_both_ways(family: Family, tmp_path: Path) -> None:
    net = _converted(tmp_path / family, family)[0].denoiser
    tokens, hidden, lengths = _canvas(1, length=len(TEXT))
    with torch.no_grad():
        base = net(tokens, hidden, lengths).token_logits
        other = net(tokens.masked_fill(hidden, 9), hidden, lengths).token_logits
        assert torch.equal(base, other)
        for place in (0, len(TEXT) - 2):
            changed = tokens.clone()
            changed[0, place] = 8
            moved = (net(changed, hidden, lengths).token_logits != base).any(-1)[0]
            assert moved[4], f"{family}: a change at {place} did not reach the middle"


@pytest.mark.parametrize("family", FAMILIES)
def test_an_artifact_of_it_holds_each_tensor_once_and_comes_back_whole(family: Family, tmp_path: Path) -> None:
    write_folder(tmp_path / "source", family)
    _, converted = import_folder(tmp_path / "source", tmp_path / "artifact", Wishes())
    loaded = load_artifact(tmp_path / "artifact")
    assert isinstance(loaded.denoiser, Imported)
    assert loaded.denoiser.num_parameters == converted.denoiser.num_parameters
    inputs = _canvas(1, length=len(TEXT))
    with torch.no_grad():
        assert torch.equal(loaded.denoiser(*inputs).token_logits, converted.denoiser(*inputs).token_logits)
    assert loaded.manifest.order.kind == "uniform"
    assert not loaded.denoiser(*inputs).order_logits.any()


def test_an_order_head_of_our_own_reads_the_states_that_the_token_head_reads(tmp_path: Path) -> None:
    uniform = _converted(tmp_path / "dream", "dream")[0].denoiser
    net = build_network(uniform.architecture, OrderSpec(kind="contextual")).eval()
    net.load_state_dict(uniform.state_dict(), strict=False)
    tokens, hidden, lengths = _canvas(1, length=len(TEXT))
    with torch.no_grad():
        states, logits, *_ = net.read(tokens, hidden, lengths)
        assert logits is not None
        torch.testing.assert_close(net.net.lm_head(states)[..., : len(TOKENS)][..., 5:], logits[..., 5:])  # type: ignore[operator, union-attr]
        assert states.shape == (1, len(TEXT), WIDTH)
        assert net(tokens, hidden, lengths).order_logits.std() > 0
    assert len(net.blocks) == 2


def test_an_end_is_offered_by_diffusion_models_alone(tmp_path: Path) -> None:
    assert SEP not in _converted(tmp_path / "a", "llada")[0].denoiser.architecture.absent
    assert SEP in _converted(tmp_path / "b", "bert")[0].denoiser.architecture.absent


def test_weights_of_another_network_are_refused_in_one_line(tmp_path: Path) -> None:
    write_folder(tmp_path / "source", "bert")
    _, converted = import_folder(tmp_path / "source", tmp_path / "artifact", Wishes())
    other = copy.deepcopy(converted.denoiser)
    other.architecture = other.architecture.model_copy(
        update={"config": {**other.architecture.config, "num_hidden_layers": 3}}
    )
    save_artifact(
        tmp_path / "wrong", denoiser=other, tokenizer=converted.tokenizer, training={}, metrics={}, card="# x\n"
    )
    with pytest.raises(ArtifactError, match=r"does not hold the network of config\.json"):
        load_artifact(tmp_path / "wrong")
    text = (tmp_path / "artifact" / CONFIG).read_text().replace('"num_attention_heads": 4', '"num_attention_heads": 5')
    (tmp_path / "artifact" / CONFIG).write_text(text)
    with pytest.raises(ArtifactError):
        load_artifact(tmp_path / "artifact")


def test_what_config_says_is_checked_by_name(tmp_path: Path) -> None:
    architecture = _converted(tmp_path / "bert", "bert")[0].denoiser.architecture
    with pytest.raises(ValueError, match="absent lists ids below"):
        ImportedArchitecture.model_validate({**architecture.model_dump(), "absent": [len(TOKENS)]})
    with pytest.raises(ValueError, match="family"):
        ImportedArchitecture.model_validate({**architecture.model_dump(), "family": "gpt2"})


def test_without_the_library_one_line_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "source", "albert")
    import_folder(tmp_path / "source", tmp_path / "artifact", Wishes())

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    message = r"needs the package transformers: pip install 'unveil\[transformers\]'"
    with pytest.raises(ArtifactError, match=message):
        load_artifact(tmp_path / "artifact")
    with pytest.raises(ArtifactError, match=message):
        convert(tmp_path / "source", Wishes())
