"""The rows of chapter 91: moves, copies, joins, sums of neighbours, order."""
import numpy as np

from backprop_lit import shapes as ours
from table import Row, apart, normal, positive

MODULE = 'shapes'
A = np.array


def row(op, f, ref, *args, **kwargs):
    return Row(op, f, ref, tuple(a if a and callable(a[0]) else (normal, a) for a in args), **kwargs)

def same(op, shape, call=lambda f, x: f(x), note='', torch=None, maker=normal, **kwargs):
    "A row whose operation and NumPy's are called in the same way"
    f, ref = getattr(ours, op), getattr(np, op)
    return row(op, lambda x: call(f, x), lambda x: call(ref, x), (maker, shape), note=note, torch=torch, **kwargs)

def joined(op, *shapes, call=lambda f, xs: f(xs), torch=None, note='', **kwargs):
    f, ref = getattr(ours, op), getattr(np, op)
    return row(op, lambda *xs: call(f, xs), lambda *xs: call(ref, xs), *shapes, torch=torch, note=note, **kwargs)


I, J = A([[2, 0], [1, 1]]), A([[0, 2, 2], [1, 0, 1]])
ROWS = [
    same('ravel', (2, 3), torch='x.ravel()'), same('ravel', (), note='number'),
    same('ravel', (2, 3), lambda f, x: f(x, order='F'), 'columns', 'x.T.ravel()'),
    same('moveaxis', (2, 3, 4), lambda f, x: f(x, 0, -1), torch='x.moveaxis(0, -1)'),
    same('moveaxis', (2, 3, 4), lambda f, x: f(x, source=(0, 2), destination=(1, 0)), 'two', 'x.moveaxis((0, 2), (1, 0))'),
    same('rollaxis', (2, 3, 4), lambda f, x: f(x, 2, 1)), same('rollaxis', (2, 3, 4), lambda f, x: f(x, 0, 3), 'end'),
    same('matrix_transpose', (2, 3, 4), torch='x.mT'),
    same('flip', (2, 3), torch='x.flip((0, 1))'), same('flip', (2, 3), lambda f, x: f(x, axis=1), 'axis', 'x.flip(1)'),
    same('flip', (2, 3, 2), lambda f, x: f(x, (0, -1)), 'axes', 'x.flip((0, -1))'),
    same('fliplr', (2, 3), torch='x.fliplr()'), same('flipud', (2, 3), torch='x.flipud()'),
    same('roll', (2, 3), lambda f, x: f(x, 2), torch='x.roll(2)'),
    same('roll', (2, 3), lambda f, x: f(x, shift=-1, axis=1), 'axis', 'x.roll(-1, 1)'),
    same('roll', (2, 3), lambda f, x: f(x, (1, -2), (0, 1)), 'axes', 'x.roll((1, -2), (0, 1))'),
    same('tril', (3, 4), torch='x.tril()'), same('tril', (3, 4), lambda f, x: f(x, k=-1), 'below', 'x.tril(-1)'),
    same('tril', (3,), note='vector'), same('triu', (2, 3, 3), lambda f, x: f(x, 1), torch='x.triu(1)'),
    same('cumsum', (2, 3), torch='x.ravel().cumsum(0)'),
    same('cumsum', (2, 3, 2), lambda f, x: f(x, axis=1), 'axis', 'x.cumsum(1)'), same('cumsum', (2, 0), note='empty'),
    same('cumulative_sum', (4,), torch='x.cumsum(0)'),
    same('cumulative_sum', (2, 3), lambda f, x: f(x, axis=1, include_initial=True), 'initial'),
    same('cumulative_prod', (4,), torch='x.cumprod(0)'),
    same('cumulative_prod', (2, 3), lambda f, x: f(x, axis=1, include_initial=True), 'initial'),
    same('rot90', (2, 3), torch='x.rot90()'), same('rot90', (2, 3, 2), lambda f, x: f(x, k=-1, axes=(1, 2)), 'axes',
                                                   'x.rot90(-1, (1, 2))'),
    same('tile', (2, 3), lambda f, x: f(x, 2), torch='x.tile((1, 2))'),
    same('tile', (3,), lambda f, x: f(x, reps=(2, 1, 2)), 'axes', 'x.tile((2, 1, 2))'),
    same('repeat', (2, 3), lambda f, x: f(x, 2), torch='x.repeat_interleave(2)'),
    same('repeat', (2, 3), lambda f, x: f(x, repeats=[1, 0, 3], axis=1), 'each',
         'x.repeat_interleave(torch.tensor([1, 0, 3]), 1)'),
    same('diag', (3,), torch='x.diag()'), same('diag', (3, 4), lambda f, x: f(x, k=1), 'matrix', 'x.diag(1)'),
    same('diag', (2,), lambda f, x: f(x, -1), 'below', 'x.diag(-1)'),
    same('diagflat', (2, 2), torch='x.ravel().diag()'),
    same('diagonal', (3, 4), torch='x.diagonal()'),
    same('diagonal', (2, 3, 4), lambda f, x: f(x, offset=1, axis1=1, axis2=2), 'axes', 'x.diagonal(1, 1, 2)'),
    same('trace', (3, 4), torch='x[:, :3].trace()'), same('trace', (2, 3, 4), lambda f, x: f(x, 1, 2, 1), 'axes'),
    same('delete', (2, 4), lambda f, x: f(x, [0, 2], axis=1), torch='x[:, 1::2]'),
    same('delete', (2, 3), lambda f, x: f(x, slice(1, 3)), 'flat'),
    same('resize', (2, 3), lambda f, x: f(x, (2, 5))),
    same('take_along_axis', (2, 3), lambda f, x: f(x, J, axis=1), torch='x.gather(1, torch.tensor([[0, 2, 2], [1, 0, 1]]))'),
    row('sliding_window_view', lambda x: ours.sliding_window_view(x, 2, axis=1),
        lambda x: np.lib.stride_tricks.sliding_window_view(x, 2, axis=1), (2, 4), torch='x.unfold(1, 2, 1)'),
    row('sliding_window_view', lambda x: ours.sliding_window_view(x, (2, 3)),
        lambda x: np.lib.stride_tricks.sliding_window_view(x, (2, 3)), (3, 4), note='axes'),
    same('compress', (2, 3), lambda f, x: f([True, False, True], x, axis=1), torch='x[:, ::2]'),
    same('compress', (2, 3), lambda f, x: f([0, 1, 1], x), 'flat'),
    same('extract', (2, 3), lambda f, x: f(J == 2, x), torch='x[0, 1:]'),
    same('take', (2, 3), lambda f, x: f(x, I), torch='x.take(torch.tensor([[2, 0], [1, 1]]))'),
    same('take', (2, 3), lambda f, x: f(x, indices=I, axis=-1), 'axis', 'x[:, torch.tensor([[2, 0], [1, 1]])]'),
    same('take', (2, 3), lambda f, x: f(x, 1, axis=1), 'one', 'x[:, 1]'),
    same('take', (2, 3), lambda f, x: f(x, [-4, 7], axis=1, mode='wrap'), 'wrap'),
    same('take', (2, 3), lambda f, x: f(x, [-4, 7], axis=1, mode='clip'), 'clip'),
    *[same('pad', (3, 4), lambda f, x, m=m: f(x, ((1, 2), (0, 3)), mode=m), m,
           f'torch.nn.functional.pad(x[None], (0, 3, 1, 2), mode={t!r})[0]' if t else None)
      for m, t in (('edge', 'replicate'), ('reflect', 'reflect'), ('symmetric', None), ('wrap', 'circular'))],
    same('pad', (2, 3), lambda f, x: f(x, 1), torch='torch.nn.functional.pad(x, (1, 1, 1, 1))'),
    same('pad', (2, 3), lambda f, x: f(x, pad_width=(2, 1), constant_values=7), 'seven',
         'torch.nn.functional.pad(x, (2, 1, 2, 1), value=7)'),
    same('pad', (2, 3), lambda f, x: f(x, ((0, 1), (2, 0)), 'constant', constant_values=((1, 2), (3, 4))), 'each'),
    same('pad', (2, 3), lambda f, x: f(x, {1: (1, 2)}), 'dict'),
    same('pad', (), lambda f, x: f(x, 0), 'number'),
    same('atleast_1d', (), torch='x.reshape(1)'), same('atleast_2d', (3,), torch='x[None]'),
    same('atleast_2d', (), note='number'), same('atleast_3d', (3,), torch='x[None, :, None]'),
    same('atleast_3d', (2, 3), note='matrix', torch='x[..., None]'),
    joined('atleast_1d', (), (3,), call=lambda f, xs: f(*xs)[0] + f(*xs)[1], note='several'),
    joined('hstack', (2, 3), (2, 1), torch='torch.hstack((x, y))'),
    joined('hstack', (3,), (), note='vectors', torch='torch.hstack((x, y))'),
    joined('vstack', (2, 3), (3,), torch='torch.vstack((x, y))'), joined('dstack', (3,), (1, 3), torch='torch.dstack((x, y))'),
    joined('column_stack', (3,), (3, 2), torch='torch.column_stack((x, y))'),
    joined('append', (2, 3), (2,), call=lambda f, xs: f(*xs), torch='torch.cat([x.ravel(), y])'),
    joined('append', (2, 3), (2, 1), call=lambda f, xs: f(*xs, axis=1), note='axis', torch='torch.cat([x, y], 1)'),
    joined('block', (2, 2), (2, 1), (3,), call=lambda f, xs: f([[xs[0], xs[1]], [xs[2]]]),
           torch='torch.vstack([torch.hstack([x, y]), z])'),
    joined('block', (3,), (2,), call=lambda f, xs: f([*xs]), note='row', torch='torch.hstack([x, y])'),
    *[same('split', (6, 2), lambda f, x, k=k: f(x, 3)[k], f'part {k}', f'x.tensor_split(3)[{k}]') for k in range(3)],
    same('split', (2, 6), lambda f, x: f(x, [1, 4], axis=1)[1], 'cuts', 'x[:, 1:4]'),
    same('split', (2, 6), lambda f, x: f(x, [4, 9], axis=1)[2], 'beyond'),
    same('array_split', (7, 2), lambda f, x: f(x, 3)[1], torch='x.tensor_split(3)[1]'),
    same('hsplit', (2, 4), lambda f, x: f(x, 2)[1], torch='x.hsplit(2)[1]'),
    same('hsplit', (4,), lambda f, x: f(x, 2)[0], 'vector', 'x.hsplit(2)[0]'),
    same('vsplit', (4, 2), lambda f, x: f(x, 2)[1], torch='x.vsplit(2)[1]'),
    same('dsplit', (2, 2, 4), lambda f, x: f(x, 2)[1], torch='x.dsplit(2)[1]'),
    same('unstack', (2, 3), lambda f, x: f(x, axis=1)[2], torch='x.unbind(1)[2]'),
    joined('broadcast_arrays', (3,), (2, 1), call=lambda f, xs: f(*xs)[0] * f(*xs)[1],
           torch='torch.broadcast_tensors(x, y)[0] * y'),
    *[joined('meshgrid', (3,), (2,), call=lambda f, xs, k=k: f(*xs, indexing=k)[0] * f(*xs, indexing=k)[1], note=k,
             torch=f'torch.meshgrid(x, y, indexing={k!r})[0] * torch.meshgrid(x, y, indexing={k!r})[1]') for k in ('xy', 'ij')],
    joined('meshgrid', (3,), call=lambda f, xs: f(xs[0], xs[0], A([1., 2.]), sparse=True)[1], note='sparse'),

    same('diff', (2, 4), torch='x.diff()'), same('diff', (4, 2), lambda f, x: f(x, n=2, axis=0), 'twice', 'x.diff(2, 0)'),
    same('diff', (2, 3), lambda f, x: f(x, prepend=0, append=[[1.], [2.]]), 'ends', f32=False),
    joined('diff', (3,), (2,), call=lambda f, xs: f(xs[0], append=xs[1]), note='tensor', torch='x.diff(append=y)'),
    same('ediff1d', (2, 3), torch='x.ravel().diff()'),
    joined('ediff1d', (3,), (2,), call=lambda f, xs: f(xs[0], to_end=xs[1], to_begin=xs[1]), note='ends'),
    same('trapezoid', (2, 4), torch='torch.trapezoid(x)'),
    same('trapezoid', (4, 2), lambda f, x: f(x, dx=0.5, axis=0), 'dx', 'torch.trapezoid(x, dx=.5, dim=0)'),
    joined('trapezoid', (2, 4), (4,), call=lambda f, xs: f(*xs), note='places', torch='torch.trapezoid(x, y)'),
    same('gradient', (4,), torch='torch.gradient(x)[0]'),
    same('gradient', (4, 3), lambda f, x: f(x, 0.5, 2.0)[1], 'spacing', 'torch.gradient(x, spacing=(.5, 2.))[1]'),
    same('gradient', (4, 3), lambda f, x: f(x, axis=0, edge_order=2), 'edges', 'torch.gradient(x, dim=0, edge_order=2)[0]'),
    *[joined(n, (5,), (3,), call=lambda f, xs, m=m: f(*xs, m), note=m, # conv1d does not turn its weights around
             torch=f'torch.nn.functional.conv1d(x[None, None], {w}[None, None], padding={k})[0, 0]')
      for n, w in (('convolve', 'y.flip(0)'), ('correlate', 'y')) for m, k in (('full', 2), ('same', 1), ('valid', 0))],
    *[joined(n, (2,), (5,), call=lambda f, xs, m=m: f(*xs, m), note=f'{m}, short first') for n in ('convolve', 'correlate')
      for m in ('full', 'same', 'valid')],
    same('convolve', (4,), lambda f, x: f(x, x), 'itself',
         'torch.nn.functional.conv1d(x[None, None], x.flip(0)[None, None], padding=3)[0, 0]'),
    joined('interp', (4,), (3,), call=lambda f, xs: f(xs[0], A([-1., 0., 2.]), xs[1]), f32=False),
    row('interp', lambda xp: ours.interp(A([.5, 1.7]), xp, A([1., 3., 2.])), lambda xp: np.interp(A([.5, 1.7]), xp, A([1., 3., 2.])),
        (lambda rng, s: np.arange(3.) + rng.uniform(-.1, .1, 3), (3,)), note='places', f32=False),
    row('interp', lambda x: ours.interp(x, [0., 1.], [2., 3.], left=-1., right=9.),
        lambda x: np.interp(x, [0., 1.], [2., 3.], left=-1., right=9.), (5,), note='outside', f32=False, numpy=False),
    row('linspace', lambda a, b: ours.linspace(a, b, 5), lambda a, b: np.linspace(a, b, 5), (), (2,)),
    row('linspace', lambda a: ours.linspace(a, 3.0, 4, endpoint=False), lambda a: np.linspace(a, 3.0, 4, endpoint=False), (),
        note='open'),

    same('sort', (3, 4), torch='x.sort()[0]', maker=apart), same('sort', (3, 4), lambda f, x: f(x, axis=0), 'axis',
                                                                 'x.sort(0)[0]', apart),
    same('sort', (3, 4), lambda f, x: f(x, axis=None), 'all', 'x.ravel().sort()[0]', apart),
    same('partition', (3, 4), lambda f, x: f(x, 1), maker=apart), same('partition', (3, 4), lambda f, x: f(x, 2, axis=None),
                                                                       'all', maker=apart),
    same('median', (3, 5), maker=apart, torch='x.median()'), same('median', (3, 4), lambda f, x: f(x, axis=1), 'even',
                                                                  'x.quantile(.5, 1)', apart),
    same('median', (3, 4, 2), lambda f, x: f(x, axis=(0, 2), keepdims=True), 'axes', maker=apart),
    same('quantile', (3, 4), lambda f, x: f(x, 0.3), 'one', 'x.quantile(.3)', apart),
    same('quantile', (3, 4, 2), lambda f, x: f(x, [[.1, .5]], axis=(0, -1)), 'several', maker=apart),
    same('quantile', (3, 4), lambda f, x: f(x, [0., 1.], axis=1, keepdims=True), 'ends',
         'x.quantile(torch.tensor([0., 1.], dtype=x.dtype), 1, True)', apart),
    same('percentile', (3, 4), lambda f, x: f(x, 30, axis=0), maker=apart, torch='x.quantile(.3, 0)'),
    joined('choose', (3,), (2, 1), call=lambda f, xs: f(J[:, [0, 1, 1]] % 2, xs),
           torch='torch.where(torch.tensor([[0, 0, 0], [1, 0, 0]]) == 0, x, y)'),
    joined('select', (3,), (3,), call=lambda f, xs: f([A([True, False, False]), A([True, True, False])], [*xs], default=7.),
           torch='torch.stack([x[0], y[1], torch.tensor(7., dtype=x.dtype)])'),
    joined('polyval', (3,), (2, 2), call=lambda f, xs: f(*xs), torch='x[0] * y**2 + x[1] * y + x[2]'),
    joined('polyval', (2,), call=lambda f, xs: f([1, 2, 3], *xs), note='numbers', torch='x**2 + 2 * x + 3'),
]

NO_ROW = {'moves'}      # makes operations
