"""One table of operations. Every test of operations walks through it, so a new operation needs one row and no test.

A module of its own lists its operations in a file of its own: tests/table_NAME.py with MODULE, ROWS and NO_ROW as
here. `tables()` finds these files by themselves.
"""
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backprop_lit import ops


class Row(NamedTuple):
    op: str             # the exported name that this row covers
    f: Callable         # called with as many tensors as there are `args`
    ref: Callable       # the same in NumPy, on arrays
    args: tuple         # (maker, shape) for each tensor: maker(rng, shape) -> float64 array
    torch: str = None   # the same in PyTorch: an expression of x, y, z
    ties: tuple = ()    # arguments at kinks, where the gradient is a convention: only PyTorch judges
    grad: bool = True   # False: no gradient leads through it
    order: int = 2      # up to which order the derivatives are checked
    elementwise: bool = False  # do shapes broadcast?
    f32: bool = True    # float32 all the way?
    numpy: bool = True  # does `ref` work on tensors, by NumPy's protocols?
    note: str = ''      # tells rows of one operation apart

    @property
    def id(self): return f'{self.op}-{self.note}' if self.note else self.op


def normal(rng, shape): return rng.normal(size=shape)
def positive(rng, shape): return rng.uniform(0.5, 2, size=shape)
def nonzero(rng, shape): return rng.uniform(0.3, 2, size=shape) * rng.choice([-1, 1], size=shape)
def apart(rng, shape): # no two elements closer than 0.2, so that no maximum changes under a small step
    n = int(np.prod(shape))
    return (rng.permutation(n) * 0.5 + rng.uniform(0, 0.3, n)).reshape(shape) - n / 5
def low(rng, shape): return rng.uniform(-0.9, -0.6, size=shape)
def high(rng, shape): return rng.uniform(0.6, 0.9, size=shape)


def samples(row, seed=0, dtype=np.float64):
    "Fresh arrays for one call of the row's operation"
    rng = np.random.default_rng(seed)
    return [np.asarray(make(rng, shape)).astype(dtype) for make, shape in row.args]


def tables():
    "(module name, rows, names that need none) of this table and of its neighbours"
    here = Path(__file__).parent
    found = [__name__] + sorted(p.stem for p in here.glob('table_*.py'))
    modules = [importlib.import_module(n) for n in found]
    return [(m.MODULE, m.ROWS, m.NO_ROW) for m in modules]


def all_rows(): return [row for _, rows, _ in tables() for row in rows]


def curve(op, ref, torch, maker=normal, shape=(2, 3), **kwargs):
    return Row(op, getattr(ops, op), ref, ((maker, shape),), torch, elementwise=True, **kwargs)

def binary(op, ref, torch, *makers, **kwargs):
    args = tuple((m, (2, 3)) for m in makers or (normal, normal))
    return Row(op, getattr(ops, op), ref, args, torch, elementwise=True, **kwargs)

def row(op, f, ref, *args, **kwargs):
    return Row(op, f, ref, tuple(a if a and callable(a[0]) else (normal, a) for a in args), **kwargs)


A = np.array
I, B = A([1, 1, 0]), A([[True, False, True], [False, False, True]])
KINK = (A([-1., 0., 1.]),)
TIE = (A([0., 1., 2., 3.]), A([0., 2., 1., 3.]))
TIED = (A([[1., 5., 5.], [2., 0., 2.], [3., 3., 3.]]),)
MODULE = 'ops'

ROWS = [
    binary('add', np.add, 'x + y'), binary('sub', np.subtract, 'x - y'),
    binary('mul', np.multiply, 'x * y'), binary('div', np.true_divide, 'x / y', normal, nonzero),
    binary('pow', np.power, 'x ** y', positive, normal,
           ties=((A([0., 0., 0., 2.]), A([0., 1., 2., 0.])),)),
    row('pow', lambda x: ops.pow(x, 3), lambda x: x**3, (2, 3), torch='x ** 3', note='cube'),
    row('pow', lambda x: ops.pow(x, 0), lambda x: x**0, (2, 3), torch='x ** 0', note='zero',
        ties=((A([0., 1.]),),)),
    row('pow', lambda x: ops.pow(x, -0.5), lambda x: x**-0.5, (positive, (2, 3)), torch='x ** -.5', note='root'),
    row('pow', lambda x: ops.pow(x, A([0, 1, 2])), lambda x: x**A([0, 1, 2]), (2, 3), note='whole',
        torch='x ** torch.tensor([0, 1, 2])', f32=False),   # NumPy: float32 ** int64 is float64
    row('pow', lambda y: ops.pow(2.0, y), lambda y: 2.0**y, (2, 3), torch='2. ** x', note='base'),
    curve('neg', np.negative, '-x'), curve('exp', np.exp, 'x.exp()'),
    curve('log', np.log, 'x.log()', positive), curve('sqrt', np.sqrt, 'x.sqrt()', positive),
    curve('tanh', np.tanh, 'x.tanh()'),
    curve('sigmoid', lambda x: 1 / (1 + np.exp(-x)), 'x.sigmoid()', ties=((A([-800., 0, 800.]),),)),
    curve('relu', lambda x: np.maximum(x, 0), 'x.relu()', nonzero, ties=(KINK,)),
    curve('abs', np.abs, 'x.abs()', nonzero, ties=(KINK,)),
    curve('sign', np.sign, 'x.sign()', nonzero, grad=False),
    binary('maximum', np.maximum, 'torch.maximum(x, y)', apart, low, ties=(TIE,)),
    binary('minimum', np.minimum, 'torch.minimum(x, y)', apart, low, ties=(TIE,)),
    row('maximum', lambda x: ops.maximum(x, 0), lambda x: np.maximum(x, 0), (nonzero, (2, 3)), note='constant',
        torch='torch.maximum(x, torch.zeros_like(x))', ties=(KINK,)),
    row('where', lambda x, y: ops.where(B, x, y), lambda x, y: np.where(B, x, y), (2, 3), (2, 3),
        torch='torch.where(torch.tensor(B), x, y)'),
    row('where', lambda x, y: ops.where(B, x, y), lambda x, y: np.where(B, x, y), (3,), (2, 1), note='broadcast',
        torch='torch.where(torch.tensor(B), x, y)'),
    row('clip', lambda x: ops.clip(x, -0.5, 0.5), lambda x: np.clip(x, -0.5, 0.5), (apart, (2, 3)),
        torch='x.clamp(-.5, .5)', ties=((A([-.5, 0, .5, 1]),),)),
    row('clip', lambda x: ops.clip(x, min=0.1), lambda x: np.clip(x, 0.1, None), (apart, (2, 3)), note='min',
        torch='x.clamp(min=.1)'),
    row('clip', ops.clip, np.clip, (apart, (2, 3)), (low, (3,)), (high, (2, 1)), note='tensors',
        torch='torch.clamp(x, y, z)', ties=((A([0., 5., 2.]), A([1., 1., 3.]), A([2., 2., 1.])),)),
    row('argmax', ops.argmax, np.argmax, (2, 3), grad=False, note='all'),
    *[binary(n, ref, None, grad=False) for n, ref in (
        ('less', np.less), ('less_equal', np.less_equal), ('greater', np.greater),
        ('greater_equal', np.greater_equal), ('equal', np.equal), ('not_equal', np.not_equal))],
    row('argmax', lambda x: ops.argmax(x, dim=1, keepdim=True), lambda x: np.argmax(x, 1, keepdims=True), (2, 3),
        grad=False, note='axis', numpy=False),
]

for name, maker, ref, tie in (('sum', normal, np.sum, ()), ('mean', normal, np.mean, ()),
                              ('max', apart, np.max, (TIED,)), ('min', apart, np.min, (TIED,))):
    f, t = getattr(ops, name), {'max': 'amax', 'min': 'amin'}.get(name, name)
    whole = f'x.{name}()'
    ROWS += [
        row(name, f, ref, (maker, (2, 3)), torch=whole, ties=tie, note='all'),
        row(name, f, ref, (maker, ()), torch=whole, note='number'),
        row(name, lambda x, f=f: f(x, axis=0), lambda x, r=ref: r(x, axis=0), (maker, (2, 3)),
            torch=f'x.{t}(dim=0)', ties=tie, note='axis'),
        row(name, lambda x, f=f: f(x, dim=[0, -1], keepdim=True), lambda x, r=ref: r(x, axis=(0, -1), keepdims=True),
            (maker, (2, 3, 2)), torch=f'x.{t}(dim=(0, -1), keepdim=True)', note='axes'),
        row(name, lambda x, f=f: f(x, axis=(-1, 0)), lambda x, r=ref: r(x, axis=(-1, 0)),
            (maker, (2, 3, 2)), torch=f'x.{t}(dim=(0, -1))', note='gone')]

ROWS += [
    row('reshape', lambda x: ops.reshape(x, 3, -1), lambda x: np.reshape(x, (3, -1)), (2, 3), torch='x.reshape(3, -1)'),
    row('reshape', lambda x: ops.reshape(x, (6,)), lambda x: np.reshape(x, 6), (2, 3), torch='x.reshape(6)',
        note='flat'),
    row('expand_dims', lambda x: ops.expand_dims(x, (0, -1)), lambda x: np.expand_dims(x, (0, -1)), (2, 3),
        torch='x[None, ..., None]'),
    row('unsqueeze', lambda x: ops.unsqueeze(x, dim=1), lambda x: np.expand_dims(x, 1), (2, 3), torch='x.unsqueeze(1)'),
    row('squeeze', ops.squeeze, np.squeeze, (2, 1, 3, 1), torch='x.squeeze()'),
    row('squeeze', lambda x: ops.squeeze(x, 1), lambda x: np.squeeze(x, 1), (2, 1, 3, 1), torch='x.squeeze(1)',
        note='axis'),
    row('transpose', ops.transpose, np.transpose, (2, 3, 4), torch='x.permute(2, 1, 0)'),
    row('transpose', lambda x: ops.transpose(x, (1, -1, 0)), lambda x: np.transpose(x, (1, -1, 0)), (2, 3, 4),
        torch='x.permute(1, -1, 0)', note='axes'),
    row('permute', lambda x: ops.permute(x, 2, 0, 1), lambda x: np.transpose(x, (2, 0, 1)), (2, 3, 4),
        torch='x.permute(2, 0, 1)'),
    row('swapaxes', lambda x: ops.swapaxes(x, 0, -1), lambda x: np.swapaxes(x, 0, -1), (2, 3, 4),
        torch='x.swapaxes(0, -1)'),
    row('broadcast_to', lambda x: ops.broadcast_to(x, (4, 2, 3)), lambda x: np.broadcast_to(x, (4, 2, 3)), (2, 1),
        torch='x.broadcast_to((4, 2, 3))'),
    row('broadcast_to', lambda x: ops.broadcast_to(x, 3), lambda x: np.broadcast_to(x, 3), (), note='number',
        torch='x.broadcast_to((3,))'),
    row('expand', lambda x: ops.expand(x, 4, -1, 3), lambda x: np.broadcast_to(x, (4, 2, 3)), (2, 1),
        torch='x.expand(4, -1, 3)'),
    row('concatenate', lambda x, y, z: ops.concatenate([x, y, z]), lambda x, y, z: np.concatenate([x, y, z]),
        (1, 2), (3, 2), (2, 2), torch='torch.cat([x, y, z])'),
    row('concatenate', lambda x, y: ops.concatenate([x, [[1.], [1.]], y], dim=-1),
        lambda x, y: np.concatenate([x, [[1.], [1.]], y], axis=-1), (2, 3), (2, 2), note='list',
        torch='torch.cat([x, torch.ones(2, 1, dtype=x.dtype), y], -1)', f32=False),
    row('concatenate', lambda x, y: ops.concatenate([x, y], axis=None), lambda x, y: np.concatenate([x, y], axis=None),
        (2, 3), (2,), note='flat', torch='torch.cat([x.reshape(-1), y])'),
    row('stack', lambda x, y: ops.stack([x, y]), lambda x, y: np.stack([x, y]), (2, 3), (2, 3),
        torch='torch.stack([x, y])'),
    row('stack', lambda x, y: ops.stack([x, y, x], dim=-1), lambda x, y: np.stack([x, y, x], axis=-1), (2, 3), (2, 3),
        torch='torch.stack([x, y, x], -1)', note='last'),
    row('astype', lambda x: ops.astype(x, 'float64'), lambda x: x.astype('float64'), (2, 3), torch='x.double()',
        f32=False),
    row('astype', lambda x: ops.astype(x, int), lambda x: x.astype(int), (2, 3), grad=False, note='int'),
    row('clone', ops.clone, np.copy, (2, 3), torch='x.clone()'),
]

INDICES = {'int': 1, 'negative': -1, 'slice': slice(None, None, 2), 'ellipsis': (..., 0), 'true': True,
           'new axis': (None, slice(1), 2), 'list': [0, 1, 1], 'array': I, 'pairs': (I, I), 'mixed': (slice(None), I),
           'boolean': B, 'row mask': A([True, False]), 'nothing': slice(0, 0), 'no index': (), 'apart': (I, None, I),
           'two-dimensional': (A([[0, 1], [1, 1]]), A([[2, 2], [2, 0]]))}
for note, i in INDICES.items():
    ROWS += [row('getitem', lambda x, i=i: ops.getitem(x, i), lambda x, i=i: x[i], (2, 3), note=note,
                 torch=f'x[INDICES[{note!r}]]')]

def added(g, index, shape):
    out = np.zeros(shape)
    for place, v in zip(np.arange(out.size).reshape(shape)[index].ravel(), np.ravel(g)): out.flat[place] += v
    return out

def written(x, v, index):
    x = x.copy()
    x[index] = v
    return x

for note, i, shape in (('array', I, (3, 2)), ('slice', slice(1, 3), (2, 2)), ('pairs', (I, I), (3,))):
    ROWS += [row('scatter_add', lambda g, i=i: ops.scatter_add(g, i, (4, 2)), lambda g, i=i: added(g, i, (4, 2)), shape,
                 note=note, numpy=False),
             row('set_at', lambda x, v, i=i: ops.set_at(x, i, v), lambda x, v, i=i: written(x, v, i), (4, 2), shape,
                 note=note, numpy=False)]
ROWS += [row('set_at', lambda x, v: ops.set_at(x, slice(1, 3), v), lambda x, v: written(x, v, slice(1, 3)),
             (4, 2), (2,), note='broadcast', numpy=False, torch='torch.cat([x[:1], y.expand(2, 2), x[3:]])'),
         row('set_at', lambda x, v: ops.set_at(x, B, v), lambda x, v: written(x, v, B), (2, 3), (), note='mask, number',
             numpy=False, torch='torch.where(torch.tensor(B), y, x)')]

PRODUCTS = [((2, 3), (3, 4)), ((3,), (3, 4)), ((2, 3), (3,)), ((3,), (3,)), ((5, 2, 3), (5, 3, 4)), ((5, 2, 3), (3, 4)),
            ((2, 3), (5, 3, 4)), ((3,), (5, 3, 4)), ((5, 2, 3), (3,)), ((6, 1, 2, 3), (5, 3, 1)), ((2, 0), (0, 3))]
ROWS += [row('matmul', ops.matmul, np.matmul, s, t, note=f'{s}@{t}'.replace(' ', ''), torch='x @ y')
         for s, t in PRODUCTS]

NO_ROW = { # exported, but no operation on tensors
    'is_grad_enabled', 'set_grad_enabled', 'no_grad', 'enable_grad', 'primitive', 'NUMPY',  # how operations are made
    'invert_permutation', 'raw_index'}                                                      # on indices and axes
