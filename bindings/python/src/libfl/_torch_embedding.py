# SPDX-License-Identifier: Apache-2.0
"""A torch.nn.Module over a table of an EmbeddingStore. A part of libfl.torch,
imported with it only.

The rows are not PyTorch's: they are no parameters, and what a step changes is
changed by the backward pass itself, which calls the store with the output's
gradient.
"""
from __future__ import annotations

from typing import Any

from ._torch_trace import torch
from .embedding import Bags, EmbeddingTable


class _Rows(torch.autograd.Function):  # type: ignore[misc]
    """Reads rows on the way forward, updates them on the way back."""

    @staticmethod
    def forward(context: Any, anchor: Any, module: EmbeddingBag,
                bags: Bags) -> Any:
        del anchor
        context.module, context.bags = module, bags
        return torch.from_numpy(module.table.forward(bags))

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[misc]
    def backward(context: Any, gradient: Any) -> tuple[None, None, None]:
        context.module.table.backward(context.bags, gradient,
                                      context.module.rate)
        return None, None, None


class EmbeddingBag(torch.nn.Module):  # type: ignore[misc]
    """Sums or means of a table's rows, as torch.nn.EmbeddingBag's, of any
    ids.

    In training `loss.backward()` updates the rows, at `rate`, which may be set
    from step to step; no optimiser of PyTorch knows them. In evaluation and
    under torch.no_grad() they are only read. The store stays the caller's: it
    is adjusted and saved there, and is no part of state_dict().
    """

    def __init__(self, table: EmbeddingTable, *, rate: float,
                 mode: str = "sum") -> None:
        super().__init__()
        self.table, self.rate, self.mode = table, rate, mode
        # What makes autograd call backward; no parameter, so nothing that an
        # optimiser or a checkpoint would see.
        self._anchor = torch.zeros(0, requires_grad=True)

    def forward(self, ids: Any, offsets: Any = None,
                per_sample_weights: Any = None) -> Any:
        """ids [bags, each], or [n] with offsets [bags]; returns
        [bags, dim]."""
        if per_sample_weights is not None and per_sample_weights.requires_grad:
            raise ValueError("per_sample_weights: have no gradient here, "
                             "detach() them")
        is_trained = self.training and torch.is_grad_enabled()
        if is_trained:  # the way back needs them as they are now
            ids, offsets, per_sample_weights = (
                None if given is None else given.clone()
                for given in (ids, offsets, per_sample_weights))
        bags = Bags(ids, offsets, weights=per_sample_weights, mode=self.mode)
        if is_trained:
            rows = _Rows.apply(self._anchor, self, bags)
        else:
            rows = torch.from_numpy(self.table.lookup(bags))
        return rows.to(ids.device)

    def extra_repr(self) -> str:
        return f"{self.table!r}, rate={self.rate}, mode={self.mode!r}"
