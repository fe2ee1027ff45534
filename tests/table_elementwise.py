"""The rows of chapter 90: elementwise operations, questions, constants and reductions."""
import numpy as np

from backprop_lit import elementwise as ours
from table import Row, apart, nonzero, normal, positive

MODULE = 'elementwise'
A = np.array


def unit(rng, shape): return rng.uniform(-0.8, 0.8, size=shape)
def above(rng, shape): return rng.uniform(1.3, 3, size=shape)
def between(rng, shape): # no element closer than 0.2 to a multiple of 0.5, where stairs jump
    return rng.integers(-4, 4, size=shape) + rng.uniform(0.2, 0.3, size=shape)
def zeros_too(rng, shape): # every third element is 0
    return np.where(np.arange(int(np.prod(shape))).reshape(shape) % 3, rng.normal(size=shape), 0)
def holes(x): # every fourth element is no number
    return np.where(np.arange(x.size).reshape(x.shape) % 4 == 0, np.nan, x)


def curve(op, torch, maker=normal, note='', **kwargs):
    return Row(op, getattr(ours, op), getattr(np, op), ((maker, (2, 3)),), torch, elementwise=True, note=note, **kwargs)

def binary(op, torch, *makers, **kwargs):
    args = tuple((m, (2, 3)) for m in makers or (normal, normal))
    return Row(op, getattr(ours, op), getattr(np, op), args, torch, elementwise=True, **kwargs)

def row(op, f, ref, *args, **kwargs):
    return Row(op, f, ref, tuple(a if a and callable(a[0]) else (normal, a) for a in args), **kwargs)


STEP = (A([-1.5, -1., 0., 0.5, 1.5, 2.]),)
ROWS = [
    curve('sin', 'x.sin()'), curve('cos', 'x.cos()'), curve('tan', 'x.tan()', unit),
    curve('arcsin', 'x.arcsin()', unit), curve('arccos', 'x.arccos()', unit), curve('arctan', 'x.arctan()'),
    curve('deg2rad', 'x.deg2rad()'), curve('rad2deg', 'x.rad2deg()'), curve('radians', 'x.deg2rad()'),
    curve('degrees', 'x.rad2deg()'), curve('sinh', 'x.sinh()'), curve('cosh', 'x.cosh()'),
    curve('arcsinh', 'x.arcsinh()'), curve('arccosh', 'x.arccosh()', above), curve('arctanh', 'x.arctanh()', unit),
    curve('exp2', 'x.exp2()'), curve('expm1', 'x.expm1()'), curve('log2', 'x.log2()', positive),
    curve('log10', 'x.log10()', positive), curve('log1p', 'x.log1p()', positive), curve('square', 'x.square()'),
    curve('reciprocal', 'x.reciprocal()', nonzero), curve('cbrt', 'x ** (1 / 3)', positive),
    curve('sinc', 'x.sinc()'), curve('positive', '+x'), curve('conjugate', 'x.conj()'), curve('real', 'x.real'),
    curve('fabs', 'x.abs()', nonzero), curve('nan_to_num', 'x.nan_to_num()', ties=((A([1., np.nan, np.inf, -np.inf]),),)),
    *[curve(n, f'x.{t}()', between, ties=(STEP,)) for n, t in
      (('floor', 'floor'), ('ceil', 'ceil'), ('trunc', 'trunc'), ('rint', 'round'), ('fix', 'fix'), ('round', 'round'))],
    row('round', lambda x: ours.round(x, 1), lambda x: np.round(x, 1), (lambda rng, s: between(rng, s) / 10, (2, 3)),
        note='digits', torch='x.round(decimals=1)'),
    curve('imag', None, grad=False),
    *[curve(n, f'x.{n}()', grad=False) for n in ('isnan', 'isinf', 'isfinite', 'signbit', 'logical_not')],
    *[binary(n, f'torch.{n}(x, y)', grad=False) for n in ('logical_and', 'logical_or', 'logical_xor')],
    binary('isclose', None, grad=False),

    binary('arctan2', 'torch.arctan2(x, y)', nonzero, nonzero), binary('hypot', 'torch.hypot(x, y)', nonzero, nonzero),
    binary('logaddexp', 'torch.logaddexp(x, y)', ties=((A([-np.inf, 3.]), A([2., 3.])),)),
    binary('logaddexp2', 'torch.logaddexp2(x, y)'),
    binary('mod', 'torch.remainder(x, y)', between, positive), binary('fmod', 'torch.fmod(x, y)', between, positive),
    binary('remainder', 'torch.remainder(x, y)', between, nonzero),
    binary('floor_divide', 'torch.floor(x / y)', between, positive),
    binary('fmax', 'torch.fmax(x, y)', ties=((A([1., np.nan, 2.]), A([np.nan, 1., 3.])),)),
    binary('fmin', 'torch.fmin(x, y)', ties=((A([1., np.nan, 2.]), A([np.nan, 1., 3.])),)),
    binary('copysign', 'torch.copysign(x, y)', nonzero, nonzero, ties=((A([0., 1., -2.]), A([-1., -0., 0.])),)),
    binary('float_power', 'torch.float_power(x, y)', positive, normal, f32=False),
    binary('heaviside', None, nonzero, normal),
    row('heaviside', lambda h: ours.heaviside(A([-1., 0., 2.]), h), lambda h: np.heaviside(A([-1., 0., 2.]), h), (3,),
        note='middle', f32=False),
    row('ldexp', lambda x: ours.ldexp(x, A([0, 3, -2])), lambda x: np.ldexp(x, A([0, 3, -2])), (2, 3),
        torch='x * torch.tensor([1., 8., .25], dtype=x.dtype)'),
    *[row('divmod', lambda x, y, k=k: ours.divmod(x, y)[k], lambda x, y, k=k: np.divmod(x, y)[k], (between, (2, 3)),
          (positive, (2, 3)), note=str(k)) for k in (0, 1)],
    *[row('modf', lambda x, k=k: ours.modf(x)[k], lambda x, k=k: np.modf(x)[k], (between, (2, 3)), note=str(k),
          torch=('x.frac()', 'x.trunc()')[k]) for k in (0, 1)],
    row('frexp', lambda x: ours.frexp(x)[0], lambda x: np.frexp(x)[0], (between, (2, 3)), note='mantissa',
        torch='x.frexp()[0]'),
    row('frexp', lambda x: ours.frexp(x)[1], lambda x: np.frexp(x)[1], (between, (2, 3)), note='exponent', grad=False),

    row('argsort', ours.argsort, np.argsort, (2, 3), grad=False, torch='x.argsort()'),
    row('argpartition', lambda x: ours.argpartition(x, 1), lambda x: np.argpartition(x, 1), (2, 3), grad=False),
    row('searchsorted', lambda x: ours.searchsorted(A([0., 1.]), x), lambda x: np.searchsorted(A([0., 1.]), x), (2, 3),
        grad=False, torch='torch.searchsorted(torch.tensor([0., 1.], dtype=x.dtype), x)'),
    row('digitize', lambda x: ours.digitize(x, A([0., 1.])), lambda x: np.digitize(x, A([0., 1.])), (2, 3), grad=False),
    row('isin', lambda x: ours.isin(x, [0.]), lambda x: np.isin(x, [0.]), (zeros_too, (2, 3)), grad=False),
    row('count_nonzero', lambda x: ours.count_nonzero(x, axis=1), lambda x: np.count_nonzero(x, axis=1),
        (zeros_too, (2, 3)), grad=False, torch='x.count_nonzero(dim=1)'),
    *[row(n, lambda x, f=getattr(ours, n): f(x > 0, axis=0), lambda x, f=getattr(np, n): f(x > 0, axis=0), (2, 3),
          grad=False, torch=f'(x > 0).{n}(dim=0)') for n in ('all', 'any')],
    row('argmin', lambda x: ours.argmin(x, axis=1), lambda x: np.argmin(x, axis=1), (2, 3), grad=False,
        torch='x.argmin(dim=1)'),
    *[row(n, lambda x, f=getattr(ours, n): f(x > 0, x > 1), lambda x, f=getattr(np, n): f(x > 0, x > 1), (2, 3),
          grad=False) for n in ('bitwise_and', 'bitwise_or', 'bitwise_xor')],
    row('invert', lambda x: ours.invert(x > 0), lambda x: np.invert(x > 0), (2, 3), grad=False),

    row('zeros_like', ours.zeros_like, np.zeros_like, (2, 3), grad=False, torch='torch.zeros_like(x)'),
    row('ones_like', ours.ones_like, np.ones_like, (2, 3), grad=False, torch='torch.ones_like(x)'),
    row('full_like', lambda x: ours.full_like(x, 7), lambda x: np.full_like(x, 7), (2, 3), grad=False,
        torch='torch.full_like(x, 7)'),
    row('full_like', lambda c: ours.full_like(np.ones((2, 3), np.float32), c) if c.dtype == np.float32 else
        ours.full_like(np.ones((2, 3)), c), lambda c: np.full_like(np.ones((2, 3)), c), (), note='tensor', numpy=False),

    row('average', ours.average, np.average, (2, 3), note='all'),
    row('average', lambda x, w: ours.average(x, 1, w), lambda x, w: np.average(x, 1, w), (2, 3), (positive, (3,)),
        torch='(x * y).sum(1) / y.sum()'),
    row('average', lambda x, w: ours.average(x, weights=w), lambda x, w: np.average(x, weights=w), (2, 3),
        (positive, (2, 3)), note='each'),
    row('cumprod', ours.cumprod, np.cumprod, (2, 3), note='all'),
    row('cumprod', lambda x: ours.cumprod(x, 1), lambda x: np.cumprod(x, 1), (zeros_too, (2, 4)), torch='x.cumprod(1)'),
    row('cumprod', lambda x: ours.cumprod(x, dim=0), lambda x: np.cumprod(x, axis=0), (zeros_too, (5, 2, 2)),
        note='dim', torch='x.cumprod(0)'),
    row('ptp', lambda x: ours.ptp(x, 0), lambda x: np.ptp(x, 0), (apart, (2, 3)), torch='x.amax(0) - x.amin(0)'),
    *[row(n, lambda x, f=getattr(ours, n): f(x, correction=1), lambda x, f=getattr(np, n): f(x, ddof=1), (2, 3),
          note='ddof', torch=f'x.{n}()') for n in ('var', 'std')],
]

for name, maker in (('prod', normal), ('prod', zeros_too), ('var', normal), ('std', normal)):
    f, ref = getattr(ours, name), getattr(np, name)
    note = '-zeros' * (maker is zeros_too)
    for what, axis, shape in (('all', None, (4, 3)), ('axis', 0, (4, 3)), ('axes', (0, -1), (2, 3, 2)), ('last', -1, (4, 3))):
        torch = f'x.{name}(dim={axis}, correction=0)' if name != 'prod' else \
            {'all': 'x.prod()', 'axes': None}.get(what, f'x.prod({axis})')
        ROWS += [row(name, lambda x, f=f, a=axis: f(x, axis=a), lambda x, f=ref, a=axis: f(x, axis=a), (maker, shape),
                     torch=torch, note=what + note)]
    ROWS += [row(name, lambda x, f=f: f(x, dim=1, keepdim=True), lambda x, f=ref: f(x, axis=1, keepdims=True),
                 (maker, (4, 3)), note='keepdims' + note, torch=f'x.{name}(dim=1, {"" if name == "prod" else "correction=0, "}keepdim=True)')]
ROWS += [row('prod', ours.prod, np.prod, (), note='number', torch='x.prod()'),
         row('prod', lambda x: ours.prod(x, 1), lambda x: np.prod(x, 1), (2, 0), note='empty', torch='x.prod(1)')]

for name in ('nansum', 'nanprod', 'nanmean', 'nanmax', 'nanmin', 'nanvar', 'nanstd'):
    f, ref = getattr(ours, name), getattr(np, name)
    for what, axis in (('all', None), ('axis', 0), ('axes', (0, -1)), ('keepdims', 1)):
        more = dict(keepdims=True) if what == 'keepdims' else {}
        torch = f"torch.where(torch.tensor(np.arange(12).reshape(2, 3, 2) % 4 == 0), torch.nan, x).{name}" \
            if name in ('nansum', 'nanmean') else None
        if torch: torch += '()' if axis is None else f'({axis}, keepdim={bool(more)})'
        ROWS += [row(name, lambda x, f=f, a=axis, m=more: f(holes(x), axis=a, **m),
                     lambda x, f=ref, a=axis, m=more: f(holes(x), axis=a, **m), (2, 3, 2), note=what,
                     torch=torch and torch.replace('np.arange(12).reshape(2, 3, 2) % 4 == 0',
                                                   str((np.arange(12).reshape(2, 3, 2) % 4 == 0).tolist())))]

NO_ROW = { # exported, but no operation whose result is a tensor
    'LOG2', 'LOG10', 'outside', 'allclose', 'array_equal', 'nonzero', 'flatnonzero', 'argwhere', 'empty_like',
    'INSTEAD', 'no_rule'}
