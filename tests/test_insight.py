"""What made a gradient: contributions, derivations, reasons, and the player's HTML."""
import gc
import json
import re
import sys
import threading
import weakref
from collections import namedtuple
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from backprop_lit import insight, ops
from backprop_lit.graph import Node
from backprop_lit.insight import (RULES, Derivation, Stepper, contributions, explain, step,
                                  tracing, why)
from backprop_lit.ops import no_grad, primitive
from backprop_lit.tensor import Tensor

rng = np.random.default_rng(0)
pytestmark = pytest.mark.filterwarnings('ignore::RuntimeWarning')


def leaf(value, name=None): return Tensor(value, requires_grad=True, name=name)


def worked_example():
    x, y, z = [leaf(v, n) for v, n in ((-2., 'x'), (5., 'y'), (-4., 'z'))]
    q = x + y
    f = q * z
    q.name, f.name = 'q', 'f'
    return x, y, z, q, f


def network():
    X, t = Tensor(rng.normal(size=(8, 5)), name='X'), Tensor(rng.normal(size=(8, 3)), name='t')
    W, b, V = [leaf(rng.normal(size=s), n) for s, n in (((5, 6), 'W'), ((6,), 'b'), ((6, 3), 'V'))]
    return (W, b, V), (((X @ W + b).relu() @ V - t) ** 2).mean()


def random_graph(size, seed):
    r = np.random.default_rng(seed)
    leaves = [leaf(float(v)) for v in r.normal(size=5)]
    nodes = list(leaves)
    while len(nodes) < size:
        a, b = (nodes[r.integers(max(0, len(nodes) - 9), len(nodes))] for _ in 'ab')
        nodes.append([a + b, a * b, a - b, a.tanh(), np.exp(a * .1)][r.integers(5)])
    used = {id(p) for n in nodes for p in n.parents}
    total = None
    for n in nodes:
        if id(n) not in used: total = n if total is None else total + n
    return [n for n in leaves], total


def data(player):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', player.html, re.S)[1])


def grads(player):
    "Final gradients in the table, by name"
    found = re.findall(r'<tr data-name="([^"]*)" data-grad="([^"]*)"', player.html)
    return {n: float(g) for n, g in found}


class Tags(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.seen, self.open, self.attrs = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attrs += attrs
        if tag not in ('input', 'meta', 'rect', 'path'): self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)
        self.attrs += attrs

    def handle_endtag(self, tag): assert self.open.pop() == tag


# ---- contributions

@pytest.mark.parametrize('seed', range(8))
def test_contributions_add_up_to_the_gradients_of_backward(seed):
    leaves, root = random_graph(40, seed)
    total, walked = {}, {}
    for node, g, sent in contributions(root):
        walked[id(node)] = g
        for s in sent: total[id(s.parent)] = total.get(id(s.parent), 0) + s.part
    assert all(leaf.grad is None for leaf in leaves)
    root.backward()
    for x in leaves:
        if id(x) not in walked: continue
        np.testing.assert_array_equal(walked[id(x)], x.grad.value)
        np.testing.assert_allclose(total[id(x)], x.grad.value, rtol=1e-12)


def test_contributions_are_those_of_the_rules_once_each():
    calls = []
    op = primitive(np.exp, lambda g, out, x: (calls.append(1), g * out)[1], name='exp')
    ops.NUMPY[np.exp] = ops.exp
    x = leaf([1., 2.])
    list(contributions(op(x).sum()))
    assert calls == [1]


def test_contributions_know_the_argument_and_the_shape_before_it_was_fitted():
    (W, b, V), loss = network()
    found = [s for _, _, sent in contributions(loss) for s in sent if s.parent is b]
    assert [(s.number, s.part.shape, s.shape) for s in found] == [(1, (6,), (8, 6))]
    x = leaf(3.)
    assert [s.number for _, _, sent in contributions(2. - x * x) for s in sent] == [1, 0, 1]


def test_nothing_is_changed():
    (W, b, V), loss = network()
    before = [(loss.args, loss.parents, loss.vjps)]
    list(contributions(loss)), explain(loss, W), why(W, loss), step(loss)
    assert [(loss.args, loss.parents, loss.vjps)] == before
    assert W.grad is b.grad is V.grad is None
    loss.backward()
    kept = W.grad.value.copy()
    (W2, _, _), _ = (W, b, V), None
    np.testing.assert_array_equal(W2.grad.value, kept)


def test_the_graph_is_not_kept_alive():
    was = gc.isenabled()
    gc.disable()
    try:
        x = leaf(2.)
        y = x * x
        ghost = weakref.ref(y)
        step(y), explain(y, x), str(why(x, y)), list(contributions(y))
        del y
        assert ghost() is None
    finally:
        if was: gc.enable()


def test_hooks_are_part_of_the_walk():
    x = leaf(3.)
    y = x * 2.
    y.register_hook(lambda g: g * 10.)
    z = y * y
    z.backward(retain_graph=True)
    assert dict((id(n), g) for n, g, _ in contributions(z))[id(x)] == x.grad.value
    assert grads(step(z))['v1'] == x.grad.item()
    assert 'A hook may change' in str(explain(z, x))


def test_a_node_of_floats_works_as_well():
    Op = namedtuple('Op', 'name vjps needs', defaults=[()])
    MUL = Op('mul', (lambda g, out, a, b: g * b, lambda g, out, a, b: g * a))
    x, y = Node(3., name='x'), Node(4., name='y')
    f = Node(12., MUL, (x, y))
    assert explain(f, x).value == 4. and grads(step(f)) == {'x': 4., 'y': 3., 'f': 1.}
    assert why(y, f).parts == [(f, 3.)]


def test_changes_in_place_are_followed():
    x = leaf([1., 2.], 'x')
    y = x * 2.
    y += 1.
    z = (y * y).sum()
    assert 'x' in grads(step(z)) and why(x, z).kind == 'sum'
    z.backward()
    np.testing.assert_allclose(x.grad.value, [12., 20.])


def test_what_cannot_be_walked_is_refused():
    for f in (step, lambda t: explain(t, t), lambda t: list(contributions(t))):
        with pytest.raises(RuntimeError, match='requires_grad=True'): f(Tensor(1.) * 2.)
        with pytest.raises(TypeError, match='expected a node'): f(3.)
        with pytest.raises(RuntimeError, match='single number'): f(leaf([1., 2.]) * 2.)
    y = leaf(2.) * 3.
    y.backward()
    with pytest.raises(RuntimeError, match='retain_graph=True'): step(y)


# ---- formulas

def evaluate(template, words):
    "The number that a formula of RULES stands for"
    text = insight._fill(re.sub(r', [a-z ]{4,}$', '', template), {k: repr(v).replace('-', '−') for k, v in words.items()})
    text = re.sub(r'\[([^\]]*)\]', r'float(\1)', text)
    for a, b in (('·', '*'), ('−', '-'), ('^', '**'), ('²', '**2'), ('=', '==')): text = text.replace(a, b)
    return eval(text, {**vars(np), 'sigmoid': lambda x: 1 / (1 + np.exp(-x)), 'relu': lambda x: max(x, 0),
                       'max': max, 'min': min, 'float': float})


@pytest.mark.parametrize('name', 'add sub mul div neg pow exp log sqrt tanh sigmoid relu abs maximum '
                                 'minimum'.split())
@pytest.mark.parametrize('x, y', [(1.5, .5), (.25, 2.)])
def test_formulas_give_the_numbers_of_the_rules(name, x, y):
    op = getattr(ops, name)
    count = len(op.vjps)
    args = [leaf(v) for v in (x, y)[:count]]
    out = op(*args)
    words = dict(zip('xy', (x, y)), g=-1.25, out=out.item())
    assert evaluate(RULES[name][0], words) == pytest.approx(out.item(), rel=1e-12)
    out.backward(np.array(-1.25))
    for rule, a in zip(RULES[name][1:], args):
        assert evaluate(rule, words) == pytest.approx(a.grad.item(), rel=1e-12)


def test_every_row_has_a_rule_for_each_argument():
    for name, row in RULES.items():
        op = getattr(ops, name, None)
        if isinstance(op, primitive) and op.vjps: assert len(row) - 1 in (1, len(op.vjps)), name


def test_an_unknown_operation_has_its_name():
    x = leaf(2., 'x')
    odd = primitive(lambda x: x ** 3, lambda g, out, x: g * 3 * x * x, name='cube')
    assert '∂f/∂x = 12' in str(explain(odd(x), x)) and explain(odd(x), x).value == 12.
    assert 'vjp of cube' in step(odd(x)).html
    RULES['cube'] = ['x^3', 'g · 3 · x²']
    try: assert 'x^3 = 8' in str(explain(odd(x), x))
    finally: del RULES['cube']


# ---- explain

def test_the_worked_example_reads_as_on_paper():
    x, y, z, q, f = worked_example()
    assert str(explain(f, x)).splitlines() == [
        'f = (x + y) · z = −12', 'q = x + y = −2 + 5 = 3',
        '1 path from f to x, the product of the slopes along each:',
        '  f → q → x:  ∂f/∂q · ∂q/∂x = z · 1 = −4 · 1 = −4', 'So:', '  df/dx = −4']
    assert r'\frac{df}{dx} &= -4' in explain(f, x)._repr_latex_()


@pytest.mark.parametrize('seed', range(12))
def test_paths_and_nodes_agree_with_backward(seed):
    leaves, root = random_graph(12, seed)
    on = {id(n) for n, _, _ in contributions(root)}
    found = {i: explain(root, x) for i, x in enumerate(leaves) if id(x) in on}
    root.backward()
    for i, d in found.items():
        np.testing.assert_array_equal(d.value, leaves[i].grad.value)
        last = str(d).splitlines()[-1].split(' = ')[-1].replace('−', '-')
        assert float(last) == pytest.approx(leaves[i].grad.item(), rel=1e-3, abs=1e-9)


def test_brackets_are_there_where_they_are_needed():
    x = leaf(2., 'x')
    text = str(explain(x.exp() / (x ** 2 + 1.) - x * 3., x))
    assert 'f = exp(x) / (x^2 + 1) − x · 3 = −4.522' in text
    assert '1 · (1 / v2) · v3 = 1 · 0.2 · 7.389 = 1.478' in text
    assert '1 · (−1 · v5 / v2) · 1 · 2 · x^(2 − 1) = 1 · (−0.2956) · 1 · 4 = −1.182' in text
    assert 'df/dx = 1.478 + (−1.182) + (−3) = −2.704' in text
    y = leaf(-2., 'y')
    assert '(−2)^2' in str(explain((y ** 2) * 1., y))
    assert '−(−2) = 2' in str(explain((-(y * 1.)) * 1., y))


def test_too_many_paths_are_not_listed():
    x = leaf(1., 'x')
    y = x
    for _ in range(60): y = y + y
    text = str(explain(y, x))
    assert f'more than 10^{len(str(2**60)) - 1} paths' in text and len(text) < 5000
    assert explain(y, x).value == 2.**60
    y = x
    for _ in range(5000): y = y * 1.0001
    assert 'nodes more' in str(explain(y, x)) and len(str(explain(y, x))) < 5000


def test_arrays_show_shapes_and_broadcasting():
    (W, b, V), loss = network()
    text = str(explain(loss, b))
    assert 'summed to (6,)' in text and 'product of matrices' in text
    assert r'\mathbb{R}^{5 \times 6}' in explain(loss, W)._repr_latex_()
    assert 'grad W = Xᵀ @ grad' in str(explain(loss, W))


def test_a_seed_is_said():
    x = leaf(2., 'x')
    assert explain(x * x, x, grad=np.array(3.)).value == 12.
    assert 'starts with 3' in str(explain(x * x, x, grad=np.array(3.)))


def test_no_path_is_an_error_and_the_root_itself_is_not():
    x, y, z, q, f = worked_example()
    with pytest.raises(ValueError, match='no path leads'): explain(q, z)
    assert explain(f, f).value == 1. and explain(f, q).value == -4.


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1))
def test_any_name_is_harmless(name):
    x = leaf(2., name)
    y = x * x
    y.name = name
    found = explain(y, x)
    assert isinstance(str(found), str)
    for line in found._repr_markdown_().split('$$')[1::2]:
        inside = re.sub(r'\\begin\{aligned\}|\\end\{aligned\}', '', line)
        assert inside.replace(r'\{', '').count('{') == inside.replace(r'\}', '').count('}')
        assert not re.search(r'(?<!\\)[$<`]', inside)
    html = step(y).html
    tags = Tags(html)
    assert tags.open == [] and tags.seen.count('script') == 2
    assert not [a for a, _ in tags.attrs if a.startswith('on')]
    data(step(y))
    str(why(x, y))


# ---- why

def test_a_sum_is_listed_by_consumer():
    x = leaf(3., 'x')
    y = x * 2. + x.exp()
    reason = why(x, y)
    assert reason.kind == 'sum' and reason.node is None
    assert sorted(round(float(p), 3) for _, p in reason.parts) == [2., round(float(np.exp(3.)), 3)]
    assert '2 uses' in str(reason)


def test_a_dead_relu_is_named_with_its_line():
    with tracing() as seen:
        w = leaf([1., 2.], 'w')
        h = (w * -1.).relu(); line = sys._getframe().f_lineno
        loss = (h * 3.).sum()
        loss.backward()
    reason = why(w, loss, seen)
    assert reason.kind == 'zero' and reason.node is h
    assert f'{__file__}:{line}' in str(reason) and 'dead relu' in str(reason)
    assert 'h = (w * -1.).relu()' in str(reason)


def test_nan_names_the_way_back_and_the_way_forward():
    p = leaf([.5, 0.], 'p')
    reason = why(p, (p.log() * p).sum())
    assert reason.kind == 'nan' and reason.node.op.name == 'mul'
    assert 'The first value that is not finite came from log' in str(reason)
    x = leaf(0., 'x')
    reason = why(x, (x * x).sqrt())
    assert (reason.kind, reason.node.op.name) == ('nan', 'sqrt')
    bad = leaf([np.nan, 1.], 'bad')
    assert 'Not finite from the start: bad' in str(why(bad, (bad * bad).sum()))


def test_the_first_guilty_operation_is_the_one_nearest_the_root():
    x = leaf([1.], 'x')
    a = (x * -1.).relu()
    b = (a - 1.).relu()
    assert why(x, b.sum()).node is b


def test_only_operations_on_the_way_are_blamed():
    x, y = leaf([1.], 'x'), leaf([-1.], 'y')
    loss = (x * 2. + y.relu()).sum()
    assert why(x, loss).kind == 'sum' and why(y, loss).kind == 'zero'
    a, b = x - 2., (y * 1.).relu() * 3.
    dead = a.relu()
    assert why(x, (b + dead * 1. * 1.).sum()).node is dead
    assert why(x, (dead * 1. * 1. + b).sum()).node is dead


def test_a_walk_that_starts_with_nothing_blames_nobody():
    x = leaf([1., -1.], 'x')
    reason = why(x, x.relu() * 2., grad=np.zeros(2))
    assert (reason.kind, reason.node) == ('zero', None) and 'starts with 0' in str(reason)
    reason = why(x, x * 2., grad=np.array([np.nan, 1.]))
    assert (reason.kind, reason.node) == ('nan', None)


def test_cancelling_is_no_guilt():
    x = leaf([1.], 'x')
    reason = why(x, (x * 2. - x * 2.).sum())
    assert reason.kind == 'zero' and reason.node is None and 'cancels' in str(reason)


@pytest.mark.parametrize('make, said', [
    (lambda w, v: (w.detach() * v).sum(), '.detach()'),
    (lambda w, v: (Tensor(w.data) * v).sum(), '.data'),
    (lambda w, v: (w.argmax() * v).sum(), 'argmax, which has no derivative'),
    (lambda w, v: (v * (w > 0)).sum(), 'greater, which has no derivative'),
    (lambda w, v: (v * 2.).sum(), 'made without it')])
def test_none_names_where_the_path_ends(make, said):
    w, v = leaf(np.ones(3), 'w'), leaf(np.ones(3), 'v')
    with tracing(): reason = why(w, make(w, v))
    assert reason.kind == 'none' and said in str(reason)


def test_no_grad_and_a_forgotten_requires_grad():
    w, v = leaf(np.ones(3), 'w'), leaf(np.ones(3), 'v')
    with tracing() as seen:
        with no_grad(): u = w * 2.; line = sys._getframe().f_lineno
        loss = (u * v).sum()
    assert f'no_grad(), at {__file__}:{line}' in str(why(w, loss, seen))
    c = Tensor(np.ones(3), name='c')
    assert 'requires_grad=True' in str(why(c, (c * v).sum()))
    assert 'has no graph' in str(why(w, c * 2.)) and why(w).kind == 'none'
    assert 'tracing' in str(why(w, (v * 2.).sum()))


def test_what_was_there_before_is_noticed():
    x = leaf(3., 'x')
    for _ in range(2): (x * x).backward()
    assert 'zero_grad' in str(why(x, x * x))
    x.grad = None
    y = x * x
    y.backward(retain_graph=True)
    assert 'zero_grad' not in str(why(x, y))
    inner = x * 2.
    assert 'retain_grad' in str(why(inner, inner * inner))


# ---- tracing

def test_tracing_costs_nothing_outside():
    assert primitive.__call__ is ops._apply
    with tracing():
        assert primitive.__call__ is not ops._apply
        with tracing(): pass
        assert primitive.__call__ is not ops._apply
    assert primitive.__call__ is ops._apply
    with pytest.raises(ValueError), tracing(): Tensor([1., 2.]) + Tensor([1., 2., 3.])
    assert primitive.__call__ is ops._apply


def test_other_threads_are_not_recorded():
    out = []
    with tracing() as seen:
        thread = threading.Thread(target=lambda: out.append(leaf(1.) * 2.))
        thread.start(); thread.join()
        mine = leaf(1.) * 2.
    assert id(mine) in seen.made and id(out[0]) not in seen.made


def test_gradients_are_the_same_inside():
    def run():
        r = np.random.default_rng(0)
        w = leaf(r.normal(size=(4, 3)))
        ((Tensor(r.normal(size=(5, 4))) @ w).tanh() ** 2).sum().backward()
        return w.grad.value
    plain = run()
    with tracing(): np.testing.assert_array_equal(run(), plain)


def test_a_freed_graph_with_changes_in_place_is_remembered():
    with tracing() as seen:
        w = leaf([1., 2.], 'w')
        a = w * 2.
        b = a + 0.
        a *= 3.
        loss = (a * a + b).sum()
        loss.backward()
    reason = why(w, loss, seen)
    np.testing.assert_allclose(sum(p for _, p in reason.parts), w.grad.value)


# ---- the player

GRAPHS = dict(two=lambda: leaf(3., 'x').exp(), worked=lambda: worked_example()[-1],
              network=lambda: network()[1], sixty=lambda: random_graph(42, 1)[1],
              zerod=lambda: leaf(np.array(2.), 'x') * leaf(np.array(3.), 'y'),
              empty=lambda: (leaf(np.zeros((0, 3)), 'x') * 2.).sum(),
              big=lambda: (leaf(np.ones((1000, 1000)), 'x') * leaf(rng.normal(size=(1000, 1000)), 'y')).sum(),
              nan=lambda: (lambda p: p.log() * p)(leaf(0., 'p')),
              inf=lambda: leaf(np.array([[np.inf, 1.]] * 3), 'x').sum())


@pytest.mark.parametrize('name', GRAPHS)
def test_the_player_is_small_whole_and_right(name):
    root = GRAPHS[name]()
    player = step(root)
    assert len(player.html.encode()) <= 100_000 and isinstance(player, Stepper)
    tags = Tags(player.html)
    assert tags.open == [] and not re.search(r'(src|href)=|url\(|@import|https?://(?!www\.w3\.org)', player.html)
    film, table = data(player), grads(player)
    if name == 'sixty': assert len(film['n']) >= 60
    assert not any(n.get('k') for n in film['n'])
    last = {}
    for s in film['s']: last.update(s.get('g', {}))
    for n, (text, number, *_) in last.items():
        assert str(float(number)) == str(table[film['n'][int(n)]['l'].replace('\xa0', ' ')])
    root.backward()
    for node in [n for n in insight._walk([root])[0] if getattr(n, 'tracked', 0) and n.name]:
        want = node.grad.value if node.grad is not None else None
        if want is None: continue
        want = want.item() if want.size == 1 else np.sqrt((want.astype(float) ** 2).sum())
        np.testing.assert_allclose(table[node.name], want, rtol=1e-12)


@pytest.mark.parametrize('seed', range(4))
def test_every_step_of_a_random_film_is_consistent(seed):
    leaves, root = random_graph(30, seed)
    film = data(step(root))
    wait, done, sent = {}, set(), {}
    for s in film['s']:
        if s['k'] == 'r': wait = {int(k): v for k, v in s['w'].items()}
        if s['k'] != 's': continue
        assert wait[s['a']] == 0 and s['a'] not in done       # complete before it sends
        wait[s['b']] -= 1
        assert s['w'] == {str(s['b']): wait[s['b']]}
        sent[s['e']] = sent.get(s['e'], 0) + 1
        done |= set(s.get('f', ()))
    assert set(wait.values()) == {0} and set(sent.values()) == {1}
    assert set(sent) == {k for k, e in enumerate(film['e']) if e[2]}


def test_slopes_multiplied_along_paths_are_the_gradient():
    leaves, root = random_graph(14, 3)
    player = step(root)
    film = data(player)
    total = {film['r']: 1.}
    for s in film['s']:
        if s['k'] == 's': total[s['b']] = total.get(s['b'], 0) + total[s['a']] * film['e'][s['e']][3]
    table = grads(player)
    for n, t in total.items(): assert table[film['n'][n]['l']] == pytest.approx(t, rel=1e-12)


@pytest.mark.parametrize('wide', [False, True])
def test_five_thousand_nodes_are_folded_and_it_says_so(wide):
    x, w = leaf(1., 'x'), leaf(.5, 'w')
    y = x
    if wide:
        for i in range(2500): y = y + leaf(.1) * w
    else:
        for i in range(2500): y = y * w + x
    player = step(y)
    film = data(player)
    assert len(player.html.encode()) <= 100_000
    count = int(re.search(r'([\d,]+) of [\d,]+ nodes and constants are folded', player.html)[1].replace(',', ''))
    folded = sum(int(n['l'].split()[0].replace(',', '')) for n in film['n'] if n.get('k'))
    assert count == folded > 4900
    table = grads(player)
    y.backward()
    assert table['x'] == x.grad.item() and table['w'] == w.grad.item()
    inside = film['s'][-1]
    wait = {}
    for s in film['s']: wait.update(s.get('w', {}))
    assert set(wait.values()) == {0} and inside['k'] == 'e'


def test_a_script_is_only_a_name():
    x, y = leaf(2., '<script>alert(1)</script>'), leaf(3., '</script><img src=x onerror=alert(1)>')
    html = step(x * y).html
    assert html.count('<script') == 2 == html.count('</script>') and '<img' not in html
    assert [n['l'].replace('\xa0', ' ') for n in data(step(x * y))['n']][1].startswith('<script>')


def test_two_players_have_the_same_bytes():
    assert step(network()[1]).html != '' and step(random_graph(40, 2)[1]).html == step(random_graph(40, 2)[1]).html


def test_it_shows_and_saves_itself(tmp_path):
    player = step(worked_example()[-1], title='A "walk" & more')
    assert player._repr_html_() == player.html and repr(player) == "Stepper('A \"walk\" & more')"
    page = player.save(tmp_path/'walk.html').read_text(encoding='utf-8')
    assert page.startswith('<!doctype html>') and player.html in page and '<title>A &quot;walk&quot; &amp; more</title>' in page
    assert ' id=' not in player.html                  # several can live on one page


@pytest.mark.parametrize('direction', ['right', 'down'])
def test_both_directions_mark_every_box_and_edge(direction):
    html = step(network()[1], direction=direction).html
    film = re.search(r'<script type="application/json">(.*?)</script>', html)[1]
    film = json.loads(film)
    assert sorted(map(int, re.findall(r'data-n="(\d+)"', html))) == list(range(len(film['n'])))
    assert sorted(map(int, re.findall(r'data-e="(\d+)"', html))) == list(range(len(film['e'])))


def test_heat_maps_keep_what_matters():
    a = np.zeros((1000, 1000))
    a[717, 3], a[2, 999], a[500, 500] = 5., -5., np.nan
    cols, cells = insight._heat(a)
    assert (cols, len(cells)) == (12, 96)
    assert cells.count('i') == cells.count('a') == cells.count('!') == 1
    assert insight._heat(np.full((2, 3), np.nan)) == [3, '!' * 6]
    assert insight._heat(np.array([True, False] * 4)) == [8, 'ie' * 4]
    assert insight._heat(np.zeros((3, 4, 5)))[1] == 'e' * 40


def test_derivations_show_themselves():
    assert isinstance(explain(*(lambda x, y, z, q, f: (f, q))(*worked_example())), Derivation)
    text = explain(*(lambda x, y, z, q, f: (f, z))(*worked_example()))._repr_markdown_()
    assert text.count('$$') == 6 and '\xa0' not in text
