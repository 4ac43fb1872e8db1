# SPDX-License-Identifier: Apache-2.0
"""libfl.torch.EmbeddingBag against torch.nn.EmbeddingBag with the same rows:
outputs, and what steps make of them."""
import numpy as np
import pytest

import libfl as fl

from torch_nets import nn, torch

ROWS, DIM, RATE = 50, 8, .05


@pytest.fixture
def store(context):
    with fl.EmbeddingStore(optimiser="sgd", seed=4, context=context) as made:
        yield made


def pair(store, mode):
    """libfl's module and PyTorch's, which holds the same rows."""
    from libfl.torch import EmbeddingBag
    table = store.add_table(DIM, init_scale=.3)
    rows = table.forward(np.arange(ROWS)[:, None])
    theirs = nn.EmbeddingBag.from_pretrained(torch.from_numpy(rows),
                                             freeze=False, mode=mode)
    return EmbeddingBag(table, rate=RATE, mode=mode), theirs


def rows_of(module):
    return module.table.lookup(np.arange(ROWS)[:, None])


def batch(rng, is_weighted=False):
    sizes = rng.integers(0, 6, 7)
    ids = torch.from_numpy(rng.integers(0, ROWS, int(sizes.sum())))
    offsets = torch.from_numpy(np.cumsum(sizes) - sizes)
    weights = (torch.from_numpy(rng.normal(size=len(ids)).astype(np.float32))
               if is_weighted else None)
    return ids, offsets, weights


@pytest.mark.parametrize("mode, is_weighted", [
    ("sum", False), ("mean", False), ("sum", True)])
def test_training_is_torchs(store, rng, mode, is_weighted):
    ours, theirs = pair(store, mode)
    optimiser = torch.optim.SGD(theirs.parameters(), lr=RATE)
    for _ in range(20):
        ids, offsets, weights = batch(rng, is_weighted)
        outputs = [module(ids, offsets, per_sample_weights=weights)
                   for module in (ours, theirs)]
        torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4,
                                   atol=1e-5)
        target = torch.from_numpy(rng.normal(size=(7, DIM))
                                  .astype(np.float32))
        for output in outputs:
            ((output - target) ** 2).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    np.testing.assert_allclose(rows_of(ours), theirs.weight.detach(),
                               rtol=1e-4, atol=1e-5)


def test_bags_of_equal_size_need_no_offsets(store, rng):
    ours, theirs = pair(store, "mean")
    ids = torch.from_numpy(rng.integers(0, ROWS, (5, 3)))
    torch.testing.assert_close(ours(ids), theirs(ids), rtol=1e-5, atol=1e-6)


def test_module_trains_within_a_network(store, seeded_torch):
    ours, _ = pair(store, "sum")
    network = nn.Sequential(ours, nn.ReLU(), nn.Linear(DIM, 1))
    assert len(list(ours.parameters())) == 0
    assert set(network.state_dict()) == {"2.weight", "2.bias"}
    optimiser = torch.optim.Adam(network.parameters(), lr=.01)
    ids = torch.randint(0, ROWS, (256, 4))
    target = (ids < 20).sum(1, keepdim=True).float()
    losses = []
    for _ in range(80):
        loss = ((network(ids) - target) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < .1 * losses[0]


def test_rate_may_change_from_step_to_step(store):
    ours, _ = pair(store, "sum")
    before = rows_of(ours)
    ours.rate = 0.
    ours(torch.tensor([[1]])).sum().backward()
    assert (rows_of(ours) == before).all()
    ours.rate = 1.
    ours(torch.tensor([[1]])).sum().backward()
    np.testing.assert_allclose(rows_of(ours)[1], before[1] - 1, rtol=1e-5)


def test_evaluation_reads_only(store):
    ours, _ = pair(store, "sum")
    unknown = torch.tensor([[10**15]])
    ours.eval()
    assert not ours(unknown).requires_grad
    assert (ours(unknown) == 0).all()
    ours.train()
    with torch.no_grad():
        assert (ours(unknown) == 0).all()
    assert (ours(unknown) != 0).any()


def test_two_passes_may_wait_for_their_way_back(store):
    ours, theirs = pair(store, "sum")
    first, second = torch.tensor([[1, 2]]), torch.tensor([[2, 3], [4, 4]])
    for module in (ours, theirs):
        (module(first).sum() + 2 * module(second).sum()).backward()
    expected = theirs.weight - RATE * theirs.weight.grad
    np.testing.assert_allclose(rows_of(ours), expected.detach(), rtol=1e-5,
                               atol=1e-6)


def test_ids_may_be_overwritten_before_the_way_back(store):
    ours, _ = pair(store, "sum")
    before = rows_of(ours)
    ids = torch.tensor([[1]])
    output = ours(ids)
    ids.fill_(2)
    output.sum().backward()
    changed = (rows_of(ours) != before).any(1)
    assert np.flatnonzero(changed).tolist() == [1]


def test_weights_that_want_a_gradient_are_refused(store):
    ours, _ = pair(store, "sum")
    weights = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="per_sample_weights"):
        ours(torch.tensor([1, 2]), torch.tensor([0]), weights)


def test_gradient_that_is_not_finite_is_raised(store):
    ours, _ = pair(store, "sum")
    before = rows_of(ours)
    with pytest.raises(fl.NotFiniteError):
        (ours(torch.tensor([[1]])) * float("nan")).sum().backward()
    assert (rows_of(ours) == before).all()


def test_representation_names_the_table(store):
    ours, _ = pair(store, "mean")
    assert "rows of 8" in repr(ours) and "mean" in repr(ours)
