"""The rows of chapter 92: products, einsum in all its forms, and functions of whole matrices."""
import numpy as np

from backprop_lit import linalg as ours
from table import Row, nonzero, normal, positive

MODULE = 'linalg'
inf = np.inf


def row(op, f, ref, *args, **kwargs):
    return Row(op, f, ref, tuple(a if a and callable(a[0]) else (normal, a) for a in args), **kwargs)

def product(op, torch, *shapes, **kwargs):
    note = '@'.join(map(str, shapes)).replace(' ', '')
    return row(op, getattr(ours, op), getattr(np, op), *shapes, note=note, torch=torch, **kwargs)

def of(op, shape, call=lambda f, x: f(x), note='', torch=None, **kwargs):
    "A row for a function of np.linalg, called in the same way as ours"
    f, ref = getattr(ours, op), getattr(np.linalg, op)
    return row(op, lambda x: call(f, x), lambda x: call(ref, x), shape, note=note, torch=torch, **kwargs)


def regular(rng, shape): return rng.normal(size=shape) + 3 * np.eye(shape[-1])
def singular(rng, shape): # rank one less than full
    x = rng.normal(size=shape)
    x[..., -1, :] = x[..., 0, :] + x[..., 1, :]
    return x
def spread(rng, shape): # singular values 1, 2, 3, … apart
    m, n = shape[-2:]
    u, v = (np.linalg.qr(rng.normal(size=(*shape[:-2], k, k)))[0] for k in (m, n))
    return (u[..., :min(m, n)] * np.arange(1, min(m, n) + 1)) @ v[..., :min(m, n), :]
def sym(x): return x + np.swapaxes(x, -1, -2)
def definite(x): return x @ np.swapaxes(x, -1, -2) + np.eye(x.shape[-1], dtype=x.dtype)
SYM, DEFINITE = '(x + x.mT)', '(x @ x.mT + torch.eye(x.shape[-1], dtype=x.dtype))'

ROWS = [
    product('dot', 'x @ y', (2, 3), (3, 4)), product('dot', 'x @ y', (3,), (3,)), product('dot', 'x * y', (), (2, 3)),
    product('dot', 'torch.tensordot(x, y, ([2], [0]))', (2, 2, 3), (3,)),
    product('dot', 'torch.tensordot(x, y, ([1], [1]))', (2, 3), (2, 3, 4)), product('dot', 'x @ y', (3,), (3, 2)),
    product('inner', 'torch.inner(x, y)', (2, 3), (4, 3)), product('inner', 'torch.inner(x, y)', (3,), (3,)),
    product('inner', 'x * y', (2, 3), ()), product('vdot', 'x.ravel() @ y.ravel()', (2, 3), (2, 3)),
    product('vdot', 'x @ y.ravel()', (6,), (2, 3)), product('outer', 'torch.outer(x, y)', (2,), (3,)),
    product('outer', 'torch.outer(x.ravel(), y)', (2, 2), (3,)), product('tensordot', 'torch.tensordot(x, y)', (2, 3, 4), (3, 4, 2)),
    row('tensordot', lambda x, y: ours.tensordot(x, y, axes=([0, 2], [1, 0])), lambda x, y: np.tensordot(x, y, axes=([0, 2], [1, 0])),
        (2, 3, 4), (4, 2, 3), note='axes', torch='torch.tensordot(x, y, ([0, 2], [1, 0]))'),
    row('tensordot', lambda x, y: ours.tensordot(x, y, 0), lambda x, y: np.tensordot(x, y, 0), (2,), (2, 2), note='none',
        torch='torch.tensordot(x, y, 0)'),
    row('tensordot', lambda x, y: ours.tensordot(x, y, (1, 0)), lambda x, y: np.tensordot(x, y, (1, 0)), (2, 0), (0, 2),
        note='empty', torch='x @ y'),
    product('kron', 'torch.kron(x, y)', (2, 2), (2, 3)), product('kron', 'torch.kron(x, y)', (3,), (2, 2)),
    product('kron', 'x * y', (), (2, 3)), product('vecdot', '(x * y).sum(-1)', (2, 3), (3,)),
    row('vecdot', lambda x, y: ours.vecdot(x, y, axis=0), lambda x, y: np.vecdot(x, y, axis=0), (3, 2), (3, 1), note='axis'),
    product('matvec', 'torch.matmul(x, y[..., None])[..., 0]', (2, 3, 4), (4,)),
    product('matvec', 'x @ y', (2, 3), (3,)), product('vecmat', 'x @ y', (2,), (2, 3)),
    product('vecmat', 'torch.matmul(x[:, None], y)[:, 0]', (5, 2), (5, 2, 3)), product('cross', 'torch.linalg.cross(x, y)', (2, 3), (2, 3)),
    product('cross', 'torch.linalg.cross(x, y.expand(2, 4, 3))', (2, 1, 3), (4, 3)),
    row('cross', lambda x, y: ours.cross(x, y, axis=0), lambda x, y: np.cross(x, y, axis=0), (3, 2), (3, 2), note='axis',
        torch='torch.linalg.cross(x, y, dim=0)'),
    row('cross', lambda x, y: ours.cross(x, y, 0, -1, 0), lambda x, y: np.cross(x, y, 0, -1, 0), (3, 2), (2, 3), note='axes'),
    of('matrix_power', (2, 3, 3), lambda f, x: f(x, 3), torch='torch.linalg.matrix_power(x, 3)'),
    *[of('matrix_power', (regular, (3, 3)), lambda f, x, k=k: f(x, k), str(k), f'torch.linalg.matrix_power(x, {k})')
      for k in (-2, 0, 1, 2, 5)],
    row('multi_dot', lambda *xs: ours.multi_dot(xs), lambda *xs: np.linalg.multi_dot(xs), (2, 3), (3, 4), (4, 2),
        torch='torch.linalg.multi_dot([x, y, z])'),
    row('multi_dot', lambda *xs: ours.multi_dot(xs), lambda *xs: np.linalg.multi_dot(xs), (3,), (3, 4), (4,), note='ends',
        torch='torch.linalg.multi_dot([x, y, z])'),

    of('inv', (regular, (2, 3, 3)), torch='x.inverse()'), of('inv', (regular, (1, 1)), note='one', torch='x.inverse()'),
    of('det', (2, 3, 3), torch='x.det()'), of('det', (5, 5), note='large', torch='x.det()'),
    of('det', (singular, (3, 3)), note='singular'), of('det', (singular, (4, 4)), note='large, singular'),
    of('det', (singular, (9, 9)), note='very large, singular'),
    of('det', (1, 1), note='one', torch='x.det()'),
    of('slogdet', (2, 4, 4), lambda f, x: f(x)[1], torch='x.slogdet()[1]'),
    of('slogdet', (2, 4, 4), lambda f, x: f(x).sign, 'sign', grad=False),
    of('cholesky', (2, 3, 3), lambda f, x: f(definite(x)), torch=f'torch.linalg.cholesky({DEFINITE})'),
    of('cholesky', (3, 3), lambda f, x: f(definite(x), upper=True), 'upper', f'torch.linalg.cholesky({DEFINITE}, upper=True)'),
    of('eigh', (2, 3, 3), lambda f, x: f(sym(x))[0], torch=f'torch.linalg.eigh({SYM})[0]'),
    of('eigh', (2, 3, 3), lambda f, x: np.abs(f(sym(x))[1]), 'vectors', f'torch.linalg.eigh({SYM})[1].abs()'),
    of('eigh', (3, 3), lambda f, x: np.abs(f(sym(x), UPLO='U').eigenvectors), 'upper'),
    of('eigvalsh', (4, 4), lambda f, x: f(sym(x)), torch=f'torch.linalg.eigvalsh({SYM})'),
    of('svd', (2, 3, 3), lambda f, x: f(x, compute_uv=False), 'values', 'torch.linalg.svdvals(x)'),
    of('svdvals', (spread, (2, 4, 3)), torch='torch.linalg.svdvals(x)'),
    *[of('svd', (spread, s), lambda f, x, k=k: np.abs(f(x, full_matrices=False)[k]), f'{s}{"USV"[k]}'.replace(' ', ''),
         f'torch.linalg.svd(x, full_matrices=False)[{k}].abs()') for s in ((4, 2), (2, 3, 3), (2, 4)) for k in range(3)],
    *[of('pinv', (spread, s), note=str(s).replace(' ', ''), torch='torch.linalg.pinv(x)') for s in ((4, 2), (2, 2, 3), (3, 3))],
    of('pinv', (spread, (3, 2)), lambda f, x: f(x, rtol=1e-10), 'rtol', 'torch.linalg.pinv(x)'),
    *[of('qr', s, lambda f, x, k=k: f(x)[k], f'{s}{"QR"[k]}'.replace(' ', ''), f'torch.linalg.qr(x)[{k}]')
      for s in ((2, 4, 3), (3, 3)) for k in (0, 1)],
    of('qr', (4, 2), lambda f, x: f(x, mode='r'), 'r', 'torch.linalg.qr(x)[1]'),

    row('cov', lambda x, y: ours.cov(x, y), lambda x, y: np.cov(x, y), (2, 5), (5,)),
    row('cov', lambda x: ours.cov(x, rowvar=False, bias=True), lambda x: np.cov(x, rowvar=False, bias=True), (5, 2),
        note='columns', torch='x.T.cov(correction=0)'),
    row('cov', lambda x: ours.cov(x, ddof=2), lambda x: np.cov(x, ddof=2), (5,), note='one', torch='x.cov(correction=2)'),
    row('corrcoef', ours.corrcoef, np.corrcoef, (3, 5), torch='x.corrcoef()'),
    of('cond', (regular, (2, 3, 3)), torch='torch.linalg.cond(x)'),
    of('cond', (regular, (3, 3)), lambda f, x: f(x, -2), '-2', 'torch.linalg.cond(x, -2)'),
    *[of('cond', (regular, (3, 3)), lambda f, x, p=p: f(x, p), str(p), # torch.linalg.cond(x, 1) cannot be differentiated
         f'torch.linalg.matrix_norm(x, {p!r}) * torch.linalg.matrix_norm(x.inverse(), {p!r})') for p in (1, 'fro')],
]

SOLVE = [((3, 3), (3,)), ((3, 3), (3, 2)), ((2, 3, 3), (3,)), ((2, 3, 3), (3, 2)), ((2, 1, 3, 3), (4, 3, 1)), ((3, 3), (2, 3, 1))]
ROWS += [row('solve', ours.solve, np.linalg.solve, (regular, a), b, note=f'{a},{b}'.replace(' ', ''),
             torch='torch.linalg.solve(x, y)' if len(a) == 2 == len(b) + (len(b) == 1) else None) for a, b in SOLVE]
ROWS += [row('lstsq', lambda a, b, k=k: ours.lstsq(a, b)[k], lambda a, b, k=k: np.linalg.lstsq(a, b)[k], (spread, (4, 2)), b,
             note=f'{b}-{k}'.replace(' ', ''), torch='torch.linalg.lstsq(x, y)[0]' if len(b) == 2 and k == 0 else None)
         for b, k in (((4,), 0), ((4, 3), 0), ((4, 3), 1))]
ROWS += [row('lstsq', lambda a: ours.lstsq(a, np.ones(4))[3], lambda a: np.linalg.lstsq(a, np.ones(4))[3], (spread, (4, 2)),
             note='values'),
         row('lstsq', lambda a, b: ours.lstsq(a, b)[0], lambda a, b: np.linalg.lstsq(a, b)[0], (spread, (2, 3)), (2,), note='wide')]

ZERO = np.zeros(3)
for o in (None, 1, 2, 3, 1.5, 0.5, -1, inf, -inf):
    t = repr(o).replace('inf', 'torch.inf')
    ROWS += [of('norm', (nonzero, (3, 4)), lambda f, x, o=o: f(x, o, axis=1), f'vectors {o}', f'torch.linalg.vector_norm(x, {t if o else 2}, 1)',
                ties=((ZERO.reshape(1, 3),),) if o in (None, 2) else ()),
             of('vector_norm', (nonzero, (2, 3)), lambda f, x, o=o or 2: f(x, ord=o), f'{o}',
                f'torch.linalg.vector_norm(x, {t if o else 2})')]
for o in ('fro', 'nuc', 1, -1, 2, -2, inf, -inf):
    t = repr(o).replace('inf', 'torch.inf')
    ROWS += [of('norm', (nonzero, (3, 4)), lambda f, x, o=o: f(x, o), f'matrix {o}', f'torch.linalg.matrix_norm(x, {t})'),
             of('matrix_norm', (nonzero, (2, 3, 4)), lambda f, x, o=o: f(x, ord=o, keepdims=True), f'{o}',
                f'torch.linalg.matrix_norm(x, {t}, keepdim=True)')]
ROWS += [
    of('norm', (2, 3, 2), note='all', torch='torch.linalg.vector_norm(x)', ties=((np.zeros((2, 2)),),)),
    of('norm', (), note='number', torch='x.abs()'), of('norm', (2, 3), lambda f, x: f(x, keepdims=True), 'keepdims'),
    of('norm', (2, 3, 4), lambda f, x: f(x, 'nuc', axis=(2, 0), keepdims=True), 'axes'),
    of('norm', (2, 3), lambda f, x: f(x, 0, axis=1), 'count', grad=False),
    of('vector_norm', (2, 3, 2), lambda f, x: f(x, axis=(0, -1), ord=3), 'axes', 'torch.linalg.vector_norm(x, 3, (0, -1))'),
    of('vector_norm', (2, 3, 2), lambda f, x: f(x, axis=(2, 0), keepdims=True), 'keepdims'),
    of('vector_norm', (2, 3), lambda f, x: f(x, keepdims=True), 'all, kept', 'torch.linalg.vector_norm(x, keepdim=True)'),
    of('vector_norm', (2, 3), lambda f, x: f(x, axis=1), 'axis', 'torch.linalg.vector_norm(x, dim=1)')]

EINSUM = { # subscripts: shapes
    'ij,jk->ik': ((2, 3), (3, 4)), 'bij,bjk->bik': ((2, 2, 3), (2, 3, 2)), 'ij->ji': ((2, 3),), 'ij->': ((2, 3),),
    'ij->j': ((2, 3),), 'i,j->ij': ((2,), (3,)), 'i,i': ((3,), (3,)), 'ii': ((3, 3),), 'ii->i': ((3, 3),),
    'iji->j': ((2, 3, 2),), 'iij,jk->ik': ((2, 2, 3), (3, 2)), 'iii->i': ((2, 2, 2),), 'iijj->ij': ((2, 2, 3, 3),),
    'ij,ij->ij': ((2, 3), (2, 3)), 'ij,ij': ((2, 3), (2, 3)), 'ba': ((2, 3),), 'cb,ac': ((2, 3), (4, 2)),
    '...ij,...jk->...ik': ((2, 1, 2, 3), (3, 3, 2)), '...i,i->...': ((2, 3), (3,)), '...ii->...': ((2, 3, 3),),
    'i...->...': ((2, 3),), '...': ((2, 3),), 'i...j,j->...i': ((2, 3, 2), (2,)), '...,...': ((3,), (2, 1)),
    'ij,jk,kl->il': ((2, 3), (3, 2), (2, 4)), 'i,ij,j->': ((2,), (2, 3), (3,)), 'ij,k->i': ((2, 3), (4,)),
    ',ij->ij': ((), (2, 3)), '->': ((),), 'ij , jk': ((2, 3), (3, 2)), 'Ab,bA->A': ((2, 3), (3, 2))}
def letters(text): return 'torch.einsum({!r}, {})'.format(text, ', '.join('xyz'[:text.split('->')[0].count(',') + 1]))
for text, shapes in EINSUM.items():
    ROWS += [row('einsum', lambda *xs, t=text: ours.einsum(t, *xs), lambda *xs, t=text: np.einsum(t, *xs), *shapes, note=text,
                 torch=letters(text) if text not in ('...', '->') and 'Ab' not in text else None)]
ROWS += [
    row('einsum', lambda x, y: ours.einsum(x, [0, 1], y, [1, 2], [2, 0]), lambda x, y: np.einsum(x, [0, 1], y, [1, 2], [2, 0]),
        (2, 3), (3, 4), note='lists', torch='(x @ y).T'),
    row('einsum', lambda x, y: ours.einsum(x, [1, 30], y, [30, 0]), lambda x, y: np.einsum(x, [1, 30], y, [30, 0]),
        (2, 3), (3, 4), note='lists, implicit', torch='(x @ y).T'),
    row('einsum', lambda x: ours.einsum(x, [..., 0, 0], [...]), lambda x: np.einsum(x, [..., 0, 0], [...]), (2, 3, 3),
        note='lists, ellipsis', torch='x.diagonal(0, 1, 2).sum(-1)'),
    *[row('einsum', lambda *xs, o=o: ours.einsum('ij,jk,kl->il', *xs, optimize=o),
          lambda *xs, o=o: np.einsum('ij,jk,kl->il', *xs, optimize=o), (2, 3), (3, 2), (2, 4), note=f'optimize {o}',
          torch='x @ y @ z') for o in (True, 'greedy', 'optimal', ['einsum_path', (0, 1), (0, 1)])],
    row('einsum', lambda x, y: ours.einsum('ij,ij->ij', x, y), lambda x, y: np.einsum('ij,ij->ij', x, y), (1, 3), (2, 3),
        note='size 1'),
    row('einsum', lambda x, y: ours.einsum('ij,jk->ik', x, y), lambda x, y: np.einsum('ij,jk->ik', x, y), (2, 3), (1, 2),
        note='size 1, summed'),
    row('einsum', lambda x, y: ours.einsum('ij,jk->ik', x, y), lambda x, y: np.einsum('ij,jk->ik', x, y), (2, 0), (0, 2),
        note='empty', torch='x @ y')]

NO_ROW = {'matrix_rank'}        # a whole number, outside any graph
