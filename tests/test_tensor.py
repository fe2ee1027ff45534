"The tensor: conventions, seam, NumPy's protocols, changes in place, memory, order"
import copy
import gc
import pickle
import sys
import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

import backprop_lit as bl
from backprop_lit import ops
from backprop_lit.backprop import check_grads, flow
from backprop_lit.graph import Node
from backprop_lit.order import toposort
from backprop_lit.tensor import Tensor, unbroadcast

def leaf(*values, **k): return Tensor(np.array(values, float), requires_grad=True, **k)

# ---- the seam
@given(hnp.mutually_broadcastable_shapes(num_shapes=1, base_shape=(2, 3, 4), max_dims=4))
def test_unbroadcast_is_the_transpose_of_broadcasting(shapes):
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=shapes.input_shapes[0]), rng.normal(size=shapes.result_shape)
    back = unbroadcast(g, x.shape)
    assert back.shape == x.shape
    assert np.isclose(np.sum(g * np.broadcast_to(x, g.shape)), np.sum(back * x))

def test_unbroadcast_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r'expected a gradient of shape \(3,\)'): unbroadcast(np.ones(4), (3,))

def test_gradients_have_the_precision_of_their_tensor():
    x = Tensor(np.ones(3, 'f4'), requires_grad=True)
    (x * np.ones(3)).sum().backward()                       # float64 comes in
    assert x.grad.dtype == np.float32

@pytest.mark.parametrize('f', [lambda x: x * 2, lambda x: 2.5 * x, lambda x: x ** 2, lambda x: 2 ** x, lambda x: 1 / x,
    np.exp, ops.sigmoid, ops.relu, np.mean, np.max, lambda x: x[1:], lambda x: x @ x.T, lambda x: np.where(x > 0, x, 0.0)])
def test_float32_stays(f):
    x = Tensor(np.full((2, 2), 1.5, 'f4'), requires_grad=True)
    y = f(x)
    assert y.dtype == np.float32
    for node, g in flow(y.sum(), np.ones((), 'f4')): assert g.dtype == np.float32, node

# ---- conventions
def test_accumulates_and_clears():
    x = leaf(1.0, 2.0)
    (x * x).sum().backward(); (x * x).sum().backward()
    assert x.grad.tolist() == [4.0, 8.0]
    x.grad = None
    (x * x).sum().backward()
    assert x.grad.tolist() == [2.0, 4.0]

def test_only_leaves_keep_gradients_unless_asked():
    x = leaf(1.0)
    y, z = x * 2, x * 3
    z.retain_grad()
    (y * z).backward(np.ones(1))
    assert y.grad is None and z.grad.tolist() == [2.0] and x.grad.tolist() == [12.0]

def test_retain_graph():
    x = leaf(3.0)
    y = (x * x).sum()
    y.backward(retain_graph=True); y.backward()
    assert x.grad.tolist() == [12.0]
    with pytest.raises(RuntimeError, match='retain_graph=True'): y.backward()

def test_part_of_a_freed_graph():
    x = leaf(3.0)
    h = x * x
    (h * 2).sum().backward()
    with pytest.raises(RuntimeError, match='freed'): (h * 3).sum().backward()

def test_hooks():
    x, seen = leaf(1.0, 2.0), []
    y = x * 2
    y.register_hook(lambda g: seen.append(g.tolist()))
    double = y.register_hook(lambda g: g * 2)
    y.sum().backward(retain_graph=True)
    assert seen == [[1.0, 1.0]] and x.grad.tolist() == [4.0, 4.0]
    y.remove_hook(double)
    x.grad = None
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]

def test_create_graph():
    x = leaf(2.0)
    (x ** 3).sum().backward(create_graph=True)
    first = x.grad
    x.grad = None
    first.sum().backward()
    assert first.tolist() == [12.0] and x.grad.tolist() == [12.0]

@pytest.mark.parametrize('call, error, message', [
    (lambda: leaf(1, 2) + leaf(1, 2, 3), ValueError, 'broadcast'),
    (lambda: (leaf(1, 2) * 2).backward(), RuntimeError, r'single number.*gradient='),
    (lambda: Tensor([1, 2], requires_grad=True), TypeError, 'got int64'),
    (lambda: Tensor([True], requires_grad=True), TypeError, 'got bool'),
    (lambda: Tensor(1.0).backward(), RuntimeError, 'requires_grad=True'),
    (lambda: (leaf(1, 2) * 2).backward(np.ones(3)), ValueError, r'expected shape \(2,\), got \(3,\)'),
    (lambda: Tensor([[1], [1, 2]]), TypeError, 'unequal'), (lambda: Tensor('abc'), TypeError, 'real numbers'),
    (lambda: Tensor(1j), TypeError, 'complex'), (lambda: Tensor(None), TypeError, 'real numbers'),
    (lambda: np.asarray(leaf(1)), RuntimeError, 'detach'), (lambda: leaf(1).numpy(), RuntimeError, 'detach'),
    (lambda: bool(leaf(1, 2)), RuntimeError, 'single number'), (lambda: leaf(1, 2).item(), ValueError, 'single'),
    (lambda: len(Tensor(1.0)), TypeError, 'axis'), (lambda: setattr(leaf(1), 'grad', np.ones(2)), ValueError, 'expected shape'),
    (lambda: setattr(leaf(1) * 2, 'requires_grad', False), RuntimeError, 'detach'),
    (lambda: setattr(leaf(1), 'data', np.array([1])), TypeError, 'int64'),
    (lambda: copy.deepcopy(leaf(1) * 2), RuntimeError, 'detach'), (lambda: leaf(1, 2)[7], IndexError, 'out of bounds'),
    (lambda: leaf(1, 2).reshape(3), ValueError, 'reshape'), (lambda: np.exp(leaf(1), out=np.ones(1)), TypeError, 'out='),
    (lambda: np.exp(leaf(1), where=[True]), TypeError, 'where='), (lambda: np.add.at(leaf(1), 0, 1), TypeError, 'add.at'),
    (lambda: np.fft.fft(leaf(1)), TypeError, 'fft'), (lambda: bl.add(leaf(1), y=leaf(2)), TypeError, 'position')])
def test_bad_input_says_what_to_do(call, error, message):
    with pytest.raises(error, match=message): call()

def test_ndarray_meets_tensor():
    x, a = leaf(1.0, 2.0), np.array([3.0, 4.0])
    for got, want in [(a + x, [4, 6]), (a - x, [2, 2]), (a * x, [3, 8]), (a / x, [3, 2]), (a ** x, [3, 16]),
                      (np.float64(2) * x, [2, 4]), (a @ x, 11), (a > x, [True, True])]:
        assert isinstance(got, Tensor) and got.tolist() == want
    with pytest.raises(TypeError, match=r'y = y \+ x'): a += x

def test_other_operators():
    x = leaf(5.5, -2.0)
    assert (x % 2).tolist() == [1.5, 0.0] and (7 // x).tolist() == [1.0, -4.0] and (+x).tolist() == [5.5, -2.0]
    assert ((x > 0) & (x < 9)).tolist() == [True, False] and (~(x > 0)).tolist() == [False, True]
    assert round(x).tolist() == [6.0, -2.0] and [v.tolist() for v in divmod(x, 2)] == [[2.0, -1.0], [1.5, 0.0]]
    (x % 2).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]
    assert np.add.accumulate(x).tolist() == [5.5, 3.5] and np.multiply.reduce(x).item() == -11.0

def test_complex_numbers_are_refused():
    x = leaf(1.0, 2.0)
    with pytest.raises(TypeError, match='omplex'): (x * 1j).sum().backward()

def test_python_manners():
    x = leaf(1.0, 2.0)
    assert [float(v) for v in x] == [1.0, 2.0] and len(x) == 2 and 2.0 in x and 3.0 not in x
    assert f'{x.sum():.1f}' == '3.0' and int(x[0]) == 1 and [10, 20][Tensor(1)] == 20
    assert {x: 'a'}[x] == 'a' and repr(x) == 'Tensor([1., 2.], requires_grad=True)'
    assert repr(x * 2) == 'Tensor([2., 4.], op=mul)' and repr(Tensor(np.ones(1, 'f4'))) == 'Tensor([1.], dtype=float32)'
    again = pickle.loads(pickle.dumps(leaf(1.0, name='w')))
    assert again.requires_grad and again.name == 'w' and again.tolist() == [1.0]
    assert copy.deepcopy(x) is not x and not np.shares_memory(copy.deepcopy(x).data, x.data)

# ---- aliasing
def test_no_gradient_shares_memory():
    a, b, seed = leaf(1.0, 2.0), leaf(3.0, 4.0), np.ones(2)
    for f in (lambda: a + b, lambda: a.reshape(2), lambda: a.T + b, lambda: a[:] + b[:], lambda: a.clone() - b):
        a.grad = b.grad = None
        f().backward(seed)
        arrays = [seed, a.data, b.data] + [t.grad.data for t in (a, b) if t.grad is not None]
        for i, p in enumerate(arrays):
            assert not any(np.shares_memory(p, q) for q in arrays[:i])
    a.grad = None
    a.backward(seed)
    assert not np.shares_memory(a.grad.data, seed)

# ---- in place
def test_in_place_is_differentiable():
    def f(x, v):
        y = x * 2
        z = y * v
        y[1:] = v[:-1] * x[0]
        y[np.array([0, 0])] = v[:2]              # written twice: the last one stays
        y -= x / v
        y **= 2
        w = Tensor(np.zeros(3))
        w[::2] = y[::2]
        return (w * y + z).sum()
    x, v = leaf(0.5, 1.5, -0.7), leaf(1.2, -0.4, 0.9)
    assert check_grads(f, x, v) < 1e-7 and check_grads(f, x, v, order=2) < 1e-6

def test_in_place_keeps_identity_and_memory():
    x = leaf(1.0, 2.0)
    y = x * 1
    address, memory = id(y), y.data
    y += 1
    assert id(y) == address and y.data is memory and y.op.name == 'became'

def test_in_place_guards():
    x = leaf(1.0, 2.0, name='x')
    with pytest.raises(RuntimeError, match='leaf'): x += 1
    with pytest.raises(RuntimeError, match='view'): (x * 1)[:1].add_(1)
    loss = (x * x).sum()
    with bl.no_grad(): x += 1
    with pytest.raises(RuntimeError, match=rf"'x'.*{__file__}:\d+, after mul"): loss.backward()
    loss = (x * x).sum()
    x.data = np.ones(2)
    with pytest.raises(RuntimeError, match='changed in place'): loss.backward()
    loss = (x + x).sum()
    with bl.no_grad(): x.zero_()
    loss.backward()
    assert x.grad.tolist() == [2.0, 2.0]

def test_constant_changed_after_it_was_saved():
    w, x = leaf(1.0), Tensor([2.0])
    loss = (w * x).sum()
    x += 1
    with pytest.raises(RuntimeError, match='changed in place'): loss.backward()

def test_in_place_refuses_other_types_and_shapes():
    with pytest.raises(TypeError): Tensor([1, 2]).__iadd__(0.5)
    with pytest.raises(ValueError): Tensor([1.0]).__iadd__(np.ones((2, 1)))

# ---- depth, width, memory
def test_deep_and_wide():
    x = leaf(1.0)
    y = x
    for _ in range(100_000): y = y + 1.0
    y.backward(np.ones(1))
    assert x.grad.tolist() == [1.0]
    x.grad = None
    ops.concatenate([x] * 1_000).sum().backward()
    assert x.grad.tolist() == [1_000.0]
    x.grad, y = None, x * 0
    for _ in range(100_000): y = y + x
    y.backward(np.ones(1))
    assert x.grad.tolist() == [100_000.0]
    assert sys.getrecursionlimit() <= 3000

def test_a_node_is_small():
    x = Tensor(np.ones(1, 'f4'), requires_grad=True)
    tracemalloc.start()
    y = x
    for _ in range(20_000): y = y + 1.0
    size = tracemalloc.get_traced_memory()[0] / 20_000
    tracemalloc.stop()
    assert size <= 400

def test_memory_goes_without_the_collector():
    gc.collect()
    gc.disable()
    try:
        x = Tensor(np.ones(1000), requires_grad=True)
        y = (x * x).sum()
        watched = [weakref.ref(n) for n in toposort(y) if n is not x]
        y.backward()
        del y
        assert not any(w() for w in watched)
        y = (x * x).sum()
        watched = [weakref.ref(n) for n in toposort(y) if n is not x]
        del y
        assert not any(w() is not None for w in watched)
    finally: gc.enable()

def test_cycle_is_named():
    op = type('Op', (), dict(name='op', vjps=(lambda g, out, a: g,), needs=()))
    a = Node(1.0, name='a')
    b = Node(1.0, op, (a,), name='b')
    a.parents = (b,)
    with pytest.raises(ValueError, match="'a'.*'b'|'b'.*'a'"): toposort(b)

def test_public_names_are_found_lazily():
    assert bl.Tensor is Tensor and bl.exp is ops.exp
    assert 'cross_entropy' in dir(bl)
    with pytest.raises(AttributeError, match='nothing_of_the_kind'): bl.nothing_of_the_kind
