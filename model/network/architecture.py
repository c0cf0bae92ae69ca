"""The shape of a network and its order: what `config.json` holds of them, validated and frozen."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

OrderKind = Literal["uniform", "fixed", "global", "contextual"]

Family = Literal["bert", "roberta", "albert", "modernbert", "llada", "dream"]

OWN, IMPORTED = "transformer", "hf_masked_lm"

OrderHeadKind = Literal["trunk", "next_cost", "cost_to_go"]

TrunkKind = Literal["attention", "planes"]
Activation = Literal["gelu", "squared_relu"]

GRID_SIDE, GRID_CELLS = 9, 81


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Architecture(_Frozen):
    """The denoiser's shape. `vocabulary_sizes`: one entry a position (tables), or a single one shared by all.

    `num_loops`: how many times a canvas goes through the blocks, each time with the same weights. `trunk`: `attention`,
    or `planes` (`model/network/sudoku.py`), for sudoku grids, which has no heads. `relative_bias`: each head learns
    what distance and direction are worth to it, beside the positions that every network learns; for rows whose
    neighbours matter. `pair_bias`: each head learns what every single pair of positions is worth to it, for rows whose
    places have meanings of their own. `query_layers`: with any, a network is autoregressive along its order
    (`model/network/late.py`): its `layers` compute what is revealed, once, and so many more ask it for hidden
    positions; without any, positions read each other both ways, hidden ones too. `activation`: of the MLPs of trunk
    `attention`; `gelu` is its tanh form.
    """

    length: int = Field(ge=1)
    vocabulary_sizes: tuple[int, ...] = Field(min_length=1)
    width: int = Field(default=64, ge=2)
    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=4, ge=1)
    mlp_width: int = Field(default=256, ge=2)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    trunk: TrunkKind = "attention"
    num_loops: int = Field(default=1, ge=1)
    relative_bias: bool = False
    pair_bias: bool = False
    query_layers: int = Field(default=0, ge=0)
    activation: Activation = "gelu"

    @model_validator(mode="before")
    @classmethod
    def _said_what_it_attends_to(cls, fields: Any) -> Any:
        """Earlier versions said so in a field. ValueError for their networks of two streams, which are no more."""
        if not isinstance(fields, dict) or "attends" not in fields:
            return fields
        if fields["attends"] != "all":
            found = json.dumps(fields["attends"])
            raise ValueError(f"attends {found} was trained as two streams, by another version; train it anew")
        return {name: value for name, value in fields.items() if name != "attends"}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.relative_bias and self.trunk == "planes":
            raise ValueError("relative_bias is only valid with trunk attention")
        if self.query_layers and self.trunk == "planes":
            raise ValueError("query_layers is only valid with trunk attention")
        if self.query_layers and self.num_loops > 1:
            raise ValueError("query_layers is only valid with num_loops 1")
        if self.activation != "gelu" and self.trunk == "planes":
            raise ValueError(f"activation {self.activation} is only valid with trunk attention")
        if self.pair_bias and self.trunk == "planes":
            raise ValueError("pair_bias is only valid with trunk attention")
        if self.pair_bias and self.relative_bias:
            raise ValueError("pair_bias says all that relative_bias can say; give one of them")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.trunk == "planes" and (self.length, self.vocabulary_sizes) != (GRID_CELLS, (GRID_SIDE,)):
            raise ValueError(f"trunk planes is for grids of {GRID_CELLS} cells and {GRID_SIDE} digits")
        if len(self.vocabulary_sizes) not in (1, self.length) or min(self.vocabulary_sizes) < 1:
            raise ValueError("vocabulary_sizes must be one positive size, or one for each position")
        return self

    @property
    def has_own_vocabularies(self) -> bool:
        """Whether each position has a vocabulary of its own, as a table's columns do."""
        return len(self.vocabulary_sizes) == self.length and self.length > 1

    @property
    def is_padded(self) -> bool:
        """Whether canvases may be shorter than `length`: text's are, rows of tables and grids never."""
        return self.trunk != "planes" and not self.has_own_vocabularies


class ImportedArchitecture(_Frozen):
    """A masked LM trained elsewhere, in the words of the `transformers` library; `unveil import` writes it.

    `config` is the library's own configuration of the network. A canvas of up to `length` positions is shown to it
    between the ids `before` and `after` ([CLS] and [SEP], say), which are always visible and are no positions of the
    canvas; `mask_id` stands where it is hidden, `pad_id` behind its end. `absent` ids are never offered: special tokens
    and ids without a token. `vocabulary_sizes` has one entry, that of the tokenizer; `width` is the trunk's.
    """

    kind: Literal["hf_masked_lm"]
    family: Family
    length: int = Field(ge=1)
    vocabulary_sizes: tuple[int] = Field()
    width: int = Field(ge=1)
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    mask_id: int = Field(ge=0)
    pad_id: int = Field(ge=0)
    absent: tuple[int, ...] = ()
    config: dict[str, Any]

    @property
    def has_own_vocabularies(self) -> Literal[False]:
        return False

    @property
    def is_padded(self) -> Literal[True]:
        return True

    @property
    def num_loops(self) -> Literal[1]:
        return 1

    @property
    def is_shifted(self) -> bool:
        """Whether a position's token is read off the state of the position before it, as Dream was trained."""
        return self.family == "dream"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        size = self.vocabulary_sizes[0]
        if not all(0 <= i < size for i in self.absent) or len(set(self.absent)) >= size:
            raise ValueError(f"absent lists ids below {size}, and not all of them")
        return self


def _kind(value: Any) -> str:
    kind = value.get("kind", OWN) if isinstance(value, dict) else getattr(value, "kind", OWN)
    return IMPORTED if kind == IMPORTED else OWN


AnyArchitecture = Annotated[
    Annotated[Architecture, Tag(OWN)] | Annotated[ImportedArchitecture, Tag(IMPORTED)], Discriminator(_kind)
]


class OrderSpec(_Frozen):
    """How the model orders its positions; `fixed` lists them, and goes with the kind of that name only.

    `head` is what a contextual order reads: the `trunk` alone; with `next_cost` also the token head's confidence; with
    `cost_to_go` these of all positions together.
    """

    kind: OrderKind
    fixed: tuple[int, ...] | None = None
    head: OrderHeadKind = "trunk"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.head != "trunk" and self.kind != "contextual":
            raise ValueError("an order's head is only valid with the kind contextual")
        if (self.kind == "fixed") != (self.fixed is not None):
            raise ValueError("an order lists its positions if and only if its kind is fixed")
        if self.fixed is not None and sorted(self.fixed) != list(range(len(self.fixed))):
            raise ValueError("a fixed order lists every position once")
        return self
