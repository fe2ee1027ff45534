"Optimisers and schedules: PyTorch's steps, errors, state, memory."
import copy
import tracemalloc

import numpy as np
import pytest

from backprop_lit.optim import (SGD, Adagrad, Adam, AdamW, CosineAnnealingLR, LambdaLR, LinearLR, LRScheduler,
                                OneCycleLR, Optimizer, RMSprop, StepLR, clip_grad_norm_, clip_grad_value_)
from backprop_lit.tensor import Tensor

KINDS = [(SGD, dict(lr=0.1)), (SGD, dict(lr=0.1, momentum=0.9)),
         (SGD, dict(lr=0.05, momentum=0.9, dampening=0.3, weight_decay=0.1)),
         (SGD, dict(lr=0.05, momentum=0.8, nesterov=True)),
         (SGD, dict(lr=0.05, momentum=0.8, weight_decay=0.2, nesterov=True)),
         (SGD, dict(lr=0.1, weight_decay=0.1)),
         (Adam, dict()), (Adam, dict(lr=0.05, betas=(0.8, 0.95), eps=1e-3)),
         (Adam, dict(lr=0.05, weight_decay=0.1)), (AdamW, dict(lr=0.05)),
         (AdamW, dict(lr=0.05, weight_decay=0.3, betas=(0.5, 0.9))),
         (RMSprop, dict()), (RMSprop, dict(lr=0.05, alpha=0.8, eps=1e-3, weight_decay=0.1)),
         (RMSprop, dict(lr=0.05, momentum=0.7)), (RMSprop, dict(lr=0.05, alpha=0.9, momentum=0.7, centered=True)),
         (Adagrad, dict()), (Adagrad, dict(lr=0.1, lr_decay=0.2, weight_decay=0.1, initial_accumulator_value=0.5))]
NAMES = [f'{k.__name__}-{"-".join(o)}' for k, o in KINDS]

def leaves(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [Tensor(rng.normal(size=s).astype(dtype), requires_grad=True) for s in [(4, 3), (3,), ()]]

def give_gradients(params, seed):
    rng = np.random.default_rng(seed)
    for p in params: p.grad = Tensor(np.asarray(rng.normal(size=p.shape), p.dtype))

def steps(opt, params, first, last):
    for i in range(first, last):
        give_gradients(params, i)
        opt.step()

def slow(kind, o, w, grads):
    "The formulas as the papers have them, on one array in double precision, without any trick"
    lr, wd = o.get('lr', 1e-3), o.get('weight_decay', 0.01 if kind is AdamW else 0)
    b1, b2 = o.get('betas', (0.9, 0.999))
    mu, part, v = o.get('momentum', 0), 1 - o.get('dampening', 0), None
    if kind in (RMSprop, Adagrad): return slow_roots(kind, o, w, grads)
    for t, g in enumerate(grads, 1):
        if kind is SGD:
            g = g + wd * w
            v = g if v is None else mu * v + part * g
            w = w - lr * (g + mu * v if o.get('nesterov') else v if mu else g)
            continue
        if kind is AdamW: w = w - lr * wd * w
        else: grads[t - 1] = g = g + wd * w
        ages = np.arange(t)[::-1].reshape(-1, *[1] * w.ndim)
        past = np.array(grads[:t])
        m = (past * b1 ** ages).sum(0) / (b1 ** ages).sum()
        s = (past ** 2 * b2 ** ages).sum(0) / (b2 ** ages).sum()
        w = w - lr * m / (np.sqrt(s) + o.get('eps', 1e-8))
    return w

def slow_roots(kind, o, w, grads):
    "The same for the two that divide by a root and have no first average"
    lr, a, mean, square, buffer, past = o.get('lr', 0.01), o.get('alpha', 0.99), 0, 0, 0, []
    for t, g in enumerate(grads, 1):
        g = g + o.get('weight_decay', 0) * w
        past.append(g)
        if kind is Adagrad:
            total = o.get('initial_accumulator_value', 0) + sum(h * h for h in past)
            w = w - lr / (1 + (t - 1) * o.get('lr_decay', 0)) * g / (np.sqrt(total) + 1e-10)
            continue
        mean, square = a * mean + (1 - a) * g, a * square + (1 - a) * g * g
        root = np.sqrt(square - mean ** 2 * o.get('centered', False)) + o.get('eps', 1e-8)
        buffer = o.get('momentum', 0) * buffer + g / root
        w = w - lr * buffer
    return w

@pytest.mark.parametrize('kind, options', KINDS, ids=NAMES)
def test_formulas(kind, options):
    params = leaves()
    start = [p.data.copy() for p in params]
    grads = [[] for _ in params]
    opt = kind(params, **options)
    for i in range(20):
        give_gradients(params, i)
        for seen, p in zip(grads, params): seen.append(p.grad.data.copy())
        opt.step()
    for p, w, seen in zip(params, start, grads):
        np.testing.assert_allclose(p.data, slow(kind, options, w, seen), rtol=1e-9, atol=1e-9)

@pytest.mark.parametrize('kind, options', KINDS, ids=NAMES)
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_torch(kind, options, dtype):
    torch = pytest.importorskip('torch')
    params = leaves(dtype)
    theirs = [torch.nn.Parameter(torch.tensor(p.data)) for p in params]
    opt, other = kind(params, **options), getattr(torch.optim, kind.__name__)(theirs, **options)
    for i in range(20):
        give_gradients(params, i)
        for p, q in zip(params, theirs): q.grad = torch.tensor(p.grad.data)
        opt.step(), other.step()
    for p, q in zip(params, theirs):
        assert p.dtype == dtype
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=0, atol=1e-6 if dtype == np.float32 else 1e-12)

SCHEDULES = [('StepLR', dict(step_size=3, gamma=0.3)), ('CosineAnnealingLR', dict(T_max=12, eta_min=0.01)),
             ('CosineAnnealingLR', dict(T_max=30)), ('LinearLR', dict(start_factor=0.2, total_iters=7)),
             ('LinearLR', dict()), ('OneCycleLR', dict(max_lr=0.4, total_steps=30)),
             ('OneCycleLR', dict(max_lr=0.4, total_steps=31, pct_start=0.1, cycle_momentum=False)),
             ('LambdaLR', dict(lr_lambda=lambda t: 0.95 ** t))]

@pytest.mark.parametrize('name, options', SCHEDULES)
@pytest.mark.parametrize('kind', ['SGD', 'Adam'])
def test_torch_schedules(name, options, kind):
    torch = pytest.importorskip('torch')
    params = leaves()[:2]
    theirs = [torch.nn.Parameter(torch.tensor(p.data)) for p in params]
    groups = [{'params': params[:1]}, {'params': params[1:], 'lr': 0.02}]
    others = [{'params': theirs[:1]}, {'params': theirs[1:], 'lr': 0.02}]
    more = dict(momentum=0.9) if kind == 'SGD' else {}
    opt, other = globals()[kind](groups, lr=0.1, **more), getattr(torch.optim, kind)(others, lr=0.1, **more)
    ours = globals()[name](opt, **options)
    other_schedule = getattr(torch.optim.lr_scheduler, name)(other, **options)
    for i in range(29):
        give_gradients(params, i)
        for p, q in zip(params, theirs): q.grad = torch.tensor(p.grad.data)
        opt.step(), other.step()
        np.testing.assert_allclose(ours.get_last_lr(), other_schedule.get_last_lr(), rtol=1e-9, atol=1e-15)
        ours.step(), other_schedule.step()
    for p, q in zip(params, theirs):
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=0, atol=1e-9)

@pytest.mark.parametrize('kind, options', KINDS, ids=NAMES)
def test_stop_and_go_on(kind, options):
    "Saved after 7 steps and loaded elsewhere, it goes on bit for bit, and the copy is a copy"
    params, others = leaves(np.float32), leaves(np.float32)
    opt = kind(params, **options)
    steps(opt, params, 0, 7)
    saved = opt.state_dict()
    frozen = copy.deepcopy(saved)
    for p, q in zip(params, others): q.data[...] = p.data
    fresh = kind(others, **{**options, 'lr': 0.9})
    fresh.load_state_dict(saved)
    steps(opt, params, 7, 15), steps(fresh, others, 7, 15)
    for p, q in zip(params, others): assert p.data.tobytes() == q.data.tobytes()
    assert repr(saved) == repr(frozen)

def test_load_refuses_others_and_changes_nothing():
    params = leaves()
    opt = Adam(params)
    steps(opt, params, 0, 3)
    small = [Tensor(np.zeros(2), requires_grad=True) for _ in params]
    other = Adam(small, lr=0.5)
    steps(other, small, 0, 1)
    before = repr(other.state_dict())
    with pytest.raises(ValueError, match=r'other shapes at \[0, 1, 2\]|same|saved'): other.load_state_dict(opt.state_dict())
    with pytest.raises(ValueError, match=r'\[3\].*\[2\]|groups of'): Adam(small[:2]).load_state_dict(opt.state_dict())
    assert repr(other.state_dict()) == before

@pytest.mark.parametrize('kind, options', KINDS, ids=NAMES)
def test_no_temporaries(kind, options):
    "From the second step on, nothing the size of the weights is allocated, and float32 stays"
    p = Tensor(np.ones((300, 200), np.float32), requires_grad=True)
    opt, memory = kind([p], **options), p.data
    p.grad = Tensor(np.full(p.shape, 0.5, np.float32))
    opt.step(), opt.step()
    tracemalloc.start()
    opt.step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < p.data.nbytes / 20
    assert p.data is memory and p.dtype == np.float32
    assert all(np.asarray(a).dtype == np.float32 for a in opt.state[p].values() if np.ndim(a))

def test_numpy_numbers_as_settings_stay_float32():
    p = Tensor(np.ones(5, np.float32), requires_grad=True)
    opt = SGD([p], lr=np.float64(0.1), momentum=np.float64(0.9))
    assert type(opt.param_groups[0]['lr']) is float
    steps(opt, [p], 0, 3)
    assert p.dtype == np.float32 and opt.state[p]['momentum_buffer'].dtype == np.float32

@pytest.mark.parametrize('kind, options', KINDS, ids=NAMES)
def test_gradients_are_not_touched(kind, options):
    params = leaves()
    opt = kind(params, **options)
    for i in range(3):
        give_gradients(params, i)
        before = [p.grad.data.copy() for p in params]
        opt.step()
        for p, g in zip(params, before): np.testing.assert_array_equal(p.grad.data, g)
    assert not any(np.may_share_memory(a, p.grad.data) for p in params for a in opt.state[p].values())

def test_step_after_backward_and_stale_graph():
    w = Tensor(np.array([1., 2.]), requires_grad=True)
    opt = SGD([w], lr=0.1)
    loss = (w * w).sum()
    loss.backward(retain_graph=True)
    opt.step()
    np.testing.assert_allclose(w.data, [0.8, 1.6])
    with pytest.raises(RuntimeError, match='changed in place'): loss.backward()

def test_zero_grad():
    w = Tensor(np.ones(2), requires_grad=True)
    opt = SGD([w], lr=0.1)
    (w * 3).sum().backward()
    kept = w.grad
    opt.zero_grad(set_to_none=False)
    assert w.grad.tolist() == [0, 0] and kept.tolist() == [3, 3]
    opt.zero_grad()
    assert w.grad is None
    with pytest.raises(RuntimeError, match='zero_grad.*backward'): opt.step()

def test_tensors_without_gradient_stay():
    a, b = (Tensor(np.ones(2), requires_grad=True) for _ in range(2))
    opt = Adam([a, b], lr=0.1, weight_decay=0.1)
    a.grad = Tensor(np.ones(2))
    opt.step()
    assert b.tolist() == [1, 1] and not opt.state.get(b) and a.tolist() != [1, 1]

def test_groups():
    a, b = (Tensor(np.ones(2), requires_grad=True) for _ in range(2))
    opt = SGD([{'params': [a]}, {'params': iter([b]), 'lr': 0.5}], lr=0.1)
    a.grad = b.grad = Tensor(np.ones(2))
    opt.step()
    np.testing.assert_allclose([a.data, b.data], [[0.9, 0.9], [0.5, 0.5]])
    opt.param_groups[1]['lr'] = 0.25
    opt.step()
    np.testing.assert_allclose(b.data, [0.25, 0.25])
    assert '2 tensors' not in repr(opt) and 'lr=0.25' in repr(opt)

W = Tensor(np.ones(2), requires_grad=True)
BAD = [(lambda: SGD([], 0.1), ValueError, 'at least one'), (lambda: SGD(iter(()), 0.1), ValueError, 'generator'),
       (lambda: SGD(W, 0.1), TypeError, 'several tensors'), (lambda: SGD(None, 0.1), TypeError, 'parameters'),
       (lambda: SGD([1.0], 0.1), TypeError, 'expected tensors, got 1.0'), (lambda: SGD('ab', 0.1), TypeError, "'ab'"),
       (lambda: SGD({'params': [W]}, 0.1), TypeError, 'params'), (lambda: SGD([np.ones(2)], 0.1), TypeError, 'array'),
       (lambda: SGD([W * 2], 0.1), ValueError, 'leaves'), (lambda: SGD([W, W], 0.1), ValueError, 'every tensor once'),
       (lambda: SGD([{'params': [W]}, {'params': [W]}], 0.1), ValueError, 'every tensor once'),
       (lambda: SGD([{'params': [W], 'learning_rate': 1}], 0.1), ValueError, 'learning_rate'),
       (lambda: SGD([{'lr': 1}], 0.1), TypeError, "'params'"),
       (lambda: SGD([W], 0), ValueError, 'lr: expected a number > 0, got 0'), (lambda: SGD([W], -1), ValueError, '-1'),
       (lambda: SGD([W], float('nan')), ValueError, 'nan'), (lambda: SGD([W], float('inf')), ValueError, 'inf'),
       (lambda: SGD([W], '0.1'), TypeError, "'0.1'"), (lambda: SGD([W], [0.1]), TypeError, 'lr'),
       (lambda: SGD([W], 0.1, momentum=1), ValueError, 'momentum.*< 1'),
       (lambda: SGD([W], 0.1, momentum=-0.1), ValueError, 'momentum'),
       (lambda: SGD([W], 0.1, nesterov=True), ValueError, 'nesterov'),
       (lambda: SGD([W], 0.1, weight_decay=-1), ValueError, 'weight_decay'),
       (lambda: Adam([W], betas=(0.9, 1)), ValueError, 'beta.*< 1'), (lambda: Adam([W], betas=0.9), TypeError, 'pair'),
       (lambda: Adam([W], eps=-1), ValueError, 'eps'), (lambda: AdamW([W], lr=None), TypeError, 'None'),
       (lambda: StepLR(SGD([W], 1), 0), ValueError, 'step_size'), (lambda: OneCycleLR(SGD([W], 1), 1, 0), ValueError, 'total_steps'),
       (lambda: OneCycleLR(SGD([W], 1), -1, 9), ValueError, 'lr'), (lambda: LRScheduler(0.1), TypeError, 'optimiser'),
       (lambda: CosineAnnealingLR(SGD([W], 1), 2.5), ValueError, '2.5'), (lambda: LinearLR(SGD([W], 1), total_iters=-1), ValueError, '-1')]

@pytest.mark.parametrize('f, error, words', BAD)
def test_errors(f, error, words):
    with pytest.raises(error, match=words): f()

def test_subclass_without_update():
    opt = Optimizer([W], {'lr': 0.1})
    W.grad = Tensor(np.ones(2))
    with pytest.raises(NotImplementedError, match='update'): opt.step()
    W.grad = None

def test_schedule_state():
    opt = SGD([Tensor(1., requires_grad=True)], 0.1)
    schedule = CosineAnnealingLR(opt, 10)
    for _ in range(4): schedule.step()
    again = SGD([Tensor(1., requires_grad=True)], 0.1)
    again.load_state_dict(opt.state_dict())
    other = CosineAnnealingLR(again, 10)
    other.load_state_dict(schedule.state_dict())
    assert other.get_last_lr() == schedule.get_last_lr()
    schedule.step(), other.step()
    assert other.get_last_lr() == schedule.get_last_lr()

def test_one_cycle_corners():
    opt = Adam([Tensor(1., requires_grad=True)])
    schedule, seen = OneCycleLR(opt, 1.0, 100), []
    for _ in range(100):
        seen.append((opt.param_groups[0]['lr'], opt.param_groups[0]['betas'][0]))
        schedule.step()
    np.testing.assert_allclose([seen[i] for i in (0, 29, 99)], [(0.04, 0.95), (1, 0.85), (4e-6, 0.95)], rtol=1e-9)
    assert seen[28][0] < 1 > seen[30][0] and opt.param_groups[0]['betas'][1] == 0.999

@pytest.mark.parametrize('n', range(1, 12))
def test_one_cycle_short(n):
    opt = SGD([Tensor(1., requires_grad=True)], 0.1)
    schedule = OneCycleLR(opt, 1.0, n)
    for _ in range(n):
        assert 0 < opt.param_groups[0]['lr'] <= 1.0
        schedule.step()

def test_optimiser_frees_its_tensors():
    import gc, weakref
    gc.disable()
    try:
        w = Tensor(np.ones(3), requires_grad=True)
        opt = Adam([w])
        w.grad = Tensor(np.ones(3))
        opt.step()
        there = weakref.ref(w)
        del w, opt
        assert there() is None
    finally: gc.enable()

# clipping

def some_gradients(*arrays):
    params = [Tensor(np.zeros_like(a), requires_grad=True) for a in arrays]
    for p, a in zip(params, arrays): p.grad = Tensor(a.copy())
    return params

@pytest.mark.parametrize('dtype', ['f4', 'f8'])
@pytest.mark.parametrize('kind', [1, 2, 3.5, float('inf')])
def test_clip_by_norm(kind, dtype):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s).astype(dtype) for s in [(4, 3), (3,), (), (0, 2)]]
    whole = np.linalg.norm(np.concatenate([a.ravel() for a in arrays]), kind)
    params = some_gradients(*arrays) + [Tensor(np.zeros(2), requires_grad=True)]      # the last has none
    assert np.isclose(clip_grad_norm_(iter(params), 2 * whole, kind).item(), whole)
    assert all(np.array_equal(p.grad.data, a) for p, a in zip(params, arrays))
    clip_grad_norm_(params, 0.5, kind)
    for p, a in zip(params, arrays): assert p.grad.dtype == a.dtype and np.allclose(p.grad.data, a * 0.5 / whole, rtol=1e-5)
    assert np.isclose(clip_grad_norm_(params, 9, kind).item(), 0.5, rtol=1e-5) and params[-1].grad is None

def test_clip_edges():
    huge, = params = some_gradients(np.full(3, 1e30, np.float32))
    clip_grad_norm_(params, 1.0)
    assert np.allclose(huge.grad.data, 3 ** -0.5)                   # squares overflow in single precision
    assert clip_grad_norm_([Tensor([0.], requires_grad=True)], 1.).item() == 0
    bad = some_gradients(np.array([np.nan]))
    with pytest.raises(RuntimeError, match='finite length, got nan'): clip_grad_norm_(bad, 1., error_if_nonfinite=True)
    for wrong in ((0, 2), (1, 0), (-1, 2), (float('nan'), 2)):
        with pytest.raises(ValueError, match='max_norm and norm_type > 0'): clip_grad_norm_(params, *wrong)
    for f in (clip_grad_norm_, clip_grad_value_):
        with pytest.raises(TypeError, match='tensors'): f([1.], 1.)
        with pytest.raises(ValueError, match='at least one'): f([], 1.)

def test_clip_by_value_and_old_graphs():
    a = np.array([-3., 0.5, 2.])
    p, = params = some_gradients(a)
    out = (p.grad * Tensor(np.ones(3), requires_grad=True)).sum()
    clip_grad_value_(p, 1.)
    assert p.grad.tolist() == [-1, 0.5, 1]
    with pytest.raises(ValueError, match='got 0'): clip_grad_value_(params, 0)
    with pytest.raises(RuntimeError, match='changed in place'): out.backward()
