"The linter: each planted fault is found, and only it; healthy models are silent and untouched."
import os
import random

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import numpy as np
import pytest

from backprop_lit import nn, ops
from backprop_lit.conv import LeNet
from backprop_lit.data import digits
from backprop_lit.layers import BatchNorm1d, Dropout, LogSoftmax, Softmax
from backprop_lit.linter import Finding, Findings, lint
from backprop_lit.loss import (binary_cross_entropy_with_logits, cross_entropy, log_softmax, mse_loss,
                               nll_loss, softmax)
from backprop_lit.nn import MLP, Flatten, Linear, Module, ReLU, Sequential, Sigmoid, Tanh
from backprop_lit.optim import SGD, Adam
from backprop_lit.tensor import Tensor
from backprop_lit.train import fit

TRAIN, TEST = digits()
BATCH = TRAIN[:64]
X, Y = BATCH

def mlp(*sizes, **kw): return MLP(*(sizes or (64, 32, 10)), rng=0, **kw)
def kinds(*args): return [f.kind for f in lint(*args)]

class Net(Module):
    "An MLP of two layers whose forward is given"
    def __init__(self, forward):
        self.a, self.b, self.how = Linear(64, 32, rng=0), Linear(32, 10, rng=1), forward
    def forward(self, x): return self.how(self, ops.reshape(x, (len(x), 64)))

def line(out, y): return ((out - y) ** 2).mean()
def regression():
    x = np.linspace(-1, 1, 16, dtype='f4')[:, None]
    return Linear(1, 1, rng=0), (x, x[:, 0] * 2)

@pytest.mark.parametrize('loss', [line, mse_loss])
def test_column_against_row(loss):
    model, (x, y) = regression()
    found = lint(model, loss, (x, y))
    assert [f.kind for f in found] == ['shapes'] and '(16, 1)' in found[0].what
    assert not lint(model, loss, (x, y[:, None]))
    assert not lint(model, line, (x[:1], y[:1]))               # one against one is no matrix

@pytest.mark.parametrize('squash', [Softmax, LogSoftmax])
def test_softmax_before_cross_entropy(squash):
    model = mlp().append(squash())
    assert kinds(model, cross_entropy, BATCH) == ['softmax']

def test_softmax_in_the_loss_and_by_hand():
    def by_hand(out, y):
        e = np.exp(out)
        return cross_entropy(e / e.sum(1, keepdims=True), y)
    assert kinds(mlp(), by_hand, BATCH) == ['softmax']
    assert kinds(mlp(), lambda o, y: cross_entropy(log_softmax(o), y), BATCH) == ['softmax']
    assert kinds(mlp(), lambda o, y: cross_entropy(softmax(o), y, label_smoothing=.1), BATCH) == ['softmax']
    assert not lint(mlp(), lambda o, y: nll_loss(log_softmax(o), y), BATCH)

def test_sigmoid_before_a_loss_of_logits():
    target = (Y % 2)[:, None].astype('f4')
    model = MLP(64, 16, 1, rng=0)
    assert not lint(model, binary_cross_entropy_with_logits, (X, target))
    assert kinds(model.append(Sigmoid()), binary_cross_entropy_with_logits, (X, target)) == ['softmax']
    assert kinds(mlp().append(Sigmoid()), cross_entropy, BATCH) == ['softmax']

def test_parameters_without_gradient():
    unused = Net(lambda m, x: m.b(ops.relu(m.a(x))))
    unused.c = Linear(3, 3, rng=0)
    found = lint(unused, cross_entropy, BATCH)
    assert [(f.kind, f.where) for f in found] == [('no gradient', 'c.weight, c.bias')]
    cut = Net(lambda m, x: m.b(ops.relu(m.a(x)).detach()))
    assert [f.where for f in lint(cut, cross_entropy, BATCH)] == ['a.weight, a.bias']
    whole = lint(mlp(), lambda o, y: cross_entropy(o.detach(), y), BATCH)
    assert [(f.kind, f.where) for f in whole] == [('no gradient', 'loss')]

def test_frozen_parameters_are_meant():
    model = mlp()
    model[1].requires_grad_(False)
    assert not lint(model, cross_entropy, BATCH, SGD(model[3].parameters(), lr=0.1))
    assert not lint(model.requires_grad_(False), cross_entropy, BATCH)

def test_a_loss_that_reads_the_model():
    model = Net(lambda m, x: m.b(ops.relu(m.a(x))))
    def decay(out, y): return cross_entropy(out, y) + 1e-3 * sum((p ** 2).sum() for p in model.parameters())
    assert not lint(model, decay, BATCH)
    assert all(p.grad is None for p in model.parameters())
    model.c = Linear(3, 3, rng=0)                              # reached by the loss alone
    assert not lint(model, decay, BATCH)

def test_never_stepped():
    model = mlp()
    found = lint(model, cross_entropy, BATCH, SGD(model[1].parameters(), lr=0.1))
    assert [(f.kind, f.where) for f in found] == [('never stepped', '3.weight, 3.bias')]
    assert kinds(model, cross_entropy, BATCH, Adam(mlp().parameters())) == ['never stepped']
    assert not lint(model, cross_entropy, BATCH, Adam(model.parameters()))
    opt = SGD(model.parameters(), lr=0.1)
    opt.param_groups[0]['lr'] = 0
    assert kinds(model, cross_entropy, BATCH, opt) == ['never stepped']

def test_dead_units():
    model = mlp()
    model[1].bias.data[[2, 7]] = -50
    found = lint(model, cross_entropy, BATCH)
    assert [(f.kind, f.where) for f in found] == [('dead units', '2 (ReLU)')]
    assert '2 of 32' in found[0].what and '2, 7' in found[0].what
    model[1].bias.data[:] = -50
    assert kinds(model, cross_entropy, BATCH) == ['dead units']
    by_function = Net(lambda m, x: m.b(ops.relu(m.a(x) - 50.)))
    found = lint(by_function, cross_entropy, BATCH)
    assert [f.kind for f in found] == ['dead units'] and 'test_linter.py' in found[0].where
    net = LeNet((8, 8), rng=0)
    net[0].bias.data[:3] = -50
    assert '3 of 8' in lint(net, cross_entropy, BATCH)[0].what

def test_float64():
    assert [f.where for f in lint(mlp(), cross_entropy, (X.astype(float), Y))] == ['the inputs of the batch']
    model = mlp()
    model[3].bias.data = model[3].bias.data.astype(float)
    assert [(f.kind, f.where) for f in lint(model, cross_entropy, BATCH)] == [('float64', '3.bias')]
    leak = Net(lambda m, x: m.b(ops.relu(m.a(x) * np.ones(32))))
    found = lint(leak, cross_entropy, BATCH)
    assert [f.kind for f in found] == ['float64'] and found[0].where.startswith('mul')
    line_model, (x, y) = regression()
    assert kinds(line_model, mse_loss, (x, y[:, None].astype(float))) == ['float64']
    assert not lint(mlp(dtype=float), cross_entropy, (X.astype(float), Y))
    double = mlp(dtype=float)                                  # one single among doubles: no leak
    double[3].bias.data = double[3].bias.data.astype('f4')
    assert not lint(double, cross_entropy, (X.astype(float), Y))
    assert not lint(Flatten(), cross_entropy, (X.astype(float), Y))

def test_vanishing_and_exploding():
    found = lint(mlp(64, *[32] * 12, 10, activation=Sigmoid), cross_entropy, BATCH)
    assert [f.kind for f in found] == ['vanishing'] and found[0].where.startswith('1.weight')
    assert kinds(mlp(), cross_entropy, (X * 1e4, Y)) == ['exploding']
    big = mlp()
    big[1].weight.data[:] *= 1e5
    assert kinds(big, cross_entropy, BATCH) == ['exploding']
    nan = mlp()
    nan[3].weight.data[0, 0] = np.nan
    assert kinds(nan, cross_entropy, BATCH) == ['exploding']
    assert not lint(mlp(64, *[64] * 9, 10, activation=Tanh), cross_entropy, BATCH)
    for kind in ReLU, Tanh:
        assert not lint(mlp(64, *[64] * 3, 10, activation=kind), cross_entropy, BATCH)

@pytest.mark.parametrize('low', [0, -1])
def test_labels(low):
    labels = Y + 1 if low == 0 else Y - 1
    assert kinds(mlp(), cross_entropy, (X, labels)) == ['labels']
    def by_index(out, y): return -log_softmax(out)[np.arange(len(y)), y].mean()
    assert kinds(mlp(), by_index, (X, labels)) == ['labels']
    ignored = np.where(Y == 3, -100, Y)
    assert not lint(mlp(), cross_entropy, (X, ignored))

def steps(model, n, clear, opt, after=lambda batch: None):
    for i in range(n):
        batch = TRAIN[64 * i:64 * i + 64]
        if clear: opt.zero_grad()
        cross_entropy(model(Tensor(batch.images)), batch.labels).backward()
        after(batch)
        opt.step()

@pytest.mark.parametrize('make', [mlp, lambda: LeNet((8, 8), rng=0)])
@pytest.mark.parametrize('clear', [True, False])
def test_zero_grad(make, clear):
    model, seen = make(), []
    opt = SGD(model.parameters(), lr=0.05)
    steps(model, 4, clear, opt, lambda b: seen.append(kinds(model, cross_entropy, b, opt)))
    assert seen == [[]] + [[] if clear else ['zero_grad']] * 3

def noisy(): return Sequential(Flatten(), Linear(64, 32, rng=0), BatchNorm1d(32), ReLU(),
                               Dropout(0.5, rng=0), Linear(32, 10, rng=1))

def test_modes():
    model = noisy()
    assert not lint(model, cross_entropy, BATCH)
    assert [(f.kind, f.where) for f in lint(model.eval(), cross_entropy, BATCH)] == [
        ('eval mode', '2 (BatchNorm1d), 4 (Dropout)')]
    model.train()
    model[2].eval().requires_grad_(False)
    assert not lint(model, cross_entropy, BATCH)
    assert not lint(mlp().eval(), cross_entropy, BATCH)        # nothing in it reads the mode

@pytest.mark.parametrize('start', [0, 0.01])
def test_equal_units(start):
    model = mlp()
    model[1].weight.data[:] = start
    model[1].bias.data[:] = 0.1
    assert not lint(model, cross_entropy, BATCH) or start == 0  # a later layer tells them apart
    model[3].weight.data[:] = start
    found = lint(model, cross_entropy, BATCH)
    assert [(f.kind, f.where) for f in found] == [('equal units', '1.weight')]
    model = mlp()
    model[3].weight.data[:] = 0                                # a start that is used, and works
    model[3].bias.data[:] = 0
    assert not lint(model, cross_entropy, BATCH)

def test_constant_output():
    model = Net(lambda m, x: m.b(m.a(x * 0 + 1)))
    assert kinds(model, cross_entropy, BATCH) == ['constant output']

@pytest.mark.parametrize('make', [mlp, lambda: MLP(64, 100, 10, rng=3), lambda: LeNet((8, 8), rng=0),
                                  lambda: LeNet((8, 8), rng=5), noisy])
@pytest.mark.parametrize('optimizer', [Adam, SGD])
def test_silent_on_healthy_models(make, optimizer):
    model = make()
    opt = optimizer(model.parameters(), lr=0.01)
    assert lint(model, cross_entropy, BATCH, opt) == []
    for loop in range(2):
        fit(model, TRAIN[:640], epochs=1, optimizer=opt, progress=False)
        assert lint(model, cross_entropy, BATCH, opt) == []
        assert lint(model, cross_entropy, TEST, opt) == []

def test_nothing_changes():
    model = noisy()
    opt = Adam(model.parameters())
    fit(model, TRAIN[:128], epochs=1, optimizer=opt, progress=False)
    model[4].eval()
    nn.manual_seed(3)
    default = nn.generator()
    def state():
        return ({n: a.tobytes() for n, a in model.state_dict().items()},
                [p.grad.value.tobytes() for p in model.parameters()],
                [(m.training, m._hooks) for m in model.modules()],
                str(model[4].rng.bit_generator.state), str(default.bit_generator.state),
                str(np.random.get_state()), random.getstate(), nn._default == [default],
                str(opt.state_dict()), X.tobytes(), Y.tobytes())
    before, grads = state(), [p.grad for p in model.parameters()]
    def rolling(out, y):
        nn.generator().random(), np.random.random(), random.random()
        return cross_entropy(out, y)
    first = lint(model, rolling, BATCH, opt)
    assert state() == before and all(p.grad is g for p, g in zip(model.parameters(), grads))
    assert lint(model, rolling, BATCH, opt) == first

def test_left_as_it_was_after_an_error():
    nn._default.clear()
    with pytest.raises(ValueError, match='expected 64 features'):
        lint(mlp(), cross_entropy, (X[:, :4], Y))
    assert nn._default == [] and ops.primitive.__call__.__name__ == '_apply'
    with pytest.raises(TypeError, match='expected a Module'): lint(lambda x: x, cross_entropy, BATCH)

def test_every_finding_names_a_page_that_exists():
    pages = {p.removesuffix('.ipynb') for p in os.listdir(os.path.join(os.path.dirname(__file__), '../nbs'))}
    source = open(os.path.join(os.path.dirname(__file__), '../backprop_lit/linter.py')).read()
    import re
    named = set(re.findall(r"'(\d\d_\w+)'\)", source))
    assert len(named) >= 7 and named <= pages
    one = Findings([Finding('a', 'b', 'c', 'D.', '10_loss')])
    assert '[10_loss](10_loss.ipynb)' in one._repr_markdown_() and repr(Findings()) == 'no findings'
