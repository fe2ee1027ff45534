"Convolution and pooling against loops, differences and themselves; layers, messages, memory."
import gc
import itertools
import threading

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from backprop_lit import ops
from backprop_lit.backprop import check_grads
from backprop_lit.conv import (AvgPool2d, Conv2d, ConvNet, Jitter, LeNet, MaxPool2d, _conv2d, _moved, _pick, _Plan,
                               _route, _Window, avg_pool2d, columns, conv2d, conv2d_input, conv2d_weight, fold,
                               max_pool2d, taps)
from backprop_lit.loss import cross_entropy
from backprop_lit.nn import Flatten, ReLU, Sequential
from backprop_lit.optim import SGD
from backprop_lit.tensor import Tensor

def leaf(rng, *shape, dtype=np.float64): return Tensor(rng.normal(size=shape).astype(dtype), requires_grad=True)

def loops(x, w, plan):
    "The formula, one product at a time"
    (sy, sx), (t, b, l, r), (dy, dx), G = plan
    x = np.pad(x, ((0, 0), (0, 0), (t, b), (l, r)))
    (N, C, H, W), (O, Cg, kH, kW) = x.shape, w.shape
    out = np.zeros((N, O, (H - dy*(kH - 1) - 1)//sy + 1, (W - dx*(kW - 1) - 1)//sx + 1))
    for n, o, y, z in np.ndindex(out.shape):
        for c, i, j in np.ndindex(Cg, kH, kW):
            out[n, o, y, z] += w[o, c, i, j] * x[n, o//(O//G)*Cg + c, y*sy + i*dy, z*sx + j*dx]
    return out

@st.composite
def problems(draw):
    "A plan, and images and weights that it fits"
    small = st.integers(1, 3)
    G = draw(st.integers(1, 2))
    plan = _Plan((draw(small), draw(small)), tuple(draw(st.integers(0, 2)) for _ in range(4)),
                 (draw(small), draw(small)), G)
    kH, kW = draw(small), draw(small)
    H = draw(st.integers(max(1, plan.dilation[0]*(kH - 1) + 1 - sum(plan.padding[:2])), 9))
    W = draw(st.integers(max(1, plan.dilation[1]*(kW - 1) + 1 - sum(plan.padding[2:])), 9))
    N, C, O = draw(st.integers(0, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return plan, rng.normal(size=(N, C*G, H, W)), rng.normal(size=(O*G, C, kH, kW)), rng

@settings(max_examples=60, deadline=None)
@given(problems())
def test_three_maps(problem):
    "The convolution equals the loops, and the one number T comes out of all three maps"
    plan, x, w, rng = problem
    z = _conv2d(x, w, plan=plan)
    np.testing.assert_allclose(z, loops(x, w, plan), atol=1e-12)
    g = rng.normal(size=z.shape)
    gx = conv2d_input(g, w, shape=x.shape, plan=plan)
    gw = conv2d_weight(x, g, kernel=w.shape[2:], plan=plan)
    assert gx.shape == x.shape and gw.shape == w.shape
    np.testing.assert_allclose([np.sum(x * gx), np.sum(w * gw)], np.sum(g * z), atol=1e-10)

@settings(max_examples=30, deadline=None)
@given(problems())
def test_columns_and_fold(problem):
    plan, x, w, rng = problem
    width = (x.shape[3] + sum(plan.padding[2:]) - plan.dilation[1]*(w.shape[3] - 1) - 1)//plan.stride[1] + 1
    cols = columns(x, w.shape[3], width, plan)
    g = rng.normal(size=cols.shape)
    np.testing.assert_allclose(np.sum(cols * g), np.sum(x * fold(g, x.shape, w.shape[3], width, plan)), atol=1e-10)

CONVS = [dict(), dict(stride=2), dict(padding=2), dict(padding='same'), dict(padding='valid'),
         dict(padding='same', dilation=2), dict(stride=(2, 1), padding=(0, 1), dilation=(1, 2)), dict(groups=2),
         dict(groups=4, stride=3, padding=1)]

@pytest.mark.parametrize('how', CONVS, ids=str)
def test_derivatives(how):
    rng = np.random.default_rng(0)
    args = [leaf(rng, 1, 4, 5, 4), leaf(rng, 4, 4//how.get('groups', 1), 3, 2)]
    args += [leaf(rng, 4)]*(how != dict(padding=2))         # one of them without bias
    assert check_grads(lambda *a: conv2d(*a, **how), *args, order=2) < 1e-6

def test_third_derivative():
    rng = np.random.default_rng(0)
    def f(x, w): return conv2d(x*x, w)**2
    assert check_grads(f, leaf(rng, 1, 1, 3, 3), leaf(rng, 1, 1, 2, 2), order=3) < 1e-4

def test_same_keeps_the_size():
    for k, d in itertools.product([1, 2, 3, 4, 5], [1, 2]):
        assert conv2d(np.ones((1, 1, 9, 8)), np.ones((1, 1, k, k)), padding='same', dilation=d).shape == (1, 1, 9, 8)
    x, w = np.arange(9.).reshape(1, 1, 3, 3), np.ones((1, 1, 2, 2))         # an odd zero: right and below
    assert (conv2d(x, w, padding='same') == conv2d(np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1))), w)).all()

def test_arrays_stay_arrays_and_types_stay():
    x, w = np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 2, 2), np.float32)
    assert type(conv2d(x, w)) is np.ndarray and conv2d(x, w).dtype == np.float32
    assert type(max_pool2d(x, 2)) is np.ndarray and avg_pool2d(x, 2).dtype == np.float32
    b = np.ones(1)
    assert conv2d(x, w, b).dtype == np.result_type(x, b) and conv2d(x.astype(float), w).dtype == float
    t = Tensor(x, requires_grad=True)
    max_pool2d(conv2d(t, w, np.ones(1, np.float32)), 2).sum().backward()
    assert t.grad.dtype == np.float32

def test_inputs_are_not_changed_nor_shared():
    rng = np.random.default_rng(0)
    for f in (lambda x, w: conv2d(x, w, padding=1), lambda x, w: max_pool2d(x, 2) + w.sum()*0,
              lambda x, w: avg_pool2d(x, 2) + w.sum()*0, lambda x, w: conv2d(x, w[:, :, :1, :1])):
        x, w = leaf(rng, 2, 2, 4, 4), leaf(rng, 2, 2, 3, 3)
        before = x.data.copy(), w.data.copy()
        out = f(x, w)
        g = np.ones(out.shape)
        out.backward(g)
        assert (x.data == before[0]).all() and (w.data == before[1]).all() and (g == 1).all()
        arrays = [x.data, w.data, out.data, g, x.grad.data, w.grad.data]
        assert not any(np.may_share_memory(a, b) for a, b in itertools.combinations(arrays, 2))

def test_any_memory_order():
    "The order in memory changes nothing, neither of the images nor of the gradient"
    rng = np.random.default_rng(0)
    x, w, g = rng.normal(size=(3, 2, 6, 6)), rng.normal(size=(4, 2, 3, 3)), rng.normal(size=(3, 4, 2, 2))
    def run(x, g):
        t, v = Tensor(x, requires_grad=True), Tensor(w, requires_grad=True)
        max_pool2d(conv2d(t, v), 2).backward(g)
        return t.grad.data, v.grad.data
    orders = [lambda a: a, np.asfortranarray, lambda a: np.ascontiguousarray(a.transpose(2, 1, 3, 0)).transpose(3, 1, 0, 2),
              lambda a: np.repeat(a, 2, axis=3)[..., ::2]]
    first = run(x, g)
    for one, two in itertools.product(orders, orders):
        for a, b in zip(first, run(one(x), two(g))): np.testing.assert_allclose(a, b, atol=1e-12)

# pooling ------------------------------------------------------------------------------

WINDOWS = [(2,), (3,), (3, 2), (3, 2, 1), ((2, 3), (1, 2)), (2, 3), ((3, 2), None, (1, 1)), (1,), (4, 1, 2), (2, (1, 2))]

def pool_loops(x, kernel, stride=None, padding=0, kind='max'):
    "Values, and the gradient of their sum with weights 1, 2, 3, …, window by window"
    two = lambda v: v if isinstance(v, tuple) else (v, v)
    (kH, kW), (a, b) = two(kernel), two(padding)
    sH, sW = two(kernel if stride is None else stride)
    xp = np.pad(x, ((0, 0), (0, 0), (a, a), (b, b)), constant_values=-np.inf if kind == 'max' else 0)
    N, C, H, W = xp.shape
    out, back = np.zeros((N, C, (H - kH)//sH + 1, (W - kW)//sW + 1)), np.zeros_like(xp)
    for k, (n, c, y, z) in enumerate(np.ndindex(out.shape), 1):
        where = n, c, slice(y*sH, y*sH + kH), slice(z*sW, z*sW + kW)
        out[n, c, y, z] = xp[where].max() if kind == 'max' else xp[where].mean()
        if kind == 'max': back[where][np.unravel_index(xp[where].argmax(), (kH, kW))] += k
        else: back[where] += k/(kH*kW)
    return out, back[:, :, a:H - a, b:W - b]

@pytest.mark.parametrize('kind, f', [('max', max_pool2d), ('avg', avg_pool2d)])
@pytest.mark.parametrize('how', WINDOWS, ids=str)
def test_pools(kind, f, how):
    "Values, gradients on images full of ties, derivatives of two orders"
    rng = np.random.default_rng(0)
    x = Tensor(rng.integers(-3, 0, (2, 3, 7, 6)).astype(float), requires_grad=True)
    out = f(x, *how)
    value, grad = pool_loops(x.data, *how, kind=kind)
    np.testing.assert_allclose(out.data, value, atol=1e-12)
    out.backward(np.arange(1., out.size + 1).reshape(out.shape))
    np.testing.assert_allclose(x.grad.data, grad, atol=1e-12)
    assert check_grads(lambda x: f(x, *how)**2, leaf(rng, 2, 2, 7, 6), order=2) < 1e-6

@pytest.mark.parametrize('how', WINDOWS, ids=str)
def test_route_and_pick_are_transposes(how):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (2, 3, 7, 6)).astype(float)
    two = lambda v: v if isinstance(v, tuple) else (v, v)
    kernel, stride, padding = (*how, None, 0)[0], (*how, None)[1], (*how, None, 0)[2] or 0
    window = _Window(two(kernel), two(kernel if stride is None else stride), two(padding))
    top = max_pool2d(x, *how)
    g, h = rng.normal(size=top.shape), rng.normal(size=x.shape)
    np.testing.assert_allclose(np.sum(h * _route(g, top, x, window=window)),
                               np.sum(g * _pick(h, top, x, window=window)), atol=1e-10)

def test_nothing_of_the_gradient_is_lost():
    "Not on ties, and not in windows with infinite numbers or nan"
    for fill in (0., 1., np.inf, -np.inf, np.nan):
        x = Tensor(np.full((1, 1, 4, 4), fill), requires_grad=True)
        out = max_pool2d(x, 2)
        np.testing.assert_array_equal(out.data, fill)
        out.backward(np.ones((1, 1, 2, 2)))
        assert x.grad.data.sum() == 4

def test_relu_and_pool_commute():
    rng = np.random.default_rng(0)
    x = leaf(rng, 3, 2, 8, 8)
    grads = []
    for f in (lambda x: ops.relu(max_pool2d(x, 2)), lambda x: max_pool2d(ops.relu(x), 2)):
        x.grad = None
        out = f(x)
        (out*out).sum().backward()
        grads.append((out.data, x.grad.data))
    for a, b in zip(*grads): np.testing.assert_array_equal(a, b)

def test_taps_cover_each_window():
    x = np.arange(2*7*8.).reshape(1, 2, 7, 8)
    parts = taps(x, _Window((3, 2), (2, 3), (0, 0)))
    assert len(parts) == 6 and parts[3][0, 1, 1, 2] == x[0, 1, 2 + 1, 6 + 1]

# layers and models --------------------------------------------------------------------

def test_reprs_as_pytorch_prints_them():
    assert str(Conv2d(3, 8, 5)) == 'Conv2d(3, 8, kernel_size=(5, 5), stride=(1, 1))'
    assert str(Conv2d(4, 8, (3, 2), 2, 1, 2, 2, bias=False)) == ('Conv2d(4, 8, kernel_size=(3, 2), stride=(2, 2), '
        'padding=(1, 1), dilation=(2, 2), groups=2, bias=False)')
    assert str(Conv2d(1, 1, 3, padding='same')) == 'Conv2d(1, 1, kernel_size=(3, 3), stride=(1, 1), padding=same)'
    assert str(MaxPool2d(2)) == 'MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)'
    assert str(AvgPool2d((2, 3), 1)) == 'AvgPool2d(kernel_size=(2, 3), stride=1, padding=0)'

def test_start():
    layer = Conv2d(6, 64, 3, groups=2, rng=0)
    for p in layer.parameters():
        assert p.dtype == np.float32 and 0.95/27**.5 < np.abs(p.data).max() <= 1/27**.5
    assert abs(layer.weight.data.std() - 27**-.5/3**.5) < 0.01
    assert (Conv2d(6, 64, 3, groups=2, rng=0).weight.data == layer.weight.data).all()
    assert Conv2d(1, 1, 3, bias=False).bias is None and len(list(Conv2d(1, 1, 3, bias=False).parameters())) == 1

def test_lenet():
    net = LeNet(rng=0)
    assert [p.shape for p in net.parameters()] == [(8, 1, 5, 5), (8,), (16, 8, 5, 5), (16,), (10, 400), (10,)]
    assert list(net.state_dict()) == ['0.weight', '0.bias', '3.weight', '3.bias', '7.weight', '7.bias']
    for shape in [(8, 8), (28, 28), (16, 9), (4, 4), (32, 28)]:
        x = np.zeros((2, *shape), np.float32)
        model = LeNet(shape, 7, rng=0)
        assert model(x).shape == (2, 7) == model(Tensor(x[:, None])).shape
    assert LeNet(channels=(3, 4))[3].weight.shape == (4, 3, 5, 5)

def test_lenet_is_its_layers():
    "The same as a Sequential in the usual order, ReLU before pooling"
    rng, net = np.random.default_rng(0), LeNet(rng=0, dtype=np.float64)
    usual = Sequential(net[0], ReLU(), MaxPool2d(2), net[3], ReLU(), MaxPool2d(2), Flatten(), net[7])
    x, y = rng.normal(size=(4, 28, 28)), np.array([1, 2, 3, 4])
    grads = []
    for model, images in ((net, x), (usual, x[:, None])):
        net.zero_grad()
        cross_entropy(model(images), y).backward()
        grads.append([p.grad.data.copy() for p in net.parameters()])
    for a, b in zip(*grads): np.testing.assert_allclose(a, b, atol=1e-12)

def test_a_step_makes_no_double_precision():
    net, seen = LeNet(rng=0), []
    loss = cross_entropy(net(np.zeros((2, 28, 28), np.float32)), np.array([0, 1]))
    from backprop_lit.backprop import flow
    for node, g in flow(loss, np.float32(1)*np.ones((), np.float32)): seen += [node.value.dtype, g.dtype]
    assert set(seen) == {np.dtype(np.float32)}

def test_learns_by_heart():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 8, 8)).astype(np.float32), rng.integers(0, 10, 16)
    net = LeNet((8, 8), rng=0)
    opt = SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(80):
        opt.zero_grad()
        loss = cross_entropy(net(x), y)
        loss.backward()
        opt.step()
    assert loss.item() < 0.02

def test_command_line_knows_it():
    from backprop_lit.train import MODELS
    model = MODELS['conv']((28, 28), 10, [100, 200], 3)
    assert isinstance(model, ConvNet) and (model[1].weight.data == ConvNet(rng=3)[1].weight.data).all()
    small = MODELS['conv']((8, 8), 10, [], 3)
    assert isinstance(small[0], Conv2d) and small(np.zeros((2, 8, 8), np.float32)).shape == (2, 10)

# images that move in training ---------------------------------------------------------

def moved_slowly(x, shifts, slants):
    "The formula of the page, one pixel at a time"
    out, (N, C, H, W) = np.zeros_like(x), x.shape
    for n, c, y, z in np.ndindex(x.shape):
        (u, v), (b, a), p, q = shifts[:, n], slants[:, n], y - (H - 1)/2, z - (W - 1)/2
        row, col = round(y + u + b*q), round(z + v + a*p)
        if 0 <= row < H and 0 <= col < W: out[n, c, y, z] = x[n, c, row, col]
    return out

@pytest.mark.parametrize('shape', [(3, 1, 7, 5), (2, 3, 4, 9), (0, 1, 4, 4), (1, 2, 1, 6)])
@pytest.mark.parametrize('shift, slant', [(0, 0), (1.5, 0.2), (4, 1)])
def test_jitter_is_its_formula(shape, shift, slant):
    rng = np.random.default_rng(0)
    x, how = Tensor(rng.normal(size=shape), requires_grad=True), Jitter(shift, slant, rng=1).draw(shape[0])
    np.testing.assert_array_equal(_moved(x, *how).data, moved_slowly(x.data, *how))
    assert (np.abs(how[0]) <= shift).all() and (np.abs(how[1]) <= slant).all()
    if x.size: assert check_grads(lambda x: _moved(x, *how), x) < 1e-6

def test_jitter_only_in_training():
    x = np.random.default_rng(0).normal(size=(5, 1, 9, 9)).astype(np.float32)
    layer = Jitter(2, 0.3, rng=0)
    assert layer.eval()(x) is x
    a, b = layer.train()(x), layer(x)
    assert a.dtype == x.dtype and a.shape == x.shape and (a != b).any()
    assert (a == Jitter(2, 0.3, rng=0)(x)).all()                # the same seed, the same moves
    assert not layer.state_dict() and str(layer) == 'Jitter(shift=2, slant=0.3)'

def test_jitter_of_nothing_changes_nothing():
    x = np.random.default_rng(0).normal(size=(2, 3, 6, 5))
    np.testing.assert_array_equal(Jitter(0, 0)(x), x)
    np.testing.assert_array_equal(Jitter(0.49, 0)(x), x)        # rounded to no pixel

def test_convnet_goes_on_bit_for_bit(tmp_path):
    "Stopped after an epoch and resumed, the moves of the images are those of the undisturbed run"
    pytest.importorskip('safetensors')
    from backprop_lit.saving import Checkpoint
    from backprop_lit.train import fit
    rng = np.random.default_rng(0)
    data = rng.random((96, 16, 16)).astype(np.float32), rng.integers(0, 10, 96)
    def run(epochs, **more):
        net = ConvNet((16, 16), channels=(2, 3, 4), rng=0)
        fit(net, data, epochs=epochs, batch_size=16, progress=False, **more)
        return net.state_dict()
    whole = run(3)
    run(1, callbacks=[Checkpoint(tmp_path / 'c')])
    again = run(3, callbacks=[Checkpoint(tmp_path / 'c', resume=True)])
    assert all((np.asarray(whole[k]) == np.asarray(again[k])).all() for k in whole)

# messages -----------------------------------------------------------------------------

X, W = np.ones((2, 3, 8, 8)), np.ones((4, 3, 3, 3))
WRONG = {
    'no batch': (lambda: conv2d(X[0], W), 'expected images of shape (N, C, H, W), got (3, 8, 8)'),
    'channels': (lambda: conv2d(X[:, :2], W), 'expected 3 channels'),
    'channels last': (lambda: conv2d(X.transpose(0, 2, 3, 1), W), 'Move the channels to axis 1'),
    'too large': (lambda: conv2d(X, np.ones((1, 3, 9, 1))), 'fits into the padded images of (8, 8), got one of (9, 1)'),
    'dilated too far': (lambda: conv2d(X, W, dilation=4), 'got one of (9, 9)'),
    'weight': (lambda: conv2d(X, W[0]), 'expected weights of shape (O, C/groups, kH, kW), got (3, 3, 3)'),
    'bias': (lambda: conv2d(X, W, np.ones(3)), 'expected a bias of shape (4,), got (3,)'),
    'groups': (lambda: conv2d(X, np.ones((4, 1, 3, 3)), groups=3), 'in 3 group(s)'),
    'stride 0': (lambda: conv2d(X, W, stride=0), 'stride: expected a whole number ≥ 1'),
    'half a stride': (lambda: conv2d(X, W, stride=1.5), 'got 1.5'),
    'three strides': (lambda: conv2d(X, W, stride=(1, 2, 3)), 'got (1, 2, 3)'),
    'negative': (lambda: conv2d(X, W, padding=-1), 'padding: expected a whole number ≥ 0'),
    'word': (lambda: conv2d(X, W, padding='full'), "expected 'same', 'valid' or whole numbers, got 'full'"),
    'same, strided': (lambda: conv2d(X, W, padding='same', stride=2), 'expected stride 1, got (2, 2)'),
    'pool 3 axes': (lambda: max_pool2d(X[0], 2), 'max_pool2d: expected images of shape (N, C, H, W)'),
    'pool too large': (lambda: avg_pool2d(X, 9), 'avg_pool2d: expected a kernel that fits'),
    'pool padding': (lambda: max_pool2d(X, 2, padding=2), 'at most half the kernel'),
    'layer groups': (lambda: Conv2d(3, 4, 3, groups=2), 'expected channels that 2 groups divide'),
    'lenet': (lambda: LeNet()(np.ones((2, 8, 8))), 'Build LeNet((8, 8))'),
    'lenet flat': (lambda: LeNet()(np.ones((2, 784))), 'expected images of shape (N, 28, 28)'),
    'convnet': (lambda: ConvNet()(np.ones((2, 8, 8))), 'Build ConvNet((8, 8))'),
    'convnet small': (lambda: ConvNet((7, 8)), 'shape: expected a whole number ≥ 8'),
    'jitter': (lambda: Jitter(1)(np.ones((28, 28))), 'Jitter: expected images of shape (N, C, H, W), got (28, 28)'),
    'jitter backwards': (lambda: Jitter(1, -0.1), 'expected shift ≥ 0 and slant ≥ 0, got 1 and -0.1'),
    'jitter nan': (lambda: Jitter(float('nan')), 'got nan and 0.2'),
    'lenet small': (lambda: LeNet((2, 2)), 'shape: expected a whole number ≥ 4'),
}

@pytest.mark.parametrize('name', WRONG)
def test_messages(name):
    make, text = WRONG[name]
    with pytest.raises(ValueError) as error: make()
    assert text in str(error.value)

# memory, threads, changes in place ----------------------------------------------------

def test_freed_by_reference_count():
    gc.collect()
    gc.disable()
    try:
        import tracemalloc
        net, x, y = LeNet(rng=0), np.zeros((8, 28, 28), np.float32), np.zeros(8, int)
        def step():
            net.zero_grad()
            cross_entropy(net(x), y).backward()
        step()
        tracemalloc.start()
        step()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(5): step()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
        tracemalloc.stop()
    finally: gc.enable()

def test_change_in_place_is_noticed():
    x, w = Tensor(X.copy(), requires_grad=True), Tensor(W.copy(), requires_grad=True)
    out = conv2d(x, w)
    with ops.no_grad(): w.add_(1.0)
    with pytest.raises(RuntimeError, match='changed in place'): out.sum().backward()

def test_threads():
    "Two threads at once give what each gives alone"
    rng = np.random.default_rng(0)
    xs = [rng.normal(size=(4, 1, 28, 28)) for _ in range(2)]
    w = rng.normal(size=(3, 1, 5, 5))
    def run(x):
        t = Tensor(x, requires_grad=True)
        max_pool2d(conv2d(t, w), 2).sum().backward()
        return t.grad.data
    alone, wrong = [run(x) for x in xs], []
    def work(i): wrong.extend(1 for _ in range(50) if not (run(xs[i]) == alone[i]).all())
    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert not wrong

