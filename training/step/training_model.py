"""The network in training: denoiser, its averaged copy and critic, as one module.

One module, so that every strategy of Fabric moves, shards and saves all of it at once.
"""

import copy
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from unveil.model.denoiser import Prediction, cross_entropy
from unveil.model.loss.critic import Critic, CriticLoss, Trials, critic_loss
from unveil.model.loss.prefixes import Questions, Turns
from unveil.model.network.architecture import Architecture
from unveil.model.network.base import Network
from unveil.model.network.late import LateQueries
from unveil.model.network.order_heads import NextCostHead
from unveil.training.step.batches import control_of

_PIECE = 32  # rows of like length that go through a network at once, on a CPU


class StepLosses(NamedTuple):
    """What a training forward gives: the token losses of every position `token` [B, L] in nats, of a network with loops
    also those of the loops before the last, `earlier`, of questions theirs, `asked` [B, M], and with a critic what it
    adds."""

    token: Tensor
    earlier: tuple[Tensor, ...]
    asked: Tensor | None
    critic: CriticLoss | None


class NextCost(NamedTuple):
    """What there is to see of canvases, [B, L] each: what every position costs in nats, the logarithm of what the order
    head expects it to cost, and the whole cost by which it decides (`model.network.order_heads.Foreseen`)."""

    losses: Tensor
    log_m: Tensor
    cost: Tensor


class TrainingModule(nn.Module):
    """Strategies hook `forward` alone, so it answers both the training step and the validation."""

    def __init__(
        self,
        denoiser: Network,
        *,
        marginals: Tensor,
        critic: Critic | None = None,
        is_frozen: bool = False,
        backward_loops: int | None = None,
    ) -> None:
        """`marginals` [L or 1, V]: log p(x_i) under the training rows' marginals. A denoiser that `is_frozen` drops
        nothing out: its order is learned for it as it is served. `backward_loops`: see `training.config`."""
        super().__init__()
        self.denoiser = denoiser
        self.average = copy.deepcopy(denoiser).requires_grad_(False)
        self.critic = critic
        self.is_frozen, self._backward_loops = is_frozen, backward_loops
        self.register_buffer("marginals", marginals, persistent=False)

    @property
    def reads_ranks(self) -> bool:
        """See `Network.reads_ranks`."""
        return self.denoiser.reads_ranks

    def train(self, mode: bool = True) -> "TrainingModule":
        super().train(mode)
        if self.is_frozen:
            self.denoiser.eval()
        return self

    def forward(
        self,
        tokens: Tensor,
        hidden: Tensor,
        lengths: Tensor,
        *,
        ranks: Tensor | None = None,
        questions: Questions | None = None,
        turns: Turns | None = None,
        trials: Trials | None = None,
        end_id: int | None = None,
    ) -> Prediction | StepLosses | NextCost:
        """Tokens, hidden [B, L], lengths [B]. In evaluation mode, what the averaged weights predict.

        In training mode tokens are clean, and the answer is their losses; for an order head that foresees, what it and
        the frozen denoiser say. With `ranks` [B, L] (`Network.in_turn`) all this is said of each position as of its own
        turn, and `questions` are asked besides. A critic learns from the losses, with `turns` of the last ones of
        these, and tries the law on the orders of `trials`; `end_id` ends rows where ends absorb.
        """
        if not self.training:
            ranked = () if ranks is None else (ranks,)
            return self.average(tokens, hidden, lengths, *ranked)  # type: ignore[no-any-return]
        if isinstance(self.denoiser.order_head, NextCostHead):
            return foresee(self.denoiser, tokens, hidden, lengths, ranks)
        if ranks is None:
            losses, earlier, asked = *self._losses(tokens, hidden, lengths), None
        else:
            losses, earlier, asked = self._losses_in_turn(tokens, ranks, lengths, questions)
        if self.critic is None or trials is None:
            return StepLosses(losses, earlier, asked, None)
        learned = critic_loss(
            self.critic,
            losses if turns is None else self._at(turns, losses, asked),
            hidden=hidden,
            absent=torch.arange(tokens.shape[1], device=tokens.device) >= lengths[:, None],
            control=self.control(tokens),
            turns=turns,
            log_w=self.denoiser.order_head.global_log_w()[: tokens.shape[1]],
            trials=trials,
            ends=None if end_id is None else hidden & (tokens == end_id),
        )
        return StepLosses(losses, earlier, asked, learned)

    def _losses(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Of the last loop [B, L] and of those before it. A frozen denoiser is asked as it is served."""
        if self.is_frozen or self.denoiser.architecture.num_loops == 1:
            return cross_entropy(self.denoiser(tokens, hidden, lengths).token_logits, tokens), ()
        prediction, earlier = self.denoiser.depths(tokens, hidden, lengths, backward_loops=self._backward_loops)
        losses = [cross_entropy(logits, tokens) for logits in earlier]
        return cross_entropy(prediction.token_logits, tokens), tuple(losses)

    def _losses_in_turn(
        self, tokens: Tensor, ranks: Tensor, lengths: Tensor, questions: Questions | None
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None]:
        """Of each position as of its turn [B, L], and of the questions [B, M].

        Rows go through the network in pieces of like length: what nobody reads or asks behind the last position of a
        piece, as what an end decides, is not computed.
        """
        losses, asked = torch.zeros(tokens.shape, device=tokens.device), list[Tensor]()
        pieces = pieces_of(ranks, lengths)
        for rows, length in pieces:
            x, turns, size = tokens[rows, :length], ranks[rows, :length], lengths[rows].clamp(max=length)
            if questions is None:
                logits = self.denoiser.in_turn(x, turns, size)
            else:
                assert isinstance(self.denoiser, LateQueries)
                positions = questions.positions[rows].clamp(max=length - 1)  # beyond are those that weigh nothing
                logits, others = self.denoiser.answers(x, turns, size, positions, questions.turns[rows])
                asked.append(cross_entropy(others, x.gather(1, positions)))
            losses[rows, :length] = cross_entropy(logits, x)
        if not asked:
            return losses, (), None
        order = torch.cat([rows for rows, _ in pieces])
        return losses, (), torch.cat(asked)[order.argsort()]

    def _at(self, turns: Turns, losses: Tensor, asked: Tensor | None) -> Tensor:
        """The losses of these turns [B, T]: first positions in their own turn, then all that was asked besides."""
        if asked is None:
            return losses.gather(1, turns.positions)
        own = turns.positions[:, : turns.positions.shape[1] - asked.shape[1]]
        return torch.cat([losses.gather(1, own), asked], 1)

    def control(self, x: Tensor) -> Tensor:
        """See `training.step.batches.control_of`: [B, L]."""
        return control_of(x, self.get_buffer("marginals"))

    @torch.no_grad()
    def whole_critic(self) -> Critic:
        """The critic as it is, not sharded, for asking alone; a collective where it is."""
        assert self.critic is not None
        weights = {name: full_tensor(weight) for name, weight in self.critic.state_dict().items()}
        whole = Critic(self.critic.linear.in_features).to(next(iter(weights.values())).device)
        whole.load_state_dict(weights)
        return whole.requires_grad_(False)

    def log_w(self, *, average: bool = False) -> Tensor:
        """The context-free part of the order's weights [L] as plain values, in the gauge of mean zero."""
        head = (self.average if average else self.denoiser).order_head
        log_w = full_tensor(head.log_w.detach()).float()
        return log_w - log_w.mean()

    @torch.no_grad()
    def set_log_w(self, log_w: Tensor) -> None:
        """Takes log-weights [L] for the context-free part of the order, in the trained and the averaged weights."""
        for module in self.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # a forward may have left it whole, and what is written then is lost
        for network in (self.denoiser, self.average):
            own = network.order_head.log_w
            value = log_w.to(own.device, own.dtype)
            own.copy_(distribute_tensor(value, own.device_mesh, own.placements) if isinstance(own, DTensor) else value)

    @torch.no_grad()
    def update_ema(self, decay: float) -> None:
        """Moves the averaged weights towards the trained ones: average = decay * average + (1 - decay) * trained."""
        pairs = zip(self.average.parameters(), self.denoiser.parameters(), strict=True)
        averaged, trained = zip(*((a, p.detach()) for a, p in pairs), strict=True)
        torch._foreach_lerp_(list(averaged), list(trained), 1.0 - decay)

    def parameter_groups(
        self, *, learning_rate: float, matrix_rate: float, order_rate: float, critic_rate: float, weight_decay: float
    ) -> list[dict[str, object]]:
        """Matrices decay; embeddings, gains and biases do not; the orders' weights have a rate of their own. Those of
        the group "blocks", which is there with a `matrix_rate` and for networks of our own alone, are for Muon."""
        settings = {
            "blocks": {"lr": matrix_rate, "weight_decay": weight_decay},
            "matrices": {"lr": learning_rate, "weight_decay": weight_decay},
            "others": {"lr": learning_rate, "weight_decay": 0.0},
            "order": {"lr": order_rate, "weight_decay": 0.0},
            "critic": {"lr": critic_rate, "weight_decay": 0.0},
        }
        has_muon = matrix_rate > 0 and isinstance(self.denoiser.architecture, Architecture)
        groups: dict[str, list[nn.Parameter]] = {group: [] for group in settings}
        for name, parameter in self._trained():
            group = _group(name, parameter)
            groups["matrices" if group == "blocks" and not has_muon else group].append(parameter)
        return [{"name": g, "params": p, **settings[g], "peak": settings[g]["lr"]} for g, p in groups.items() if p]

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)


def pieces_of(ranks: Tensor, lengths: Tensor) -> list[tuple[Tensor, int]]:
    """Row numbers of whole rows, `ranks` [B, L] (`model.loss.objective.turns_of`), in pieces of like length; of each
    piece how many positions, from the first on, are read or asked."""
    (B, L), is_cpu = ranks.shape, ranks.device.type == "cpu"
    places = torch.arange(L, device=ranks.device)
    is_used = (ranks <= L) & (places < lengths[:, None])
    used = ((places + 1) * is_used).amax(-1).clamp(min=1)
    order = used.argsort(stable=True)
    sizes = used[order].tolist()
    num = _PIECE if is_cpu else B  # an accelerator is better off with one
    return [(order[first : first + num], sizes[min(first + num, B) - 1]) for first in range(0, B, num)]


def foresee(network: Network, tokens: Tensor, hidden: Tensor, lengths: Tensor, ranks: Tensor | None = None) -> NextCost:
    """One forward of clean `tokens` [B, L]; only the order head's part of it keeps gradients. In float32 whatever the
    precision: choices differ by little. With `ranks` see `Network.in_turn`."""
    head = network.order_head
    assert isinstance(head, NextCostHead)
    with torch.autocast(tokens.device.type, enabled=False):
        with torch.no_grad():
            shown = tokens.masked_fill(hidden, 0)
            if ranks is None:
                reading = network.read(shown, hidden, lengths)
            else:
                reading = network.read_in_turn(shown, ranks, lengths)
            assert reading.token_logits is not None
            losses = cross_entropy(reading.token_logits, tokens)
        return NextCost(losses, *head.foresee(reading))


def full_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor that FSDP may have sharded; a collective if it has."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _group(name: str, parameter: nn.Parameter) -> str:
    owner, _, rest = name.partition(".")
    if rest == "order_head.log_w":
        return "order"
    if owner == "critic":
        return owner
    is_matrix = parameter.ndim == 2 and rest.endswith("weight") and "embedding" not in rest
    if is_matrix and rest.startswith(("blocks.", "query_blocks.")):
        return "blocks"
    return "matrices" if is_matrix else "others"
