"""Late queries beside other networks: the quick variant trains all of them, and what each is asked is fair."""

from pathlib import Path

import pytest
import torch

from tests.benchmarks.quick import run_one_seed
from tests.training.molecules import MOLECULES
from unveil.benchmarks.orders.late_queries import KINDS, NETS, PROBLEMS, as_text, build, logits_in_turn, prompts, scored
from unveil.benchmarks.orders.rivals.timed import Training, drawn_turns, turns
from unveil.benchmarks.orders.rivals.two_streams import TwoStreams
from unveil.model.network.architecture import Architecture
from unveil.training.data.rows import Rows

L, END = 6, 0
X = torch.tensor([[3, 1, 2, 4, 0, 0], [1, 2, 3, 4, 1, 2], [4, 0, 0, 0, 0, 0]])
ROWS = Rows(X, torch.full((3,), L), end_id=END)
SHAPE = Architecture(length=L, vocabulary_sizes=(5,), width=16, layers=4, heads=2, mlp_width=32, relative_bias=True)


SOME = ("late 1", "two streams", "masked", "causal, AdamW")  # one of each kind


def test_the_quick_variant_sets_networks_of_every_kind_beside_late_queries(tmp_path: Path) -> None:
    given = ("--smiles", str(MOLECULES), *(word for name in SOME for word in ("--net", name)))
    report = run_one_seed("late_queries", tmp_path, *given)
    assert list(report["problems"]) == list(PROBLEMS)
    for nets in report["problems"].values():
        assert list(nets) == list(SOME)
        late = nets[SOME[0]]["nats"]
        for name, found in nets.items():
            assert list(found["nats"]) == (list(KINDS[:1]) if name.startswith("causal") else list(KINDS))
            for kind, own in found["nats"].items():
                less = found["first_minus"][kind]["mean"]
                assert less == pytest.approx(late[kind]["mean"] - own["mean"])
            assert found["steps"][0] > 0
    assert "late 1 minus" in as_text(report)


@pytest.mark.parametrize("name", NETS[:5])
@torch.inference_mode()
def test_no_network_sees_an_answer_before_its_turn(name: str) -> None:
    torch.manual_seed(0)
    net = build(name, SHAPE).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    keys = torch.arange(L).expand(3, L).double()
    if name != "causal":
        keys = torch.rand((3, L), generator=torch.Generator().manual_seed(1)).double()
    asked = turns(keys, torch.zeros(3, L, dtype=torch.bool), Rows(X, ROWS.lengths))
    before = logits_in_turn(net, ROWS, asked)
    for position in range(L):
        x = X.clone()
        x[:, position] = (x[:, position] + 1) % 5
        changed = (logits_in_turn(net, Rows(x, ROWS.lengths), asked) != before).any(-1)
        knows = asked > asked[:, position, None]
        assert not changed[~knows].any(), position
        assert changed[knows].all(), position


@torch.inference_mode()
def test_two_streams_ask_what_a_state_by_itself_would_answer() -> None:
    torch.manual_seed(0)
    net = TwoStreams(SHAPE).eval()
    ranks = torch.tensor([[2, 0, 1, 4, 3, 0], [1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 1, 2]])
    found = net.in_turn(X, ranks, ROWS.lengths)
    for rank in range(1, L + 1):
        now = ranks.masked_fill(ranks > rank, L + 1)
        alone = net.in_turn(X.masked_fill(ranks >= rank, 0), now, ROWS.lengths)
        torch.testing.assert_close(found[ranks == rank], alone[ranks == rank], rtol=1e-4, atol=1e-5)


def test_prompts_know_what_their_kind_says() -> None:
    for seed in range(20):
        known = {kind: prompts(ROWS, kind, torch.Generator().manual_seed(seed)) for kind in KINDS}
        assert not known["left to right"].any()
        assert not known["uniform"].any()
        assert (known["beginnings"].long().diff() <= 0).all()
        assert (known["ends"].long().diff() >= 0).all()
        assert ((~known["stretches"]).long().diff().abs().sum(-1) <= 2).all(), "one hole"
        assert not known["beginnings"].all(-1).any()


def test_turns_of_a_batch_follow_their_shares() -> None:
    rows = Rows(torch.randint(1, 5, (4000, L)), torch.full((4000,), L))
    training = Training(seconds=1.0, batch_size=1, uniform=0.25, prompted=0.4, spans=0.5)
    found = drawn_turns(rows, training, torch.Generator().manual_seed(0))
    is_prompted = (found == 0).any(-1)
    hidden = found.masked_fill(found == 0, -1)
    is_reading = torch.stack([(row[row > 0].diff() > 0).all() for row in hidden])
    assert 0.3 < float(is_prompted.double().mean()) < 0.41, "a prompt may know nothing"
    assert 0.74 < float(is_reading[~is_prompted].double().mean()) < 0.78
    assert (found.amax(-1) == (found > 0).sum(-1)).all()


@torch.inference_mode()
def test_scores_are_exact_likelihoods_in_which_ends_absorb() -> None:
    torch.manual_seed(0)
    net = build("late 1", SHAPE).eval()
    found = scored(net, ROWS, "left to right")
    logits = logits_in_turn(net, ROWS, torch.arange(1, L + 1).expand(3, L)).double()
    nats = -logits.log_softmax(-1).gather(-1, X[..., None]).squeeze(-1)
    is_paid = torch.tensor([[1, 1, 1, 1, 1, 0], [1] * 6, [1, 1, 0, 0, 0, 0]]).bool()
    torch.testing.assert_close(found, (nats * is_paid).sum(-1), rtol=1e-5, atol=1e-5)
