"Exercises: each judge accepts right answers and calls wrong ones by their names."
import collections
import contextlib
import functools
import json
import re
import typing

import numpy as np
import pytest

from backprop_lit import conv, exercises, loss, nn, ops, optim, tensor
from backprop_lit.exercises import (EXERCISES, Exercise, Trouble, numbers_in,
                                    results_agree)

BY_NAME = {e.name: e for e in EXERCISES}
WRONG = [(e, m) for e in EXERCISES for m in e.misconceptions]
every = pytest.mark.parametrize('exercise', EXERCISES, ids=lambda e: e.name)

# ---- right answers, written otherwise than in the book ------------------------------------------

def other_central_difference(f, x, h):
    return sum(s * f(x + s * h) / h for s in (1, -1)) / 2

def other_numerical_grad(f, x, h):
    flat = np.asarray(x, float).ravel()
    eye = h * np.eye(flat.size)
    return np.array([(f((flat + e).reshape(x.shape)) - f((flat - e).reshape(x.shape))) /
        2 / h
                     for e in eye]).reshape(x.shape)

def other_gradients_agree(f, grad, x):
    steps = 1e-5 * np.eye(x.size)
    slow = np.array([f(x + s) - f(x - s) for s in steps]) / 2e-5
    if np.shape(grad(x)) != slow.shape: return False
    scale = np.abs(slow).max(initial=1)
    return np.allclose(grad(x) / scale, slow / scale, rtol=0, atol=1e-5)

def other_descend(slope, x, lr, steps):
    return x if steps == 0 else other_descend(slope, x - lr * slope(x), lr, steps - 1)

def other_chain(f_slope, g, g_slope, x):
    out = g_slope(x)
    out *= f_slope(g(x))
    return out

def other_two_paths(g, x, a, b):
    to_b = g * a
    while to_b.ndim > b.ndim: to_b = to_b.sum(0)
    return g * a ** 2, 2 * g * a * x + g * b, to_b

def other_forward_and_back(a, b, c): return a ** -1, b ** -1, 1 / np.log(c) / c

def other_normalise(images, mean, std): return images / (255 * std) - mean / std

def other_mosaic(images, rows):
    per = len(images) // rows
    return np.concatenate([np.concatenate(list(images[r*per:(r+1)*per]), axis=1) for r
        in range(rows)])

def other_minibatches(images, labels, size, rng):
    pairs = list(zip(images, labels))
    rng.shuffle(pairs)
    x, y = map(np.array, zip(*pairs))
    while len(x):
        yield x[:size], y[:size]
        x, y = x[size:], y[size:]

def other_linear_backward(g, x, A):
    return (np.einsum('nh,dh->nd', g, A), np.einsum('nd,nh->dh', x, g),
        np.einsum('nh->h', g))

def other_make_recipe(func, args, kwargs):
    return typing.NamedTuple('R', [(n, object) for n in ('func', 'args', 'kwargs',
        'parents')])(
        func, [getattr(a, 'value', a) for a in args], dict(kwargs),
        {i: args[i] for i in range(len(args)) if hasattr(args[i], 'parents')})

def other_topological_sort(node, get_children):
    waiting, users, todo = {}, collections.defaultdict(list), [node]
    for n in todo:
        if n in waiting: continue
        children = [*get_children(n)]
        waiting[n] = len(children)
        for c in children: users[c].append(n)
        todo += children
    ready, out = [n for n, k in waiting.items() if not k], []
    for n in ready:
        out.append(n)
        for u in users[n]:
            waiting[u] -= 1
            if not waiting[u]: ready.append(u)
    if len(out) < len(waiting): raise ValueError('cycle')
    return out

def other_sorted_graph(root):
    out, done = [], set()
    def visit(t):
        if id(t) in done: return
        done.add(id(t))
        for p in t.parents: visit(p)
        out.insert(0, t)
    visit(root)
    return out

def other_backward(root):
    def down(node, g):
        if not node.parents: node.grad += g
        for p, s in zip(node.parents, node.slopes): down(p, g * s)
    down(root, 1.0)

def other_accumulate(grads, node, part):
    if node not in grads: grads[node] = part.copy()
    else: grads[node] += part

def other_backprop(root, end_grad=None):
    root.backward(np.ones_like(root.data) if end_grad is None else end_grad,
        retain_graph=True)

def other_log_rule(g, out, x): return g * np.exp(-np.log(x))

def other_exp_rule(g, out, x): return g * np.exp(x)

def other_negative_rule(g, out, x): return 0 - g

def other_subtract_rules(g, out, x, y):
    g2 = np.broadcast_to(g, np.broadcast_shapes(x.shape, y.shape))
    return [s * tensor.unbroadcast(g2, v.shape) for s, v in ((1, x), (-1, y))]

def other_multiply_rules(g, out, x, y):
    x, y = np.asarray(x), np.asarray(y)
    return [tensor.unbroadcast(g * b, a.shape) for a, b in ((x, y), (y, x))]

def other_divide_rules(g, out, x, y):
    inverse = 1 / y
    return tensor.unbroadcast(g * inverse, x.shape), -tensor.unbroadcast(g * out *
        inverse, y.shape)

def other_power_rule(g, out, x, n):
    safe = np.where((x == 0) & (n == 0), 1, x)
    return g * n * safe ** (n - 1)

def other_sigmoid_rule(g, out, x): return g / (np.exp(x) + 2 + np.exp(-x))

def other_relu_rule(g, out, x):
    part = g.copy()
    part[out == 0] = 0
    return part

def other_maximum_rules(g, out, x, y):
    s = (1 + np.sign(x - y)) / 2
    return s * g, g - s * g

def other_floor_rule(g, out, x): return g * 0

def other_sum_rule(g, out, x, axis, keepdims):
    return np.ones_like(x) * np.reshape(g, np.sum(x, axis, keepdims=True).shape)

def other_mean_rule(g, out, x, axis):
    return np.zeros_like(x) + np.reshape(g, np.mean(x, axis,
        keepdims=True).shape) * np.size(g) / x.size

def other_reshape_rule(g, out, x):
    part = np.empty_like(x)
    part.flat = g
    return part

def other_invert_permutation(axes):
    axes = [a % len(axes) for a in axes]
    return [axes.index(i) for i in range(len(axes))]

def other_expand(x, shape):
    sizes = list(shape)
    for i in range(-x.ndim, 0):
        if sizes[i] == -1: sizes[i] = x.shape[i]
    return x + np.zeros(sizes)

def other_argmax(x, axis=None, keepdims=False):
    return np.argmin(-x, axis=axis, keepdims=keepdims)

def other_coerce_index(index):
    one = lambda i: i.numpy() if hasattr(i, 'numpy') else i
    return (*map(one, index),) if type(index) is tuple else one(index)

def other_getitem_rule(g, out, x, index):
    places = np.arange(x.size).reshape(x.shape)[index].ravel()
    return np.bincount(places, np.ravel(g), x.size).reshape(x.shape)

def other_stack_rule(g, n, axis): return [p.squeeze(axis) for p in np.split(g, n, axis)]

def other_matmul_rules(g, out, x, y):
    return np.einsum('ik,jk->ij', g, y), np.einsum('ij,ik->jk', x, g)

class other_RuleTable:
    def __init__(self): self.of = collections.defaultdict(dict)
    def add(self, func, position, rule): self.of[func][position] = rule
    def get(self, func, position): return self.of[func][position]

def other_multiply_forward(a, b):
    out = tensor.Tensor(getattr(a, 'value', a) * getattr(b, 'value', b))
    for t in (a, b):
        if getattr(t, 'requires_grad', False) and ops.is_grad_enabled():
            out.requires_grad = True
    return out

def other_wrap_forward(func, is_differentiable=True):
    @functools.wraps(func)
    def inner(*args, **kwargs):
        out = tensor.Tensor(func(*(getattr(a, 'value', a) for a in args), **kwargs))
        if is_differentiable and ops.is_grad_enabled():
            out.requires_grad = any(getattr(a, 'requires_grad', False) for a in args)
        return out
    return inner

def other_no_tensor_keywords(f):
    class Strict:
        def __call__(self, *args, **kwargs):
            if {tensor.Tensor} & {type(v) for v in kwargs.values()}:
                raise TypeError('no')
            return f(*args, **kwargs)
    return Strict()

@contextlib.contextmanager
def other_NoGrad(switch):
    former, switch.on = switch.on, False
    try: yield
    finally: switch.on = former

def other_einsum_rule(spec, g, arrays, k):
    ins, out = spec.split('->')
    ins = ins.split(',')
    if len(set(ins[k])) < len(ins[k]): raise ValueError
    operands = [np.ones(arrays[k].shape) if i == k else a for i, a in enumerate(arrays)]
    return np.einsum(','.join([*ins, out]) + '->' + ins[k], *operands, g)

def other_unbroadcast(g, shape):
    out = np.zeros(shape)
    np.add.at(out, tuple(np.broadcast_to(i, g.shape) for i in np.indices(shape)) if
        shape else (), g if shape else g.sum())
    return out

class other_MiniTensor:
    requires_grad, grad = False, None
    def __init__(self, array, requires_grad=False):
        self.array = np.array(array)
        self.requires_grad = requires_grad
    def __len__(self): return len(self.array)
    def __bool__(self):
        if self.array.size > 1: raise RuntimeError
        return self.array.item() != 0
    def __eq__(self, o): return other_MiniTensor(np.equal(self.array, o.array))
    def __hash__(self): return object.__hash__(self)

class other_Num:
    __array_ufunc__ = None
    def __init__(self, value): self.value = value
    def __neg__(self): return other_Num(-self.value)
    def inv(self): return other_Num(1 / self.value)
    def __add__(self, b): return other_Num(self.value + getattr(b, 'value', b))
    def __mul__(self, b): return other_Num(self.value * getattr(b, 'value', b))
    def __sub__(self, b): return self + -b
    def __rsub__(self, b): return -self + b
    def __truediv__(self, b): return self * (1 / getattr(b, 'value', b))
    def __rtruediv__(self, b): return self.inv() * b
    __radd__, __rmul__ = __add__, __mul__

def other_add_(x, other, alpha=1.0):
    x[...] = x + alpha * other
    return x

def other_uniform_(x, low, high, rng):
    for i in np.ndindex(x.shape): x[i] = rng.uniform(low, high)
    return x

def other_make_parameter(t): return t.detach().requires_grad_()

class other_Module:
    def _of(self, kind): return [v for v in vars(self).values() if isinstance(v, kind)]
    def modules(self): return self._of(other_Module)
    def parameters(self, recurse=True):
        return self._of(nn.Parameter) + [p for m in self.modules() * recurse for p in
            m.parameters()]
    def __call__(self, *args, **kwargs): return self.forward(*args, **kwargs)

def other_linear(x, weight, bias=None):
    return np.einsum('...i,oi->...o', x, weight) + (0 if bias is None else bias)

def other_init_linear(inputs, outputs, rng):
    weight = 2 * rng.random((outputs, inputs)) - 1
    bias = 2 * rng.random(outputs) - 1
    return weight / np.sqrt(inputs), bias / np.sqrt(inputs)

def other_mlp(x, layers):
    h = np.array([row.ravel() for row in x])
    for k, (w, b) in enumerate(layers):
        if k: h = h * (h > 0)
        h = np.einsum('ni,oi->no', h, w) + b
    return h

def other_shared_layer(g, x, weight):
    w = tensor.Tensor(weight, requires_grad=True)
    ((x @ w.T) @ w.T).backward(g)
    return w.grad

def other_dropout(x, p, training, rng):
    return x * rng.binomial(1, 1 - p, x.shape) / (1 - p) if training else x

def other_batch_norm(x, mean, var, training, momentum=0.1):
    m, v = (x.mean(0), ((x - x.mean(0)) ** 2).mean(0)) if training else (mean, var)
    out = (x - m) * (v + 1e-5) ** -0.5
    if training:
        mean = np.average([mean, m], axis=0, weights=[1 - momentum, momentum])
        var = np.average([var, np.var(x, axis=0, ddof=1)], axis=0, weights=[1 -
            momentum, momentum])
    return out, mean, var

def other_softmax(logits):
    return np.array([np.exp(row - np.logaddexp.reduce(row)) for row in logits])

def other_cross_entropy(logits, labels):
    return np.array([np.logaddexp.reduce(row) - row[k] for row, k in zip(logits,
        labels)])

def other_cross_entropy_rule(logits, labels):
    t = tensor.Tensor(logits, requires_grad=True)
    loss.cross_entropy(t, labels).backward()
    return t.grad

def other_mse_rule(x, y):
    d = x - y
    return (d + d) / np.prod(d.shape)

class other_SGD:
    def __init__(self, params, lr): self.inner = optim.SGD(params, lr=lr)
    def zero_grad(self): self.inner.zero_grad()
    def step(self): self.inner.step()

def other_momentum_step(w, v, g, lr, momentum):
    return w - lr * g - lr * momentum * v, g + v * momentum

def other_adam_step(w, m, v, g, t, lr):
    m = m + 0.1 * (g - m)
    v = v + 0.001 * (g * g - v)
    scale = np.sqrt(1 - 0.999 ** t)
    return w - lr * scale / (1 - 0.9 ** t) * m / (np.sqrt(v) + 1e-8 * scale), m, v

def other_train_epoch(batches, loss_of, optimizer):
    for batch in batches:
        optimizer.zero_grad()
        loss = loss_of(batch)
        loss.backward()
        yield float(loss.item())
        optimizer.step()
        optimizer.zero_grad()

def other_mean_loss(losses, sizes): return np.dot(losses, sizes) / np.sum(sizes)

def other_remember(weights): return [np.array(w) for w in weights]

def other_conv2d(x, weight):
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], (1, 2))
    return np.einsum('cijhw,ochw->oij', windows, weight)

def other_conv2d_back(g, x, weight):
    a, b = (tensor.Tensor(v, requires_grad=True) for v in (x[None], weight))
    conv.conv2d(a, b).backward(g[None])
    return a.grad.data[0], b.grad.data

def other_relu_(x):
    mask = x > 0
    x *= mask
    return x, lambda g: mask * g

class other_Guarded:
    def __init__(self, array): self.array, self.stamp = array, object()
    def add_(self, other):
        self.array[...] = self.array + other
        self.stamp = object()
    def save(self):
        stamp = self.stamp
        def load():
            if stamp is not self.stamp: raise RuntimeError('stale')
            return self.array
        return load

def other_safe_sqrt(x):
    positive = x.data > 0
    return np.sqrt(np.where(positive, x, 1.0)) * positive

def other_newton(f, df, x, steps):
    return x if not steps else other_newton(f, df, x - f(x) / df(x), steps - 1)

def other_block_back(g, x, A, B, S=None):
    start = tensor.Tensor(x, requires_grad=True)
    S = np.eye(x.shape[1]) if S is None else S
    ops.relu(start @ S.T + ops.relu(start @ A.T) @ B.T).backward(g)
    return start.grad

# ---- what a judge must do ------------------------------------------------------------------------

def test_enough():
    assert len(EXERCISES) >= 40 and len(WRONG) >= 80
    assert all(len(e.misconceptions) >= 2 and len(e.cases) >= 2 for e in EXERCISES)
    assert len(BY_NAME) == len(EXERCISES)

@every
def test_the_answer_passes(exercise):
    assert exercise.check(exercise.answer).text.startswith('pass')
    assert not any(isinstance(o, Trouble) for o in exercise.observe(exercise.answer))

@every
def test_another_right_answer_passes(exercise):
    exercise.check(globals()[f'other_{exercise.name}'])

@pytest.mark.parametrize('exercise, m', WRONG, ids=[f'{e.name}-{m.name}' for e, m in
    WRONG])
def test_a_wrong_answer_is_called_by_its_name(exercise, m):
    verdict = exercise(m.wrong)
    assert not verdict and verdict.name == m.name
    assert m.explanation in verdict.text and m.explanation.endswith('.')
    assert '  expected ' in verdict.text and '  got ' in verdict.text

@every
def test_misconceptions_differ(exercise):
    for other in {m.name for m in exercise.misconceptions}:
        assert sum(m.name == other for m in exercise.misconceptions) == 1
    seen = exercise.typical
    assert not any(results_agree(a, b) for i, a in enumerate(seen) for b in seen[:i])

# ---- whatever the reader hands over --------------------------------------------------------------

class Sulky:
    "Can be neither compared nor shown"
    __array_ufunc__ = None
    def __eq__(self, other): raise RuntimeError('no')
    def __repr__(self): raise RuntimeError('no')
    def __len__(self): raise RuntimeError('no')
    def __bool__(self): raise RuntimeError('no')
    __hash__ = None

def leaves(*args, **kwargs): raise SystemExit(3)
def runs_deep(*args, **kwargs): return runs_deep(*args)
def spoils(*args, **kwargs):
    for a in args:
        with contextlib.suppress(Exception): a[...] = 7
    return args[0]

def gives(value): return lambda *args, **kwargs: value
HOSTILE = {
    'raises': lambda *a, **k: 1 / 0, 'takes nothing': lambda: 1.0, 'exits': leaves,
    'returns None': gives(None), 'spoils its input': spoils,
    'odd number': gives(12345.678),
    'odd object': gives(Sulky()), 'an odd array': gives(np.array([Sulky()])),
    'not a number': gives(np.nan), 'text': gives('seven'), 'ragged': gives([1, [2, 3]]),
    'dictionary': gives({'a': Sulky()}), 'empty': gives(np.array([])),
    'generator': lambda *a, **k: (i for i in
        range(3)), 'a class': int, 'a builtin': print}

@every
@pytest.mark.filterwarnings('ignore:Mean of empty slice')
def test_nothing_crashes_a_judge(exercise):
    for name, f in HOSTILE.items():
        verdict = exercise(f)
        assert not verdict and verdict.text.startswith('not yet'), name

def test_recursion_does_not_crash_a_judge():
    assert 'RecursionError' in BY_NAME['log_rule'](runs_deep).text

@pytest.mark.parametrize('given', [3, None, np.ones(2), 'f', Sulky()], ids=lambda g:
    type(g).__name__)
def test_a_result_in_place_of_a_function(given):
    assert 'Hand over the function' in BY_NAME['log_rule'](given).text

@pytest.mark.filterwarnings('ignore:Mean of empty slice')
def test_an_oddity_gets_no_name():
    odd = ('odd number', 'odd object', 'takes nothing', 'exits', 'text', 'empty')
    named = [(e.name, o, e(HOSTILE[o]).name) for e in EXERCISES for o in odd]
    assert [n for n in named if n[2]] == []

def test_what_is_seen_from_outside():
    rule = BY_NAME['log_rule']
    say = lambda f: rule(f).text.splitlines()[0]
    assert say(lambda g, out, x:
        None) == 'not yet: returns None: is the return statement missing?'
    assert say(lambda g, out, x: (g / x).sum()) == 'not yet: another shape'
    assert say(lambda g, out, x: (g /
        x).astype('f')) == 'not yet: float32 where float64 is right'
    assert say(lambda g, out, x: g / x + 1) == 'not yet: other values'
    assert say(lambda g, out, x: 1 /
        0) == 'not yet: raises: ZeroDivisionError: division by zero'
    assert say(lambda g, out, x: np.divide(g, x,
        out=g)) == 'not yet: changes its input: argument 1'
    assert say(lambda g, x: g / x).startswith('not yet: raises: TypeError')
    keeps = BY_NAME['remember'](lambda weights: list(weights))
    assert keeps.name == 'keeps the same arrays' and 'shares memory' in keeps.text

def test_right_numbers_in_a_tensor_pass():
    BY_NAME['log_rule'].check(lambda g, out, x: tensor.Tensor(g / x))

def test_the_smallest_failing_input_is_shown():
    for e, m in WRONG:
        right, got = e.right, e.observe(m.wrong)
        failed = [c for c, a, b in zip(e.cases, right, got) if not results_agree(a, b)]
        least = min(map(numbers_in, failed))
        shown = exercises.shown_as([c for c in failed if numbers_in(c) == least][0][0])
        assert shown in e(m.wrong).text

def test_small_inputs_come_first():
    e = Exercise('f(x): x', 't', 1, 'easy', '00_derivative', 'h', lambda x: x,
        [(np.zeros(9),), (np.zeros(2),)],
                 [('a', 'b.', lambda x: x + 1), ('c', 'd.', lambda x: x + 2)])
    assert 'of shape (2,)' in e(lambda x: x +
        3).text and 'smallest of 2 failing inputs' in e(lambda x: x + 3).text

def test_inputs_are_left_as_they_are():
    for e in EXERCISES:
        before = [exercises.shown_as(c) for c in e.cases]
        for f in (spoils, e.answer, *(m.wrong for m in e.misconceptions)): e.observe(f)
        assert [exercises.shown_as(c) for c in e.cases] == before, e.name

def test_a_switch_that_is_left_off_does_no_harm():
    def off(g, out, x):
        ops.no_grad().__enter__()
        return g / x
    BY_NAME['log_rule'].check(off)
    assert ops.is_grad_enabled()

def test_two_mistakes_at_once_are_no_single_misconception():
    assert BY_NAME['divide_rules'](lambda g, out, x, y: (g, g * x)).name == ''

def test_check_raises():
    with pytest.raises(AssertionError, match='(?s)expected a pass.*drops what arrives'):
        BY_NAME['log_rule'].check(lambda g, out, x: 1 / x)

def test_an_endless_walk_is_stopped():
    def endless(node, get_children):
        todo = [node]
        for n in todo: todo += get_children(n)
        return todo
    assert 'endless loop' in BY_NAME['topological_sort'](endless).text

# ---- the page ------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def page(root):
    cells = json.loads((root/'nbs'/'95_exercises.ipynb').read_text('utf-8'))['cells']
    return [(c['cell_type'], ''.join(c['source'])) for c in cells]

def flat(text): return ' '.join(text.split())

def test_page_and_judges_agree(page):
    titles = re.findall(r'^### Exercise (\d+): (.*)$', '\n'.join(s for k, s in page if k
        == 'markdown'), re.M)
    assert titles == [(str(i), e.title) for i, e in enumerate(EXERCISES, 1)]
    prose = [flat(s) for k, s in page if k == 'markdown']
    for e in EXERCISES:
        call, meaning = e.task.split('): ', 1)
        end = meaning if meaning.endswith('?') else f'{meaning}.'
        where = f'[chapter {e.chapter[:2]}]({e.chapter}.ipynb)'
        wanted = f'**`{call})`**: {end} ({e.minutes} minutes, {e.difficulty}; {where})'
        assert any(p.startswith(wanted) for p in prose), e.name
        hint = f'<details><summary>Hint</summary> {flat(e.hint)} </details>'
        assert hint in prose, e.name

def test_every_answer_is_run_and_judged(page):
    answers = [s for k, s in page if k == 'code' and 'code-summary: "Answer"' in s]
    assert len(answers) == len(EXERCISES)
    for e, s in zip(EXERCISES, answers):
        assert s.rstrip().endswith(f'judge_{e.name}.check({e.name})')
        assert re.search(rf'(def|class) {e.name}\b', s)

def test_table_of_exercises(page):
    table = next(s for k, s in page if '| exercise | function |' in s)
    rows = [r.split(' | ') for r in table.splitlines() if re.match(r'\| \d+ ', r)]
    assert [(r[1], r[2].strip('`'), r[3], r[4]) for r in rows] == \
        [(e.title, e.name, str(e.minutes), e.difficulty) for e in EXERCISES]

def test_source_b_is_covered(page):
    table = next(s for k, s in page if '| source B | asks for |' in s)
    rows = {r.split(' | ')[0].strip('| '): r.split(' | ')[-1].strip('| ') for r in
        table.splitlines()[2:] if r.startswith('| ')}
    wanted = [f'A{i}' for i in range(1, 41)] + [f'B{i}' for i in range(1, 11)]
    assert [w for w in wanted if not re.fullmatch(r'\d+(, \d+)*', rows.get(w,
        ''))] == []

def test_chapters_exist(root):
    assert all((root/'nbs'/f'{e.chapter}.ipynb').is_file() for e in EXERCISES)

def test_nothing_imports_the_judges(root):
    modules = [p for p in (root/'backprop_lit').glob('*.py') if p.stem not in
        ('exercises', '_modidx', '__init__')]
    assert modules and not [p.name for p in modules if
        re.search(r'import.*\bexercises\b|from \.exercises', p.read_text('utf-8'))]
