"""Chapters 90 to 92 beyond their rows in the table: einsum and moves on shapes that Hypothesis finds, the adjoint identity,
conventions at kinks, functions without a rule, errors, and that every NumPy function answered has a row."""
import inspect
import string
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import table_elementwise
import table_linalg
import table_shapes
from backprop_lit import elementwise, linalg, ops, shapes
from backprop_lit.backprop import check_grads
from backprop_lit.calculus import jvp, vjp
from backprop_lit.ops import NUMPY
from backprop_lit.tensor import Tensor
from table import samples

TABLES = table_elementwise, table_shapes, table_linalg
ROWS = [r for t in TABLES for r in t.ROWS]
relaxed = settings(deadline=None, max_examples=60)


def leaf(*shape, seed=0): return Tensor(np.random.default_rng(seed).normal(size=shape), requires_grad=True)


def slope(f, *args):
    "The gradients of f, with no warning on the way"
    xs = [Tensor(np.asarray(a, float), requires_grad=True) for a in args]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        f(*xs).sum().backward()
    found = [x.grad.tolist() for x in xs]
    return found[0] if len(found) == 1 else found


# --- at NumPy's door ---

OUTSIDE = { # answered with plain arrays, names and the like: no row
    np.allclose, np.array_equal, np.array_equiv, np.nonzero, np.flatnonzero, np.argwhere, np.result_type, np.can_cast,
    np.min_scalar_type, np.common_type, np.may_share_memory, np.shares_memory, np.array_repr, np.array_str, np.array2string,
    np.iscomplexobj, np.isrealobj, np.nanargmax, np.nanargmin, np.isneginf, np.isposinf, np.isreal, np.iscomplex, np.lexsort,
    np.linalg.matrix_rank, np.empty_like, np.einsum_path}
SPELLINGS = { # another name for what has a row
    np.around: (np.round, ()), np.amax: (np.max, ()), np.amin: (np.min, ()), np.linalg.outer: (np.outer, (3,)),
    np.linalg.tensordot: (np.tensordot, (3, 3)), np.linalg.matmul: (np.matmul, (3, 3)), np.linalg.vecdot: (np.vecdot, (3, 3)),
    np.linalg.cross: (np.cross, (3, 3)), np.linalg.matrix_transpose: (np.matrix_transpose, ()),
    np.fft.fftshift: (np.fft.fftshift, ()), np.fft.ifftshift: (np.fft.ifftshift, ()), np.nancumsum: (np.cumsum, ()), np.nancumprod: (np.cumprod, ()), np.astype: (np.ndarray.astype, ('f',)),
    np.linalg.diagonal: (lambda x: np.diagonal(x, 0, -2, -1), ()), np.linalg.trace: (lambda x: np.trace(x, 0, -2, -1), ())}


def test_every_numpy_function_that_is_answered_has_a_row(monkeypatch):
    met, earlier = set(), list(vars(ops).values())
    class Watching(dict):
        def __getitem__(self, key):
            met.add(key)
            return super().__getitem__(key)
    monkeypatch.setattr('backprop_lit.tensor.NUMPY', Watching(NUMPY))
    for row in ROWS:
        if row.numpy: row.ref(*[Tensor(a, requires_grad=True) for a in samples(row)])
    ours = {f for f in NUMPY if NUMPY[f] not in earlier and getattr(NUMPY[f], '__module__', '') != 'backprop_lit.ops'}
    assert not ours - met - OUTSIDE - SPELLINGS.keys() - elementwise.INSTEAD.keys()


@pytest.mark.parametrize('f', SPELLINGS, ids=lambda f: f.__name__)
def test_other_spellings(f):
    same, shape = SPELLINGS[f]
    x = leaf(2, 3, 3)
    args = [leaf(*shape, seed=1)] if shape and shape != ('f',) else ['float32'] if shape else []
    if f in (np.linalg.outer,): x = leaf(3)
    plain = [a.data if isinstance(a, Tensor) else a for a in args]
    out = f(x, *args)
    assert isinstance(out, Tensor) and out.requires_grad
    np.testing.assert_allclose(out.data, same(x.data, *plain), rtol=1e-14)
    if f is not np.astype: check_grads(lambda x, *a: f(x, *a), x, *args)


@pytest.mark.parametrize('f', elementwise.INSTEAD, ids=lambda f: f'{f.__module__}.{f.__name__}')
def test_functions_without_a_rule_say_what_to_use(f):
    needed = [p for p in inspect.signature(f).parameters.values() if p.default is p.empty and p.kind < p.VAR_POSITIONAL]
    args = [leaf(3)] * (len(needed) + ('savez' in f.__name__))
    with pytest.raises(TypeError, match=f'{f.__name__} has no rule for tensors. Use '): f(*args)


def test_answers_outside_the_graph():
    x = Tensor([1.0, np.nan, 0.0], requires_grad=True)
    assert np.array_equal(x, x, equal_nan=True) is True and not np.allclose(x, x)
    assert [a.tolist() for a in np.nonzero(x)] == [[0, 1]] and np.argwhere(x == 0).tolist() == [[2]]
    assert np.nanargmax(x) == 0 and np.result_type(x, np.float32) == float and np.iscomplexobj(x) is False
    assert np.einsum_path('ij,jk', leaf(2, 3), leaf(3, 2))[0] == ['einsum_path', (0, 1)]
    assert np.linalg.matrix_rank(leaf(3, 2)) == 2 and np.array_str(Tensor([1., 2.])) == '[1. 2.]'


def test_out_and_where_are_refused():
    x = leaf(3)
    for call in (lambda: np.sin(x, out=np.zeros(3)), lambda: np.sin(x, where=np.ones(3, bool)),
                 lambda: np.cumsum(x, out=np.zeros(3)), lambda: np.prod(x, where=np.ones(3, bool)),
                 lambda: np.sin(np.ones(3), out=Tensor(np.zeros(3)))):
        with pytest.raises(TypeError, match='expected no out= and no where='): call()


def test_these_modules_are_loaded_when_first_needed():
    code = """if True:
        import sys
        import numpy as np
        from backprop_lit.tensor import Tensor
        late = ['backprop_lit.' + n for n in ('elementwise', 'shapes', 'linalg')]
        assert not any(n in sys.modules for n in late)
        x = Tensor([[2.0, 1.0], [1.0, 3.0]], requires_grad=True)
        y = np.linalg.det(x) + np.sum(np.sin(x)) + x.cumsum(dim=0).norm()
        y.backward(create_graph=True)
        assert all(n in sys.modules for n in late) and x.grad.requires_grad"""
    subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize('call, function', [
    (lambda x: x.var(dim=1, correction=1), lambda x: np.var(x, 1, ddof=1)), (lambda x: x.prod(), np.prod),
    (lambda x: x.roll(1, axis=0), lambda x: np.roll(x, 1, 0)), (lambda x: x.diagonal(), np.diagonal),
    (lambda x: x.round(decimals=1), lambda x: np.round(x, 1)), (lambda x: x.inv(), np.linalg.inv),
    (lambda x: x.all(dim=0), lambda x: np.all(x, 0)), (lambda x: x.split(2)[1], lambda x: np.split(x, 2)[1]),
    (lambda x: np.multiply.reduce(x), lambda x: np.multiply.reduce(x)), (lambda x: np.full(2, 2.5) % x, lambda x: np.mod(2.5, x))])
def test_methods_and_operators(call, function):
    x = leaf(2, 2)
    np.testing.assert_allclose(call(x).data, function(x.data), rtol=1e-14)


# --- the adjoint identity ---

@pytest.mark.parametrize('row', [r for r in ROWS if r.grad], ids=lambda r: r.id)
def test_jvp_is_the_transpose_of_vjp(row):
    rng, raw = np.random.default_rng(5), samples(row)
    ways = tuple(rng.normal(size=a.shape) for a in raw)
    out, moved = jvp(row.f, tuple(map(Tensor, raw)), tuple(map(Tensor, ways)))
    g = rng.normal(size=np.shape(out))
    back = vjp(row.f, *map(Tensor, raw))[1](Tensor(g))
    back = back if isinstance(back, tuple) else (back,)
    left = np.sum(g * getattr(moved, 'data', moved))
    right = sum(np.sum(w * getattr(b, 'data', b)) for w, b in zip(ways, back))
    assert left == pytest.approx(right, rel=1e-8, abs=1e-9)


# --- einsum ---

@st.composite
def einsums(draw):
    "(subscripts, shapes): letters with sizes, repeated or not, an ellipsis or not, an explicit result or not"
    letters = draw(st.sampled_from(['abc', 'aBz', 'ji']))
    sizes = {c: draw(st.integers(0, 3)) for c in letters}
    dots = draw(hnp.array_shapes(min_dims=0, max_dims=2, max_side=2)) if draw(st.booleans()) else None
    terms, shapes = [], []
    for _ in range(draw(st.integers(1, 3))):
        term = ''.join(draw(st.lists(st.sampled_from(letters), max_size=3)))
        shape = tuple(sizes[c] for c in term)
        if dots is not None and draw(st.booleans()):
            here = dots[draw(st.integers(0, len(dots))):]
            at = draw(st.integers(0, len(term)))
            here = tuple(1 if draw(st.booleans()) else k for k in here)
            term, shape = term[:at] + '...' + term[at:], shape[:at] + here + shape[at:]
        terms.append(term), shapes.append(shape)
    text = ','.join(terms)
    if draw(st.booleans()):
        used = sorted({*text} - {*',.'})
        kept = draw(st.permutations(used))[:draw(st.integers(0, len(used)))]
        text += '->' + '...' * ('...' in text) + ''.join(kept)
    return text, shapes


@relaxed
@given(einsums(), st.sampled_from([False, True, 'optimal']))
def test_einsum_in_every_form(case, optimize):
    text, sizes = case
    xs = [leaf(*s, seed=k) for k, s in enumerate(sizes)]
    raw = [x.data for x in xs]
    expected = np.einsum(text, *raw)
    out = np.einsum(text, *xs, optimize=optimize)
    assert out.shape == expected.shape
    np.testing.assert_allclose(out.data, expected, rtol=1e-12, atol=1e-13)
    if out.size: check_grads(lambda *xs: linalg.einsum(text, *xs, optimize=optimize), *xs, order=2)
    if 'B' not in text and 'z' not in text and '.' not in text:      # the same with lists of axis numbers
        number = string.ascii_letters.index
        left, arrow, result = text.replace(' ', '').partition('->')
        lists = [part for x, t in zip(xs, left.split(',')) for part in (x, [number(c) for c in t])]
        if arrow: lists.append([number(c) for c in result])
        np.testing.assert_allclose(linalg.einsum(*lists).data, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize('text, sizes, words', [
    ('ij,jk', [(2, 3)], 'expected 2 operands'), ('ij', [(2,)], 'one letter for each axis'),
    ('i', [(2, 3)], 'one letter for each axis'), ('...i->i', [(2, 3)], 'an ellipsis in the result'),
    ('ij,jk', [(2, 3), (2, 3)], 'einsum: '), ('i->j', [(2,)], 'einsum: '), ('ii', [(2, 3)], 'einsum: expected one size for a repeated letter')])
def test_einsum_errors(text, sizes, words):
    with pytest.raises(ValueError, match=words): linalg.einsum(text, *[leaf(*s) for s in sizes])


# --- moves ---

ARRAYS = hnp.array_shapes(min_dims=1, max_dims=3, max_side=4)
@relaxed
@given(ARRAYS, st.data())
def test_moves_and_their_transposes(shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    n, k = shape[axis], data.draw(st.integers(-3, 3))
    places = data.draw(st.lists(st.integers(-n, n - 1), max_size=5))
    calls = [lambda np, x: np.roll(x, k, axis), lambda np, x: np.flip(x, axis), lambda np, x: np.repeat(x, abs(k), axis),
             lambda np, x: np.tile(x, (abs(k), 1)), lambda np, x: np.moveaxis(x, axis, 0), lambda np, x: np.diff(x, axis=axis),
             lambda np, x: np.cumsum(x, axis=axis), lambda np, x: np.pad(x, (abs(k), 1), 'wrap'), lambda np, x: np.tril(x, k),
             lambda np, x: np.take(x, places, axis), lambda np, x: np.sort(x, axis), lambda np, x: np.delete(x, places, axis),
             lambda np, x: np.pad(x, 2, 'symmetric'), lambda np, x: np.take_along_axis(x, np.argsort(x, axis)[..., ::-1], axis)]
    for call in calls:
        x = leaf(*shape)
        out, expected = call(np, x), call(np, x.data)
        np.testing.assert_allclose(out.data, expected, rtol=1e-14, atol=1e-15)
        if not out.size: continue
        g = np.random.default_rng(1).normal(size=out.shape)
        out.backward(g)
        assert np.vdot(g, expected) == pytest.approx(np.vdot(x.grad.data, x.data), rel=1e-10, abs=1e-12)


# --- conventions and hard places ---

def test_conventions_at_kinks():
    assert slope(lambda x: np.floor(x) + x, [0.5, 1.0]) == [1, 1]
    assert slope(lambda x: elementwise.round(x), 2.5) == slope(elementwise.trunc, 3.0) == 0
    assert slope(elementwise.hypot, 0.0, 0.0) == [0, 0] and slope(elementwise.std, [2.0, 2.0]) == [0, 0]
    assert slope(elementwise.fmax, [1.0, np.nan], [1.0, 2.0]) == [[0.5, 0], [0.5, 1]]
    assert slope(lambda x: linalg.norm(x, 3) + linalg.norm(x) + linalg.norm(x, 1) + linalg.norm(x, np.inf), [0.0]) == [0]
    assert slope(elementwise.expm1, -50.0) == np.exp(-50.0)
    assert slope(elementwise.sinc, 0.0) == 0 and slope(elementwise.copysign, 0.0, -1.0) == [0, 0]
    assert slope(lambda x: shapes.median(x), [3.0, 1.0, 2.0]) == [0, 0, 1]
    assert slope(elementwise.fmod, 0.9, 0.1)[1] == -8


@pytest.mark.parametrize('factors, slopes', [([2, 3, 4], [12, 8, 6]), ([2, 0, 4], [0, 8, 0]), ([0, 3, 0], [0, 0, 0]), ([5], [1])])
def test_products_with_zeros(factors, slopes):
    assert slope(elementwise.prod, factors) == slopes
    assert slope(lambda x: elementwise.cumprod(x)[-1], factors) == slopes
    for f in (elementwise.prod, elementwise.cumprod):
        check_grads(f, Tensor(np.array(factors, float), requires_grad=True), order=3)


def test_extremes_stay_finite():
    with np.errstate(all='raise', under='ignore'):
        for f, at in ((elementwise.arcsinh, 1e200), (elementwise.arccosh, 1e200), (elementwise.expm1, -800.),
                      (elementwise.log1p, 1e-300)):
            assert np.isfinite(slope(f, at))
        assert np.isfinite(slope(elementwise.arctan2, 1e200, 1e200)).all()
        assert slope(elementwise.logaddexp, 1e4, -1e4) == [1, 0]
        assert np.allclose(slope(elementwise.logaddexp2, 3.0, 3.0), 0.5)


def test_a_long_product_and_a_long_scan():
    x = Tensor(np.full(5000, 1.0001), requires_grad=True)
    (elementwise.prod(x) + elementwise.cumprod(x)[-1]).backward()
    np.testing.assert_allclose(x.grad.data, 2 * 1.0001**4999, rtol=1e-10)


def test_determinants():
    ones = Tensor(np.ones((2, 12, 12)), requires_grad=True)
    linalg.det(ones).sum().backward()
    np.testing.assert_allclose(ones.grad.data, 0, atol=1e-10)
    a = np.random.default_rng(0).normal(size=(12, 12))
    a[-1] = a[0]
    x = Tensor(a, requires_grad=True)
    linalg.det(x).backward()
    np.testing.assert_allclose(x.grad.data[5], 0, atol=1e-8 * np.abs(x.grad.data).max())   # two rows equal: only these count
    np.testing.assert_allclose(x.grad.data, linalg._minors(a), rtol=1e-8, atol=1e-8 * np.abs(x.grad.data).max())
    assert slope(linalg.det, np.zeros((2, 2))) == [[0, 0], [0, 0]] and slope(linalg.det, [[7.0]]) == [[1]]
    big = linalg.slogdet(Tensor(np.eye(2000) * 10, requires_grad=True))
    assert big.logabsdet.item() == pytest.approx(2000 * np.log(10)) and big.sign.item() == 1


def test_equal_eigenvalues_and_singular_values():
    two = np.diag([2.0, 2.0, 5.0])
    np.testing.assert_allclose(slope(lambda a: linalg.eigvalsh(a)**2, two), 2 * two)
    np.testing.assert_allclose(slope(lambda a: linalg.svdvals(a)**2, two), 2 * two)
    np.testing.assert_allclose(slope(lambda a: linalg.norm(a, 'nuc'), two), np.eye(3), atol=1e-15)
    assert np.isfinite(slope(lambda a: linalg.eigh(a)[1] * np.arange(3.), two)).all()
    assert np.isfinite(slope(lambda a: linalg.svd(a, full_matrices=False)[0], np.ones((3, 2)))).all()


def test_gradients_of_symmetric_functions_are_symmetric():
    a = np.cov(np.random.default_rng(0).normal(size=(4, 9)))
    for f in (linalg.cholesky, linalg.eigvalsh, lambda a: linalg.eigh(a)[1]**2, lambda a: linalg.cholesky(a, upper=True)):
        g = np.array(slope(f, a))
        np.testing.assert_allclose(g, g.T, rtol=1e-12)


def test_named_results():
    x = leaf(3, 3)
    assert np.linalg.svd(x)._fields == ('U', 'S', 'Vh') and np.linalg.qr(x)._fields == ('Q', 'R')
    assert np.linalg.eigh(x)._fields == ('eigenvalues', 'eigenvectors') and np.linalg.slogdet(x)._fields == ('sign', 'logabsdet')


# --- errors ---

X = leaf(2, 3)
@pytest.mark.parametrize('error, words, call', [
    (ValueError, r'sin: |hypot: expected shapes that broadcast.*\(2, 3\), shape \(4,\)', lambda: np.hypot(X, np.ones(4))),
    (ValueError, "ravel: expected order 'C' or 'F', got 'A'", lambda: np.ravel(X, 'A')),
    (TypeError, "pad: expected mode .* got 'mean'", lambda: np.pad(X, 1, mode='mean')),
    (TypeError, 'pad: .* reflect_type=.odd', lambda: np.pad(X, 1, mode='reflect', reflect_type='odd')),
    (TypeError, 'pad: expected numbers as constant_values', lambda: np.pad(X, 1, constant_values=X[0, 0])),
    (ValueError, 'split: expected a number of parts that divides 3, got 2', lambda: np.split(X, 2, axis=1)),
    (ValueError, 'array_split: expected at least 1 part, got 0', lambda: np.array_split(X, 0)),
    (ValueError, "meshgrid: expected indexing 'xy' or 'ij', got 'z'", lambda: np.meshgrid(X[0], indexing='z')),
    (TypeError, 'gradient: expected no step length, one, or 2', lambda: np.gradient(X, [1., 2., 3.], 1.)),
    (ValueError, "convolve: expected mode .* got 'most'", lambda: np.convolve(X[0], X[0], 'most')),
    (ValueError, r'convolve: expected two rows of numbers, got shapes \(2, 3\)', lambda: np.convolve(X, X[0])),
    (ValueError, 'choose: expected numbers from 0 to 0', lambda: np.choose([1], [X])),
    (IndexError, 'getitem: index 3 is out of bounds', lambda: np.take(X, 3, axis=1)),
    (ValueError, r'tensordot: expected axes of equal sizes, got \(3,\) in a and \(2,\) in b', lambda: np.tensordot(X, X, 1)),
    (ValueError, 'cross: expected vectors with 3 components, got 2 and 2', lambda: np.cross(X[:, :2], X[:, :2])),
    (np.linalg.LinAlgError, 'inv: Singular matrix', lambda: np.linalg.inv(Tensor(np.ones((2, 2))))),
    (np.linalg.LinAlgError, 'inv: .*square', lambda: np.linalg.inv(X)),
    (np.linalg.LinAlgError, 'cholesky: .*positive definite', lambda: np.linalg.cholesky(Tensor(-np.eye(2)))),
    (ValueError, r'svd: expected full_matrices=False for shape \(2, 3\)', lambda: np.linalg.svd(X)),
    (ValueError, r"qr: expected at least as many rows.*\(2, 3\), mode='reduced'", lambda: np.linalg.qr(X)),
    (ValueError, "norm: expected 1, 2, inf.* got ord=3", lambda: np.linalg.norm(X, 3)),
    (ValueError, "norm: expected a number for a vector, got ord='fro'", lambda: np.linalg.norm(X, 'fro', axis=1)),
    (ValueError, 'norm: expected one axis, or two', lambda: np.linalg.norm(leaf(2, 2, 2), 2)),
    (TypeError, 'expected axis or dim', lambda: elementwise.var(X, axis=0, dim=0)),
    (TypeError, 'dtype', lambda: np.cumsum(X, dtype=float))])
def test_errors(error, words, call):
    with pytest.raises(error, match=words): call()
