"""The network in training: denoiser, its averaged copy and critic, as one module.

One module, so that every strategy of Fabric moves, shards and saves all of it at once. Knows no data and no schedule.
"""

import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from model.critic import Critic, simulated_nelbo
from model.denoiser import Prediction
from model.network import Depths, Network
from model.prefixes import Prefixes

Show = Callable[[Tensor], Prefixes]
_TURNS = 8  # of a row's order that a critic is asked about: more are hardly more of a sample


class Shown(NamedTuple):
    """What a training forward gives: the law's weights `log_w` [L], constant as the critic alone moves it, the prefixes
    drawn from it, and what the denoiser says of them. With a critic, the losses that it expects at these prefixes
    [B, L], and what the law costs by it, a scalar that moves the law. Of a network with loops also the token logits of
    the `earlier` ones. With teacher forcing the token logits are each position's as of its own turn, and the critic is
    `asked` about some positions [B, M] as of theirs: `expected` [B, M]."""

    log_w: Tensor
    prefixes: Prefixes
    prediction: Prediction
    expected: Tensor | None
    simulated: Tensor | None
    earlier: tuple[Tensor, ...]
    asked: Tensor | None = None


class Trials(NamedTuple):
    """Orders on which a critic tries the law: Gumbel `noise` [M, L], and of the row that each runs over what is `known`
    from the start and what is `absent`, past its end, [M, L] bool each."""

    noise: Tensor
    known: Tensor
    absent: Tensor

    def nelbo(self, log_w: Tensor, critic: Critic) -> Tensor:
        """What the law log_w [L] costs by the critic, in nats a row less the control: scalar."""
        return simulated_nelbo(log_w, critic, self.noise, known=self.known, absent=self.absent)

    def to(self, device: torch.device) -> "Trials":
        return Trials(*(part.to(device) for part in self))


class Arm(nn.Module):
    """Strategies hook `forward` alone, so it answers both the training step and the validation."""

    def __init__(
        self,
        denoiser: Network,
        *,
        marginals: Tensor,
        critic: Critic | None = None,
        is_frozen: bool = False,
        backward_loops: int | None = None,
        teacher_forcing: bool = False,
    ) -> None:
        """`marginals` [L or 1, V]: log p(x_i) under the training rows' marginals. A denoiser that `is_frozen` drops
        nothing out: its order is learned for it as it is served. `backward_loops` and `teacher_forcing`: see
        `training.config`."""
        super().__init__()
        self.denoiser = denoiser
        self.average = copy.deepcopy(denoiser).requires_grad_(False)
        self.critic = critic
        self.is_frozen, self._backward_loops = is_frozen, backward_loops
        self._teacher_forcing = teacher_forcing
        self.register_buffer("marginals", marginals, persistent=False)

    def train(self, mode: bool = True) -> "Arm":
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
        show: Show | None = None,
        trials: Trials | None = None,
    ) -> Prediction | Shown:
        """Tokens, hidden [B, L], lengths [B]. Without `show`, what the averaged weights predict.

        With it, a training step: `hidden` is what is hidden at the start, and `show` draws each row's prefix from the
        law's weights. A critic tries the law on the orders of `trials`.
        """
        if show is None:
            return self.average(tokens, hidden, lengths)  # type: ignore[no-any-return]
        law = self.denoiser.order_head.global_log_w()[: tokens.shape[1]]
        prefixes = show(law)
        if self._teacher_forcing:
            return self._in_turn(tokens, lengths, law=law, prefixes=prefixes, trials=trials)
        prediction, earlier = self._ask(tokens, prefixes.hidden, lengths)
        expected = simulated = None
        if self.critic is not None and trials is not None:
            expected = self.critic(prefixes.hidden, _absent(tokens, lengths))
            simulated = trials.nelbo(law, self.critic)
        return Shown(law.detach(), prefixes, prediction, expected, simulated, earlier)

    def _in_turn(
        self, tokens: Tensor, lengths: Tensor, *, law: Tensor, prefixes: Prefixes, trials: Trials | None
    ) -> Shown:
        """One forward for all steps of each row's order."""
        logits = self.denoiser.in_turn(tokens, prefixes.ranks, lengths)
        prediction = Prediction(logits, law.expand(tokens.shape))
        if self.critic is None or trials is None:
            return Shown(law.detach(), prefixes, prediction, None, None, ())
        asked, hidden = prefixes.some_turns(_TURNS)  # [B, M] and [B, M, L]
        absent = _absent(tokens, lengths)[:, None].expand(hidden.shape)
        expected = self.critic(hidden, absent).gather(-1, asked[..., None]).squeeze(-1)
        simulated = trials.nelbo(law, self.critic)
        return Shown(law.detach(), prefixes, prediction, expected, simulated, (), asked)

    def _ask(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Depths:
        """A frozen denoiser is asked as it is served."""
        if self.is_frozen or self.denoiser.architecture.loops == 1:
            return Depths(self.denoiser(tokens, hidden, lengths), ())
        return self.denoiser.depths(tokens, hidden, lengths, backward_loops=self._backward_loops)

    def control(self, x: Tensor) -> Tensor:
        """The control variate of `model.objective.order_form`: -log p(x_i) under the marginals, [B, L]."""
        marginals = self.get_buffer("marginals")
        return -marginals.expand(x.shape[1], -1).gather(1, x.T).T

    def log_w(self, *, average: bool = False) -> Tensor:
        """The context-free part of the order's weights [L] as plain values, in the gauge of mean zero."""
        head = (self.average if average else self.denoiser).order_head
        log_w = whole(head.log_w.detach()).float()
        return log_w - log_w.mean()

    @torch.no_grad()
    def become(self, log_w: Tensor) -> None:
        """Takes log-weights [L] for the context-free part of the order, in the trained and the averaged weights."""
        for module in self.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # a forward may have left it whole, and what is written then is lost
        for network in (self.denoiser, self.average):
            own = network.order_head.log_w
            value = log_w.to(own.device, own.dtype)
            own.copy_(distribute_tensor(value, own.device_mesh, own.placements) if isinstance(own, DTensor) else value)

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Moves the averaged weights towards the trained ones: average = decay * average + (1 - decay) * trained."""
        pairs = zip(self.average.parameters(), self.denoiser.parameters(), strict=True)
        averaged, trained = zip(*((a, p.detach()) for a, p in pairs), strict=True)
        torch._foreach_lerp_(list(averaged), list(trained), 1.0 - decay)

    def parameter_groups(
        self, *, learning_rate: float, order_rate: float, critic_rate: float, weight_decay: float
    ) -> list[dict[str, object]]:
        """Matrices decay; embeddings, gains and biases do not; the orders' weights have a rate of their own."""
        settings = {
            "matrices": {"lr": learning_rate, "weight_decay": weight_decay},
            "others": {"lr": learning_rate, "weight_decay": 0.0},
            "order": {"lr": order_rate, "weight_decay": 0.0},
            "critic": {"lr": critic_rate, "weight_decay": 0.0},
        }
        groups: dict[str, list[nn.Parameter]] = {group: [] for group in settings}
        for name, parameter in self._trained():
            groups[_group(name, parameter)].append(parameter)
        return [{"name": g, "params": p, **settings[g], "peak": settings[g]["lr"]} for g, p in groups.items() if p]

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)


def _absent(like: Tensor, lengths: Tensor) -> Tensor:
    """The positions past each row's end: [B, L] bool."""
    return torch.arange(like.shape[1], device=like.device) >= lengths[:, None]


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor that FSDP may have sharded; a collective if it has."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _group(name: str, parameter: nn.Parameter) -> str:
    owner, _, rest = name.partition(".")
    if rest == "order_head.log_w":
        return "order"
    if owner == "critic":
        return owner
    is_matrix = parameter.ndim == 2 and "embedding" not in rest and rest != "position"
    return "matrices" if is_matrix else "others"
