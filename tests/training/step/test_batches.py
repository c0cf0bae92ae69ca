"""What a step trains on: a function of (seed, step), with the shares that the recipe asks for."""

import torch

from tests.training.small import small_recipe
from unveil.training.data.rows import MOST_BORDERS, known_spans
from unveil.training.evaluation.likelihood import Rows, known_sets
from unveil.training.step.batches import draw_batch, marginal_logprobs, row_indices, trials_over


def _rows(num_rows: int = 50, L: int = 5) -> Rows:
    return Rows(torch.arange(num_rows * L).view(num_rows, L), torch.full((num_rows,), L))


def test_every_epoch_shows_every_row_once_in_a_new_order() -> None:
    stream = torch.cat([row_indices(10, step=step, batch_size=4, seed=3) for step in range(10)])
    epochs = stream.view(4, 10)
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(10))
    assert not torch.equal(epochs[0], epochs[1])


def test_a_batch_may_be_larger_than_the_table() -> None:
    batch = row_indices(3, step=0, batch_size=10, seed=0)
    assert torch.bincount(batch).tolist() in ([4, 3, 3], [3, 4, 3], [3, 3, 4])


def test_a_step_is_a_function_of_seed_and_step() -> None:
    recipe, log_w = small_recipe(), torch.zeros(5)
    first, again = (draw_batch(_rows(), recipe, step=5) for _ in range(2))
    assert torch.equal(first.rows.x, again.rows.x)
    assert torch.equal(first.draws.under(log_w).hidden, again.draws.under(log_w).hidden)
    other = draw_batch(_rows(), recipe, step=6)
    assert not torch.equal(first.draws.under(log_w).hidden, other.draws.under(log_w).hidden)
    reseeded = draw_batch(_rows(), small_recipe("seed=1"), step=5)
    assert not torch.equal(first.rows.x, reseeded.rows.x)


def test_the_share_of_uniform_rows_rests_at_one_and_then_shrinks_to_the_exploration() -> None:
    recipe = small_recipe(
        "optimizer.steps=100",
        "advanced.order.warmup=0.4",
        "advanced.order.anneal=0.2",
        "advanced.order.exploration=0.1",
    )
    shares = [recipe.order.uniform_share(step / 100) for step in range(100)]
    assert shares[0] == shares[39] == 1.0
    assert abs(shares[50] - 0.55) < 1e-9
    assert abs(shares[60] - 0.1) < 1e-9
    assert abs(shares[99] - 0.1) < 1e-9
    assert shares == sorted(shares, reverse=True)
    assert small_recipe("order.method=uniform").order.uniform_share(0.99) == 1.0


def test_bare_rows_show_their_prompt_alone_and_all_other_chance_is_as_it_was() -> None:
    common = ("optimizer.batch_size=4000", "order.method=uniform", "advanced.model.query_layers=0")
    bare, plain = (
        draw_batch(_rows(), small_recipe(*common, f"advanced.order.bare={share}"), step=0).draws for share in (0.4, 0.0)
    )
    is_bare = bare.fraction == 0.0
    assert abs(float(is_bare.float().mean()) - 0.4) < 0.03
    assert bare.prompted[is_bare].all(), "no row of the reported NELBO"
    assert torch.equal(bare.fraction[~is_bare], plain.fraction[~is_bare])
    assert torch.equal(bare.prompted[~is_bare], plain.prompted[~is_bare])
    assert torch.equal(bare.known, plain.known)
    assert torch.equal(bare.noise, plain.noise)
    assert torch.equal(bare.under(torch.zeros(5)).hidden[is_bare], ~bare.known[is_bare])


def test_prompted_and_uniform_rows_have_the_shares_of_the_recipe() -> None:
    recipe = small_recipe(
        "optimizer.batch_size=4000",
        "prompts.share=0.3",
        "advanced.order.warmup=0.0",
        "advanced.order.anneal=0.0",
        "advanced.order.exploration=0.2",
    )
    prefixes = draw_batch(_rows(), recipe, step=0).draws.under(torch.zeros(5))
    # An empty known set is drawn with probability 1/5, and is then no prompt.
    assert abs(float(prefixes.prompted.float().mean()) - 0.3 * 4 / 5) < 0.03
    assert abs(float((~prefixes.follows_law).float().mean()) - 0.2) < 0.03


def test_known_sets_are_uniform_in_size_and_place_and_never_whole() -> None:
    rows = Rows(torch.zeros(6000, 4, dtype=torch.int64), torch.tensor([4, 2] * 3000))
    known = known_sets(rows, seed=0)
    sizes = known.sum(-1)
    long, short = sizes[0::2], sizes[1::2]
    assert (torch.bincount(long, minlength=4) / 3000 - 0.25).abs().max() < 0.04
    assert (torch.bincount(short, minlength=2) / 3000 - 0.5).abs().max() < 0.04
    assert not known[1::2, 2:].any()
    assert (known[0::2][long == 1].float().mean(0) - 0.25).abs().max() < 0.06


def test_known_spans_are_stretches_as_people_write_prompts_and_never_whole() -> None:
    lengths = torch.tensor([24, 24, 24, 9] * 500)
    rows = Rows(torch.zeros(2000, 24, dtype=torch.int64), lengths)
    known = known_spans(rows, seed=0)
    assert torch.equal(known, known_spans(rows, seed=0))
    assert not (known & rows.padding).any()
    assert (~(known | rows.padding)).any(-1).all()
    long = known[lengths == 24]
    borders = (long[:, 1:] != long[:, :-1]).sum(-1)
    assert set(borders.tolist()) == set(range(MOST_BORDERS + 1)), "fewer where two borders meet or one is at the end"
    one = long[borders == 1]
    assert 0.4 < one[:, 0].double().mean() < 0.6, "prefixes and suffixes alike"
    assert 0.35 < long.double().mean() < 0.6


def test_a_share_of_the_prompts_is_in_stretches_and_none_of_them_changes_what_other_recipes_draw() -> None:
    rows = Rows(torch.zeros(400, 24, dtype=torch.int64), torch.full((400,), 24))
    recipes = [
        small_recipe("prompts.share=1", f"advanced.prompts.spans={share}", "optimizer.batch_size=400")
        for share in (0, 0.5)
    ]
    without, half = (draw_batch(rows, recipe, step=3).draws for recipe in recipes)
    is_same = (without.known == half.known).all(-1)
    assert 0.4 < is_same.double().mean() < 0.6
    assert torch.equal(without.noise, half.noise)
    assert recipes[0].fingerprint() == small_recipe("prompts.share=1", "optimizer.batch_size=400").fingerprint()
    assert recipes[0].fingerprint() != recipes[1].fingerprint()


def test_padding_is_known_and_no_prompt() -> None:
    rows = Rows(torch.zeros(40, 5, dtype=torch.int64), torch.full((40,), 3))
    prefixes = draw_batch(rows, small_recipe("prompts.share=0.0"), step=0).draws.under(torch.zeros(5))
    assert not prefixes.prompted.any()
    assert not prefixes.hidden[:, 3:].any()
    assert (prefixes.num_known == 2).all()


def test_marginals_count_every_position_or_all_of_them_together_without_the_padding() -> None:
    rows = Rows(torch.tensor([[0, 1], [0, 2], [0, 9]]), torch.tensor([2, 2, 1]))
    own = marginal_logprobs(Rows(rows.x[:2], rows.lengths[:2]), (1, 3)).exp()
    torch.testing.assert_close(own, torch.tensor([[2.5, 0.5, 0.5], [0.5, 1.5, 1.5]]).double() / 3.5)
    shared = marginal_logprobs(rows, (3,)).exp()
    torch.testing.assert_close(shared, torch.tensor([[3.5, 1.5, 1.5]]).double() / 6.5)


def test_a_critic_tries_the_law_on_rows_as_they_are_without_their_prompts() -> None:
    """What is past a row's end is absent, a clue is known, a random prompt is neither."""
    lengths, clues = torch.tensor([5, 2, 3]), torch.zeros(3, 5, dtype=torch.bool)
    clues[0, 1] = True
    rows = Rows(torch.arange(15).view(3, 5), lengths, clues)
    marginals = marginal_logprobs(rows, (15,))
    trials = trials_over(rows, small_recipe("prompts.share=1.0"), step=4, marginals=marginals)
    assert trials is not None
    assert len(trials.noise) == 128
    for m in range(len(trials.noise)):
        assert trials.absent[m].tolist() == [i >= lengths[m % 3] for i in range(5)]
        assert trials.known[m].tolist() == clues[m % 3].tolist()
    assert trials_over(rows, small_recipe("order.method=uniform"), step=4, marginals=marginals) is None


def test_rows_that_do_not_follow_the_law_run_from_left_to_right_by_a_share() -> None:
    recipe = small_recipe(
        "optimizer.batch_size=4000",
        "advanced.order={warmup = 0.0, anneal = 0.0, exploration = 0.6, reading = 0.25}",
        "prompts.share=0.3",
    )
    batch = draw_batch(_rows(), recipe, step=0, is_whole=True)
    assert abs(float(batch.draws.reading_rows.float().mean()) - 0.15) < 0.02
    assert abs(float(batch.draws.uniform_rows.float().mean()) - 0.45) < 0.03
    assert not (batch.draws.reading_rows & batch.draws.uniform_rows).any()
    prefixes = batch.draws.under(torch.tensor([0.0, 9.0, 5.0, 3.0, 1.0]))
    reading = batch.draws.reading_rows
    free = [ranks[ranks > 0].tolist() for ranks in prefixes.ranks[reading]]
    assert all(ranks == list(range(1, len(ranks) + 1)) for ranks in free)
    assert not prefixes.follows_law[reading].any()
    assert prefixes.follows_law.sum() == (~reading & ~batch.draws.uniform_rows).sum()


def test_the_share_of_prompts_goes_evenly_from_its_first_value_to_its_last() -> None:
    prompts = ("prompts.share=0.5", "advanced.prompts.first_share=0.1", "optimizer.steps=100")
    recipe = small_recipe(*prompts, "optimizer.batch_size=4000")
    for step, share in ((0, 0.1), (25, 0.2), (50, 0.3), (99, 0.496)):
        assert abs(recipe.prompts.share_at(step / 100) - share) < 1e-9
        found = float(draw_batch(_rows(), recipe, step=step).draws.prompted.float().mean())
        assert abs(found - share * 4 / 5) < 0.03, "an empty known set is no prompt"
    assert small_recipe("prompts.share=0.5").prompts.share_at(0.0) == 0.5


def test_whole_rows_reveal_nothing_of_their_orders_and_bring_the_chance_of_what_is_asked() -> None:
    recipe = small_recipe("prompts.share=0.5")
    part, whole = (draw_batch(_rows(), recipe, step=7, is_whole=is_whole) for is_whole in (False, True))
    assert (part.is_whole, whole.is_whole, part.chance) == (False, True, None)
    assert not whole.draws.fraction.any()
    assert part.draws.fraction.any()
    prefixes = whole.draws.under(torch.zeros(5))
    assert torch.equal(prefixes.hidden, ~whole.draws.known)
    for name in ("known", "prompted", "uniform_rows", "noise"):
        assert torch.equal(getattr(part.draws, name), getattr(whole.draws, name)), name
    assert whole.chance is not None
    assert whole.chance.shape == (2, 32, 2), "half of the positions"
    assert 0 <= float(whole.chance.min()) < float(whole.chance.max()) < 1
    cut = whole.cut(slice(4, 9), torch.device("cpu"))
    assert cut.is_whole
    assert cut.chance is not None
    assert torch.equal(cut.chance, whole.chance[:, 4:9])
    long = draw_batch(_rows(L=100), recipe, step=7, is_whole=True)
    assert long.chance is not None
    assert long.chance.shape == (2, 32, 16)
