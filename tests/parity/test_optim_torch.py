"Every optimiser and every schedule beside PyTorch's: a row each, step by step, and once more with both saved and restored in the middle"
import copy

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='PyTorch is the judge here: pip install torch')

from backprop_lit import nn, optim
from backprop_lit.layers import GELU, LayerNorm
from backprop_lit.loss import cross_entropy
from backprop_lit.tensor import Tensor

S, T = torch.optim.lr_scheduler, torch.nn
TOL = dict(rtol=1e-5, atol=1e-5)

# name: (class, settings); single settings first, then all together
OPTIMISERS = {
    'sgd': ('SGD', dict(lr=.1)), 'sgd decay': ('SGD', dict(lr=.1, weight_decay=.1)), 'sgd momentum': ('SGD', dict(lr=.05, momentum=.9)),
    'sgd dampening': ('SGD', dict(lr=.05, momentum=.9, dampening=.4)), 'sgd nesterov': ('SGD', dict(lr=.05, momentum=.8, nesterov=True)),
    'sgd all': ('SGD', dict(lr=.05, momentum=.9, dampening=.2, weight_decay=.05)),
    'sgd nesterov decay': ('SGD', dict(lr=.05, momentum=.9, nesterov=True, weight_decay=.05)),
    'adam': ('Adam', dict(lr=.01)), 'adam all': ('Adam', dict(lr=.02, betas=(.7, .9), eps=1e-4, weight_decay=.1)),
    'adamw': ('AdamW', dict(lr=.01)), 'adamw all': ('AdamW', dict(lr=.02, betas=(.7, .9), eps=1e-4, weight_decay=.3)),
    'rmsprop': ('RMSprop', dict(lr=.01)), 'rmsprop alpha': ('RMSprop', dict(lr=.01, alpha=.8, eps=1e-3)),
    'rmsprop momentum': ('RMSprop', dict(lr=.01, momentum=.7)), 'rmsprop centered': ('RMSprop', dict(lr=.01, centered=True)),
    'rmsprop decay': ('RMSprop', dict(lr=.01, weight_decay=.2)),
    'rmsprop all': ('RMSprop', dict(lr=.01, alpha=.9, eps=1e-4, weight_decay=.1, momentum=.8, centered=True)),
    'adagrad': ('Adagrad', dict(lr=.05)), 'adagrad slower': ('Adagrad', dict(lr=.05, lr_decay=.2)),
    'adagrad start': ('Adagrad', dict(lr=.05, initial_accumulator_value=.3)), 'adagrad decay': ('Adagrad', dict(lr=.05, weight_decay=.2)),
    'adagrad all': ('Adagrad', dict(lr=.05, lr_decay=.1, weight_decay=.1, initial_accumulator_value=.1, eps=1e-4))}

# name: (class, arguments, optimiser); the number of steps stands below
STEPS = 24
SCHEDULES = {
    'constant': ('LambdaLR', dict(lr_lambda=lambda t: 1.), 'sgd'), 'lambda': ('LambdaLR', dict(lr_lambda=lambda t: 1 / (1 + t)), 'adam'),
    'warm-up, then root': ('LambdaLR', dict(lr_lambda=lambda t: min((t + 1) / 5, (5 / (t + 1))**.5)), 'adamw'),
    'step': ('StepLR', dict(step_size=5), 'sgd momentum'), 'step each': ('StepLR', dict(step_size=1, gamma=.9), 'adam'),
    'linear warm-up': ('LinearLR', dict(total_iters=7), 'sgd'), 'linear down': ('LinearLR', dict(start_factor=1., end_factor=.1, total_iters=STEPS), 'rmsprop'),
    'linear past its end': ('LinearLR', dict(start_factor=.25, end_factor=.5, total_iters=3), 'adam'),
    'cosine': ('CosineAnnealingLR', dict(T_max=STEPS), 'adam'), 'cosine to a floor': ('CosineAnnealingLR', dict(T_max=STEPS, eta_min=.004), 'adagrad'),
    'cosine and back': ('CosineAnnealingLR', dict(T_max=10, eta_min=.001), 'sgd nesterov'),
    'one cycle': ('OneCycleLR', dict(max_lr=.1, total_steps=STEPS + 1), 'sgd momentum'), 'one cycle of adam': ('OneCycleLR', dict(max_lr=.02, total_steps=STEPS + 1), 'adam all'),
    'one cycle of adamw': ('OneCycleLR', dict(max_lr=.02, total_steps=STEPS + 1, pct_start=.5, base_momentum=.8, max_momentum=.9), 'adamw'),
    'one cycle, all': ('OneCycleLR', dict(max_lr=.1, total_steps=STEPS + 1, pct_start=.2, cycle_momentum=False, div_factor=5., final_div_factor=50.), 'sgd'),
    'one cycle of rmsprop': ('OneCycleLR', dict(max_lr=.02, total_steps=STEPS + 1), 'rmsprop momentum')}

def public(base):
    found = {n: getattr(optim, n) for n in optim.__all__}
    return {n for n, c in found.items() if isinstance(c, type) and issubclass(c, base) and c is not base}

def test_every_optimiser_and_schedule_has_a_row():
    assert public(optim.Optimizer) == {kind for kind, _ in OPTIMISERS.values()}
    assert public(optim.LRScheduler) == {kind for kind, _, _ in SCHEDULES.values()}

def test_every_setting_has_a_row():
    import inspect
    for kind in public(optim.Optimizer):
        known = {*inspect.signature(getattr(optim, kind)).parameters} - {'params'}
        assert known == {k for name, how in OPTIMISERS.values() if name == kind for k in how}, kind

def twins(dtype):
    "A small network that has no gradients of mere rounding, in both libraries"
    ours = nn.Sequential(nn.Linear(6, 8, rng=0), LayerNorm(8), GELU(), nn.Linear(8, 4, rng=1)).to(dtype)
    theirs = T.Sequential(T.Linear(6, 8), T.LayerNorm(8), T.GELU(), T.Linear(8, 4)).to(getattr(torch, dtype))
    give(theirs, ours)
    return ours, theirs

def give(theirs, ours): theirs.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in ours.state_dict().items()}, strict=True)

def batches(n, dtype):
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(16, 6)).astype(dtype), rng.integers(0, 4, 16)) for _ in range(n)]

def step(ours, theirs, mine, its, x, y):
    mine.zero_grad(), its.zero_grad()
    a = cross_entropy(ours(Tensor(x)), y)
    b = T.functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(y))
    a.backward(), b.backward()
    mine.step(), its.step()
    return a.item(), b.item()

def agree(ours, theirs, **tolerance):
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters()):
        np.testing.assert_allclose(p.data, q.detach().numpy(), err_msg=name, **tolerance)

def optimisers(name, ours, theirs):
    kind, how = OPTIMISERS[name]
    return getattr(optim, kind)(ours.parameters(), **how), getattr(torch.optim, kind)(theirs.parameters(), **how)

@pytest.mark.parametrize('dtype, tolerance', [('float32', TOL), ('float64', dict(rtol=1e-11, atol=1e-12))])
@pytest.mark.parametrize('name', OPTIMISERS)
def test_ten_steps(name, dtype, tolerance):
    ours, theirs = twins(dtype)
    mine, its = optimisers(name, ours, theirs)
    for x, y in batches(10, dtype):
        a, b = step(ours, theirs, mine, its, x, y)
        assert np.isclose(a, b, **tolerance)
        agree(ours, theirs, **tolerance)

@pytest.mark.parametrize('name', OPTIMISERS)
def test_weights_go_over_and_come_back_in_the_middle(name):
    "Five steps here, weights to PyTorch; the memory of both goes on from its own state dict"
    ours, theirs = twins('float64')
    mine, its = optimisers(name, ours, theirs)
    data = batches(10, 'float64')
    for x, y in data[:5]: step(ours, theirs, mine, its, x, y)
    new, other = twins('float64')
    give(other, ours)
    new.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    fresh, its_fresh = optimisers(name, new, other)
    fresh.load_state_dict(copy.deepcopy(mine.state_dict())), its_fresh.load_state_dict(copy.deepcopy(its.state_dict()))
    for x, y in data[5:]: step(new, other, fresh, its_fresh, x, y)
    agree(new, other, rtol=1e-10, atol=1e-11)

def rates(optimizer): return [[g['lr'], g.get('momentum', 0), *g.get('betas', ())] for g in optimizer.param_groups]

@pytest.mark.parametrize('saved', [None, 1, 9, STEPS - 1], ids='saved after {}'.format)
@pytest.mark.parametrize('name', SCHEDULES)
def test_schedules(name, saved):
    "Step sizes and momenta to 12 digits, weights to 1e-10, over the whole run; two groups"
    kind, how, optimizer = SCHEDULES[name]
    def both():
        ours, theirs = twins('float64')
        settings, sides = OPTIMISERS[optimizer][1], []
        for module, net in ((optim, ours), (torch.optim, theirs)):
            p = [*net.parameters()]
            sides.append(getattr(module, OPTIMISERS[optimizer][0])([{'params': p[:2], 'lr': settings['lr'] / 2}, {'params': p[2:]}], **settings))
        return ours, theirs, *sides, getattr(optim, kind)(sides[0], **how), getattr(S, kind)(sides[1], **how)
    ours, theirs, mine, its, a, b = both()
    for t, (x, y) in enumerate(batches(STEPS, 'float64'), 1):
        np.testing.assert_allclose(rates(mine), rates(its), rtol=1e-12, atol=1e-15, err_msg=f'step {t}')
        np.testing.assert_allclose(a.get_last_lr(), b.get_last_lr(), rtol=1e-12, atol=1e-15)
        step(ours, theirs, mine, its, x, y)
        a.step(), b.step()
        if t != saved: continue
        states = [copy.deepcopy(s.state_dict()) for s in (ours, mine, a)]
        new, _, fresh, _, again, _ = both()
        new.load_state_dict(states[0]), fresh.load_state_dict(states[1]), again.load_state_dict(states[2])
        ours, mine, a = new, fresh, again
    agree(ours, theirs, rtol=1e-10, atol=1e-11)
