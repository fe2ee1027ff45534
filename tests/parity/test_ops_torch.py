"""PyTorch as a judge: the rows of the table that name its spelling, values and gradients in float64, kinks included."""
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='PyTorch is not installed; `make parity` installs it')
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import table

from backprop_lit.tensor import Tensor

ROWS = [r for r in table.all_rows() if r.torch]
CASES = [(r, table.samples(r, seed), f'{r.id}-{seed}') for r in ROWS for seed in range(2)]
CASES += [(r, [*tie] if isinstance(tie, tuple) else [tie], f'{r.id}-kink') for r in ROWS for tie in r.ties]
WIDE = [((4, 2, 1), (2, 3), (3,)), ((), (2, 3), (2, 1)), ((0, 3), (1, 3), (3,))]      # shapes to broadcast
CASES += [(r, table.samples(r._replace(args=tuple((m, s) for (m, _), s in zip(r.args, shapes)))), f'{r.id}-{shapes}')
          for r in ROWS if r.elementwise and len(r.args) > 1 for shapes in WIDE]


@pytest.mark.parametrize('row, arrays', [c[:2] for c in CASES], ids=[c[2] for c in CASES])
def test_same_value_and_gradients(row, arrays):
    ours = [Tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    names = dict(zip('xyz', theirs), torch=torch, INDICES=table.INDICES, B=table.B)
    out, expected = row.f(*ours), eval(row.torch, names)
    assert out.shape == tuple(expected.shape) and str(out.dtype) in str(expected.dtype)
    np.testing.assert_allclose(out.data, expected.detach().numpy(), rtol=1e-12, atol=1e-14)
    if not row.grad: return
    g = np.random.default_rng(1).normal(size=out.shape)
    out.backward(g)
    expected.backward(torch.tensor(g))
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a.grad.data, b.grad.numpy(), rtol=1e-10, atol=1e-12, equal_nan=False)


def test_most_rows_have_a_judge():
    grads = [r for r in table.all_rows() if r.grad]
    assert len([r for r in grads if r.torch]) > 0.8 * len(grads)
