"""Every operation of the table: values, slopes of two orders, broadcasting, precision, memory, and what it declares.
Then the switch (threads, tasks, generators), deep and wide graphs, and the errors a learner meets."""
import asyncio
import gc
import threading
import warnings
import weakref
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import table
from backprop_lit import ops
from backprop_lit.backprop import check_grads, flow
from backprop_lit.calculus import jvp, vjp
from backprop_lit.graph import Node
from backprop_lit.ops import NUMPY, enable_grad, is_grad_enabled, no_grad, primitive, set_grad_enabled
from backprop_lit.order import toposort
from backprop_lit.tensor import Tensor
from table import all_rows, samples, tables

ROWS = all_rows()
SMOOTH = [r for r in ROWS if r.grad]
relaxed = settings(deadline=None, max_examples=12)       # a busy machine is no failure

def rows(which): return pytest.mark.parametrize('row', [r for r in ROWS if which(r)], ids=lambda r: r.id)
every, smooth = rows(lambda r: True), rows(lambda r: r.grad)


def tensors(row, seed=0, dtype=np.float64):
    return [Tensor(a, requires_grad=True) for a in samples(row, seed, dtype)]


def gradients(out, xs, seed=1):
    "The gradients that a random gradient at `out` sends to `xs`"
    g = np.random.default_rng(seed).normal(size=out.shape).astype(out.dtype)
    out.backward(g)
    return g, [x.grad.data for x in xs]


# --- the table itself ---

@pytest.mark.parametrize('name, rows, no_row', tables(), ids=lambda t: t if isinstance(t, str) else '')
def test_every_exported_operation_has_a_row(name, rows, no_row):
    module = __import__(f'backprop_lit.{name}', fromlist=['x'])
    exported, covered = set(module.__all__), {r.op for r in rows}
    missing, foreign = exported - covered - no_row, (covered | no_row) - exported
    assert not missing, f'no row in the table for {missing}; add one'
    assert not foreign, f'rows for {foreign}, which is not exported'


def test_rows_have_names_of_their_own():
    assert len({r.id for r in ROWS}) == len(ROWS)


def test_every_numpy_function_that_is_answered_is_called_by_some_row(monkeypatch):
    met = set()
    class Watching(dict):
        def __getitem__(self, key):
            met.add(key)
            return super().__getitem__(key)
    monkeypatch.setattr('backprop_lit.tensor.NUMPY', Watching(NUMPY))
    for row in ROWS:
        if row.numpy: row.ref(*tensors(row))
    known = {f for f in NUMPY if NUMPY[f] in vars(ops).values()}
    assert not known - met


# --- values and slopes ---

@every
def test_value_and_kind(row):
    raw, xs = samples(row), tensors(row)
    expected, out = row.ref(*raw), row.f(*xs)
    assert isinstance(out, Tensor) and out.shape == np.shape(expected)
    assert out.requires_grad == row.grad and out.is_leaf == (not row.grad)
    np.testing.assert_allclose(out.data, expected, rtol=1e-14, atol=1e-15)
    plain = row.f(*raw)
    assert not isinstance(plain, Node)
    np.testing.assert_array_equal(plain, out.data)


@smooth
def test_derivatives_in_every_coordinate(row):
    for seed in range(2): check_grads(row.f, *tensors(row, seed), order=row.order)


@smooth
def test_derivative_along_random_directions(row):
    xs = tensors(row, 2)
    out = row.f(*xs)
    g, found = gradients(out, xs)
    rng, h = np.random.default_rng(3), 1e-6
    for _ in range(3):
        ways = [rng.normal(size=x.shape) for x in xs]
        up, down = (row.f(*[x.data + s * h * w for x, w in zip(xs, ways)]) for s in (1, -1))
        measured = np.sum(g * (up - down)) / (2 * h)
        ours = sum(np.sum(a * w) for a, w in zip(found, ways))
        assert ours == pytest.approx(measured, rel=1e-6, abs=1e-7)


@rows(lambda r: r.grad and r.order >= 2)
def test_forward_mode_is_the_transpose_of_backward_mode(row):
    "<g, J v> = <J^T g, v>, and J v is what central differences say"
    raw = samples(row, 4)
    rng, h = np.random.default_rng(5), 1e-6
    ways = [rng.normal(size=np.shape(a)) for a in raw]
    value, move = jvp(row.f, tuple(raw), tuple(ways))
    g = rng.normal(size=np.shape(value))
    _, pull = vjp(row.f, *raw)
    there, back = np.sum(g * move), sum(np.sum(a * w) for a, w in zip(pull(g), ways))
    assert there == pytest.approx(back, rel=1e-9, abs=1e-9)
    up, down = (row.f(*[a + s * h * w for a, w in zip(raw, ways)]) for s in (1, -1))
    np.testing.assert_allclose(move, (up - down) / (2 * h), rtol=1e-5, atol=1e-6)


@rows(lambda r: r.grad and r.numpy)
def test_numpy_spelling_gives_the_same_value_and_gradient(row):
    xs, ys = tensors(row), tensors(row)
    out, other = row.f(*xs), row.ref(*ys)
    assert isinstance(other, Tensor)
    np.testing.assert_allclose(out.data, other.data, rtol=1e-14)
    for a, b in zip(gradients(out, xs)[1], gradients(other, ys)[1]):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


@rows(lambda r: r.elementwise)
@relaxed
@given(st.data())
def test_shapes_broadcast(row, data):
    n = len(row.args)
    shapes = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=n, max_dims=3, min_side=0, max_side=3))
    there = row._replace(args=tuple((make, s) for (make, _), s in zip(row.args, shapes.input_shapes)))
    xs, raw = tensors(there), samples(there)
    out = row.f(*xs)
    assert out.shape == shapes.result_shape
    np.testing.assert_allclose(out.data, row.ref(*raw), rtol=1e-14, atol=1e-15)
    if not row.grad: return
    g, found = gradients(out, xs)
    wide = [np.broadcast_to(a, out.shape).copy() for a in raw]     # nothing is broadcast here
    whole = [Tensor(a, requires_grad=True) for a in wide]
    if row.op in ('maximum', 'minimum'): assert out.size == 0 or not np.any(wide[0] == wide[1])
    _, parts = gradients(row.f(*whole), whole)
    for a, part, x in zip(found, parts, xs):
        assert a.shape == x.shape
        new = part.ndim - x.ndim
        axes = (*range(new), *(new + i for i, k in enumerate(x.shape) if k == 1))
        np.testing.assert_allclose(a, part.sum(axis=axes).reshape(x.shape), rtol=1e-12, atol=1e-12)


# --- precision and memory ---

@rows(lambda r: r.f32)
def test_float32_stays(row):
    xs = tensors(row, dtype=np.float32)
    out = row.f(*xs)
    assert out.dtype == np.float32 or not row.grad
    if not row.grad: return
    for node, g in flow(out, np.ones(out.shape, np.float32)):
        assert g.dtype == np.float32
        for vjp in node.vjps or ():
            assert vjp(g, node.value, *plain(node.args), **node.kwargs).dtype == np.float32


def plain(args): return [a.value if isinstance(a, Node) else a for a in args]


@smooth
def test_nothing_is_changed_and_nothing_is_shared(row):
    xs = tensors(row)
    before = [x.data.copy() for x in xs]
    for x in xs: x.data.flags.writeable = False
    out = row.f(*xs)
    out.data.flags.writeable = False
    g = Tensor(np.random.default_rng(1).normal(size=out.shape))
    g.data.flags.writeable = False
    out.backward(g)
    for x, old in zip(xs, before): np.testing.assert_array_equal(x.data, old)
    memory = [x.grad.data for x in xs]
    for k, a in enumerate(memory):
        assert a.flags.writeable
        for b in memory[:k] + [x.data for x in xs] + [out.data, g.data]: assert not np.shares_memory(a, b)


@rows(lambda r: r.grad and len(r.args) > 1 and len({s for _, s in r.args}) == 1)
def test_one_tensor_for_all_arguments_collects_from_all(row):
    a = np.abs(samples(row)[0]) + 0.1
    x, apart = Tensor(a, requires_grad=True), [Tensor(a, requires_grad=True) for _ in row.args]
    _, (both,) = gradients(row.f(*[x] * len(row.args)), [x])
    np.testing.assert_allclose(both, sum(gradients(row.f(*apart), apart)[1]), rtol=1e-13)


def test_a_clone_has_memory_of_its_own():
    x = Tensor(np.ones(3), requires_grad=True)
    assert not np.shares_memory(ops.clone(x).data, x.data) and ops.clone(x).parents == (x,)


def reads(row):
    "(operation, what) for all whose values the rules read, found by poisoning; checks that these are declared"
    found = set()
    for node in toposort(row.f(*tensors(row))):
        if not node.op: continue
        args, out = plain(node.args), node.value
        g = np.random.default_rng(1).normal(size=out.shape)
        def results(args, out):
            with np.errstate(all='ignore'): return [vjp(g, out, *args, **node.kwargs) for vjp in node.vjps]
        clean = results(args, out)
        for key in ['out', *range(len(args))]:
            old = out if key == 'out' else args[key]
            if not isinstance(old, np.ndarray) or old.dtype.kind not in 'fb': continue
            if key != 'out' and not isinstance(node.args[key], Node) and key not in node.op.needs: continue
            bad = ~old if old.dtype.kind == 'b' else np.full_like(old, np.nan)
            poisoned = results([bad if key == k else a for k, a in enumerate(args)], bad if key == 'out' else out)
            same = all(np.array_equal(a, b) for a, b in zip(clean, poisoned))
            if not same: found.add((node.op, key))
            assert same or key in node.op.needs, f'{node.op.name} reads {key}, but its needs are {node.op.needs}'
    return found


def test_needs_are_what_the_rules_read():
    found = set().union(*map(reads, SMOOTH))
    met = {n.op for r in SMOOTH for n in toposort(r.f(*tensors(r))) if n.op}
    for op in met:
        idle = {(op, k) for k in op.needs if k == 'out' or k < 3} - found
        limit = len(op.vjps) if op.vjps else 0
        idle = {k for _, k in idle if k == 'out' or k < limit}
        assert not idle or len(op.needs) > 60, f'{op.name} declares {idle}, which no rule reads'


# --- graphs deep and wide ---

def test_a_hundred_thousand_additions_in_a_row():
    x = Tensor(1.0, requires_grad=True)
    y = x
    for _ in range(100_000): y = y + 1.0
    y.backward()
    assert (y.item(), x.grad.item()) == (100_001, 1)


def test_one_tensor_used_a_hundred_thousand_times():
    x = Tensor([1.0, 2.0], requires_grad=True)
    total = Tensor([0.0, 0.0])
    for _ in range(100_000): total = total + x
    total.sum().backward()
    assert x.grad.tolist() == [100_000, 100_000]


def test_a_stack_of_ten_thousand_gives_each_its_layer():
    x = Tensor(3.0, requires_grad=True)
    many = ops.stack([x] * 10_000)
    many.backward(np.arange(10_000.0))
    assert x.grad.item() == sum(range(10_000))


def test_second_backward():
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [4, 8]                 # added up
    with pytest.raises(RuntimeError, match='retain_graph=True'): y.backward()
    assert x.grad.tolist() == [4, 8]


def test_memory_falls_without_the_garbage_collector():
    gc.collect()
    gc.disable()
    try:
        x = Tensor(np.ones(10), requires_grad=True)
        h = ops.exp(x)
        y = ops.sum(ops.concatenate([h, ops.getitem(h, table.I)]) * 2.0)
        seen = [weakref.ref(h), weakref.ref(y), weakref.ref(h.data)]
        y.backward(retain_graph=True)
        del h
        assert seen[0]() is not None                 # the graph holds it
        del y
        assert [r() for r in seen] == [None] * 3
    finally: gc.enable()


def test_graph_is_freed_by_backward_and_by_an_error():
    x = Tensor(np.ones(3), requires_grad=True)
    h = ops.exp(x)
    y, inner = ops.sum(h), weakref.ref(h)
    del h
    y.backward()
    assert inner() is None
    with pytest.raises(ValueError): ops.add(x, np.ones(4))
    assert is_grad_enabled()


# --- the switch ---

def recorded(): return (Tensor(1.0, requires_grad=True) * 2.0).requires_grad


def test_no_grad_nested_and_after_an_error():
    assert recorded()
    with no_grad():
        assert not recorded()
        with enable_grad():
            assert recorded()
            with set_grad_enabled(False): assert not recorded()
            assert recorded()
        with pytest.raises(KeyError), enable_grad(): raise KeyError
        assert not recorded()
    with pytest.raises(ZeroDivisionError), no_grad(): 1 / 0
    assert recorded()


def test_one_block_may_be_entered_again():
    off = no_grad()
    with off:
        with off: assert not recorded()
        assert not recorded()
    assert recorded()


@pytest.mark.parametrize('decorate', [no_grad, no_grad(), set_grad_enabled(False)])
def test_decorator_keeps_name_result_and_recursion(decorate):
    @decorate
    def depth(n):
        "How deep"
        return 0 if n == 0 else 1 + depth(n - 1) + recorded()
    assert (depth(5), depth.__name__, depth.__doc__) == (5, 'depth', 'How deep')
    assert recorded()


def test_functions_that_run_later_are_refused():
    def numbers(): yield recorded()
    async def later(): return recorded()
    async def stream(): yield recorded()
    for f in (numbers, later, stream):
        with pytest.raises(TypeError, match=f'{f.__name__}, whose body runs later'): no_grad(f)
        with pytest.raises(TypeError, match='whose body runs later'): no_grad()(f)
        with pytest.raises(TypeError, match='whose body runs later'): enable_grad()(f)


def test_a_generator_may_switch_between_its_steps():
    def steps():
        for _ in range(3):
            with no_grad(): inside = recorded()
            yield inside
    for inside in steps():
        assert not inside
        assert recorded()


def test_each_thread_has_its_own_switch():
    go, done, seen = threading.Barrier(2), threading.Barrier(2), {}
    def off():
        with no_grad():
            go.wait()
            seen['off'] = [recorded() for _ in range(1000)]
            done.wait()
    def on():
        go.wait()
        seen['on'] = [recorded() for _ in range(1000)]
        done.wait()
    both = [threading.Thread(target=f) for f in (off, on)]
    for t in both: t.start()
    for t in both: t.join()
    assert not any(seen['off']) and all(seen['on'])


def test_each_task_has_its_own_switch():
    async def off():
        with no_grad():
            for _ in range(50):
                await asyncio.sleep(0)
                assert not recorded()
    async def on():
        for _ in range(50):
            await asyncio.sleep(0)
            assert recorded()
    async def together(): await asyncio.gather(off(), on(), off(), on())
    asyncio.run(together())


def test_threads_differentiate_at_the_same_time():
    wrong = []
    def work(k):
        for _ in range(100):
            x = Tensor(np.full(3, k), requires_grad=True)
            (x * x * x).sum().backward()
            if x.grad.tolist() != [3 * k * k] * 3: wrong.append(k)
    threads = [threading.Thread(target=work, args=(float(k),)) for k in range(1, 5)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert not wrong


# --- kinks and numbers at the edge ---

@pytest.mark.parametrize('f, at, slope', [
    (ops.relu, 0.0, 0), (ops.abs, 0.0, 0),
    (lambda x: ops.maximum(x, 0), 0.0, 0.5), (lambda x: ops.minimum(x, 0), 0.0, 0.5),
    (lambda x: ops.clip(x, 0, 1), 0.0, 1), (lambda x: ops.clip(x, 0, 1), 1.0, 1), (lambda x: x ** 0, 0.0, 0),
    (lambda x: ops.pow(x, np.array(0.0)), 0.0, 0), (lambda x: x ** 1, 0.0, 1), (lambda x: x ** 2, 0.0, 0), (lambda x: ops.pow(0.0, x), 1.0, 0),
    (ops.sigmoid, -1e4, 0), (ops.sigmoid, 1e4, 0), (ops.tanh, 1e4, 0)])
def test_conventions(f, at, slope):
    x = Tensor(at, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        f(x).backward()
    assert x.grad.item() == slope


def test_ties_share_equally():
    x = Tensor([3.0, 3.0, 1.0, 3.0], requires_grad=True)
    x.max().backward()
    np.testing.assert_allclose(x.grad.data, [1 / 3, 1 / 3, 0, 1 / 3])


def test_mixed_second_derivative_of_a_power_at_exponent_zero():
    x, y = Tensor(2.0, requires_grad=True), Tensor(0.0, requires_grad=True)
    (x ** y).backward(create_graph=True)
    x.grad.backward()                    # d/dy of y x^(y-1) is 1/x where y is 0
    assert y.grad.item() == pytest.approx(np.log(2) + 0.5)


def test_sigmoid_never_overflows():
    with np.errstate(all='raise', under='ignore'):
        for dtype in (np.float32, np.float64):
            assert ops.sigmoid(np.array([-1e4, 0, 1e4], dtype)).tolist() == [0, 0.5, 1]


# --- errors ---

ONES = Tensor(np.ones((2, 3)), requires_grad=True)
@pytest.mark.parametrize('error, words, call', [
    (ValueError, r'add: expected shapes that broadcast .*got shape \(2, 3\), shape \(4,\)', lambda: ONES + np.ones(4)),
    (ValueError, r'where: .*broadcast', lambda: ops.where(np.ones(4) > 0, ONES, 0)),
    (ValueError, r'matmul: expected as many columns .*\(2, 3\), shape \(2, 3\)', lambda: ONES @ ONES),
    (ValueError, 'reshape: cannot reshape .*6', lambda: ops.reshape(ONES, 4, 2)),
    (ValueError, r'concatenate: .*shape \(2, 3\), shape \(1, 2\)', lambda: ops.concatenate([ONES, np.ones((1, 2))])),
    (ValueError, 'stack: .*same shape', lambda: ops.stack([ONES, np.ones(2)])),
    (ValueError, 'sum: axis 2 is out of bounds', lambda: ops.sum(ONES, axis=2)),
    (ValueError, 'expand: expected a size for each', lambda: ops.expand(ONES, 3)),
    (ValueError, 'expand: expected .* real sizes', lambda: ops.expand(ONES, -1, 2, 3)),
    (ValueError, 'squeeze: ', lambda: ops.squeeze(ONES, 0)),
    (ValueError, 'max: zero-size', lambda: ops.max(ops.getitem(ONES, slice(0, 0)))),
    (IndexError, 'getitem: index 5 is out of bounds', lambda: ONES[5]),
    (IndexError, 'getitem: too many indices', lambda: ONES[0, 0, 0]),
    (TypeError, 'expected axis or dim', lambda: ops.mean(ONES, axis=0, dim=0)),
    (TypeError, 'add: expected tensors as positional arguments, got x2 of shape .*by position',
     lambda: ops.add(ONES, x2=ONES)),
    (TypeError, 'sum: expected tensors as positional', lambda: ops.sum(ONES, axis=Tensor(1)))])
def test_errors(error, words, call):
    with pytest.raises(error, match=words): call()


# --- primitives of the user's own ---

def test_own_primitive_to_second_order():
    softplus = primitive(lambda x, beta=1.0: np.logaddexp(0, beta * x) / beta,
                         lambda g, out, x, beta=1.0: g * ops.sigmoid(beta * x), needs=(0,), name='softplus')
    x = Tensor(np.linspace(-2, 2, 5), requires_grad=True)
    check_grads(lambda x: softplus(x, beta=3.0), x, order=2)
    assert repr(softplus) == '<primitive softplus>' and softplus(x, beta=3.0).kwargs == {'beta': 3.0}
    wrong = primitive(softplus.f, lambda g, out, x, beta=1.0: g * ops.sigmoid(x), name='wrong')
    with pytest.raises(AssertionError, match='argument 0 at'): check_grads(lambda x: wrong(x, beta=3.0), x)


def test_arguments_without_a_rule_or_a_wish_are_no_parents():
    x, y, c = Tensor(1.0, requires_grad=True), Tensor(2.0, requires_grad=True), Tensor(3.0)
    half = primitive(lambda a, b: a * b, lambda g, out, a, b: g * b, None, name='half')
    assert half(x, y).parents == (x,) and half(c, y).parents == () and half(c, y).is_leaf
    assert ops.mul(c, y).parents == (y,) and ops.mul(c, 2.0).is_leaf


def test_many_arguments_beyond_the_remembered_plans():
    xs = [Tensor(float(k), requires_grad=k % 3 == 0) for k in range(40)]
    ops.stack(xs).backward(np.arange(40.0))
    assert [x.grad.item() for x in xs if x.requires_grad] == list(range(0, 40, 3))


@dataclass
class Doubling:
    "A number that only counts"
    def __index__(self): return 1


def test_index_may_be_a_tensor_or_anything_that_counts():
    x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x[Tensor([2, 2])].sum() + x[Doubling()]
    y.backward()
    assert x.grad.tolist() == [0, 1, 2]
