"The residual network: its blocks against their formula, its gradients, its messages."
import numpy as np
import pytest

from backprop_lit.backprop import check_grads
from backprop_lit.conv import Conv2d
from backprop_lit.layers import BatchNorm2d, Residual
from backprop_lit.loss import cross_entropy
from backprop_lit.nn import Sequential
from backprop_lit.residual import ResNet, residual_block
from backprop_lit.tensor import Tensor

@pytest.mark.parametrize('C, O, stride', [(2, 2, 1), (2, 3, 1), (2, 2, 2), (1, 4, 2)])
@pytest.mark.parametrize('training', [True, False])
def test_block_is_its_formula(C, O, stride, training):
    rng = np.random.default_rng(0)
    block = residual_block(C, O, stride, rng=0, dtype=np.float64).train(training)
    x = Tensor(rng.normal(size=(3, C, 6, 4)), requires_grad=True)
    inner, way = block[0], block[0].shortcut
    f = inner[4](inner[3](np.maximum(inner[1](inner[0](x)), 0)))
    around = x if way is None else way(x)
    assert (way is None) == (C == O and stride == 1)
    out = block(x)
    assert out.shape == (3, O, 6//stride, 4//stride)
    np.testing.assert_allclose(out.data, np.maximum((f + around).data, 0), atol=1e-12)
    assert check_grads(block, x) < 1e-6

def test_gradients_of_all_parameters():
    rng = np.random.default_rng(1)
    net = ResNet((2, 3), classes=3, rng=0, dtype=np.float64)
    x, y = rng.normal(size=(4, 8, 8)), np.array([0, 1, 2, 1])
    cross_entropy(net(x), y).backward()
    for name, p in net.named_parameters():
        v, h = rng.normal(size=p.shape), 1e-6
        ends = []
        for step in (h, -2*h):
            p.value += step * v
            ends.append(cross_entropy(net(x), y).item())
        p.value += h * v
        np.testing.assert_allclose(np.sum(p.grad.data * v), (ends[0] - ends[1]) / (2*h), atol=1e-7, err_msg=name)

def test_the_way_around_hands_the_gradient_on():
    f = Conv2d(2, 2, 3, padding=1, bias=False, rng=0, dtype=np.float64)
    rng = np.random.default_rng(0)
    x, g = Tensor(rng.normal(size=(1, 2, 5, 5)), requires_grad=True), rng.normal(size=(1, 2, 5, 5))
    f.weight.value[:] = 0
    Residual(f)(x).backward(g)
    np.testing.assert_array_equal(x.grad.data, g)

def test_depth_does_not_starve_the_first_layer():
    "Sixteen blocks: with the way around the first gradient is of the usual size, without it nothing is left"
    def length(block):
        rng = np.random.default_rng(0)
        net = Sequential(Conv2d(1, 4, 3, padding=1, rng=rng), *[block(rng) for _ in range(16)])
        out = net(np.random.default_rng(1).normal(size=(8, 1, 8, 8)).astype(np.float32))
        np.mean(out * out).backward()
        return np.linalg.norm(net[0].weight.grad.data)
    def conv(rng): return Conv2d(4, 4, 3, padding=1, rng=rng)
    assert length(conv) < 1e-4
    assert length(lambda rng: Residual(conv(rng), BatchNorm2d(4))) > 1e-2

def test_command_line_and_seeds():
    from backprop_lit.train import MODELS, RATES
    a, b = (MODELS['residual']((28, 28), 10, [], seed).state_dict() for seed in (3, 3))
    other = MODELS['residual']((28, 28), 10, [], 4).state_dict()
    assert all((np.asarray(a[k]) == np.asarray(b[k])).all() for k in a)
    assert (np.asarray(a['0.weight']) != np.asarray(other['0.weight'])).any()
    assert RATES['residual']['adam'] > 0

def test_any_size_and_single_precision():
    net = ResNet((2, 3, 4), rng=0)
    for H, W in ((28, 28), (8, 8), (11, 5)):
        out = net(np.ones((2, H, W), np.float32))
        assert out.shape == (2, 10) and out.dtype == np.float32
    loss = cross_entropy(net(np.ones((2, 1, 8, 8), np.float32)), np.array([1, 2]))
    loss.backward()
    assert {p.grad.dtype for p in net.parameters()} == {np.dtype(np.float32)}

@pytest.mark.parametrize('shape', [(2, 784), (2, 3, 8, 8), (2, 8, 8, 1)])
def test_messages(shape):
    with pytest.raises(ValueError, match=r'ResNet: expected images of shape \(N, H, W\)'): ResNet((2, 2), rng=0)(np.ones(shape))

def test_goes_on_bit_for_bit(tmp_path):
    "Stopped after an epoch and resumed: weights and running statistics are those of the undisturbed run"
    pytest.importorskip('safetensors')
    from backprop_lit.saving import Checkpoint
    from backprop_lit.train import evaluate, fit
    rng = np.random.default_rng(0)
    data = rng.random((64, 8, 8)).astype(np.float32), rng.integers(0, 10, 64)
    def run(epochs, **more):
        net = ResNet((2, 3), rng=0)
        fit(net, data, epochs=epochs, batch_size=16, progress=False, **more)
        return net.state_dict(), evaluate(net, data)
    whole, score = run(3)
    run(1, callbacks=[Checkpoint(tmp_path / 'c')])
    again, same = run(3, callbacks=[Checkpoint(tmp_path / 'c', resume=True)])
    assert any('running_var' in k for k in whole) and score == same
    assert all((np.asarray(whole[k]) == np.asarray(again[k])).all() for k in whole)
