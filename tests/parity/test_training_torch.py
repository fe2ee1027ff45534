"One network, one data set, two libraries: the same weights after twenty steps"
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='PyTorch is the judge here: pip install torch')

from backprop_lit.loss import cross_entropy, mse_loss
from backprop_lit.nn import MLP
from backprop_lit.optim import SGD, Adam, AdamW
from backprop_lit.tensor import Tensor

SIZES = (20, 16, 12, 5)

def theirs(sizes):
    layers = [torch.nn.Flatten()]
    for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
        layers += [torch.nn.ReLU()] * (i > 0) + [torch.nn.Linear(a, b)]
    return torch.nn.Sequential(*layers)

def twins(dtype):
    "A network of ours and one of PyTorch's with the same weights"
    ours, other = MLP(*SIZES, rng=0), theirs(SIZES).to(getattr(torch, dtype))
    mine, its = list(ours.parameters()), list(other.parameters())
    assert [p.shape for p in mine] == [tuple(p.shape) for p in its]
    for p, q in zip(mine, its):
        p.data = p.data.astype(dtype)
        with torch.no_grad(): q.copy_(torch.from_numpy(p.data.copy()))
    return ours, other

OPTIMISERS = {
    'sgd': (lambda p: SGD(p, lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    'momentum': (lambda p: SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
                 lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01)),
    'nesterov': (lambda p: SGD(p, lr=0.05, momentum=0.9, nesterov=True),
                 lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True)),
    'adam': (lambda p: Adam(p, lr=1e-2), lambda p: torch.optim.Adam(p, lr=1e-2)),
    'adamw': (lambda p: AdamW(p, lr=1e-2, weight_decay=0.1),
              lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1))}

@pytest.mark.parametrize('dtype, tolerance', [('float32', 1e-5), ('float64', 1e-12)])
@pytest.mark.parametrize('name', OPTIMISERS)
def test_twenty_steps(name, dtype, tolerance):
    rng = np.random.default_rng(0)
    ours, other = twins(dtype)
    mine, its = OPTIMISERS[name][0](ours.parameters()), OPTIMISERS[name][1](other.parameters())
    for _ in range(20):
        x, y = rng.normal(size=(8, 20)).astype(dtype), rng.integers(0, 5, 8)
        mine.zero_grad(), its.zero_grad()
        loss = cross_entropy(ours(Tensor(x)), y)
        target = torch.nn.functional.cross_entropy(other(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward(), target.backward()
        assert np.isclose(loss.item(), target.item(), atol=tolerance)
        for p, q in zip(ours.parameters(), other.parameters()):
            assert p.grad.dtype == dtype
            assert np.allclose(p.grad.data, q.grad.numpy(), atol=tolerance)
        mine.step(), its.step()
    for p, q in zip(ours.parameters(), other.parameters()):
        assert np.allclose(p.data, q.detach().numpy(), atol=tolerance, rtol=tolerance)

@pytest.mark.parametrize('reduction', ['mean', 'sum', 'none'])
def test_losses(reduction):
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(6, 4)) * 30, rng.integers(0, 4, 6)
    for mine, its, target in [(cross_entropy, torch.nn.functional.cross_entropy, labels),
                              (mse_loss, torch.nn.functional.mse_loss, rng.normal(size=(6, 4)))]:
        x, t = Tensor(logits, requires_grad=True), torch.tensor(logits, requires_grad=True)
        a, b = mine(x, target, reduction=reduction), its(t, torch.tensor(target), reduction=reduction)
        a.backward(np.ones(a.shape)), b.backward(torch.ones(b.shape, dtype=b.dtype))
        assert np.allclose(a.data, b.detach().numpy(), atol=1e-12)
        assert np.allclose(x.grad.data, t.grad.numpy(), atol=1e-12)

def test_published_demonstration():
    "y = (x·a + b)·a, the demonstration of source A"
    rng = np.random.default_rng(2)
    values = [rng.normal(size=s) for s in ((3, 3), (3, 3), (3,))]
    x, a, b = (Tensor(v, requires_grad=True) for v in values)
    X, A, B = (torch.tensor(v, requires_grad=True) for v in values)
    g = rng.normal(size=(3, 3))
    ((x * a + b) * a).backward(g)
    ((X * A + B) * A).backward(torch.tensor(g))
    for ours, other in zip((x, a, b), (X, A, B)):
        assert ours.grad.shape == tuple(other.grad.shape)
        assert np.allclose(ours.grad.data, other.grad.numpy(), atol=1e-14)
