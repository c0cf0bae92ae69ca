"""Options of commands that are too long to stand in their signatures."""

from pathlib import Path
from typing import Annotated

import typer

FrozenOption = Annotated[
    Path | None, typer.Option(metavar="ARTIFACT", help="Keep its denoiser as it is; learn an order for it alone.")
]
LinesOption = Annotated[
    Path | None, typer.Option(help="A file with a text a line, for --freeze-denoiser: no recipe needed.")
]
NumericOption = Annotated[
    list[str] | None, typer.Option(metavar="COLUMN[=FORMAT]", help="Numbers, written as in 1.234,56.")
]
DateOption = Annotated[
    list[str] | None, typer.Option(metavar="COLUMN[=FORMAT]", help="Dates, written as in DD.MM.YYYY hh:mm.")
]
BinsOption = Annotated[
    list[str] | None, typer.Option(metavar="[COLUMN=]N", help="At most N bins for numbers and dates.")
]
KeptRuleOption = Annotated[
    list[str] | None, typer.Option(metavar="RULE", help="Kept by generated rows: signup <= last_login, pair(A, B).")
]
NoHeaderFlag = Annotated[
    bool, typer.Option("--no-header", help="The first line of a CSV table is data; columns have numbers.")
]
TimeOption = Annotated[
    str | None, typer.Option(metavar="90s|10m|1.5h", help="Train for so long at most; the evaluation comes on top.")
]
OrderOption = Annotated[str, typer.Option("--order", help="An order policy, or positions as in 3,0,1.")]
RuleOption = Annotated[
    list[str] | None, typer.Option(metavar="RULE", help="Tables: signup <= last_login, pair(A, B), unique(A).")
]
ShareOption = Annotated[
    list[str] | None, typer.Option(metavar="COLUMN=VALUE:SHARE,...", help="With --out: of the rows, met exactly.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", "--csv", metavar="FILE", help="Write a table's rows to this file.")
]
JudgeFlag = Annotated[bool, typer.Option("--judge", help="Tables: judge generated rows (C2ST and others) instead.")]
TargetOption = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="With --judge: what is predicted; default the last column.")
]
HtmlOption = Annotated[Path | None, typer.Option(metavar="FILE", help="With --judge: the same as a page.")]
FailBelowOption = Annotated[
    list[str] | None, typer.Option(metavar="FIGURE=NUMBER", help="With --judge: exit with 1 below, as in c2st=0.8.")
]
FailAboveOption = Annotated[
    list[str] | None, typer.Option(metavar="FIGURE=NUMBER", help="With --judge: exit with 1 above, as in attack=0.55.")
]
MissingOption = Annotated[
    list[str] | None, typer.Option(metavar="CELL", help="Cells to fill besides empty ones; default: as trained.")
]
IgnoreForeignFlag = Annotated[
    bool, typer.Option("--ignore-foreign", help="Go on where a cell is not known to the model.")
]
WhereOption = Annotated[str | None, typer.Option(metavar="JSON", help="What samples must be like.")]
FilledRuleOption = Annotated[
    list[str] | None, typer.Option("--rule", metavar="RULE", help="Kept where cells are filled: signup <= last_login.")
]
