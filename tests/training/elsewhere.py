"""A device that is not there: memory of the CPU under another name, and whoever mixes the two is found out.

As with an accelerator, tensors of both may not meet in one operation, but for scalars and indices of the CPU, and NumPy
reads the CPU's alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

ELSEWHERE = torch.device("xla", 0)
_MARK = "_is_elsewhere"
_CPU = torch.device("cpu")
_GET_DEVICE, _SET_DATA = Tensor.device.__get__, Tensor.data.__set__  # type: ignore[attr-defined]


class Elsewhere(TorchFunctionMode):
    """While it lasts there is a device `ELSEWHERE`; counts the operations there."""

    num_operations = 0

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if function == _GET_DEVICE:
            return _place(args[0])
        if function == _SET_DATA:
            if hasattr(args[1], _MARK):
                setattr(args[0], _MARK, True)
            return function(*args)
        if function is torch._has_compatible_shallow_copy_type:  # a module on its way
            return True
        name = (resolve_name(function) or "").removeprefix("torch.")
        if name in ("Tensor.to", "Tensor.cpu"):
            return self._moved(args[0], [*args[1:], *options.values()] if name == "Tensor.to" else [_CPU])
        asked = options.pop("device", None)
        _check(name, args, options)
        is_elsewhere = any(hasattr(x, _MARK) for x in _tensors([args, options])) if asked is None else asked != _CPU
        self.num_operations += is_elsewhere
        found = function(*args, **options)
        if is_elsewhere:
            for x in _tensors(found):
                setattr(x, _MARK, True)
        return found

    def _moved(self, x: Tensor, wanted: Sequence[Any]) -> Tensor:
        """`x.to(...)`, whatever form that has."""
        place = next((part for part in wanted if isinstance(part, torch.device | str)), None)
        other = next((part for part in wanted if isinstance(part, Tensor)), None)
        dtype = next((part for part in wanted if isinstance(part, torch.dtype)), None if other is None else other.dtype)
        goes = _place(x if other is None else other) if place is None else torch.device(place)
        found = x.to(dtype) if dtype is not None else x
        if goes != _place(x):
            found = found.clone()
        if goes == ELSEWHERE:
            setattr(found, _MARK, True)
        return found


def _place(x: Tensor) -> torch.device:
    return ELSEWHERE if hasattr(x, _MARK) else _CPU


def _check(name: str, args: Sequence[Any], options: Mapping[str, Any]) -> None:
    if name in ("Tensor.numpy", "Tensor.__array__"):
        assert not hasattr(args[0], _MARK), "NumPy cannot read an accelerator's memory"
    operands = list(_tensors([args, options]))
    if name in ("Tensor.__getitem__", "Tensor.__setitem__"):
        assert hasattr(args[0], _MARK) or not any(hasattr(x, _MARK) for x in operands), f"{name}: an index elsewhere"
        return
    is_mixed = len({hasattr(x, _MARK) for x in operands}) > 1
    assert not is_mixed or all(x.dim() == 0 for x in operands if not hasattr(x, _MARK)), f"{name}: of two devices"


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
