"Layers, losses and optimisers against PyTorch: states both ways, values, gradients, ten steps"
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='PyTorch is the judge here: pip install torch')
F = torch.nn.functional

from backprop_lit import conv, layers, loss, nn, optim
from backprop_lit.conv import AvgPool2d, Conv2d, MaxPool2d
from backprop_lit.tensor import Tensor

TOL = dict(rtol=1e-5, atol=1e-5)
torch.manual_seed(0)

def floats(*shape, seed=0): return np.random.default_rng(seed).normal(size=shape).astype('f4')

def whole(*shape, high=7): return np.random.default_rng(1).integers(0, high, shape)

X, IMAGES, SEQ = floats(6, 8), floats(3, 4, 6, 5), floats(5, 3, 8)
T = torch.nn

# name: (ours, theirs, inputs)
LAYERS = {
    'conv': (lambda: Conv2d(4, 6, 3, 2, 1, rng=0), lambda: T.Conv2d(4, 6, 3, 2, 1), [IMAGES]),
    'conv same': (lambda: Conv2d(4, 6, 3, padding='same', dilation=2, groups=2, rng=0),
                  lambda: T.Conv2d(4, 6, 3, padding='same', dilation=2, groups=2), [IMAGES]),
    'conv transposed': (lambda: layers.ConvTranspose2d(4, 6, 3, rng=0),
                        lambda: T.ConvTranspose2d(4, 6, 3), [IMAGES]),
    'conv transposed, all': (
        lambda: layers.ConvTranspose2d(4, 6, (3, 2), (2, 3), (1, 0), (1, 2), 2, False, (2, 1), rng=0),
        lambda: T.ConvTranspose2d(4, 6, (3, 2), (2, 3), (1, 0), (1, 2), 2, False, (2, 1)), [IMAGES]),
    'max pool': (lambda: MaxPool2d(2), lambda: T.MaxPool2d(2), [IMAGES]),
    'avg pool': (lambda: AvgPool2d(3, 2, 1), lambda: T.AvgPool2d(3, 2, 1), [IMAGES]),
    'adaptive': (lambda: layers.AdaptiveAvgPool2d((4, 3)), lambda: T.AdaptiveAvgPool2d((4, 3)), [IMAGES]),
    'adaptive larger': (lambda: layers.AdaptiveAvgPool2d((9, None)),
                        lambda: T.AdaptiveAvgPool2d((9, None)), [IMAGES]),
    'batch norm 1d': (lambda: layers.BatchNorm1d(8), lambda: T.BatchNorm1d(8), [X]),
    'batch norm 1d long': (lambda: layers.BatchNorm1d(3), lambda: T.BatchNorm1d(3), [SEQ]),
    'batch norm 2d': (lambda: layers.BatchNorm2d(4, 1e-3, 0.3), lambda: T.BatchNorm2d(4, 1e-3, 0.3), [IMAGES]),
    'batch norm cumulative': (lambda: layers.BatchNorm2d(4, momentum=None),
                              lambda: T.BatchNorm2d(4, momentum=None), [IMAGES]),
    'batch norm bare': (lambda: layers.BatchNorm2d(4, affine=False, track_running_stats=False),
                        lambda: T.BatchNorm2d(4, affine=False, track_running_stats=False), [IMAGES]),
    'layer norm': (lambda: layers.LayerNorm(8), lambda: T.LayerNorm(8), [SEQ]),
    'layer norm 2': (lambda: layers.LayerNorm((6, 5), bias=False), lambda: T.LayerNorm((6, 5), bias=False), [IMAGES]),
    'group norm': (lambda: layers.GroupNorm(2, 4), lambda: T.GroupNorm(2, 4), [IMAGES]),
    'embedding': (lambda: layers.Embedding(7, 5, rng=0), lambda: T.Embedding(7, 5), [whole(4, 3)]),
    'embedding padded': (lambda: layers.Embedding(7, 5, padding_idx=-2, rng=0),
                         lambda: T.Embedding(7, 5, padding_idx=-2), [whole(4, 3)]),
    'gelu': (layers.GELU, T.GELU, [X]),
    'gelu tanh': (lambda: layers.GELU('tanh'), lambda: T.GELU('tanh'), [X]),
    'silu': (layers.SiLU, T.SiLU, [X]),
    'leaky relu': (lambda: layers.LeakyReLU(0.2), lambda: T.LeakyReLU(0.2), [X]),
    'elu': (lambda: layers.ELU(1.5), lambda: T.ELU(1.5), [X]),
    'softplus': (lambda: layers.Softplus(2.), lambda: T.Softplus(2.), [30 * X]),
    'softmax': (lambda: layers.Softmax(0), lambda: T.Softmax(0), [X]),
    'log softmax': (lambda: layers.LogSoftmax(-1), lambda: T.LogSoftmax(-1), [X]),
    'identity': (layers.Identity, T.Identity, [X]),
}
for kind in ('RNN', 'GRU', 'LSTM'):
    for name, how in {'': {}, ' two layers': dict(num_layers=2), ' both ways': dict(num_layers=2, bidirectional=True),
                      ' batch first': dict(batch_first=True, bias=False)}.items():
        LAYERS[kind + name] = (lambda kind=kind, how=how: getattr(layers, kind)(8, 5, rng=0, **how),
                               lambda kind=kind, how=how: getattr(T, kind)(8, 5, **how), [SEQ])
    LAYERS[kind + ' alone'] = (lambda kind=kind: getattr(layers, kind)(8, 5, rng=0),
                               lambda kind=kind: getattr(T, kind)(8, 5), [SEQ[:, 0]])
LAYERS['RNN relu'] = (lambda: layers.RNN(8, 5, nonlinearity='relu', rng=0),
                      lambda: T.RNN(8, 5, nonlinearity='relu'), [SEQ])
LAYERS['RNN state'] = (lambda: layers.RNN(8, 5, rng=0), lambda: T.RNN(8, 5), [SEQ, floats(1, 3, 5)])
LAYERS['GRU state'] = (lambda: layers.GRU(8, 5, rng=0), lambda: T.GRU(8, 5), [SEQ, floats(1, 3, 5)])
LAYERS['LSTM state'] = (lambda: layers.LSTM(8, 5, rng=0), lambda: T.LSTM(8, 5),
                        [SEQ, (floats(1, 3, 5), floats(1, 3, 5, seed=2))])
for name, how in {'': {}, ' batch first': dict(batch_first=True), ' no bias': dict(bias=False)}.items():
    LAYERS['attention' + name] = (
        lambda how=how: layers.MultiheadAttention(8, 2, rng=0, **how),
        lambda how=how: T.MultiheadAttention(8, 2, **how), [SEQ, SEQ[::-1].copy(), floats(5, 3, 8, seed=3)])
LAYERS['attention alone'] = (lambda: layers.MultiheadAttention(8, 4, rng=0),
                             lambda: T.MultiheadAttention(8, 4), [SEQ[0]] * 3)

OTHER = [floats(4, 3, 8), floats(6, 3, 5, seed=1), floats(6, 3, 7, seed=2)]
LAYERS['attention other sizes'] = (lambda: layers.MultiheadAttention(8, 2, kdim=5, vdim=7, rng=0),
                                   lambda: T.MultiheadAttention(8, 2, kdim=5, vdim=7), OTHER)
LAYERS['attention other values'] = (lambda: layers.MultiheadAttention(8, 2, 0., False, vdim=7, rng=0),
                                    lambda: T.MultiheadAttention(8, 2, 0., False, vdim=7), [OTHER[0], floats(6, 3, 8), OTHER[2]])
LAYERS['RNN, by position'] = (lambda: layers.RNN(8, 5, 2, 'relu', False, True, 0., True, rng=0),
                              lambda: T.RNN(8, 5, 2, 'relu', False, True, 0., True), [SEQ])
LAYERS['LSTM, by position'] = (lambda: layers.LSTM(8, 5, 2, False, True, 0., True, rng=0), lambda: T.LSTM(8, 5, 2, False, True, 0., True), [SEQ])

class Around(T.Sequential):
    "A residual block in PyTorch"
    def forward(self, x): return x + super().forward(x)

def held(base, parts, call):
    "A module that holds others in a list or a dictionary, in either library"
    class Holder(base):
        def __init__(self):
            super().__init__()
            self.parts = parts()
        def forward(self, x): return call(self.parts, x)
    return Holder()

def chain(parts, x):
    for part in parts: x = part(x)
    return x

def ours_row(): return nn.Linear(8, 4, rng=0), nn.Tanh()

def its_row(): return T.Linear(8, 4), T.Tanh()

LAYERS |= {
    'linear': (lambda: nn.Linear(8, 5, rng=0), lambda: T.Linear(8, 5), [SEQ]),
    'linear bare': (lambda: nn.Linear(8, 5, False, rng=0), lambda: T.Linear(8, 5, False), [X]),
    'relu': (nn.ReLU, T.ReLU, [X]), 'sigmoid': (nn.Sigmoid, T.Sigmoid, [X]), 'tanh': (nn.Tanh, T.Tanh, [X]),
    'flatten': (nn.Flatten, T.Flatten, [IMAGES]), 'flatten some': (lambda: nn.Flatten(2, 3), lambda: T.Flatten(2, 3), [IMAGES]),
    'sequential': (lambda: nn.Sequential(*ours_row()), lambda: T.Sequential(*its_row()), [X]),
    'mlp': (lambda: nn.MLP(8, 6, 5, rng=0), lambda: T.Sequential(T.Flatten(), T.Linear(8, 6), T.ReLU(), T.Linear(6, 5)), [X]),
    'residual': (lambda: layers.Residual(nn.Linear(8, 8, rng=0), nn.Tanh()), lambda: Around(T.Linear(8, 8), T.Tanh()), [X]),
    'module list': (lambda: held(nn.Module, lambda: layers.ModuleList(ours_row()), chain),
                    lambda: held(T.Module, lambda: T.ModuleList(its_row()), chain), [X]),
    'module dict': (lambda: held(nn.Module, lambda: layers.ModuleDict(dict(zip('ab', ours_row()))), lambda d, x: d['b'](d['a'](x))),
                    lambda: held(T.Module, lambda: T.ModuleDict(dict(zip('ab', its_row()))), lambda d, x: d['b'](d['a'](x))), [X]),
    'dropout of nothing': (lambda: layers.Dropout(0.), lambda: T.Dropout(0.), [X]),
    'dropout of all': (lambda: layers.Dropout(1.), lambda: T.Dropout(1.), [X]),
    'lenet': (lambda: conv.LeNet((16, 16), 5, (3, 4), rng=0), lambda: T.Sequential(
        T.Conv2d(1, 3, 5, padding=2), T.MaxPool2d(2), T.ReLU(), T.Conv2d(3, 4, 5), T.MaxPool2d(2), T.ReLU(), T.Flatten(), T.Linear(16, 5)),
        [floats(3, 1, 16, 16)]),
    'batch norm quick': (lambda: layers.BatchNorm1d(8, momentum=1.), lambda: T.BatchNorm1d(8, momentum=1.), [X]),
    'batch norm no memory': (lambda: layers.BatchNorm1d(8, track_running_stats=False), lambda: T.BatchNorm1d(8, track_running_stats=False), [X]),
    'group norm flat': (lambda: layers.GroupNorm(4, 8, affine=False), lambda: T.GroupNorm(4, 8, affine=False), [X]),
    'adaptive odd': (lambda: layers.AdaptiveAvgPool2d((5, 2)), lambda: T.AdaptiveAvgPool2d((5, 2)), [floats(2, 3, 7, 11)])}

NO_LAYERS = {'Module', 'Recurrent', 'BatchNorm',        # what others are made of
             'ConvNet', 'Jitter'}                       # a network of layers that have rows, and noise on images

def test_every_public_layer_has_a_row():
    public = {n for m in (nn, conv, layers) for n in m.__all__
              if isinstance(getattr(m, n), type) and issubclass(getattr(m, n), nn.Module)}
    made = {type(part).__name__ for row in LAYERS.values() for part in row[0]().modules()}
    assert public - NO_LAYERS <= made, sorted(public - NO_LAYERS - made)

@pytest.mark.parametrize('name', [n for n in layers.__all__ + conv.__all__ + nn.__all__ if hasattr(T, n) and n != 'Module'])
def test_arguments_stand_in_pytorchs_order(name):
    "As far as both have them; ours that it lacks come last and by keyword, or are refused by it"
    import inspect
    kinds = {m: getattr(m, name, None) for m in (nn, conv, layers)}
    ours = next(k for k in kinds.values() if k is not None)
    if not isinstance(ours, type) or not issubclass(ours, nn.Module): return
    def names(c): return [n for n, p in inspect.signature(c).parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    mine, its = [n for n in names(ours) if n not in ('rng', 'dtype')], names(getattr(T, name))
    if its and mine: assert mine == its[:len(mine)]

def test_dropout_between_recurrent_layers_stops_with_eval():
    for kind in ('RNN', 'GRU', 'LSTM'):
        ours, theirs = getattr(layers, kind)(8, 5, 2, dropout=.5, rng=0), getattr(T, kind)(8, 5, 2, dropout=.5)
        ours.load_state_dict(numpy_state(theirs))
        compare(ours.eval(), theirs.eval(), [SEQ])
        assert not np.allclose(ours.train()(SEQ)[0].data, ours(SEQ)[0].data)

def numpy_state(module): return {k: v.detach().numpy() for k, v in module.state_dict().items()}

def give(theirs, ours):
    "Our state, loaded by PyTorch under its own strict rules"
    theirs.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in ours.state_dict().items()}, strict=True)

def as_ours(x):
    if isinstance(x, tuple): return tuple(map(as_ours, x))
    return Tensor(x.copy(), requires_grad=x.dtype.kind == 'f')

def as_theirs(x):
    if isinstance(x, tuple): return tuple(map(as_theirs, x))
    return torch.from_numpy(x.copy()).requires_grad_(x.dtype.kind == 'f')

def flat(out): return [b for a in out for b in flat(a)] if isinstance(out, (tuple, list)) else [out]

def total(outs, g): return sum((o * h).sum() for o, h in zip(outs, g))

def compare(ours, theirs, inputs, check=True):
    "One forward and backward of both, compared if `check`; the parameters then have gradients"
    mine, its = list(map(as_ours, inputs)), list(map(as_theirs, inputs))
    outs, others = flat(ours(*mine)), flat(theirs(*its))
    g = [np.float32(0.1) * floats(*o.shape, seed=i) for i, o in enumerate(outs)]
    total(outs, g).backward()
    total(others, map(torch.from_numpy, g)).backward()
    if not check: return
    for a, b in zip(outs, others): assert a.dtype == np.float32 and np.allclose(a.data, b.detach().numpy(), **TOL)
    for a, b in zip(flat(mine), flat(its)):
        if a.requires_grad: assert a.grad.dtype == 'f4' and np.allclose(a.grad.data, b.grad.numpy(), **TOL)
    for (name, p), (other, q) in zip(ours.named_parameters(), theirs.named_parameters()):
        assert name == other and p.grad.dtype == np.float32
        assert np.allclose(p.grad.data, q.grad.numpy(), rtol=1e-5, atol=1e-5 * max(1, abs(p.grad.data).max())), name

@pytest.mark.parametrize('name', LAYERS)
def test_states_values_gradients_and_ten_steps(name):
    ours, theirs, inputs = LAYERS[name][0](), LAYERS[name][1](), LAYERS[name][2]
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    assert [a.shape for a in ours.state_dict().values()] == [tuple(a.shape) for a in theirs.state_dict().values()]
    assert [a.dtype for a in ours.state_dict().values()] == [a.dtype for a in numpy_state(theirs).values()]
    ours.load_state_dict(numpy_state(theirs))
    compare(ours, theirs, inputs)
    give(theirs, ours)
    if not [*ours.parameters()]: return
    mine, its = optim.SGD(ours.parameters(), 0.01, 0.9), torch.optim.SGD(theirs.parameters(), 0.01, 0.9)
    for step in range(10):
        mine.zero_grad(), its.zero_grad()
        compare(ours, theirs, inputs, check=step == 0)
        mine.step(), its.step()
    for (key, a), b in zip(ours.state_dict().items(), numpy_state(theirs).values()):
        assert np.allclose(a, b, rtol=1e-5, atol=1e-5 * max(1, abs(b).max())), key
    ours.eval(), theirs.eval()
    mine.zero_grad(), its.zero_grad()
    compare(ours, theirs, inputs)

# masks

@pytest.mark.parametrize('kind', ['bool', 'float', '3d'])
def test_masks(kind):
    L, S, N, H = 4, 5, 3, 2
    ours, theirs = layers.MultiheadAttention(8, H, batch_first=True, rng=0), T.MultiheadAttention(8, H, batch_first=True)
    ours.load_state_dict(numpy_state(theirs))
    rng = np.random.default_rng(0)
    mask = rng.random((N * H, L, S) if kind == '3d' else (L, S)) < 0.4
    mask[..., 0] = False
    pad = np.zeros((N, S), bool)
    pad[1, 3:] = True
    if kind == 'float': mask = rng.normal(size=(L, S)).astype('f4')
    q, k = floats(N, L, 8), floats(N, S, 8, seed=1)
    for average in (True, False):
        a = ours(Tensor(q), Tensor(k), Tensor(k), pad, attn_mask=mask, average_attn_weights=average)
        other = np.where(pad, -np.inf, 0).astype('f4') if kind == 'float' else pad
        b = theirs(*map(torch.from_numpy, (q, k, k)), key_padding_mask=torch.from_numpy(other),
                   attn_mask=torch.from_numpy(mask), average_attn_weights=average)
        for x, y in zip(a, b): assert np.allclose(x.data, y.detach().numpy(), **TOL)

@pytest.mark.parametrize('how', [{}, dict(is_causal=True), dict(scale=0.3), dict(attn_mask=np.arange(20).reshape(4, 5) % 3 > 0)])
def test_scaled_dot_product_attention(how):
    q, k, v = floats(2, 3, 4, 6), floats(2, 3, 5, 6, seed=1), floats(2, 3, 5, 7, seed=2)
    a = layers.scaled_dot_product_attention(*map(Tensor, (q, k, v)), **how)
    how = {n: torch.from_numpy(x) if n == 'attn_mask' else x for n, x in how.items()}
    b = F.scaled_dot_product_attention(*map(torch.from_numpy, (q, k, v)), **how)
    assert np.allclose(a.data, b.numpy(), **TOL)

# a network of many parts

def network(m, ours):
    more = dict(rng=0) if ours else {}
    parts = [m['conv'](1, 4, 3, padding=1, **more), m['bn'](4), m['gelu'](), m['pool'](2), m['flat'](),
             m['linear'](16, 8, **more), m['ln'](8), m['silu'](), m['linear'](8, 5, **more)]
    return parts

def twins():
    mine = dict(conv=Conv2d, bn=layers.BatchNorm2d, gelu=layers.GELU, pool=layers.AdaptiveAvgPool2d, flat=nn.Flatten,
                linear=nn.Linear, ln=layers.LayerNorm, silu=layers.SiLU)
    its = dict(conv=T.Conv2d, bn=T.BatchNorm2d, gelu=T.GELU, pool=T.AdaptiveAvgPool2d, flat=T.Flatten,
               linear=T.Linear, ln=T.LayerNorm, silu=T.SiLU)
    ours, theirs = nn.Sequential(*network(mine, True)), T.Sequential(*network(its, False))
    give(theirs, ours)
    return ours, theirs

OPTIMISERS = {name: (getattr(optim, kind, None), getattr(torch.optim, kind), how) for name, kind, how in [
    ('sgd', 'SGD', dict(lr=0.1)), ('nesterov', 'SGD', dict(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)),
    ('adam', 'Adam', dict(lr=1e-2)), ('adamw', 'AdamW', dict(lr=1e-2, weight_decay=0.1)),
    ('rmsprop', 'RMSprop', dict(lr=1e-2)),
    ('rmsprop all', 'RMSprop', dict(lr=1e-2, alpha=0.9, momentum=0.8, centered=True, weight_decay=0.1)),
    ('adagrad', 'Adagrad', dict(lr=1e-2)),
    ('adagrad all', 'Adagrad', dict(lr=1e-2, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.1))]}

@pytest.mark.parametrize('name', OPTIMISERS)
def test_ten_steps_of_a_network_of_many_parts(name):
    ours, theirs = twins()
    mine, its, how = OPTIMISERS[name]
    if mine is None: pytest.skip('not written yet')
    mine, its = mine(ours.parameters(), **how), its(theirs.parameters(), **how)
    rng = np.random.default_rng(0)
    for _ in range(10):
        x, y = rng.normal(size=(8, 1, 6, 6)).astype('f4'), rng.integers(0, 5, 8)
        mine.zero_grad(), its.zero_grad()
        a = loss.cross_entropy(ours(Tensor(x)), y)
        b = F.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(y))
        assert np.isclose(a.item(), b.item(), atol=1e-5)
        a.backward(), b.backward()
        mine.step(), its.step()
    # a gradient that is 0 in exact arithmetic (a bias before batch norm) is noise, which Adam enlarges
    for (key, a), b in zip(ours.state_dict().items(), numpy_state(theirs).values()):
        if key != '0.bias' and key != '1.running_mean': assert np.allclose(a, b, rtol=1e-5, atol=1e-5), key

# losses

LOGITS, LABELS = floats(6, 5), np.array([0, 4, 2, -100, 1, 2])
WEIGHT = np.array([1, 0.5, 2, 3, 0.1], 'f4')

@pytest.mark.parametrize('how', ['mean', 'sum', 'none'])
@pytest.mark.parametrize('more', [{}, dict(weight=WEIGHT), dict(label_smoothing=0.1), dict(ignore_index=2),
                                  dict(weight=WEIGHT, label_smoothing=0.3, ignore_index=4)])
def test_cross_entropy(how, more):
    labels = np.where(LABELS < 0, 3, LABELS) if 'ignore_index' in more else LABELS
    mine, its = as_ours(LOGITS), as_theirs(LOGITS)
    a = loss.cross_entropy(mine, labels, how, **more)
    more = {k: torch.from_numpy(v) if k == 'weight' else v for k, v in more.items()}
    b = F.cross_entropy(its, torch.from_numpy(labels), reduction=how, **more)
    agree(a, b, [mine], [its])

def agree(a, b, mine, its):
    assert a.dtype == np.float32 and np.allclose(a.data, b.detach().numpy(), **TOL)
    a.sum().backward(), b.sum().backward()
    for x, y in zip(mine, its): assert x.grad.dtype == 'f4' and np.allclose(x.grad.data, y.grad.numpy(), **TOL)

SHARES = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
DISTANCES = {
    'l1': (loss.l1_loss, F.l1_loss, floats(6, 5, seed=3), {}),
    'huber': (loss.huber_loss, F.huber_loss, floats(6, 5, seed=3), dict(delta=0.7)),
    'smooth l1': (loss.smooth_l1_loss, F.smooth_l1_loss, floats(6, 5, seed=3), dict(beta=0.7)),
    'kl': (loss.kl_div, F.kl_div, SHARES, {}),
    'kl of logarithms': (loss.kl_div, F.kl_div, np.log(SHARES), dict(log_target=True)),
    'bce': (loss.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits, SHARES, {}),
    'bce, weights': (loss.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits, SHARES,
                     dict(weight=SHARES + 1, pos_weight=WEIGHT))}

@pytest.mark.parametrize('how', ['mean', 'sum', 'none', 'batchmean'])
@pytest.mark.parametrize('name', DISTANCES)
def test_distances(name, how):
    f, g, target, more = DISTANCES[name]
    if how == 'batchmean' and f is not loss.kl_div: return
    mine, its = [as_ours(floats(6, 5, seed=2)), as_ours(target)], [as_theirs(floats(6, 5, seed=2)), as_theirs(target)]
    a = f(*mine, reduction=how, **more)
    more = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in more.items()}
    agree(a, g(*its, reduction=how, **more), mine, its)

LOGITS_3, LABELS_3 = floats(2, 5, 3, 2), np.array([[[0, 1], [2, -100], [4, 4]], [[1, 1], [3, -100], [0, 2]]])

@pytest.mark.parametrize('how', ['mean', 'sum', 'none'])
@pytest.mark.parametrize('more', [{}, dict(weight=WEIGHT), dict(label_smoothing=0.2), dict(weight=WEIGHT, label_smoothing=0.2)])
@pytest.mark.parametrize('kind', ['shares', 'places', 'shares of places'])
def test_cross_entropy_against_shares_and_at_places(kind, more, how):
    if kind == 'shares': x, y = LOGITS, np.random.default_rng(1).dirichlet(np.ones(5), 6).astype('f4')
    elif kind == 'places': x, y = LOGITS_3, LABELS_3
    else: x, y = LOGITS_3, np.moveaxis(np.random.default_rng(1).dirichlet(np.ones(5), (2, 3, 2)), -1, 1).astype('f4').copy()
    mine, its = [as_ours(x)], [as_theirs(x)]
    if y.dtype.kind == 'f': mine, its = mine + [as_ours(y)], its + [as_theirs(y)]
    a = loss.cross_entropy(mine[0], mine[-1] if len(mine) > 1 else y, how, **more)
    more = {k: torch.from_numpy(v) if k == 'weight' else v for k, v in more.items()}
    agree(a, F.cross_entropy(its[0], its[-1] if len(its) > 1 else torch.from_numpy(y), reduction=how, **more), mine, its)

@pytest.mark.parametrize('how', ['mean', 'sum', 'none'])
@pytest.mark.parametrize('more', [{}, dict(weight=WEIGHT), dict(ignore_index=2), dict(weight=WEIGHT, ignore_index=4)])
@pytest.mark.parametrize('x, y', [(LOGITS, LABELS), (LOGITS_3, LABELS_3)])
def test_nll(x, y, more, how):
    y = np.where(y < 0, 3, y) if 'ignore_index' in more else y
    mine, its = as_ours(x), as_theirs(x)
    a = loss.nll_loss(mine, y, how, **more)
    more = {k: torch.from_numpy(v) if k == 'weight' else v for k, v in more.items()}
    agree(a, F.nll_loss(its, torch.from_numpy(y), reduction=how, **more), [mine], [its])

def test_hinge():
    mine, its, y = as_ours(LOGITS), as_theirs(LOGITS), np.sign(floats(6, 5, seed=5))
    agree(loss.hinge_loss(mine, y), torch.relu(1 - torch.from_numpy(y) * its).mean(), [mine], [its])

# initialisers

def test_initialisers_draw_from_the_same_distributions():
    from backprop_lit import init
    for shape in [(200, 300), (40, 30, 4, 3)]:
        for name, how in [('xavier_uniform_', dict(gain=2.)), ('xavier_normal_', {}), ('kaiming_uniform_', dict(a=0.5)),
                          ('kaiming_normal_', dict(mode='fan_out', nonlinearity='relu')), ('uniform_', dict(a=-2, b=1)),
                          ('normal_', dict(mean=1., std=3.)), ('orthogonal_', dict(gain=2.))]:
            ours = getattr(init, name)(Tensor(np.zeros(shape, 'f4')), rng=0, **how).data
            theirs = getattr(torch.nn.init, name)(torch.zeros(shape), **how).numpy()
            assert np.isclose(ours.std(), theirs.std(), rtol=0.03) and abs(ours.mean() - theirs.mean()) < 0.05 * theirs.std()
            if 'normal' not in name and name != 'orthogonal_':
                assert np.isclose(ours.max(), theirs.max(), rtol=0.01)
        for name in ('linear', 'relu', 'tanh', 'sigmoid', 'selu', 'leaky_relu', 'conv2d'):
            assert np.isclose(init.calculate_gain(name), torch.nn.init.calculate_gain(name))
