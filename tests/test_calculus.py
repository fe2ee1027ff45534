"Operators on functions: containers, nesting, adjoints, checkpoints"
import gc
import threading
import tracemalloc
import weakref
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from backprop_lit.calculus import (checkpoint, flatten, grad, hessian, hvp, jacobian, jvp,
                                   value_and_grad, vjp)
from backprop_lit.derivative import numerical_grad
from backprop_lit.ops import no_grad
from backprop_lit.tensor import Tensor

rng = np.random.default_rng(0)
Pair = namedtuple('Pair', 'left right')

trees = st.recursive(st.floats(-9, 9) | st.none(), lambda inner: st.lists(inner, max_size=3)
    | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    | st.builds(Pair, inner, inner), max_leaves=12)

@given(trees)
def test_flatten_and_back(tree):
    leaves, build = flatten(tree)
    assert build(leaves) == tree and type(build(leaves)) is type(tree)

def test_plain_in_plain_out():
    assert grad(lambda x: x ** 3)(2.0) == 12.0 and type(grad(lambda x: x ** 3)(2.0)) is float
    assert type(grad(lambda x: np.sum(x ** 3))(np.ones(2))) is np.ndarray
    assert type(grad(lambda x: np.sum(x ** 3))(Tensor([1.0]))) is Tensor

def test_where():
    def f(x): return np.sum(np.where(x > 0, x ** 2, np.exp(x)))
    x = np.array([-1.0, 2.0])
    assert np.allclose(grad(f)(x), [np.exp(-1.0), 4.0])

def test_dictionary_of_parameters():
    def f(p, x): return np.mean((np.tanh(x @ p['w1'] + p['b1']) @ p['w2']) ** 2)
    p = dict(w1=rng.normal(size=(3, 4)), b1=np.zeros(4), w2=rng.normal(size=4))
    x = rng.normal(size=(5, 3))
    got = grad(f)(p, x)
    for k in p: assert np.allclose(got[k], numerical_grad(lambda v: f({**p, k: v}, x), p[k]), atol=1e-7)

def test_mixed_nesting():
    assert grad(lambda x: x * grad(lambda y: x * y)(5.0))(3.0) == 6.0
    assert grad(lambda x: grad(lambda y: x * y * y)(x))(3.0) == 12.0
    inner = lambda x: jvp(lambda y: y ** 3 * x, (x,), (1.0,))[1]           # 3 x**3
    assert np.isclose(inner(2.0), 24.0) and np.isclose(grad(inner)(2.0), 36.0)

def test_value_and_argnums():
    value, (ga, gb) = value_and_grad(lambda a, b, c: a * b + c, argnums=(0, -2))(2.0, 3.0, 4.0)
    assert (value, ga, gb) == (10.0, 3.0, 2.0)

@settings(deadline=None, max_examples=25)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_adjoint(n, m, seed):
    rng = np.random.default_rng(seed)
    A, x, v, g = rng.normal(size=(m, n)), rng.normal(size=n), rng.normal(size=n), rng.normal(size=m)
    f = lambda x: np.tanh(A @ x) * np.sum(x)
    _, move = jvp(f, (x,), (v,))
    _, pull = vjp(f, x)
    assert np.isclose(g @ move, pull(g)[0] @ v)
    assert np.allclose(jacobian(f)(x) @ v, move)

def test_hessian_and_product():
    f = lambda x: np.sum(x ** 3) + x[0] * x[1]
    x, v = np.array([1.0, 2.0, 3.0]), np.array([1.0, -1.0, 0.5])
    H = np.diag(6 * x)
    H[0, 1] = H[1, 0] = 1.0
    assert np.allclose(hessian(f)(x), H) and np.allclose(hvp(f)(x, v), H @ v)

def test_independent_argument_gets_zeros():
    assert np.array_equal(grad(lambda a, b: np.sum(b))(np.ones(3), np.ones(2)), np.zeros(3))
    assert jvp(lambda x: Tensor([1.0, 2.0]), (1.0,), (1.0,))[1].tolist() == [0.0, 0.0]

def test_no_grad_outside_still_differentiates():
    with no_grad(): assert grad(lambda x: x ** 2)(3.0) == 6.0

def test_closure_over_parameters_keeps_a_graph():
    w = Tensor(2.0, requires_grad=True)
    slope = grad(lambda x: w * x ** 2)(3.0)
    assert isinstance(slope, Tensor)
    slope.backward()
    assert w.grad.item() == 6.0

@pytest.mark.parametrize('call, message', [
    (lambda: grad(lambda x: x)(np.ones(2)), 'single number'),
    (lambda: grad(lambda x: x)(1), 'floating'),
    (lambda: grad(lambda x: x, argnums=2)(1.0), 'argnums'),
    (lambda: vjp(lambda x: x, np.ones(2))[1](np.ones(3)), 'shapes'),
    (lambda: jvp(lambda x: x, (np.ones(2),), (np.ones(3),)), 'shapes')])
def test_errors(call, message):
    with pytest.raises((TypeError, ValueError), match=message): call()

def test_checkpoint_nested_and_second_order():
    w = Tensor(rng.normal(size=(3, 3)), requires_grad=True)
    f = lambda x: np.tanh(x @ w)
    def loss(x, wrap): return np.sum(wrap(lambda y: wrap(f, f(y)) * y, x) ** 2)
    x = rng.normal(size=3)
    plain, saving = lambda f, x: f(x), checkpoint
    assert np.allclose(grad(lambda x: loss(x, plain))(x).data, grad(lambda x: loss(x, saving))(x).data)
    curve = [grad(lambda x: np.sum(grad(lambda y: loss(y, wrap))(x) ** 2))(x) for wrap in (plain, saving)]
    assert np.allclose(curve[0].data, curve[1].data)

def test_checkpoint_forgets():
    seen = []
    def f(x):
        y = np.exp(x)
        seen.append(weakref.ref(y))
        return y * x
    gc.disable()
    try:
        out = checkpoint(f, Tensor([1.0], requires_grad=True))
        assert seen[0]() is None
    finally: gc.enable()
    out.backward()
    assert len(seen) == 2

def test_checkpoint_needs_no_more_memory():
    w = Tensor(rng.normal(size=(32, 32)) / 6, requires_grad=True)
    x = Tensor(rng.normal(size=(400, 32)), requires_grad=True)
    def layers(x):
        for _ in range(20): x = np.tanh(x @ w)
        return x
    def peak(f):
        tracemalloc.start()
        try:
            f(x).sum().backward()
            return tracemalloc.get_traced_memory()[1]
        finally: tracemalloc.stop()
    assert peak(lambda x: checkpoint(layers, x)) < 1.2 * peak(layers)

def test_threads():
    wrong = []
    def work(k):
        for _ in range(200):
            if grad(lambda x: x ** k)(2.0) != k * 2.0 ** (k - 1): wrong.append(k)
    threads = [threading.Thread(target=work, args=(k,)) for k in (2, 3)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert not wrong
