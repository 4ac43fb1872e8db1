# SPDX-License-Identifier: Apache-2.0
"""The graph of a PyTorch module: which calls its forward makes, where, and
what shapes they give. A part of libfl.torch, imported with it only.

torch.fx calls forward with stand-ins that record what is done to them; the
recording is then run on a batch of odd size, so that the dimension of the
batch is told from all others.
"""
from __future__ import annotations

import contextlib
import dataclasses
import dis
import importlib
import linecache
import os
import sys
import traceback
from typing import Any, Callable, Iterator

from ._err import UnsupportedError

torch: Any = importlib.import_module("torch")
fx: Any = importlib.import_module("torch.fx")

BATCH = 7  # samples of the batch that shapes are taken from


class _Proxy(fx.Proxy):  # type: ignore[misc]
    """A stand-in that can be unpacked (`y, _ = attention(x, x, x)`) under
    Python 3.11 with PyTorch before 2.0, too."""

    def __iter__(self) -> Iterator[Any]:
        caller = sys._getframe(1)
        for step in dis.get_instructions(caller.f_code):
            if step.offset == caller.f_lasti:
                if step.opname == "UNPACK_SEQUENCE":
                    return iter([self[i] for i in range(step.argval)])
                break
        raise fx.proxy.TraceError("a loop over values that are not known "
                                  "before the module runs")

    def __getattr__(self, name: str) -> Any:
        return _Attribute(self, name)


class _Attribute(_Proxy, fx.proxy.Attribute):  # type: ignore[misc]
    """What x.shape gives."""


def _line() -> str:
    """The innermost line that is neither PyTorch's nor of this file."""
    ours = (os.path.dirname(torch.__file__), __file__)
    for frame, number in traceback.walk_stack(None):
        path = frame.f_code.co_filename
        if not path.startswith(ours):
            text = linecache.getline(path, number).strip()
            return f"{os.path.basename(path)}:{number}: {text}"
    return ""


def _is_of_torch(module: Any) -> bool:
    """Whether forward is one of PyTorch's layers: then it is not looked
    into, and when libfl has no such layer, the module is what is named."""
    forward = getattr(type(module), "forward", None)
    home = str(getattr(forward, "__module__", ""))
    return home.startswith("torch.nn.modules.") and not home.endswith(
        (".container", ".module"))


class _Tracer(fx.Tracer):  # type: ignore[misc]
    """Records of each call the module that it is made in, too, and the
    innermost one whose forward failed."""

    def __init__(self, is_layer: Callable[[Any], bool]) -> None:
        super().__init__()
        self._is_layer = is_layer
        self._scope: list[str] = []
        self._failure: tuple[Exception | None, str] = None, ""

    def failed_in(self, error: Exception) -> str:
        """The module whose forward raised; "" = the whole one's."""
        return self._failure[1] if self._failure[0] is error else ""

    def proxy(self, node: Any) -> Any:
        return _Proxy(node, self)

    def is_leaf_module(self, m: Any, module_qualified_name: str) -> bool:
        return self._is_layer(m) or _is_of_torch(m) or bool(
            super().is_leaf_module(m, module_qualified_name))

    def call_module(self, m: Any, forward: Any, args: Any,
                    kwargs: Any) -> Any:
        path = self.path_of_module(m)
        self._scope.append(f'module "{path}" ({type(m).__name__})')
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception as error:
            if self._failure[0] is not error:
                self._failure = error, self._scope[-1]
            raise
        finally:
            self._scope.pop()

    def create_node(self, *args: Any, **kwargs: Any) -> Any:
        node = super().create_node(*args, **kwargs)
        node.meta["scope"] = self._scope[-1] if self._scope else ""
        node.meta["line"] = _line()
        return node


class _Whole(torch.nn.Module):  # type: ignore[misc]
    """Calls a module that is a layer itself."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.layer = module

    def forward(self, x: Any) -> Any:
        return self.layer(x)


class _CannotRun(Exception):
    """The node that failed, and PyTorch's text, to which fx adds its own."""

    def __init__(self, node: Any, text: str) -> None:
        super().__init__(text)
        self.node = node
        self.text = text


class _Shapes(fx.Interpreter):  # type: ignore[misc]
    """Runs a graph and keeps the shapes of what it gives."""

    def __init__(self, root: Any) -> None:
        super().__init__(root)
        self.shapes: dict[Any, tuple[int, ...] | None] = {}

    def run_node(self, n: Any) -> Any:
        try:
            result = super().run_node(n)
        except Exception as error:
            raise _CannotRun(n, str(error)) from error
        is_tensor = isinstance(result, torch.Tensor)
        self.shapes[n] = tuple(result.shape) if is_tensor else None
        return result


@dataclasses.dataclass(frozen=True)
class Trace:
    """`shapes`: of what each node gives, with the batch; None = no
    tensor."""

    root: Any
    nodes: list[Any]
    shapes: dict[Any, tuple[int, ...] | None]


@contextlib.contextmanager
def _training(module: Any, is_training: bool) -> Iterator[None]:
    """Set the mode of all modules, and set it back."""
    modes = [(part, part.training) for part in module.modules()]
    module.train(is_training)
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _refusal(sample: Any, what: str, why: object) -> ValueError:
    return ValueError(f"sample: got shape {list(sample.shape)}, with which "
                      f"this cannot be run: {what}: {why}")


def run(module: Any, x: Any) -> Any:
    """Return what the module makes of `x` when it is not trained. Gradients
    stay enabled: without them attention takes a path of its own, which does
    not know all its options."""
    with _training(module, False):
        try:
            return module(x)
        except Exception as error:
            raise _refusal(x, type(module).__name__, error) from error


def trace(module: Any, sample: Any, is_layer: Callable[[Any], bool]) -> Trace:
    """Record forward as it is in training; `is_layer` tells which modules
    are looked at as a whole. `sample`: [n, ...], of which one is used."""
    if is_layer(module) or _is_of_torch(module):
        module = _Whole(module)
    tracer = _Tracer(is_layer)
    with _training(module, True):
        try:
            graph = tracer.trace(module)
        except Exception as error:
            where = tracer.failed_in(error) or type(module).__name__
            raise UnsupportedError(
                f"from_torch: forward of {where} cannot be traced, for what "
                f"it does depends on values or shapes: {error}") from error
    root = fx.GraphModule(tracer.root, graph)
    batch = sample[:1].expand(BATCH, *sample.shape[1:]).clone()
    shapes = _Shapes(root)
    with _training(root, False):
        try:
            shapes.run(batch)
        except _CannotRun as error:
            raise _refusal(sample, place(error.node, root),
                           error.text) from error.__cause__
    return Trace(root, list(root.graph.nodes), shapes.shapes)


def place(node: Any, root: Any) -> str:
    """Say where a node is: what is called, in which module, in which line."""
    scope = node.meta.get("scope", "")
    if node.op == "call_module":
        kind = type(root.get_submodule(node.target)).__name__
        what = f'module "{node.target}" ({kind})'
    elif node.op in ("call_function", "call_method"):
        name = getattr(node.target, "__name__", str(node.target))
        what = f'call "{name}"' + (f" in {scope}" if scope else "")
    else:
        what = f'{node.op} "{node.target}"'
    line = node.meta.get("line", "")
    return what if node.op == "call_module" or not line else f"{what}, {line}"
