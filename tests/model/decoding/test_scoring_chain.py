"""Chains are plain values: what is pending, which orders are known ahead, and what is said of many orders."""

import math

import pytest

from unveil.model.decoding.canvas import SamplingParams
from unveil.model.decoding.scoring_chain import Chain, Estimate, Term, summarise

TOKENS, HIDDEN = (4, 0, 2, 3, 0), (False, True, False, False, True)


def _chain(**params: object) -> Chain:
    return Chain.start(TOKENS, HIDDEN, seed=5, params=SamplingParams(**params))  # type: ignore[arg-type]


def test_a_chain_starts_with_everything_masked_and_the_known_positions_pending() -> None:
    chain = _chain()
    assert chain.canvas.hidden == (True,) * 5
    assert chain.canvas.tokens == (0,) * 5
    assert chain.pending == (True, False, True, True, False)
    assert chain.truth == TOKENS
    assert (chain.num_pending, chain.is_complete) == (3, False)


def test_what_stands_at_hidden_positions_is_forgotten() -> None:
    spoilt = Chain.start((4, 9, 2, 3, 9), HIDDEN, seed=5, params=SamplingParams())
    assert spoilt == _chain()


def test_revealed_positions_show_their_true_value_and_hidden_ones_stay_masked_to_the_end() -> None:
    chain = _chain().after([2]).after([0, 3])
    assert chain.is_complete
    assert chain.canvas.tokens == TOKENS
    assert chain.canvas.hidden == HIDDEN
    assert chain.canvas.step == chain.canvas.num_forwards == 3


def test_only_a_pending_position_can_be_revealed() -> None:
    for position in (1, 2):
        with pytest.raises(AssertionError):
            _chain().after([2]).after([position])


@pytest.mark.parametrize(
    ("params", "order"),
    [
        ({"order": "left_to_right"}, (0, 2, 3)),
        ({"order": "right_to_left"}, (3, 2, 0)),
        ({"order": "explicit", "explicit_order": (2, 0, 3)}, (2, 0, 3)),
        ({"order": "learned"}, None),
        ({"order": "learned", "order_temperature": 0.0}, None),
        ({"order": "uniform"}, None),
        ({"order": "confidence"}, None),
    ],
)
def test_an_order_is_known_ahead_where_the_model_has_no_say(
    params: dict[str, object], order: tuple[int, ...] | None
) -> None:
    assert _chain(**params).order_ahead() == order


def test_a_link_is_the_chain_at_that_step_with_that_position_alone_pending() -> None:
    chain, order = _chain(order="right_to_left"), (3, 2, 0)
    for step, position in enumerate(order):
        link = chain.link(order, step)
        assert link.canvas == chain.after(order[:step]).canvas
        assert [i for i, is_pending in enumerate(link.pending) if is_pending] == [position]
        assert link.after([position]).is_complete


def test_a_mean_over_drawn_orders_comes_with_its_standard_error_position_by_position() -> None:
    orders = [
        [Term(3, 0, 1.0), Term(0, 1, 2.0)],
        [Term(0, 0, 4.0), Term(3, 1, 2.0)],
        [Term(0, 0, 3.0), Term(3, 1, 3.0)],
    ]
    score = summarise(orders, is_drawn=True)
    assert score.nelbo.mean == 5.0
    assert score.nelbo.standard_error == pytest.approx(math.sqrt((4 + 1 + 1) / 2 / 3))
    assert score.log_likelihood is None
    first, second = score.positions
    assert (first.position, first.nats.mean, second.position, second.nats.mean) == (0, 3.0, 3, 2.0)
    assert [first.mean_step, second.mean_step] == pytest.approx([1 / 3, 2 / 3])
    assert first.nats.standard_error == pytest.approx(math.sqrt(1 / 3))
    assert first.nats.mean + second.nats.mean == score.nelbo.mean


def test_one_drawn_order_says_nothing_of_its_error_and_a_fixed_one_has_none() -> None:
    orders = [[Term(0, 0, 1.5)]]
    drawn, fixed = summarise(orders, is_drawn=True), summarise(orders, is_drawn=False)
    assert (drawn.nelbo, drawn.log_likelihood) == (Estimate(1.5, None), None)
    assert (fixed.nelbo, fixed.log_likelihood) == (Estimate(1.5, 0.0), -1.5)
    with pytest.raises(AssertionError):
        summarise([*orders, *orders], is_drawn=False)
