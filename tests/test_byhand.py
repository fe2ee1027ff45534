"""The layers made by hand: published numbers, derivatives, errors, and the tie to the engine."""
import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import backprop_lit.byhand as byhand
from backprop_lit.byhand import (
    MSE, Layer, LayerStack, LinearLayer, NeuralNet, Relu, ReLULayer, SelfTaughtLinear, SigmoidLayer,
    SoftmaxCrossEntropyLoss, SoftmaxCrossentropyWithLogits, log_softmax_rows, one_hot_rows,
    train_net, train_stack, xavier_init)

ATOL = 1e-8     # float64 against central differences of step 1e-6


def central(f, x, h=1e-6):
    """Slopes of the number f(x), independent of the package's own differences."""
    x, slope = np.array(x, float), np.zeros(np.shape(x))
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += h
        down[i] -= h
        slope[i] = (f(up) - f(down)) / (2 * h)
    return slope


def off_zero(rng, *shape):
    """Random numbers at least 0.01 from the corner of the ReLU."""
    x = rng.normal(size=shape)
    return np.where(abs(x) < .01, .5, x)


def test_it_imports_numpy_alone():
    tree = ast.parse(Path(byhand.__file__).read_text('utf-8'))
    froms = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert froms == {'__future__'} and names == {'numpy'}


# ---- published numbers

def test_softmax_cross_entropy_with_logits_published():
    ce = SoftmaxCrossentropyWithLogits()
    assert ce([[2., 1., .1]], [0]) == pytest.approx(.417030, abs=1e-6)
    np.testing.assert_allclose(ce.backward(), [[-.340999, .242433, .098566]], atol=1e-6)


def test_mse_published():
    mse = MSE()
    assert mse([[23.]], [[25.]]).tolist() == [[2.0]]
    assert mse.backward().tolist() == [[-2.0]]


def test_linear_layer_published():
    layer = LinearLayer(2, 2)
    layer.W = np.array([[1., 0], [0, 1], [10, 20]])
    assert layer(np.array([[1., 2.]])).tolist() == [[11, 22]]
    assert layer.bp_input(np.ones((1, 2))).tolist() == [[1, 1]]
    assert layer.bp_param(np.ones((1, 2))).tolist() == [[1, 1], [2, 2], [1, 1]]


def test_relu_layers_published():
    for layer, back in [(Relu(), 'backward'), (ReLULayer(), 'bp_input')]:
        assert layer(np.array([-1., 0., 2.])).tolist() == [0, 0, 2]
        assert getattr(layer, back)(np.ones(3)).tolist() == [0, 0, 1]


def test_softmax_cross_entropy_loss_published():
    loss = SoftmaxCrossEntropyLoss()
    P, mean = loss(np.array([[1., 2, 3], [1, 1, 1]]), one_hot_rows([2, 0], 3))
    assert mean == pytest.approx(.753109, abs=1e-6)
    np.testing.assert_allclose(P.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(loss.bp_input(np.ones((2, 3))),
                               [[.0900, .2447, -.3348], [-.6667, .3333, .3333]], atol=5e-5)


@pytest.mark.parametrize('i, o, bound', [(785, 32, .0857), (33, 10, .3735)])
def test_xavier_bounds(i, o, bound):
    W = xavier_init(i, o, rng=0)
    assert W.shape == (i, o) and abs(W).max() <= np.sqrt(6 / (i + o))
    assert abs(W).max() == pytest.approx(bound, rel=.01)
    assert W.mean() == pytest.approx(0, abs=3 * bound / np.sqrt(3 * W.size))


def test_self_taught_linear_starts_in_minus_one_to_one():
    layer = SelfTaughtLinear(300, 40, rng=0)
    for p in (layer.A, layer.b):
        assert abs(p).max() <= 1 and abs(p).max() > .9
    assert layer.lr == 1e-4


def test_weights_counted():
    net = NeuralNet()
    assert net.z1.W.size + net.z2.W.size == 25_450 and net.alpha == .001
    stack = [SelfTaughtLinear(*s) for s in [(784, 100), (100, 200), (200, 10)]]
    assert sum(l.A.size + l.b.size for l in stack) == 100_710


# ---- derivatives

sizes = st.tuples(*[st.integers(1, 6)] * 3)


@settings(max_examples=30, deadline=None)
@given(sizes, st.integers(0, 999))
def test_self_taught_linear_gradients_and_step(size, seed):
    (N, D, H), rng = size, np.random.default_rng(seed)
    x, g, layer = rng.normal(size=(N, D)), rng.normal(size=(N, H)), SelfTaughtLinear(D, H, lr=.3, rng=rng)
    A, b, x0, g0 = layer.A.copy(), layer.b.copy(), x.copy(), g.copy()
    np.testing.assert_allclose(layer(x), x @ A + b, atol=1e-12)
    np.testing.assert_allclose(layer.backward(g), central(lambda x: (g * (x @ A + b)).sum(), x), atol=1e-7)
    np.testing.assert_allclose(A - layer.A, .3 * central(lambda A: (g * (x @ A + b)).sum(), A), atol=1e-7)
    np.testing.assert_allclose(b - layer.b, .3 * central(lambda b: (g * (x @ A + b)).sum(), b), atol=1e-7)
    assert (x == x0).all() and (g == g0).all()


@settings(max_examples=30, deadline=None)
@given(sizes, st.integers(0, 999))
def test_linear_layer_gradients(size, seed):
    (N, D, H), rng = size, np.random.default_rng(seed)
    x, g, layer = rng.normal(size=(N, D)), rng.normal(size=(N, H)), LinearLayer(D, H, rng)

    def f(x, W): return (g * (x @ W[:-1] + W[-1])).sum()
    layer(x)
    np.testing.assert_allclose(layer.bp_input(g), central(lambda x: f(x, layer.W), x), atol=1e-7)
    np.testing.assert_allclose(layer.bp_param(g), central(lambda W: f(x, W), layer.W), atol=1e-7)


@pytest.mark.parametrize('layer, f', [
    (Relu(), lambda x: np.maximum(x, 0)), (SigmoidLayer(), lambda x: 1 / (1 + np.exp(-x)))])
def test_elementwise_gradients(layer, f):
    rng = np.random.default_rng(0)
    x, g = off_zero(rng, 7, 5), rng.normal(size=(7, 5))
    np.testing.assert_allclose(layer(x), f(x), atol=1e-12)
    np.testing.assert_allclose(layer.backward(g), central(lambda x: (g * f(x)).sum(), x), atol=ATOL)


def test_sigmoid_is_quiet_at_the_ends():
    with np.errstate(all='raise', under='ignore'):
        assert SigmoidLayer()(np.array([-1e5, 0., 1e5])).tolist() == [0, .5, 1]


def test_mse_gradient_is_that_of_the_sum_of_its_parts():
    rng = np.random.default_rng(0)
    x, y, mse = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), MSE()
    mse(x, y)
    np.testing.assert_allclose(mse.backward(), central(lambda x: MSE()(x, y).sum(), x), atol=ATOL)
    np.testing.assert_allclose(mse.backward(2.), 2 * mse.backward())


def test_both_softmax_losses_against_differences():
    rng = np.random.default_rng(0)
    z, labels = 3 * rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    a, c, Y = SoftmaxCrossentropyWithLogits(), SoftmaxCrossEntropyLoss(), one_hot_rows(labels, 4)
    mean = a(z, labels)
    assert c(z, Y)[1] == pytest.approx(mean, abs=1e-12)
    slopes = central(lambda z: a(z, labels), z)
    a(z, labels)
    np.testing.assert_allclose(a.backward(), slopes, atol=ATOL)
    np.testing.assert_allclose(c.bp_input(np.ones((6, 4))), 6 * slopes, atol=1e-7)


@pytest.mark.parametrize('dtype, top', [(np.float64, 1e6), (np.float32, 1e4)])
def test_huge_logits_stay_finite(dtype, top):
    z = np.array([[top, 0, -top], [0, 0, 0]], dtype)
    with np.errstate(over='raise', invalid='raise', divide='raise'):
        assert log_softmax_rows(z)[0].tolist() == [0, -top, -2 * top]
        P, mean = SoftmaxCrossEntropyLoss()(z, one_hot_rows([1, 0], 3, dtype))
        assert SoftmaxCrossentropyWithLogits()(z, [1, 0]) == pytest.approx((top + np.log(3)) / 2)
    assert np.isfinite(P).all() and mean == pytest.approx((top + np.log(3)) / 2)


def test_stack_gradients_walk_in_reverse():
    rng = np.random.default_rng(1)
    stack = LayerStack(SelfTaughtLinear(3, 6, lr=1, rng=rng), SigmoidLayer(), SelfTaughtLinear(6, 2, lr=1, rng=rng))
    (a, _, c), x, y, mse = stack.layers, rng.normal(size=(4, 3)), rng.normal(size=(4, 2)), MSE()
    A, b, C, d = (p.copy() for p in (a.A, a.b, c.A, c.b))

    def f(x, A, C): return ((1 / (1 + np.exp(-x @ A - b)) @ C + d - y) ** 2).sum() / 8
    mse(stack(x), y)
    np.testing.assert_allclose(stack.backward(mse.backward()), central(lambda x: f(x, A, C), x), atol=ATOL)
    np.testing.assert_allclose(A - a.A, central(lambda A: f(x, A, C), A), atol=ATOL)
    np.testing.assert_allclose(C - c.A, central(lambda C: f(x, A, C), C), atol=ATOL)


def test_net_gradients_are_batch_size_times_those_of_the_mean_loss():
    rng = np.random.default_rng(2)
    net = NeuralNet(5, 4, 3, alpha=.01, rng=rng)
    X, Y = rng.normal(size=(7, 5)), one_hot_rows(rng.integers(0, 3, 7), 3)
    P, correct, _ = net.evaluate(X, Y)
    assert P.shape == (7, 3) and correct == np.mean(P.argmax(1) == Y.argmax(1))
    grads = net.backprop()
    for layer, dW in zip((net.z1, net.z2), grads):
        def mean_loss(W):
            kept, layer.W = layer.W, W
            value = net.evaluate(X, Y)[2]
            layer.W = kept
            return value
        np.testing.assert_allclose(dW, 7 * central(mean_loss, layer.W), atol=1e-7)
    net.evaluate(X, Y)
    W1, W2 = net.z1.W.copy(), net.z2.W.copy()
    net.gradient_descent()
    np.testing.assert_allclose(W1 - net.z1.W, .01 * grads[0], atol=1e-12)
    np.testing.assert_allclose(W2 - net.z2.W, .01 * grads[1], atol=1e-12)


# ---- dtypes, seeds, training

def test_float32_stays_float32():
    rng = np.random.default_rng(0)
    X, labels = rng.random((6, 5), np.float32), rng.integers(0, 3, 6)
    net = NeuralNet(5, 4, 3, rng=0, dtype=np.float32)
    train_net(net, X, labels, epochs=1, batch=4, log=None)
    assert net.evaluate(X, one_hot_rows(labels, 3, np.float32))[0].dtype == np.float32
    assert {dW.dtype for dW in net.backprop()} == {np.dtype(np.float32)}
    stack = LayerStack(SelfTaughtLinear(5, 4, rng=0, dtype=np.float32), Relu(), SigmoidLayer())
    assert stack(X).dtype == np.float32 and stack.backward(np.ones((6, 4), np.float32)).dtype == np.float32
    assert stack.layers[0].A.dtype == np.float32
    ce = SoftmaxCrossentropyWithLogits()
    ce(X, labels)
    assert ce.backward().dtype == np.float32


def test_same_seed_same_training():
    rng = np.random.default_rng(0)
    X, labels = rng.random((50, 5)), rng.integers(0, 3, 50)
    runs = [train_net(NeuralNet(5, 4, 3, rng=1), X, labels, epochs=2, rng=2, log=None) for _ in range(2)]
    assert runs[0] == runs[1]
    nets = [LayerStack(SelfTaughtLinear(5, 3, rng=1)) for _ in range(3)]
    means = [train_stack(n, SoftmaxCrossentropyWithLogits(), X, labels, epochs=4, batch=2, rng=s, every=10)
             for n, s in zip(nets, (5, 5, 6))]
    assert means[0] == means[1] != means[2] and len(means[0]) == 10


def test_training_reports_every_row_once(capsys):
    rng = np.random.default_rng(0)
    X, labels, lines = rng.random((10, 5)), rng.integers(0, 3, 10), []
    net = NeuralNet(5, 4, 3, alpha=0, rng=1)
    history = train_net(net, X, labels, epochs=2, batch=4, log=lines.append)
    _, correct, loss = net.evaluate(X, one_hot_rows(labels, 3))      # alpha=0: nothing moved
    assert [h['epoch'] for h in history] == [0, 1] and len(lines) == 2
    for h in history:
        assert h['correct'] == pytest.approx(correct) and h['loss'] == pytest.approx(loss)
    train_net(net, X, labels, epochs=1)
    assert capsys.readouterr().out.startswith('epoch  0: correct ')


def test_train_stack_drops_the_short_batch_and_reports():
    X, calls = np.arange(10.).reshape(10, 1), []
    stack = LayerStack(SelfTaughtLinear(1, 1, lr=0, rng=0))
    means = train_stack(stack, MSE(), X, X, epochs=2, batch=3, every=2, report=lambda *a: calls.append(a))
    assert len(means) == 3 and [c[0] for c in calls] == [2, 4, 6]
    assert [c[1] for c in calls] == pytest.approx(means)


@pytest.mark.parametrize('seed', [0, 3])
def test_point_interpolation_ends_near_25(seed):
    rng = np.random.default_rng(seed)
    X = rng.uniform(0, [30, 20, 11], (20_000, 3))
    stack = LayerStack(SelfTaughtLinear(3, 15, rng=rng), Relu(), SelfTaughtLinear(15, 1, rng=rng))
    means = train_stack(stack, MSE(), X, X @ [[2.], [3.], [4.]] + 5, rng=rng)
    assert 23 < stack(np.array([[1., 2., 3.]])).item() < 25.5
    assert np.mean(means[-10:]) < .5


def test_net_learns_the_embedded_digits():
    digits = pytest.importorskip('backprop_lit.data').digits
    train, test = digits()
    X, X_test = (d.images.reshape(len(d.images), -1) for d in (train, test))
    net = NeuralNet(64, 32, 10, alpha=.005, rng=0)
    history = train_net(net, X, train.labels, epochs=20, log=None)
    assert history[-1]['loss'] < .2 < history[0]['loss'] < np.log(10)
    assert net.evaluate(X_test, one_hot_rows(test.labels, 10))[1] > .94


# ---- errors: what was expected, what came

def test_unfinished_layer_names_itself():
    class Unfinished(Layer): pass
    with pytest.raises(NotImplementedError, match=r'Unfinished: expected a method forward\(x\)'): Unfinished()(1)
    with pytest.raises(NotImplementedError, match=r'Unfinished: expected a method backward\(g\)'): Unfinished().backward(1)


@pytest.mark.parametrize('layer, back', [
    (SelfTaughtLinear(2, 2), 'backward'), (Relu(), 'backward'), (SigmoidLayer(), 'backward'),
    (MSE(), 'backward'), (SoftmaxCrossentropyWithLogits(), 'backward'),
    (LayerStack(Relu()), 'backward'), (LinearLayer(2, 2), 'bp_input'), (LinearLayer(2, 2), 'bp_param'),
    (ReLULayer(), 'bp_input'), (SoftmaxCrossEntropyLoss(), 'bp_input')])
def test_backward_before_forward(layer, back):
    with pytest.raises(RuntimeError, match='forward pass before going backward; came none'):
        getattr(layer, back)(np.ones((1, 2)))


def test_net_backward_before_evaluate():
    for step in ('backprop', 'gradient_descent'):
        with pytest.raises(RuntimeError, match='came none'): getattr(NeuralNet(2, 2, 2), step)()


@pytest.mark.parametrize('layer', [SelfTaughtLinear(4, 2), LinearLayer(4, 2), NeuralNet(4, 3, 2).z1])
@pytest.mark.parametrize('shape', [(3, 5), (3, 2, 2), (4,), ()])
def test_wrong_feature_count(layer, shape):
    with pytest.raises(ValueError, match=r'expected inputs of shape \(N, 4\)') as e: layer(np.zeros(shape))
    assert f'came shape {shape}' in str(e.value) and 'reshape' in str(e.value)


@pytest.mark.parametrize('labels, error, says', [
    ([0, 3], IndexError, 'came 3'), ([-1, 0], IndexError, 'came -1'), ([0], ValueError, r'\(1,\)'),
    ([[0], [1]], ValueError, r'\(2, 1\)'), ([0., 1.], TypeError, 'float64'), ([True, False], TypeError, 'bool')])
def test_bad_labels(labels, error, says):
    with pytest.raises(error, match=says): SoftmaxCrossentropyWithLogits()(np.zeros((2, 3)), labels)


def test_bad_labels_elsewhere():
    with pytest.raises(ValueError, match=r'came \(3,\)'):
        SoftmaxCrossentropyWithLogits()(np.zeros(3), [0])
    with pytest.raises(ValueError, match='expected 1 labels'): one_hot_rows(2, 3)
    with pytest.raises(ValueError, match=r'\(2, 2\)'): one_hot_rows([[0, 1], [1, 0]], 3)
    with pytest.raises(IndexError, match='came 3'): one_hot_rows([0, 3], 3)
    with pytest.raises(IndexError, match='came 7'):
        train_net(NeuralNet(2, 2, 3), np.zeros((2, 2)), [0, 7], log=None)
    for Y in ([0, 1], np.zeros((3, 3)), np.zeros((2, 4))):
        with pytest.raises(ValueError, match='one_hot_rows'): SoftmaxCrossEntropyLoss()(np.zeros((2, 3)), Y)


def test_mse_refuses_to_broadcast():
    with pytest.raises(ValueError, match=r'came \(3, 1\) and \(3,\)'): MSE()(np.zeros((3, 1)), np.zeros(3))


@pytest.mark.parametrize('bad', [dict(epochs=-1), dict(epochs=0), dict(batch=0), dict(batch=-4), dict(batch=9)])
def test_bad_runs(bad):
    X, labels = np.zeros((8, 2)), np.zeros(8, int)
    with pytest.raises(ValueError, match=f'{next(iter(bad))}={next(iter(bad.values()))}'):
        train_stack(LayerStack(SelfTaughtLinear(2, 3)), SoftmaxCrossentropyWithLogits(), X, labels, **bad)
    if bad == dict(batch=9): return          # the short last batch is kept here
    with pytest.raises(ValueError, match=f'{next(iter(bad))}={next(iter(bad.values()))}'): train_net(NeuralNet(2, 2, 3), X, labels, log=None, **bad)


def test_lengths_that_differ():
    with pytest.raises(ValueError, match='8 inputs and 7 targets'):
        train_net(NeuralNet(2, 2, 3), np.zeros((8, 2)), np.zeros(7, int), log=None)


# ---- the tie to the engine: two roads to the same gradient

def test_self_taught_stack_equals_the_engine():
    Tensor = pytest.importorskip('backprop_lit.tensor').Tensor
    mse_loss = pytest.importorskip('backprop_lit.loss').mse_loss
    relu = pytest.importorskip('backprop_lit.ops').relu
    rng = np.random.default_rng(3)
    stack = LayerStack(SelfTaughtLinear(5, 7, lr=1, rng=rng), Relu(), SelfTaughtLinear(7, 4, lr=1, rng=rng))
    (first, _, last), x, y = stack.layers, rng.normal(size=(6, 5)), rng.normal(size=(6, 4))
    tx, A, b, C, d = (Tensor(p.copy(), requires_grad=True) for p in (x, first.A, first.b, last.A, last.b))
    loss = mse_loss(relu(tx @ A + b) @ C + d, Tensor(y), reduction='sum') / (2 * 6)
    loss.backward()
    mse = MSE()
    assert mse(stack(x), y).sum() == pytest.approx(loss.item(), abs=1e-10)
    np.testing.assert_allclose(stack.backward(mse.backward()), tx.grad.data, atol=1e-6)
    for tensor, stepped in ((A, first.A), (b, first.b), (C, last.A), (d, last.b)):
        np.testing.assert_allclose(tensor.data - stepped, tensor.grad.data, atol=1e-6)


def test_net_equals_the_engine():
    Tensor = pytest.importorskip('backprop_lit.tensor').Tensor
    cross_entropy = pytest.importorskip('backprop_lit.loss').cross_entropy
    relu = pytest.importorskip('backprop_lit.ops').relu
    rng = np.random.default_rng(4)
    net, X, labels = NeuralNet(9, 6, 4, rng=rng), rng.normal(size=(8, 9)), rng.integers(0, 4, 8)
    A, b, C, d = (Tensor(p.copy(), requires_grad=True)
                  for p in (net.z1.W[:-1], net.z1.W[-1], net.z2.W[:-1], net.z2.W[-1]))
    logits = relu(Tensor(X) @ A + b) @ C + d
    mean = cross_entropy(logits, labels)
    _, _, loss = net.evaluate(X, one_hot_rows(labels, 4))
    assert loss == pytest.approx(mean.item(), abs=1e-10)
    cross_entropy(logits, labels, reduction='sum').backward()
    dW1, dW2 = net.backprop()
    np.testing.assert_allclose(dW1, np.vstack([A.grad.data, b.grad.data]), atol=1e-6)
    np.testing.assert_allclose(dW2, np.vstack([C.grad.data, d.grad.data]), atol=1e-6)
