"Layers and initialisers: derivatives in two orders, training and use, shapes, errors, determinism"
import copy
import gc
import inspect
import weakref
from functools import partial

import numpy as np
import pytest

import backprop_lit as bl
from backprop_lit import conv, feed, init, layers as L, nn, residual
from backprop_lit.conv import Conv2d
from backprop_lit.nn import Linear, ReLU, Sequential
from backprop_lit.tensor import Tensor

def tensor(*shape, seed=0, dtype=float):
    return Tensor(np.random.default_rng(seed).normal(size=shape).astype(dtype), requires_grad=True)

def first(out): return out[0] if isinstance(out, tuple) else out

# name: (layer, shape of its input), with every parameter in double precision
F8 = dict(dtype=np.float64)
LAYERS = {
    'ConvTranspose2d': (lambda d: L.ConvTranspose2d(2, 4, (2, 3), (2, 1), (1, 0), (1, 0), 2, dilation=(1, 2), rng=0, dtype=d), (2, 2, 3, 2)),
    'AdaptiveAvgPool2d': (lambda d: L.AdaptiveAvgPool2d((2, 4)), (2, 2, 5, 3)),
    'BatchNorm1d': (lambda d: L.BatchNorm1d(3, dtype=d), (4, 3)),
    'BatchNorm1d long': (lambda d: L.BatchNorm1d(3, dtype=d), (2, 3, 2)),
    'BatchNorm2d': (lambda d: L.BatchNorm2d(2, dtype=d), (2, 2, 2, 3)),
    'BatchNorm2d bare': (lambda d: L.BatchNorm2d(2, affine=False, track_running_stats=False), (2, 2, 2, 2)),
    'LayerNorm': (lambda d: L.LayerNorm((2, 3), dtype=d), (2, 2, 3)),
    'LayerNorm bare': (lambda d: L.LayerNorm(3, elementwise_affine=False), (4, 3)),
    'GroupNorm': (lambda d: L.GroupNorm(2, 4, dtype=d), (2, 4, 3)),
    'Residual': (lambda d: L.Residual(Linear(3, 3, rng=0, dtype=d), L.GELU()), (2, 3)),
    'RNN': (lambda d: L.RNN(3, 2, rng=0, dtype=d), (3, 2, 3)),
    'RNN relu': (lambda d: L.RNN(3, 2, nonlinearity='relu', rng=1, dtype=d), (3, 2, 3)),
    'GRU': (lambda d: L.GRU(3, 2, batch_first=True, rng=0, dtype=d), (2, 3, 3)),
    'LSTM': (lambda d: L.LSTM(3, 2, bias=False, rng=0, dtype=d), (3, 1, 3)),
    'LSTM both ways': (lambda d: L.LSTM(2, 2, 2, bidirectional=True, rng=0, dtype=d), (2, 1, 2)),
    'Softmax': (lambda d: L.Softmax(0), (3, 4)), 'LogSoftmax': (lambda d: L.LogSoftmax(), (3, 4)),
    'GELU': (lambda d: L.GELU(), (3, 4)), 'GELU tanh': (lambda d: L.GELU('tanh'), (3, 4)),
    'SiLU': (lambda d: L.SiLU(), (3, 4)), 'LeakyReLU': (lambda d: L.LeakyReLU(0.1), (3, 4)),
    'ELU': (lambda d: L.ELU(0.7), (3, 4)), 'Softplus': (lambda d: L.Softplus(2.), (3, 4)),
    'Identity': (lambda d: L.Identity(), (3, 4))}

def parameters_as_arguments(layer, x):
    "A function of the input and of all parameters, and these"
    params = [*layer.parameters()]
    def f(x, *new):
        twin = copy.deepcopy(layer)
        by_number = {p: n for p, n in zip(twin.parameters(), new)}
        for m in twin.modules():
            for name, p in [*nn.below(m, nn.Parameter)]: object.__setattr__(m, name, by_number[p])
        return first(twin(x))
    return f, [x, *(Tensor(p.data, requires_grad=True) for p in params)]

@pytest.mark.parametrize('name', LAYERS)
def test_derivatives_of_two_orders_for_input_and_parameters(name):
    make, shape = LAYERS[name]
    layer = make(np.float64)
    for p in layer.parameters(): p.data = p.data + 0.1 * np.random.default_rng(7).normal(size=p.shape)
    f, args = parameters_as_arguments(layer, tensor(*shape, seed=4))
    small = sum(a.size for a in args) < 40 and 'both' not in name
    bl.check_grads(f, *args, order=2 if small else 1)

@pytest.mark.parametrize('name', LAYERS)
def test_eval_and_float32(name):
    make, shape = LAYERS[name]
    layer, x = make(np.float32), tensor(*shape, dtype=np.float32)
    before = x.data.copy()
    for mode in (True, False):
        layer.train(mode)
        out = first(layer(x))
        loss = (out * out).sum()
        for node in bl.toposort(loss): assert node.value.dtype == np.float32, node.op
        loss.backward()
        for p in [x, *layer.parameters()]:
            assert p.grad.dtype == np.float32 and not np.shares_memory(p.grad.data, p.data)
            p.grad = None
    assert np.array_equal(x.data, before)
    bl.check_grads(lambda x: first(make(np.float64).eval()(x)), tensor(*shape, seed=3))

@pytest.mark.parametrize('name', LAYERS)
def test_state_round_trip_repr_and_memory(name):
    make, shape = LAYERS[name]
    layer, other, x = make(np.float32), make(np.float32), tensor(*shape, dtype=np.float32)
    first(layer(x))
    other.load_state_dict(layer.state_dict())
    assert np.array_equal(first(layer.eval()(x)).data, first(other.eval()(x)).data)
    assert repr(layer).startswith(type(layer).__name__ + '(')
    gc.disable()
    try:
        out = first(layer.train()(x)).sum()
        out.backward()
        ref = weakref.ref(layer)
        del layer, out
        assert ref() is None
    finally: gc.enable()

# one by one

def test_residual_adds_what_comes_in():
    part, x = Linear(3, 3, rng=0, **F8), tensor(2, 3)
    assert np.allclose(L.Residual(part, ReLU())(x).data, x.data + np.maximum(part(x).data, 0))
    wide = L.Residual(Linear(3, 2, rng=0, **F8), shortcut=Linear(3, 2, rng=1, **F8))
    assert np.allclose(wide(x).data, wide[0](x).data + wide.shortcut(x).data)
    assert [n for n, _ in wide.named_parameters()] == ['0.weight', '0.bias', 'shortcut.weight', 'shortcut.bias']

def test_batch_norm_momentum_none_is_the_mean_of_all():
    bn, rng = L.BatchNorm1d(3, momentum=None, **F8), np.random.default_rng(0)
    batches = rng.normal(2, 3, (5, 8, 3))
    for b in batches: bn(b)
    assert np.allclose(bn.running_mean.data, batches.mean((0, 1)))
    assert np.allclose(bn.running_var.data, batches.var(1, ddof=1).mean(0))
    assert bn.num_batches_tracked.item() == 5 and [*bn.state_dict()][2:] == ['running_mean', 'running_var', 'num_batches_tracked']

def test_batch_norm_in_use_neither_learns_nor_depends_on_the_batch():
    bn, x = L.BatchNorm2d(3, **F8), tensor(4, 3, 2, 2)
    bn(x)
    state = bn.eval().state_dict()
    assert np.allclose(bn(x).data[:1], bn(x.data[:1]).data)
    assert all(np.array_equal(a, b) for a, b in zip(state.values(), bn.state_dict().values()))

def test_training_between_use_and_backward_leaves_the_gradient_right():
    bn, x = L.BatchNorm1d(3, **F8), tensor(5, 3)
    bn(x)
    out = bn.eval()(x).sum()
    want = (x.data / np.sqrt(bn.running_var.data + bn.eps) - bn.running_mean.data / np.sqrt(bn.running_var.data + bn.eps)).sum(0)
    bn.train()(x * 100)
    out.backward()
    assert np.allclose(bn.weight.grad.data, want)

def test_batch_norm_without_memory_uses_the_batch_always():
    bn, x = L.BatchNorm1d(3, affine=False, track_running_stats=False), tensor(5, 3)
    assert np.array_equal(bn(x).data, bn.eval()(x).data) and not bn.state_dict()

@pytest.mark.parametrize('layer, shape, match', [
    (lambda: L.BatchNorm1d(3), (1, 3), 'several values'), (lambda: L.BatchNorm1d(3), (4, 5), 'C = 3, got'),
    (lambda: L.BatchNorm1d(3), (4, 3, 2, 2), r'\(N, C\) or \(N, C, L\)'), (lambda: L.BatchNorm2d(3), (4, 3), r'\(N, C, H, W\)'),
    (lambda: L.LayerNorm(3), (2, 4), r'\(…, 3\), got \(2, 4\)'), (lambda: L.LayerNorm((2, 3)), (3,), r'\(…, 2, 3\)'),
    (lambda: L.GroupNorm(2, 4), (3,), r'\(N, 4, …\)'), (lambda: L.GroupNorm(2, 4), (1, 6, 2), r'\(N, 4, …\), got'),
    (lambda: partial(L.group_norm, num_groups=2), (1, 3, 2), 'divisible by 2'),
    (lambda: L.ConvTranspose2d(3, 2, 2), (1, 2, 4, 4), r'\(N, 3, H, W\)'), (lambda: L.ConvTranspose2d(3, 2, 2), (3, 4, 4), 'N, 3'),
    (lambda: L.ConvTranspose2d(3, 2, 2, padding=5), (1, 3, 4, 4), 'at least one pixel'),
    (lambda: L.AdaptiveAvgPool2d(2), (3, 4, 4), 'N, C, H, W'), (lambda: L.AdaptiveAvgPool2d(0), (1, 3, 4, 4), 'output_size'),
    (lambda: L.RNN(3, 2), (3, 2, 4), 'D = 3'), (lambda: L.GRU(3, 2), (0, 2, 3), 'no axis empty'), (lambda: L.LSTM(3, 2), (3,), 'LSTM: expected shape'),
    (lambda: L.Residual(Linear(3, 2)), (4, 3), 'shortcut=')])
def test_wrong_shapes(layer, shape, match):
    for x in (np.ones(shape, 'f4'), Tensor(np.ones(shape, 'f4'))):
        with pytest.raises(ValueError, match=match): layer()(x)

@pytest.mark.parametrize('make, match', [
    (lambda: L.GroupNorm(3, 4), '3 groups divide, got 4'), (lambda: L.BatchNorm1d(0), 'whole number'),
    (lambda: L.ConvTranspose2d(3, 4, 2, groups=2), '2 groups divide'), (lambda: L.Dropout(1.1), 'got 1.1'),
    (lambda: L.Embedding(3, 2, padding_idx=3), 'below 3, got 3'), (lambda: L.MultiheadAttention(5, 2), 'divide, got 5'),
    (lambda: L.RNN(3, 2, nonlinearity='gelu'), "got 'gelu'"), (lambda: L.RNN(3, 2, 1, True), 'got True'), (lambda: L.GRU(3, 2, 2, dropout=-.1), 'got -0.1'),
    (lambda: L.MultiheadAttention(4, 2, 0., True, False, True), 'add_zero_attn'), (lambda: L.MultiheadAttention(4, 2, 7.), 'got 7.0'),
    (lambda: L.MultiheadAttention(4, 2, kdim=0), 'kdim'), (lambda: L.LSTM(3, -1), 'whole number'),
    (lambda: L.GELU('fast')(1.), "got 'fast'"), (lambda: L.LSTM(3, 2)(np.ones((2, 1, 3), 'f4'), [np.ones((1, 1, 2))]), '2 first state'),
    (lambda: L.GRU(3, 2)(np.ones((2, 1, 3), 'f4'), np.ones((2, 1, 2))), r'shape \(1, 1, 2\), got')])
def test_wrong_arguments(make, match):
    with pytest.raises(ValueError, match=match): make()

def test_dropout():
    x = tensor(50, 40, dtype=np.float32)
    for p in (0., 0.3, 1.):
        out = L.dropout(x, p, rng=0)
        assert out.dtype == np.float32 and abs((out.data == 0).mean() - p) < 0.03
        kept = out.data != 0
        assert np.allclose(out.data[kept] * (1 - p), x.data[kept], rtol=1e-6)
    a, b = L.Dropout(0.5, rng=5), L.Dropout(0.5, rng=5)
    assert np.array_equal(a(x).data, b(x).data) and not np.array_equal(a(x).data, a(x).data)
    nn.manual_seed(3); one = L.Dropout(0.5)(x).data
    nn.manual_seed(3); assert np.array_equal(one, L.Dropout(0.5)(x).data)
    assert a.eval()(x) is x
    bl.check_grads(lambda x: L.dropout(x, 0.4, rng=1), tensor(3, 4), order=2)

@pytest.mark.parametrize('shape', [(), (5,), (2, 3), (0,)])
def test_embedding_shapes_and_gradient(shape):
    table, index = L.Embedding(6, 4, padding_idx=2, rng=0, **F8), np.random.default_rng(0).integers(1, 4, shape)
    for i in (index, Tensor(index)):
        out = table(i)
        assert out.shape == (*shape, 4) and np.array_equal(out.data, table.weight.data[index])
    g = np.random.default_rng(1).normal(size=out.shape)
    out.backward(g)
    want = np.zeros((6, 4))
    np.add.at(want, index, g)
    want[2] = 0
    assert np.allclose(table.weight.grad.data, want)

def test_embedding_second_order():
    index = np.array([[1, 1], [0, 2]])
    bl.check_grads(lambda w, x: L.embedding(index, w * w) * x, tensor(3, 2), tensor(2, 2, 2), order=2)

@pytest.mark.parametrize('index, error', [([6], IndexError), ([-1], IndexError), ([1.], TypeError), ([True], TypeError)])
def test_embedding_refuses(index, error):
    with pytest.raises(error, match='embedding: expected'): L.Embedding(6, 4)(np.array(index))

def test_recurrent_layers_take_a_state_and_go_on():
    "Two halves with the state handed on equal the whole"
    for kind in (L.RNN, L.GRU, L.LSTM):
        layer, x = kind(3, 4, num_layers=2, rng=0, **F8), tensor(6, 2, 3)
        whole, last = layer(x)
        front, state = layer(x[:4])
        back, end = layer(x[4:], state)
        assert np.allclose(whole.data, np.concatenate([front.data, back.data]))
        for a, b in zip(last if kind is L.LSTM else [last], end if kind is L.LSTM else [end]): assert np.allclose(a.data, b.data)
        assert np.allclose(layer(x[:, 0])[0].data, whole.data[:, 0])

def test_the_second_direction_reads_from_the_end():
    for kind in (L.RNN, L.GRU, L.LSTM):
        both, back, x = kind(3, 4, bidirectional=True, rng=0, **F8), kind(3, 4, **F8), tensor(5, 2, 3)
        back.load_state_dict({n: p.data for n, p in zip(back.state_dict(), [*both.parameters()][4:])})
        assert [n for n, _ in both.named_parameters()][4:] == [n + '_reverse' for n in back.state_dict()]
        assert np.allclose(both(x)[0].data[..., 4:], back(x[::-1])[0].data[::-1])

def test_recurrent_dropout_and_seeds():
    layer, x = L.LSTM(3, 4, 2, dropout=0.5, rng=1), np.ones((3, 2, 3), 'f4')
    twin = L.LSTM(3, 4, 2, dropout=0.5, rng=1)
    assert np.array_equal(layer(x)[0].data, twin(x)[0].data)
    assert not np.array_equal(layer(x)[0].data, layer(x)[0].data)
    assert np.array_equal(layer.eval()(x)[0].data, layer(x)[0].data)

def test_two_backward_walks_through_a_recurrence():
    layer, x = L.GRU(3, 2, rng=0, **F8), tensor(4, 1, 3)
    out = layer(x)[0]
    out.sum().backward(retain_graph=True)
    one = x.grad.data.copy()
    x.grad = None
    (out * 2).sum().backward()
    assert np.allclose(x.grad.data, 2 * one)

# attention

def test_attention_by_loops():
    mha, x, y = L.MultiheadAttention(4, 2, batch_first=True, rng=0, **F8), tensor(2, 3, 4), tensor(2, 5, 4, seed=1)
    mha.in_proj_bias.data = np.random.default_rng(2).normal(size=12)
    W, b = mha.in_proj_weight.data, mha.in_proj_bias.data
    out, shares = mha(x, y, y, average_attn_weights=False)
    for n in range(2):
        rows = []
        for h in range(2):
            q, k, v = (a @ W[i:i+2].T + b[i:i+2] for a, i in [(x.data[n], 2*h), (y.data[n], 4 + 2*h), (y.data[n], 8 + 2*h)])
            e = np.exp(q @ k.T / np.sqrt(2))
            e /= e.sum(1, keepdims=True)
            assert np.allclose(shares.data[n, h], e)
            rows.append(e @ v)
        assert np.allclose(out.data[n], np.hstack(rows) @ mha.out_proj.weight.data.T + mha.out_proj.bias.data)

def test_attention_masks_hide():
    mha, x = L.MultiheadAttention(4, 2, batch_first=True, rng=0, **F8), tensor(2, 3, 4)
    pad = np.array([[False, False, True], [False, True, True]])
    for mask in (pad, np.where(pad, -np.inf, 0)):
        out, shares = mha(x, x, x, mask)
        assert np.allclose(shares.data.sum(-1), 1) and (shares.data[0, :, 2] == 0).all() and (shares.data[1, :, 1:] == 0).all()
    changed = Tensor(x.data.copy())
    changed.data[1, 1:] = 9.
    assert np.allclose(mha(x, changed, changed, pad)[0].data, mha(x, x, x, pad)[0].data)
    causal = np.triu(np.ones((3, 3), bool), 1)
    a, b = mha(x, x, x, attn_mask=causal)[0], mha(x, x, x, is_causal=True, need_weights=False)
    assert b[1] is None and np.allclose(a.data, b[0].data)

def test_a_place_that_may_look_nowhere():
    x = tensor(1, 3, 4)
    mha = L.MultiheadAttention(4, 2, batch_first=True, rng=0, **F8)
    with np.errstate(all='raise'):
        out, shares = mha(x, x, x, np.ones((1, 3), bool))
        out.sum().backward()
    assert (shares.data == 0).all() and np.isfinite(x.grad.data).all()

def test_attention_derivatives_with_masks():
    mha = L.MultiheadAttention(4, 2, rng=0, **F8)
    mask = np.triu(np.ones((3, 3), bool), 1)
    f, args = parameters_as_arguments(mha, tensor(3, 1, 4))
    bl.check_grads(lambda x: mha(x, x, x, attn_mask=mask)[0], tensor(3, 1, 4), order=2)
    bl.check_grads(lambda q, k, v: mha(q, k, v)[0], *(tensor(3, 1, 4, seed=i) for i in range(3)))
    bias = tensor(3, 3)
    bl.check_grads(lambda b: mha(args[0], args[0], args[0], attn_mask=b)[0], bias)

@pytest.mark.parametrize('make', [lambda: L.Embedding(3, 2, None, 1.), lambda: L.LSTM(3, 2, 1, True, False, 0., False, 2),
                                  lambda: L.RNN(3, 2, mode='x'), lambda: L.ConvTranspose2d(3, 2, 2, 1, 0, 0, 1, True, 1, 'reflect')])
def test_arguments_that_only_pytorch_has_are_refused(make):
    with pytest.raises(TypeError): make()

def test_attention_with_keys_and_values_of_other_sizes():
    mha, q, k, v = L.MultiheadAttention(4, 2, kdim=3, vdim=5, rng=0, **F8), tensor(3, 2, 4), tensor(6, 2, 3), tensor(6, 2, 5)
    f, args = parameters_as_arguments(mha, q)
    assert [n for n, _ in mha.named_parameters()][:3] == ['q_proj_weight', 'k_proj_weight', 'v_proj_weight'] and mha.in_proj_weight is None
    bl.check_grads(lambda q, k, v: mha(q, k, v)[0], q, k, v)
    for wrong in [(q, q, v), (q, k, k), (q, k[:4], v), (q, k[:, :1], v[:, :1])]:
        with pytest.raises(ValueError, match='4, 3, 5 numbers on the last'): mha(*wrong)

def test_attention_is_causal_beside_a_mask():
    mha, x = L.MultiheadAttention(4, 2, batch_first=True, rng=0, **F8), tensor(2, 3, 4)
    mask = np.zeros((3, 3), bool)
    mask[2, 0] = True
    shares = mha(x, x, x, attn_mask=mask, is_causal=True)[1].data
    assert (shares[:, mask | np.triu(np.ones((3, 3), bool), 1)] == 0).all() and np.allclose(shares.sum(-1), 1)

@pytest.mark.parametrize('call, error, match', [
    (lambda m, x: m(x, x, x, np.ones((3, 2), bool)), ValueError, 'mask of shape'),
    (lambda m, x: m(x, x, x, np.ones((1, 3), int)), TypeError, 'booleans or floats'),
    (lambda m, x: m(x[..., :3], x, x), ValueError, '4 numbers on the last'), (lambda m, x: m(x[0], x, x), ValueError, '3 axes')])
def test_attention_refuses(call, error, match):
    with pytest.raises(error, match=match): call(L.MultiheadAttention(4, 2), tensor(3, 1, 4))

# holding, looking, freezing

def test_module_list():
    parts = L.ModuleList([Linear(2, 2), ReLU()])
    parts.append(Linear(2, 3)).extend([ReLU()])
    assert [n for n, _ in parts.named_parameters()] == ['0.weight', '0.bias', '2.weight', '2.bias']
    assert len(parts) == 4 and [*parts][1] is parts[1] and parts[-1] is parts[3] and len(parts[1:3]) == 2
    new = parts[0] = Linear(2, 2)
    assert parts[0] is new
    with pytest.raises(NotImplementedError): parts(1)
    for wrong in (np.tanh, None):
        with pytest.raises(TypeError, match='expected a module'): parts.append(wrong)
    with pytest.raises(IndexError): parts[4]

@pytest.mark.parametrize('name', ['forward', 'train', 'a.b', '', 3])
def test_module_dict_names(name):
    with pytest.raises(ValueError, match='ModuleDict'): L.ModuleDict()[name] = ReLU()

def test_module_dict():
    d = L.ModuleDict({'a': ReLU()})
    d.update([('b', Linear(2, 2))])
    assert [*d] == ['a', 'b'] == d.keys() and 'a' in d and 'c' not in d and len(d.values()) == 2
    with pytest.raises(KeyError): d['c']
    with pytest.raises(TypeError): d['c'] = 5
    del d['a']
    assert [*d.state_dict()] == ['b.weight', 'b.bias']

def test_summary_leaves_the_model_as_it_was():
    net = Sequential(Conv2d(1, 2, 3), L.BatchNorm2d(2), L.Dropout(0.5), L.AdaptiveAvgPool2d(1), nn.Flatten(), Linear(2, 3))
    net[2].eval()
    state = net.state_dict()
    for given in ((5, 1, 6, 6), np.ones((5, 1, 6, 6), 'f4'), [Tensor(np.ones((5, 1, 6, 6), 'f4'))]):
        table = bl.summary(net, given) if hasattr(bl, 'summary') else L.summary(net, given)
        assert [shape for _, shape, _ in table.rows] == [(5, 3), (5, 2, 4, 4), (5, 2, 4, 4), (5, 2, 4, 4), (5, 2, 1, 1), (5, 2), (5, 3)]
        assert table.total == L.count_parameters(net) == 20 + 4 + 9
    assert [m.training for m in net.modules()] == [True, True, True, False, True, True, True]
    assert all(np.array_equal(a, b) for a, b in zip(state.values(), net.state_dict().values()))
    assert all(not m._hooks for m in net.modules())
    with pytest.raises(ValueError): L.summary(net, (5, 9, 6, 6))
    assert all(not m._hooks for m in net.modules()) and net.training and not net[2].training

def test_summary_of_several_results_and_shared_layers():
    lstm = L.LSTM(3, 4)
    assert L.summary(lstm, (5, 2, 3)).rows[0][1] == ((5, 2, 4), ((1, 2, 4), (1, 2, 4)))
    layer = Linear(2, 2)
    assert L.summary(Sequential(layer, layer), (1, 2)).total == 6

def test_freeze():
    net = Sequential(Linear(2, 2, rng=0), Linear(2, 2, rng=0))
    net(np.ones((1, 2), 'f4')).sum().backward()
    assert L.freeze(net, '0.*') == ['0.weight', '0.bias'] and net[0].weight.grad is None
    net.zero_grad()
    net(np.ones((1, 2), 'f4')).sum().backward()
    assert net[0].weight.grad is None and net[1].weight.grad is not None
    assert L.count_parameters(net, True) == 6 and len(L.unfreeze(net)) == 4
    with pytest.raises(ValueError, match="got '2.*'"): L.freeze(net, '0.*', '2.*')
    assert L.count_parameters(net, True) == 12

# initialisers

FILLERS = {'uniform_': {}, 'normal_': {}, 'xavier_uniform_': {}, 'xavier_normal_': {}, 'kaiming_uniform_': {},
           'kaiming_normal_': {}, 'orthogonal_': {}}

@pytest.mark.parametrize('name', FILLERS)
def test_initialisers_are_in_place_deterministic_and_keep_the_type(name):
    f, t = getattr(init, name), nn.Parameter(np.zeros((6, 4, 2), 'f4'))
    held = t.data
    assert f(t, rng=3) is t and t.data is held and t.dtype == np.float32 and t.requires_grad and t.is_leaf
    again = f(Tensor(np.zeros((6, 4, 2), 'f4')), rng=3)
    assert np.array_equal(t.data, again.data) and not np.array_equal(t.data, f(again, rng=4).data)
    nn.manual_seed(0); a = f(t).data.copy()
    nn.manual_seed(0); assert np.array_equal(a, f(t).data)
    with pytest.raises(TypeError, match='a tensor to fill'): f(np.zeros((3, 3)))

@pytest.mark.parametrize('name, how, spread', [
    ('xavier_uniform_', dict(gain=2.), 2 * (2 / (200*4 + 300*4))**.5), ('xavier_normal_', {}, (2 / (200*4 + 300*4))**.5),
    ('kaiming_uniform_', dict(a=0.5), (2 / 1.25 / 1200)**.5), ('kaiming_normal_', dict(mode='fan_out', nonlinearity='tanh'), 5 / 3 / 800**.5),
    ('uniform_', dict(a=-2, b=1), 3 / 12**.5), ('normal_', dict(mean=1., std=3.), 3)])
def test_spreads(name, how, spread):
    t = getattr(init, name)(Tensor(np.zeros((200, 300, 2, 2))), rng=0, **how).data
    assert np.isclose(t.std(), spread, rtol=0.01)
    if 'uniform' in name: assert np.isclose(np.ptp(t), spread * 12**.5, rtol=0.001)

def test_orthogonal_matrices_have_no_preferred_signs():
    corners = [init.orthogonal_(Tensor(np.zeros((3, 3))), rng=k).data.diagonal() for k in range(30)]
    assert (np.min(corners, 0) < 0).all() and (np.max(corners, 0) > 0).all()

def test_filling_is_noticed_by_an_old_graph():
    w = nn.Parameter(np.ones((2, 2)))
    out = (w * w).sum()
    init.zeros_(w)
    with pytest.raises(RuntimeError, match='changed in place'): out.backward()

@pytest.mark.parametrize('shape', [(5, 5), (3, 8), (8, 3), (4, 2, 3, 3)])
def test_orthogonal(shape):
    a = init.orthogonal_(Tensor(np.zeros(shape)), 1.5, rng=0).data.reshape(shape[0], -1)
    small = a @ a.T if a.shape[0] <= a.shape[1] else a.T @ a
    assert np.allclose(small, 2.25 * np.eye(len(small)))

@pytest.mark.parametrize('name', ['xavier_uniform_', 'kaiming_normal_', 'orthogonal_'])
def test_biases_have_no_fans(name):
    with pytest.raises(ValueError, match=r'got \(3,\)'): getattr(init, name)(Tensor(np.zeros(3)))

# ---- arguments that are not there -----------------------------------------------------------------

ALL = {cls.__name__: cls for module in (nn, conv, L, residual, feed) for cls in vars(module).values()
       if isinstance(cls, type) and issubclass(cls, nn.Module) and cls is not nn.Module
       and not cls.__name__.startswith('_')}
NEEDED = {'Linear': (3, 2), 'Conv2d': (1, 1, 3), 'MaxPool2d': (2,), 'AvgPool2d': (2,), 'MLP': (3, 2),
          'Embedding': (3, 2), 'MultiheadAttention': (4, 2), 'ConvTranspose2d': (1, 1, 3),
          'AdaptiveAvgPool2d': (1,), 'LayerNorm': (3,), 'GroupNorm': (1, 3), 'BatchNorm': (3,),
          'BatchNorm1d': (3,), 'BatchNorm2d': (3,), 'Recurrent': (3, 2), 'LSTM': (3, 2),
          'GRU': (3, 2), 'RNN': (3, 2)}

@pytest.mark.parametrize('name', sorted(ALL.keys() - {'Identity'}))
def test_every_layer_refuses_an_unknown_keyword_and_says_which_it_knows(name):
    layer, args = ALL[name], NEEDED.get(name, ())
    layer(*args)
    with pytest.raises(TypeError, match=f'{name}.*') as caught: layer(*args, devise='cpu')
    known = [p.name for p in inspect.signature(layer).parameters.values()
             if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if '__init__' not in vars(layer) and not known: return    # Python's "Tanh() takes no arguments"
    assert "got devise='cpu'" in str(caught.value)
    assert (', '.join(known) or 'none') in str(caught.value)

def test_identity_takes_anything_as_in_pytorch(): assert L.Identity(54, unused=0.1)(3) == 3

def test_there_are_many_layers(): assert len(ALL) > 35

@pytest.mark.parametrize('layer', [ReLU, L.LeakyReLU, L.ELU, L.SiLU, L.Dropout])
def test_in_place_is_accepted_as_false_and_refused_as_true(layer):
    x = np.array([-1., 2.])
    np.testing.assert_array_equal(np.asarray(layer(inplace=False).eval()(x)),
                                  np.asarray(layer().eval()(x)))
    with pytest.raises(ValueError, match=rf'{layer.__name__}: .*write {layer.__name__}\(\)'):
        layer(inplace=True)
    assert 'inplace' not in repr(layer(inplace=False))

def test_classes_of_users():
    class Own(nn.Module):
        def __init__(self, size=3): self.size = size
    class Deeper(Own):
        def __init__(self, width=2, **kwargs):
            super().__init__(**kwargs)
            self.width = width
    assert (Own(size=4).size, Deeper(size=5).size) == (4, 5)
    with pytest.raises(TypeError, match='Deeper: expected only keywords among size, got sise=5'):
        Deeper(sise=5)
    again = copy.deepcopy(Deeper(width=7))
    assert again.width == 7 and inspect.signature(Own).parameters.keys() == {'size'}
