"""Nodes, the clock for changes in place, and pictures of graphs."""
import gc
import random
import re
import sys
import time
import weakref
import xml.etree.ElementTree as ET
from collections import namedtuple
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import backprop_lit.graph as graph
from backprop_lit.graph import Node, Picture, change_since, changed, clock, draw, label, settle

Op = namedtuple('Op', 'name vjps')
ADD = Op('add', (lambda g, out, x, y: g, lambda g, out, x, y: g))
MUL = Op('mul', (lambda g, out, x, y: g * y, lambda g, out, x, y: g * x))
SVG = '{http://www.w3.org/2000/svg}'


def value(a): return a.value if isinstance(a, Node) else a
def add(x, y, name=None): return Node(value(x) + value(y), ADD, (x, y), name=name)
def mul(x, y, name=None): return Node(value(x) * value(y), MUL, (x, y), name=name)


def example():
    x, y, z = Node(-2., name='x'), Node(5., name='y'), Node(-4., name='z')
    q = add(x, y, 'q')
    return x, y, z, q, mul(q, z, 'f')


def texts(picture):
    return [''.join(t.itertext()) for t in ET.fromstring(picture.svg).iter(f'{SVG}text')]


def rectangles(picture):
    keys = 'x', 'y', 'width', 'height'
    return [tuple(float(r.get(k)) for k in keys)
            for r in ET.fromstring(picture.svg).iter(f'{SVG}rect')]


def curves(picture):
    """Points on each edge, 20 to a curve."""
    for path in ET.fromstring(picture.svg).iter(f'{SVG}path'):
        if path.get('fill') != 'none': continue
        points, at = [], None
        for letter, numbers in re.findall(r'([MLC])([^MLC]*)', path.get('d')):
            p = np.array(numbers.split(), float).reshape(-1, 2)
            c = np.vstack([p[:1] if at is None else at, p])
            t = np.linspace(0, 1, 20)[:, None, None]
            c = np.broadcast_to(c, (20, *c.shape))
            while c.shape[1] > 1: c = c[:, :-1] * (1 - t) + c[:, 1:] * t
            points.extend(c[:, 0])
            at = p[-1]
        yield points


def random_graph(size, seed, leaves=8, reach=12):
    rng = random.Random(seed)
    nodes = [Node(float(i), name=f'x{i}') for i in range(leaves)]
    while len(nodes) < size:
        op = rng.choice([add, mul])
        a = rng.choice(nodes[-reach:])
        nodes.append(op(a, rng.choice([*nodes[-reach:], rng.random()])))
    used = {id(p) for n in nodes for p in n.parents}
    return [n for n in nodes if id(n) not in used]


# ---- nodes

def test_a_node_remembers_what_made_it():
    x, y, z, q, f = example()
    assert f.parents == (q, z) and f.args == (q, z) and f.op is MUL
    assert f.vjps == MUL.vjps and not f.is_leaf and x.is_leaf
    assert f.grad is None and f.requires_grad


def test_only_tracked_arguments_are_parents():
    x, fixed = Node(2.), Node(3., requires_grad=False)
    n = mul(fixed, x)
    assert n.args == (fixed, x) and n.parents == (x,) and n.vjps == (MUL.vjps[1],)
    assert mul(x, 3.).parents == (x,)
    silent = Node(6., Op('argmax', (None, MUL.vjps[1])), (x, x))
    assert silent.parents == (x,) and silent.vjps == (MUL.vjps[1],)


def test_one_node_used_twice_is_two_parents():
    x = Node(3.)
    assert mul(x, x).parents == (x, x)


def test_deleting_the_root_frees_the_graph_without_the_collector():
    was_on = gc.isenabled()
    gc.disable()
    try:
        n = Node(1.)
        for _ in range(100): n = add(n, 1.)
        ghosts, m = [], n
        while m.parents:
            ghosts.append(weakref.ref(m))
            m = m.parents[0]
        del n, m
        assert not any(g() for g in ghosts)
    finally:
        if was_on: gc.enable()


def test_labels_name_the_node():
    x, *_, f = example()
    assert label(x) == "'x'" and label(mul(x, x)) == 'mul' and label(Node(1.)) == 'leaf'
    assert label(Node(np.zeros((2, 3)), name='w')) == "'w' of shape (2, 3)"


def test_settle_refuses_a_freed_graph():
    f = example()[-1]
    f.args, f.parents, f.vjps = None, (), ()
    with pytest.raises(RuntimeError, match=r"'f' is gone.*retain_graph=True"): settle(f)


# ---- changes in place

def test_a_change_is_found_with_its_line_through_any_view():
    a = np.zeros((3, 4))
    born = clock[0]
    assert change_since(a, born) == ''
    changed(a[1:].T)
    here = sys._getframe().f_lineno - 1
    for view in (a, a[0], a.T): assert change_since(view, born) == f'{__file__}:{here}'
    assert change_since(a, clock[0]) == '' and change_since(np.zeros(3), born) == ''


def test_the_table_of_changes_forgets_dead_arrays():
    a = np.zeros(3)
    before = len(graph.changes)
    changed(a)
    assert len(graph.changes) == before + 1
    del a
    assert len(graph.changes) == before


# ---- pictures

def test_the_example_says_all_its_numbers():
    x, y, z, q, f = example()
    for node, g in ((f, 1.), (q, -4.), (z, 3.)): node.grad = g
    words = texts(draw(f))
    assert {'x = −2', 'y = 5', 'q = 3', 'grad −4', 'f = −12', 'grad 3', '+', '×'} <= set(words)
    svg = ET.fromstring(draw(f).svg)
    assert svg.get('role') == 'img' and svg.get('aria-label') == 'Graph of f: 5 nodes, 3 of them leaves'
    assert 'f = −12 grad 1' in svg.find(f'{SVG}desc').text


def test_every_edge_is_drawn_once_and_twice_for_a_square():
    x, *_, f = example()
    assert len(list(curves(draw(f)))) == 4
    assert len(list(curves(draw(mul(x, x))))) == 2


def test_arguments_stand_in_their_order():
    leaves = [Node(0., name=f'x{i}') for i in range(9)]
    words = texts(draw(Node(0., Op('f', (True,) * 9), tuple(leaves))))
    assert [t for t in words if t.startswith('x')] == [f'x{i} = 0' for i in range(9)]


def test_an_edge_from_a_narrow_box_passes_a_wide_one():
    wide, narrow, far = [Node(0., name=n) for n in ('a name as long as this', 'x', 'y' * 24)]
    leaves = wide, narrow, far, Node(1.), Node(2.), Node(3.)
    picture = draw(Node(0., Op('f', (True,) * 6), leaves))
    column = max(x + w for x, _, w, _ in rectangles(picture)[:6])
    for points in curves(picture):
        start = points[0][1]
        assert all(abs(y - start) < .01 for x, y in points if x < column - .1)


def test_two_draws_give_the_same_bytes():
    assert draw(random_graph(60, 1)).svg == draw(random_graph(60, 1)).svg


@pytest.mark.parametrize('direction', ['right', 'down'])
@pytest.mark.parametrize('size, seed', [(20, 0), (60, 1), (60, 2), (200, 3)])
def test_no_box_overlaps_another_and_no_edge_runs_through_one(size, seed, direction):
    picture = draw(random_graph(size, seed), direction=direction, limit=400)
    boxes = rectangles(picture)
    for (x, y, w, h), (u, v, s, t) in combinations(boxes, 2):
        assert x + w <= u or u + s <= x or y + h <= v or v + t <= y
    low, high = np.array([b[:2] for b in boxes]), np.array([(b[0] + b[2], b[1] + b[3]) for b in boxes])
    p = np.concatenate(list(curves(picture)))[:, None]
    assert not ((p[..., 0] > low[:, 0] + .2) & (p[..., 0] < high[:, 0] - .2)
                & (p[..., 1] > low[:, 1] + .2) & (p[..., 1] < high[:, 1] - .2)).any()
    width, height = (float(ET.fromstring(picture.svg).get(k)) for k in ('width', 'height'))
    assert (low >= 0).all() and (high <= (width, height)).all()


def test_edges_flow_towards_the_root():
    x, y, z, q, f = example()
    for direction, axis in (('right', 0), ('down', 1)):
        for points in curves(draw(f, direction=direction)):
            assert (np.diff(np.array(points)[:, axis]) >= -1e-9).all()


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_name_gives_valid_harmless_xml(name):
    n = mul(Node(1., name=name), 2., name)
    n.op = Op(name or 'op', MUL.vjps)
    root = ET.fromstring(draw(n, title=name, edge_labels={(n, 0): name}).svg.encode())
    assert {e.tag for e in root.iter()} <= {SVG + t for t in 'svg g title desc style rect path text tspan'.split()}


def test_a_script_is_only_a_name():
    svg = draw(mul(Node(1., name='<script>alert("x")</script>'), 2.)).svg
    assert '<script' not in svg and '&lt;script&gt;' in svg


@pytest.mark.parametrize('data, said', [
    (float('nan'), 'nan'), (-np.inf, '−inf'), (np.float32(1e-12), '1e−12'), (np.array(3.14159), '3.142'),
    (np.zeros((0, 3)), '(0, 3)'), (np.zeros((1000, 1000)), '(1000, 1000)'), (True, 'True'), (7, '7')])
def test_values_of_every_kind(data, said):
    svg = draw(Node(data))
    assert said in texts(svg) and len(svg.svg) < 3000


def test_what_is_not_finite_in_an_array_is_counted():
    n = Node(np.array([1., np.nan, np.inf]), name='w')
    n.grad = np.array([np.nan, 0, 0])
    with np.errstate(all='raise'): assert {'float64, 2 nan or inf', 'grad (3,) 1 nan or inf'} <= set(texts(draw(n)))
    assert 'int64' in texts(draw(Node(np.zeros(3, 'int64'))))


def test_labels_and_highlights():
    x, y, z, q, f = example()
    by_dict = draw(f, edge_labels={(f, 0): -4., (q, 1): 'one'}, highlight=[x, q, f])
    assert {'−4', 'one'} <= set(texts(by_dict))
    assert by_dict.svg.count('stroke-width="2.5"') == 4      # three boxes, one group of edges
    by_function = draw(f, edge_labels=lambda n, i: -4. if (n, i) == (f, 0) else 'one' if (n, i) == (q, 1) else None,
                       highlight=[x, q, f])
    assert by_dict.svg == by_function.svg


def test_what_carries_no_gradient_is_dashed():
    x, fixed = Node(2.), Node(3., requires_grad=False)
    svg = draw(mul(mul(x, fixed), 5.)).svg
    assert svg.count('stroke-dasharray') == 3                # two boxes, one group of edges
    assert 'stroke-dasharray' not in draw(mul(x, x)).svg


def test_constants_and_lists_among_the_arguments():
    x, y = Node(np.zeros(2), name='x'), Node(np.zeros(2), name='y')
    n = Node(np.zeros(4), Op('concatenate', ()), ([x, y], (3, 4), None))
    assert {'concatenate', '(3, 4)'} <= set(texts(draw(n)))
    assert len(rectangles(draw(n))) == 4         # None, an option left alone, is not drawn


def test_a_freed_graph_says_so():
    f = example()[-1]
    f.args, f.parents, f.vjps = None, (), ()
    assert 'inputs freed' in texts(draw(f)) and len(rectangles(draw(f))) == 1


def test_anything_that_follows_the_protocol_is_drawn():
    leaf = SimpleNamespace(parents=(), op=None, args=(), data=1.5, grad=None, name='a')
    root = SimpleNamespace(parents=(leaf,), op=SimpleNamespace(name='exp'), args=(leaf,), data=4.48, grad=1, name=None)
    assert {'a = 1.5', 'exp', '4.48', 'grad 1'} <= set(texts(draw(root)))


def test_a_large_graph_is_folded_and_nothing_is_lost():
    chain = Node(1., name='x')
    for i in range(5000): chain = add(chain, 1.) if i % 2 else mul(chain, chain)
    fan = Node(0., Op('stack', (True,) * 5000), tuple(Node(1.) for _ in range(5000)))
    blocks = Node(1., name='x')
    for _ in range(2500): blocks = add(mul(blocks, Node(.5)), blocks)
    for root, total in ((chain, 7501), (fan, 5001), (blocks, 7501)):
        start = time.perf_counter()
        picture = draw(root)
        assert time.perf_counter() - start < 2
        boxes = rectangles(picture)
        folded = [int(t.split()[1].replace(',', '')) for t in texts(picture) if t.endswith('more nodes')]
        assert folded and len(boxes) <= 201 and len(boxes) - len(folded) + sum(folded) == total
        for (x, y, w, h), (u, v, s, t) in combinations(boxes, 2):
            assert x + w <= u or u + s <= x or y + h <= v or v + t <= y


@pytest.mark.parametrize('limit', [1, 2, 3, 5, 10, 50, 199])
def test_any_limit_draws(limit):
    ET.fromstring(draw(random_graph(200, 5), limit=limit).svg)


def test_what_cannot_be_drawn_is_refused_by_name():
    x = Node(1., name='x')
    for bad, kind, words in ((-12., TypeError, r'float -12\.0'), ([x, None], TypeError, 'NoneType'), ([], ValueError, 'at least one')):
        with pytest.raises(kind, match=words): draw(bad)
    with pytest.raises(ValueError, match="'up'"): draw(x, direction='up')
    ring = mul(x, x)
    ring.args = ring.parents = (x, ring)
    with pytest.raises(ValueError, match='2 of 2 nodes'): draw(ring)


def test_a_picture_shows_itself_and_saves(tmp_path):
    picture = draw(example()[-1])
    assert isinstance(picture, Picture) and picture._repr_svg_() == picture.svg
    assert repr(picture) == "Picture('Graph of f: 5 nodes, 3 of them leaves')"
    path = picture.save(tmp_path / 'g.svg')
    assert path.read_text(encoding='utf-8') == picture.svg + '\n'
    assert '<style>svg:root' in picture.svg and 'http' not in picture.svg.replace('http://www.w3.org/2000/svg', '')


def test_drawing_changes_nothing():
    x, y, z, q, f = example()
    before = [(n.value, n.grad, n.args, n.parents, n.born) for n in (x, y, z, q, f)]
    draw(f, highlight=[x], edge_labels={(f, 0): 1})
    assert before == [(n.value, n.grad, n.args, n.parents, n.born) for n in (x, y, z, q, f)]
