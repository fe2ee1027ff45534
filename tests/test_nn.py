"Layers and modules: behaviour that the page does not show, or shows once"
import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import backprop_lit as bl
from backprop_lit import nn
from backprop_lit.nn import (MLP, Flatten, Linear, Module, Parameter, ReLU, Sequential, Sigmoid,
                             Tanh, linear)
from backprop_lit.tensor import Tensor

RTOL = 1e-6

def tensor(rng, *shape, dtype=float):
    return Tensor(rng.normal(size=shape).astype(dtype), requires_grad=True)

# linear

@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=3), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_linear_equals_its_three_operations(front, D, H, bias):
    rng = np.random.default_rng(0)
    fused = [tensor(rng, *front, D), tensor(rng, H, D)] + [tensor(rng, H)] * bias
    plain = [Tensor(t.data.copy(), requires_grad=True) for t in fused]
    g = rng.normal(size=(*front, H))
    out, ref = linear(*fused), plain[0] @ plain[1].T
    if bias: ref = ref + plain[2]
    assert np.allclose(out.data, ref.data, rtol=RTOL)
    out.backward(Tensor(g))
    ref.backward(Tensor(g))
    for a, b in zip(fused, plain): assert np.allclose(a.grad.data, b.grad.data, rtol=RTOL)

@pytest.mark.parametrize('front', [(5,), (2, 5), ()])
def test_linear_second_order(front):
    rng = np.random.default_rng(1)
    args = tensor(rng, *front, 3), tensor(rng, 4, 3), tensor(rng, 4)
    bl.check_grads(linear, *args, order=2)
    bl.check_grads(linear, *args[:2], order=2)

def test_linear_keeps_float32_and_its_inputs():
    rng = np.random.default_rng(0)
    x, w, b = (tensor(rng, *s, dtype=np.float32) for s in [(7, 3), (4, 3), (4,)])
    before = [t.data.copy() for t in (x, w, b)]
    out = linear(x, w, b)
    out.sum().backward()
    assert out.dtype == np.float32
    for t, old in zip((x, w, b), before):
        assert t.grad.dtype == np.float32 and np.array_equal(t.data, old)
        assert not np.shares_memory(t.grad.data, t.data)

def test_linear_promotes_as_numpy_does():
    w, b = np.ones((2, 3), np.float32), np.ones(2)
    assert linear(np.ones((1, 3), np.float32), w, b).dtype == np.float64
    assert linear(np.ones((1, 3)), w, b.astype(np.float32)).dtype == np.float64

def test_weight_changed_after_forward_is_noticed():
    layer = Linear(3, 2, rng=0)
    x = Tensor(np.ones((1, 3), np.float32), requires_grad=True)
    out = layer(x).sum()
    with bl.no_grad(): layer.weight *= 2
    with pytest.raises(RuntimeError, match='changed in place'): out.backward()

# Parameter

def test_parameter_shares_and_results_are_tensors():
    a = np.ones(3, np.float32)
    p = Parameter(Tensor(a))
    assert np.shares_memory(p.data, a) and p.requires_grad and p.is_leaf
    assert type(p + 1) is Tensor and type(np.exp(p)) is Tensor and type(p.detach()) is Tensor
    assert not Parameter(a, requires_grad=False).requires_grad
    assert repr(p).startswith('Parameter(')

def test_parameter_survives_copy_and_pickle():
    model = MLP(3, 4, 2, rng=0)
    for new in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(type(p) is Parameter for p in new.parameters())
        for p, q in zip(model.parameters(), new.parameters()):
            assert np.array_equal(p.data, q.data) and not np.shares_memory(p.data, q.data)

def test_deepcopy_keeps_sharing():
    layer = Linear(2, 2)
    new = copy.deepcopy(Sequential(layer, layer))
    assert new[0] is new[1] and len([*new.parameters()]) == 2

# Module

class Net(Module):
    def __init__(self):
        super().__init__()
        self.body = Sequential(Linear(3, 4, rng=0), ReLU())
        self.scale = Parameter(np.ones(1, np.float32))
        self.head = Linear(4, 2, rng=1)
        self.title = 'text'
    def forward(self, x): return self.scale * self.head(self.body(x))

NAMES = ['scale', 'body.0.weight', 'body.0.bias', 'head.weight', 'head.bias']

def test_names_own_first_then_parts():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == NAMES
    assert [n for n, _ in net.named_parameters(recurse=False)] == ['scale']
    assert [n for n, _ in net.named_parameters('net')] == [f'net.{n}' for n in NAMES]
    assert [n for n, _ in net.named_modules()] == ['', 'body', 'body.0', 'body.1', 'head']
    assert [n for n, _ in net.named_children()] == ['body', 'head']
    assert [*net.children()] == [net.body, net.head]
    assert [*net.modules()][0] is net

def test_without_super_init():
    class Bare(Module):
        def __init__(self): self.w = Parameter(np.ones(2))
    assert len([*Bare().parameters()]) == 1 and Bare().training

def test_shared_parts_count_once():
    layer = Linear(2, 2, rng=0)
    net = Sequential(layer, Tanh(), layer)
    assert len([*net.parameters()]) == 2 and len([*net.modules()]) == 3
    assert len([*net.children()]) == 2 and len(net) == 3
    tied = Module()
    tied.a, tied.b = Parameter(np.ones(1)), None
    tied.b = tied.a
    assert [n for n, _ in tied.named_parameters()] == ['a']

def test_module_used_twice_adds_gradients():
    layer = Linear(2, 2, rng=0, dtype=np.float64)
    x = np.random.default_rng(0).normal(size=(3, 2))
    layer(layer(x)).sum().backward()
    both = layer.weight.grad.data.copy()
    first, second = copy.deepcopy(layer), copy.deepcopy(layer)
    first.zero_grad(); second.zero_grad()
    second(first(x)).sum().backward()
    assert np.allclose(both, first.weight.grad.data + second.weight.grad.data, rtol=RTOL)

def test_module_that_contains_itself():
    ring = Module()
    ring.w, ring.me = Parameter(np.ones(1)), None
    ring.me = ring
    assert len([*ring.parameters()]) == 1 and len([*ring.modules()]) == 1
    assert [*ring.state_dict()] == ['w']

def test_delete_and_reassign():
    net = Net()
    del net.head
    assert [n for n, _ in net.named_parameters()] == NAMES[:3]
    net.head = Linear(4, 5)
    net.scale = None
    assert [n for n, _ in net.named_parameters()] == NAMES[1:]
    net.scale = Parameter(np.ones(2))
    net.body = Linear(3, 4)
    assert [n for n, _ in net.named_parameters()][0] == 'scale'

@pytest.mark.parametrize('name, value', [('scale', np.ones(1)), ('scale', Tensor([1.])), ('scale', 2.),
                                         ('head', lambda x: x), ('head', Parameter([1.]))])
def test_replacing_by_something_else_is_refused(name, value):
    net = Net()
    with pytest.raises(TypeError, match=f'Net.{name}: expected a'): setattr(net, name, value)
    assert len([*net.parameters()]) == 5

def test_unknown_attribute_names_what_there_is():
    with pytest.raises(AttributeError, match="Net has no attribute 'tail'.*body, scale, head"):
        Net().tail
    assert not hasattr(Net(), 'tail') and getattr(Net(), 'tail', 1) == 1

def test_properties_of_subclasses_work():
    class Sized(Module):
        @property
        def size(self): return self.n
        @size.setter
        def size(self, n): self.n = n
    m = Sized()
    m.size = 3
    assert m.size == 3 and 'size' not in vars(m)

def test_no_forward():
    with pytest.raises(NotImplementedError, match='forward'): Module()(1)

def test_train_eval_apply_freeze():
    net = Net()
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert net.train() is net and all(m.training for m in net.modules())
    seen = []
    assert net.apply(seen.append) is net
    assert seen == [net.body[0], net.body[1], net.body, net.head, net]
    assert net.body.requires_grad_(False) is net.body
    net(np.ones((2, 3), np.float32)).sum().backward()
    assert [p.grad is None for p in net.parameters()] == [False, True, True, False, False]
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())

def test_class_defaults_are_never_shared():
    a, b = Net(), Net()
    a.eval(); a.register_buffer('mean', np.zeros(2)); a.register_forward_hook(lambda *_: None)
    assert b.training and not [*b.named_buffers()] and not b._hooks
    assert Module.training and Module._buffers == {} and Module._hooks == ()

def test_buffers():
    net = Net()
    net.register_buffer('mean', np.zeros(2, np.float32))
    net.head.register_buffer('count', np.array(3), persistent=False)
    net.register_buffer('none', None)
    assert dict(net.named_buffers()).keys() == {'mean', 'head.count'}
    assert [*net.state_dict()] == ['scale', 'mean', *NAMES[1:]]
    assert len([*net.parameters()]) == 5
    net.mean = Tensor(np.ones(2, np.float32))
    assert net.state_dict()['mean'].tolist() == [1, 1]
    with pytest.raises(TypeError, match='Net.mean: expected a Tensor'): net.mean = np.ones(2)
    net.to(np.float64)
    assert net.mean.dtype == np.float64 and net.head.count.dtype.kind == 'i'
    assert {p.dtype for p in net.parameters()} == {np.dtype(float)}
    del net.mean
    assert dict(net.named_buffers()).keys() == {'head.count'} and 'mean' not in net.state_dict()

def test_hooks_see_replace_and_go():
    net, seen = Net(), []
    hook = net.head.register_forward_hook(lambda m, args, out: seen.append((m, args[0].shape)))
    double = net.register_forward_hook(lambda m, args, out: out * 2)
    x = np.ones((2, 3), np.float32)
    twice = net(x).data
    net.remove_forward_hook(double)
    assert np.allclose(twice, 2 * net(x).data) and seen == [(net.head, (2, 4))] * 2
    net.head.remove_forward_hook(hook)
    net(x)
    assert len(seen) == 2

def test_state_dict_is_a_copy_and_round_trips():
    net, other = Net(), Net()
    state = net.state_dict()
    assert [*state] == NAMES and all(type(a) is np.ndarray for a in state.values())
    held = other.head.weight.data
    with bl.no_grad():
        for p in net.parameters(): p += 1
    assert state['scale'] == 1
    missing, unexpected = other.load_state_dict(net.state_dict())
    assert missing == unexpected == []
    assert all(np.array_equal(a, b) for a, b in zip(net.state_dict().values(),
                                                    other.state_dict().values()))
    assert other.head.weight.data is held        # in the memory that an optimiser holds

def test_shared_parts_stand_under_both_names_in_the_state():
    layer = Linear(2, 2)
    assert [*Sequential(layer, layer).state_dict()] == ['0.weight', '0.bias', '1.weight', '1.bias']

@pytest.mark.parametrize('change, match', [
    (lambda s: s.pop('scale'), r"without \['scale'\]"),
    (lambda s: s.update(odd=1.), r"with \['odd'\]"),
    (lambda s: s.update({'head.bias': np.zeros(3)}), r'shape \(2,\) for head.bias, got .*\(3,\)'),
    (lambda s: s.update({'head.bias': np.zeros(2, complex)}), 'complex128'),
    (lambda s: s.update({'head.bias': np.array(['a', 'b'])}), 'expected real numbers')])
def test_a_bad_state_changes_nothing(change, match):
    net = Net()
    before, state = net.state_dict(), {n: a + 1 for n, a in net.state_dict().items()}
    change(state)
    with pytest.raises(ValueError, match=match): net.load_state_dict(state)
    assert all(np.array_equal(before[n], a) for n, a in net.state_dict().items())

def test_not_strict_loads_what_is_there():
    net = Net()
    found = net.load_state_dict({'scale': Tensor([7.]), 'odd': 1}, strict=False)
    assert found == (NAMES[1:], ['odd']) and net.scale.item() == 7 and net.scale.dtype == np.float32

def test_loading_is_noticed_by_an_old_graph():
    net = Net()
    out = net(np.ones((1, 3), np.float32)).sum()
    net.load_state_dict(net.state_dict())
    with pytest.raises(RuntimeError, match='changed in place'): out.backward()

def test_repr():
    assert repr(Net()) == '''Net(
  (body): Sequential(
    (0): Linear(in_features=3, out_features=4, bias=True)
    (1): ReLU()
  )
  (head): Linear(in_features=4, out_features=2, bias=True)
)'''
    class Both(Sequential):
        def extra_repr(self): return 'p=0.5'
    assert repr(Both(Tanh())) == 'Both(\n  p=0.5\n  (0): Tanh()\n)'
    assert repr(Sequential()) == 'Sequential()'

def test_memory_goes_without_the_collector():
    gc.disable()
    try:
        net = Net()
        net(np.ones((1, 3), np.float32)).sum().backward()
        ref = weakref.ref(net.head.weight)
        del net
        assert ref() is None
    finally: gc.enable()

# layers

def test_linear_start():
    layer = Linear(100, 50, rng=3)
    assert layer.weight.shape == (50, 100) and layer.bias.shape == (50,)
    for p in layer.parameters():
        assert p.dtype == np.float32 and abs(p.data).max() <= 0.1 and len(np.unique(p.data)) > 40
    assert abs(layer.weight.data.var() - 1 / 300) < 2e-4
    assert Linear(2, 3, bias=False).bias is None

def test_seeds_and_the_default_generator():
    nn.manual_seed(5)
    a = MLP(4, 4, 4)
    nn.manual_seed(5)
    b = MLP(4, 4, 4)
    assert all(np.array_equal(p.data, q.data) for p, q in zip(a.parameters(), b.parameters()))
    assert not np.array_equal(a[1].weight.data, a[3].weight.data)
    c = MLP(4, 4, 4, rng=1)
    assert not np.array_equal(c[1].weight.data, c[3].weight.data)
    nn.manual_seed(None)
    assert not np.array_equal(Linear(4, 4).weight.data, a[1].weight.data)

@pytest.mark.parametrize('shape', [(5, 4), (4,), (2, 3, 4), (0, 4)])
def test_linear_takes_any_leading_axes(shape):
    assert Linear(4, 7)(np.ones(shape, np.float32)).shape == (*shape[:-1], 7)

@pytest.mark.parametrize('shape', [(64, 28, 28), (64, 783), (784, 1), (1,), ()])
def test_wrong_number_of_features(shape):
    with pytest.raises(ValueError, match='Linear: expected 784 features'):
        Linear(784, 10)(np.ones(shape))
    with pytest.raises(ValueError, match='expected 784 features'):
        Linear(784, 10)(Tensor(np.ones(shape)))

def test_a_list_is_refused():
    with pytest.raises(TypeError, match='array or a tensor, got a list'): Linear(2, 1)([1., 2.])

@pytest.mark.parametrize('sizes', [(0, 3), (3, -1), (2.5, 1), (True, 1), ('3', 1)])
def test_sizes_are_whole_numbers(sizes):
    with pytest.raises(ValueError, match='whole number'): Linear(*sizes)

def test_integer_precision_is_refused():
    with pytest.raises(TypeError): Linear(2, 2, dtype=int)

@pytest.mark.parametrize('layer, f', [(ReLU(), lambda x: np.maximum(x, 0)), (Tanh(), np.tanh),
                                      (Sigmoid(), lambda x: 1 / (1 + np.exp(-x)))])
def test_activations(layer, f):
    x = tensor(np.random.default_rng(0), 3, 4)
    assert np.allclose(layer(x).data, f(x.data))
    bl.check_grads(layer, x)

def test_flatten():
    x = np.ones((2, 3, 4, 5))
    assert Flatten()(x).shape == (2, 60)
    assert Flatten(0)(x).shape == (120,)
    assert Flatten(1, 2)(x).shape == (2, 12, 5)
    assert Flatten(-2)(x).shape == (2, 3, 20)
    assert Flatten()(np.ones((0, 3, 4))).shape == (0, 12)
    flat = np.ones((2, 3))
    assert Flatten()(flat) is flat and Flatten()(np.ones(3)).shape == (3,)
    bl.check_grads(Flatten(), tensor(np.random.default_rng(0), 2, 3, 4))

def test_sequential():
    parts = Linear(3, 4), ReLU(), Linear(4, 2)
    row = Sequential(*parts)
    assert [*row] == [*parts] and len(row) == 3 and row[-1] is parts[2]
    assert type(row[:2]) is Sequential and [*row[1:]] == [*parts[1:]]
    with pytest.raises(IndexError): row[3]
    row[1] = Tanh()
    assert type(row[1]) is Tanh and len(row) == 3
    assert [n for n, _ in Sequential(dict(a=parts[0], b=parts[1])).named_children()] == ['a', 'b']
    for wrong in (np.tanh, [ReLU()], None, ReLU):
        with pytest.raises(TypeError, match='expected a module'): Sequential(ReLU(), wrong)
    with pytest.raises(TypeError, match='expected a module'): row.append(3)
    assert row.append(ReLU()) is row and len(row) == 4
    x = np.ones((1, 3))
    assert Sequential()(x) is x

def test_mlp():
    model = MLP(784, 100, 200, 10)
    assert sum(p.size for p in model.parameters()) == 100_710
    assert model(np.zeros((2, 28, 28), np.float32)).dtype == np.float32
    assert [type(m).__name__ for m in MLP(4, 3, 2, activation=Sigmoid)] == [
        'Flatten', 'Linear', 'Sigmoid', 'Linear']
    assert len(MLP(4, 2)) == 2
    for sizes in ((), (3,)):
        with pytest.raises(ValueError, match='at least two sizes'): MLP(*sizes)

def test_no_float64_in_a_float32_step():
    model = MLP(6, 5, 3, rng=0)
    x, labels = np.ones((4, 6), np.float32), np.array([0, 1, 2, 0])
    loss = bl.cross_entropy(model(x), labels)
    for node in bl.toposort(loss): assert node.value.dtype == np.float32
    loss.backward()
    assert {p.grad.dtype for p in model.parameters()} == {np.dtype(np.float32)}

def test_same_gradients_as_by_hand():
    from backprop_lit import byhand
    rng = np.random.default_rng(0)
    model = MLP(5, 7, 3, rng=0, dtype=np.float64)
    x, y = rng.normal(size=(6, 5)), rng.integers(0, 3, 6)
    bl.cross_entropy(model(x), y).backward()
    W1, b1, W2, b2 = (p.data for p in model.parameters())
    h = np.maximum(x @ W1.T + b1, 0)
    loss = byhand.SoftmaxCrossentropyWithLogits()
    loss(h @ W2.T + b2, y)
    g = loss.backward()
    assert np.allclose(model[3].weight.grad.data, g.T @ h, rtol=RTOL)
    g = (g @ W2) * (h > 0)
    assert np.allclose(model[1].weight.grad.data, g.T @ x, rtol=RTOL)
    assert np.allclose(model[1].bias.grad.data, g.sum(0), rtol=RTOL)

def test_state_dicts_go_to_pytorch_and_back():
    torch = pytest.importorskip('torch', reason='PyTorch is the judge here')
    ours = MLP(5, 7, 3, rng=0)
    theirs = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(5, 7), torch.nn.ReLU(),
                                 torch.nn.Linear(7, 3))
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    theirs.load_state_dict({n: torch.from_numpy(a) for n, a in ours.state_dict().items()})
    assert np.allclose(ours(x).data, theirs(torch.from_numpy(x)).detach().numpy(), atol=1e-6)
    assert repr(ours).splitlines()[1:] == repr(theirs).splitlines()[1:]
    fresh = MLP(5, 7, 3)
    fresh.load_state_dict(theirs.state_dict())
    assert np.array_equal(fresh[1].weight.data, ours[1].weight.data)
