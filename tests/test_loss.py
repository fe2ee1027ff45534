"Losses: extremes, shapes, precision, labels at the door, and other people's figures"
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import backprop_lit as bl
from backprop_lit.loss import (check_labels, cross_entropy, log_softmax, logsumexp, mse_loss,
                               nll_loss, softmax)
from backprop_lit.tensor import Tensor

HOW = ['mean', 'sum', 'none']
RTOL = 1e-6

def tensor(*shape, seed=0, dtype=float):
    rng = np.random.default_rng(seed)
    return Tensor(rng.normal(size=shape).astype(dtype), requires_grad=True)

# softmax and its relatives

@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=5), st.sampled_from(['f4', 'f8']))
def test_shares_for_any_finite_logits(logits, dtype):
    z = np.array(logits, dtype)
    p, log_p, lse = softmax(z), log_softmax(z), logsumexp(z)
    assert np.isfinite(p).all() and (p >= 0).all() and abs(p.sum() - 1) < 1e-5
    assert np.isfinite(log_p).all() and (log_p <= 0).all()
    assert z.max() <= lse <= z.max() + np.log(len(z)) * 1.001 + abs(z.max()) * 1e-6
    assert {p.dtype, log_p.dtype, np.asarray(lse).dtype} == {np.dtype(dtype)}

@pytest.mark.parametrize('axis', [0, 1, -1, 2])
@pytest.mark.parametrize('f', [softmax, log_softmax, logsumexp])
def test_derivatives_along_every_axis(f, axis):
    bl.check_grads(lambda x: f(x, axis), tensor(2, 3, 4), order=2)
    assert np.allclose(f(tensor(2, 3, 4), dim=axis).data, f(tensor(2, 3, 4).data, axis))

def test_logsumexp_shapes_and_infinities():
    x = tensor(2, 3)
    assert logsumexp(x).shape == (2,) and logsumexp(x, keepdims=True).shape == (2, 1)
    assert logsumexp(x, axis=(0, 1)).shape == () and logsumexp(x, dim=0, keepdim=True).shape == (1, 3)
    bl.check_grads(lambda x: logsumexp(x, (0, 1)), x, order=2)
    masked = Tensor([[1., -np.inf], [-np.inf, -np.inf]], requires_grad=True)
    out = logsumexp(masked)
    assert out.tolist() == [1., -np.inf]
    out.sum().backward()
    assert masked.grad.tolist() == [[1., 0.], [0., 0.]]

def test_masked_classes_get_no_share_and_no_gradient():
    z = Tensor([[0., -np.inf, 0.]], requires_grad=True)
    loss = cross_entropy(z, [0])
    loss.backward()
    assert abs(loss.item() - np.log(2)) < 1e-12 and z.grad.tolist() == [[-0.5, 0., 0.5]]

# cross-entropy

def test_published_figures():
    z = Tensor([[2., 1., .1]], requires_grad=True)
    cross_entropy(z, [0]).backward()
    assert np.allclose(z.grad.data, [[-.340999, .242433, .098566]], atol=1e-6)
    z = Tensor([[1., 2., 3.], [1., 1., 1.]], requires_grad=True)
    loss = cross_entropy(z, np.array([2, 0]))
    assert abs(loss.item() - .753109) < 1e-6
    loss.backward(Tensor(2.))
    assert np.allclose(z.grad.data, [[.0900, .2447, -.3348], [-.6667, .3333, .3333]], atol=1e-4)

@pytest.mark.parametrize('how', HOW)
@pytest.mark.parametrize('N, C', [(1, 1), (1, 4), (5, 2), (3, 7)])
def test_fused_equals_composed(how, N, C):
    z, other = tensor(N, C), tensor(N, C)
    labels = np.random.default_rng(1).integers(0, C, N)
    each = -log_softmax(other)[np.arange(N), labels]
    loss, ref = cross_entropy(z, labels, how), {'mean': each.mean, 'sum': each.sum,
                                                'none': lambda: each}[how]()
    assert loss.shape == ref.shape and np.allclose(loss.data, ref.data, rtol=RTOL)
    g = Tensor(np.random.default_rng(2).normal(size=loss.shape))
    loss.backward(g)
    ref.backward(g)
    assert np.allclose(z.grad.data, other.grad.data, rtol=RTOL, atol=1e-12)
    assert np.allclose(nll_loss(log_softmax(z), labels, how).data, loss.data, rtol=RTOL)

@pytest.mark.parametrize('how', HOW)
@pytest.mark.parametrize('f', [cross_entropy, nll_loss])
def test_label_losses_to_second_order(f, how):
    bl.check_grads(lambda z: f(z, np.array([0, 3, 1]), how), tensor(3, 4), order=2)

def test_third_order():
    bl.check_grads(lambda z: cross_entropy(z, np.array([0, 1])), tensor(2, 3), order=3, tolerance=1e-5)

@pytest.mark.parametrize('size', [89, 710, 1e4, 1e30])
@pytest.mark.parametrize('dtype', ['f4', 'f8'])
def test_huge_logits(size, dtype):
    z = Tensor(np.array([[size, 0, -size], [size, 0, -size]], dtype), requires_grad=True)
    loss = cross_entropy(z, [0, 1])
    loss.backward()
    assert loss.dtype == z.grad.dtype == np.dtype(dtype)
    assert np.isclose(loss.item(), size / 2) and np.allclose(z.grad.data, [[0, 0, 0], [.5, -.5, 0]])

@pytest.mark.parametrize('how', HOW)
@pytest.mark.parametrize('create_graph', [False, True])
def test_float32_stays(how, create_graph):
    z = tensor(3, 4, dtype=np.float32)
    loss = cross_entropy(z * 1, np.array([0, 1, 2]), how)
    for node in bl.toposort(loss.sum()): assert node.value.dtype == np.float32
    loss.sum().backward(create_graph=create_graph)
    assert z.grad.dtype == np.float32

def test_backward_twice_and_inputs_unchanged():
    z, labels = tensor(3, 4), np.array([0, 3, 1])
    before, loss = z.data.copy(), cross_entropy(z, labels)
    loss.backward(retain_graph=True)
    first = z.grad.data.copy()
    loss.backward()
    assert np.allclose(z.grad.data, 2 * first) and np.array_equal(z.data, before)
    assert labels.tolist() == [0, 3, 1]

def test_same_gradient_with_and_without_graph():
    a, b = tensor(3, 4), tensor(3, 4)
    cross_entropy(a, [0, 1, 2]).backward()
    cross_entropy(b, [0, 1, 2]).backward(create_graph=True)
    assert np.allclose(a.grad.data, b.grad.data, rtol=1e-12)

@pytest.mark.parametrize('labels', [[1, 0], (1, 0), np.array([1, 0], np.uint8), np.array([1, 0], np.int8),
                                    np.array([1, 0], np.uint64), Tensor([1, 0]), Tensor(np.array([1, 0], 'i4'))])
def test_kinds_of_labels(labels):
    z = tensor(2, 3)
    assert np.isclose(cross_entropy(z, labels).item(), cross_entropy(z, np.array([1, 0])).item())

@pytest.mark.parametrize('f', [cross_entropy, nll_loss])
@pytest.mark.parametrize('labels, error, match', [
    ([0, 1, 3], IndexError, 'from 0 to 2.*got 3 at position 2'),
    ([0, -1, 1], IndexError, 'got -1 at position 1'),
    (np.array([255, 0, 0], np.uint8), IndexError, 'got 255 at position 0'),
    ([0, 1], ValueError, r'labels: expected shape \(3,\).*got \(2,\)'),
    ([[0], [1], [2]], ValueError, r'got \(3, 1\)'),
    (1, ValueError, r'got \(\)'),
    (np.eye(3, dtype=int), ValueError, 'argmax'),
    ([0., 1., 2.], TypeError, 'whole numbers, got float64'),
    ([True, False, True], TypeError, 'got bool'),
    (['a', 'b', 'c'], TypeError, 'whole numbers')])
def test_labels_at_the_door(f, labels, error, match):
    with pytest.raises(error, match=match): f(tensor(3, 3), labels)

@pytest.mark.parametrize('shape', [(3,), (), (2, 3, 4), (0, 3), (3, 0)])
def test_logits_at_the_door(shape):
    with pytest.raises(ValueError, match=r'logits: expected shape \(N, C\)|classes belong on axis 1'):
        cross_entropy(Tensor(np.zeros(shape)), np.zeros(shape[:1], int))

@pytest.mark.parametrize('loss', [lambda how: cross_entropy(tensor(1, 2), [0], how),
                                  lambda how: nll_loss(tensor(1, 2), [0], how),
                                  lambda how: mse_loss(tensor(2), tensor(2), how)])
@pytest.mark.parametrize('how', ['avg', None, 'Mean', True])
def test_unknown_reduction(loss, how):
    with pytest.raises(ValueError, match="^reduction: expected 'mean', 'sum' or 'none', got"): loss(how)

def test_plain_arrays_and_no_grad():
    assert isinstance(cross_entropy(np.zeros((2, 4)), [0, 1]), float)
    assert np.isclose(cross_entropy([[0., 0.]], [1]), np.log(2))
    with bl.no_grad(): assert not cross_entropy(tensor(2, 3), [0, 1]).requires_grad
    assert check_labels(np.zeros((2, 3)), [0, 2]).tolist() == [0, 2]

# squared error

@pytest.mark.parametrize('how', HOW)
@pytest.mark.parametrize('shape', [(), (3,), (2, 3, 2)])
def test_mse(how, shape):
    a, b = tensor(*shape), tensor(*shape, seed=1)
    square = (a.data - b.data)**2
    want = {'mean': np.mean, 'sum': np.sum, 'none': np.array}[how](square)
    assert np.allclose(mse_loss(a, b, how).data, want)
    bl.check_grads(lambda a, b: mse_loss(a, b, how), a, b, order=2)

@pytest.mark.parametrize('a, b', [((3, 1), (3,)), ((3,), (3, 1)), ((3,), ()), ((2, 3), (3,)), ((0,), (0,))])
def test_mse_does_not_broadcast(a, b):
    with pytest.raises(ValueError, match='mse_loss: expected input and target of one shape'):
        mse_loss(tensor(*a), np.zeros(b))

def test_mse_float32():
    x = tensor(4, dtype=np.float32)
    loss = mse_loss(x, np.zeros(4, np.float32))
    loss.backward()
    assert loss.dtype == x.grad.dtype == np.float32

# the judge

@pytest.mark.parametrize('how', HOW)
def test_as_pytorch(how):
    torch = pytest.importorskip('torch', reason='PyTorch is the judge here')
    F, z = torch.nn.functional, np.random.default_rng(0).normal(size=(5, 4))
    labels, target = np.array([0, 1, 2, 3, 3]), np.random.default_rng(1).normal(size=(5, 4))
    cases = [(lambda t: cross_entropy(t, labels, how),
              lambda t: F.cross_entropy(t, torch.tensor(labels), reduction=how)),
             (lambda t: nll_loss(log_softmax(t), labels, how),
              lambda t: F.nll_loss(F.log_softmax(t, -1), torch.tensor(labels), reduction=how)),
             (lambda t: mse_loss(t, target, how),
              lambda t: F.mse_loss(t, torch.tensor(target), reduction=how)),
             (lambda t: logsumexp(t, 0), lambda t: torch.logsumexp(t, 0)),
             (softmax, lambda t: F.softmax(t, -1))]
    for ours, theirs in cases:
        a, b = Tensor(z, requires_grad=True), torch.tensor(z, requires_grad=True)
        out, ref = ours(a), theirs(b)
        g = np.random.default_rng(2).normal(size=out.shape)
        out.backward(Tensor(g))
        ref.backward(torch.tensor(g))
        assert np.allclose(out.data, ref.detach().numpy(), atol=1e-12)
        assert np.allclose(a.grad.data, b.grad.numpy(), atol=1e-12)

# the other losses

def test_uneven_cross_entropy_by_hand():
    z, y, w, s = tensor(5, 4), np.array([3, 0, -100, 1, 1]), np.array([1., 2., 0., 4.]), 0.2
    p = np.exp(z.data) / np.exp(z.data).sum(1, keepdims=True)
    each = [0 if c < 0 else -sum(w[k] * ((1 - s) * (k == c) + s / 4) * np.log(p[n, k]) for k in range(4)) for n, c in enumerate(y)]
    assert np.allclose(cross_entropy(z, y, 'none', w, label_smoothing=s).data, each)
    assert np.allclose(cross_entropy(z, y, 'sum', w, label_smoothing=s).data, sum(each))
    assert np.allclose(cross_entropy(z, y, 'mean', w, label_smoothing=s).data, sum(each) / sum(w[c] for c in y if c >= 0))
    for how in HOW: bl.check_grads(lambda z: cross_entropy(z, y, how, w, label_smoothing=s), z, order=2)

def test_ignored_rows_get_no_gradient_and_may_be_wild():
    z = Tensor(np.array([[1e4, -np.inf, 0.], [1., 2., 3.]]), requires_grad=True)
    for weight in (None, np.ones(3)):
        loss = cross_entropy(z, [-100, 1], weight=weight)
        loss.backward()
        assert np.isfinite(loss.item()) and (z.grad.data[0] == 0).all()
        z.grad = None

@pytest.mark.parametrize('call, error, match', [
    (lambda z: cross_entropy(z, [0, 5, -100]), IndexError, 'got 5 at position 1'),
    (lambda z: cross_entropy(z, [-100] * 3), ValueError, '0 such labels of 3'),
    (lambda z: cross_entropy(z, [0, 1], weight=np.ones(4)), ValueError, r'got \(2,\)'),
    (lambda z: cross_entropy(z, [0, 1, 2], weight=-np.ones(4)), ValueError, '4 numbers ≥ 0'),
    (lambda z: cross_entropy(z[0], [0], label_smoothing=0.1), ValueError, r'shape \(N, C\)'),
    (lambda z: bl.binary_cross_entropy_with_logits(z, z.data * 0 + np.nan), ValueError, 'from 0 to 1'),
    (lambda z: bl.hinge_loss(z, np.zeros((3, 4))), ValueError, 'write 2'),
    (lambda z: bl.kl_div(z, z.data[0]), ValueError, 'of one shape'),
    (lambda z: bl.l1_loss(z, z.data, 'avg'), ValueError, "got 'avg'")])
def test_other_losses_refuse(call, error, match):
    with pytest.raises(error, match=match): call(tensor(3, 4))

@pytest.mark.parametrize('how', HOW)
@pytest.mark.parametrize('name', ['binary_cross_entropy_with_logits', 'l1_loss', 'huber_loss', 'smooth_l1_loss', 'kl_div'])
def test_elementwise_losses(name, how):
    f, x = getattr(bl, name), tensor(3, 4)
    y = Tensor(np.random.default_rng(3).uniform(0.1, 0.9, (3, 4)), requires_grad=True)
    bl.check_grads(lambda x, y: f(x, y, how), x, y, order=2)
    out = f(Tensor(x.data.astype('f4'), True), Tensor(y.data.astype('f4'), True), how)
    assert out.dtype == np.float32 and out.shape == ((3, 4) if how == 'none' else ())

def test_far_answers_do_not_overflow():
    with np.errstate(over='raise'):
        assert bl.binary_cross_entropy_with_logits(np.array([-1e4, 1e4]), np.array([1., 0.]), 'sum') == 2e4

def test_elementwise_losses_by_hand():
    x, y = np.array([-3., 0.2, 2.]), np.array([0., 1., 0.5])
    s = 1 / (1 + np.exp(-x))
    assert np.allclose(bl.binary_cross_entropy_with_logits(x, y, 'none', pos_weight=3.), -(3 * y * np.log(s) + (1 - y) * np.log(1 - s)))
    assert np.allclose(bl.huber_loss(x, y, 'none', 1.), [2.5, 0.32, 1.])
    assert np.allclose(bl.hinge_loss(x, np.array([-1, 1, -1]), 'none', 0.5), [0, 0.3, 2.5])
    assert np.allclose(bl.kl_div(np.log([0.2, 0.8]), np.array([0., 1.]), 'sum'), -np.log(0.8))
