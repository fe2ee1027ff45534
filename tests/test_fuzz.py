"""Random inputs for everything that reads or indexes. Nothing may crash, hang, be wrong, or write a file that nobody named.
BACKPROP_LIT_FUZZ=100000 draws as many inputs in all, new ones each time; by default a few hundred, always the same.
The shares below and the tenth that test_random_damage in test_saving.py takes add up to 1."""
import collections
import contextlib
import gzip
import io
import json
import operator
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st
from hypothesis.extra import numpy as hnp

import backprop_lit as bl
from backprop_lit import data as data_module, train as train_module
from backprop_lit.nn import MLP
from backprop_lit.tensor import Tensor

LONG = int(os.environ.get('BACKPROP_LIT_FUZZ', 0))
COUNTS = collections.Counter()

def fuzz(share, few):
    "A test of `few` inputs, or of its share of the long run"
    how = settings(max_examples=max(few, round(LONG * share)), deadline=None, derandomize=not LONG, database=None,
                   suppress_health_check=list(HealthCheck), print_blob=True)
    return lambda test: how(test)

@pytest.fixture(scope='module', autouse=True)
def count():
    yield
    print(f'\n{sum(COUNTS.values()):,} inputs:', dict(COUNTS))

@pytest.fixture(scope='module')
def folder():
    "A folder of files that must stay as they are"
    with tempfile.TemporaryDirectory() as name: yield Path(name)

def listing(folder): return {p: p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob('*'))}

def one_line(error): assert 'expected' in str(error) and '\n' not in str(error), error

# --- bytes ---

EDITS = st.lists(st.tuples(st.integers(0, 5000), st.sampled_from(['put', 'cut', 'copy', 'insert']), st.binary(max_size=9)), max_size=4)

def edited(data, edits):
    data = bytearray(data)
    for at, kind, new in edits:
        at %= len(data) + 1
        if kind == 'put': data[at:at + len(new)] = new
        if kind == 'insert': data[at:at] = new
        if kind == 'cut': del data[at:at + len(new)]
        if kind == 'copy': data[at:at] = data[:len(new)]
    return bytes(data)

TYPES = {8: 'u1', 9: 'i1', 11: '>i2', 12: '>i4', 13: '>f4', 14: '>f8'}

@st.composite
def idx_files(draw):
    shape = draw(st.lists(st.integers(0, 5) | st.sampled_from([1, 2, 2**31, 2**32 - 1]), max_size=4))
    kind = draw(st.sampled_from([*TYPES]) | st.integers(0, 255))
    head = bytes([0, 0, kind, draw(st.sampled_from([len(shape)] * 5 + [0, 33, 255]))]) + np.array(shape, '>u4').tobytes()
    size = min(int(np.prod(shape, dtype=float)), 200) * np.dtype(TYPES.get(kind, 'u1')).itemsize
    data = head + np.random.default_rng(draw(st.integers(0, 99))).bytes(size)
    data = edited(data, draw(st.just([]) | EDITS))
    if draw(st.booleans()): data = edited(gzip.compress(data, mtime=0), draw(st.just([]) | EDITS))
    return data

def by_the_book(data):
    "The array that an IDX file means, or None"
    if data[:2] == b'\x1f\x8b':
        try: data = gzip.decompress(data)
        except Exception: return None
    if len(data) < 4 or data[:2] != b'\0\0' or data[2] not in TYPES or not 1 <= data[3] <= 32: return None
    begin = 4 + 4 * data[3]
    shape = [int.from_bytes(data[i:i + 4], 'big') for i in range(4, begin, 4)]
    dtype = np.dtype(TYPES[data[2]])
    if len(data) < begin or 0 in shape or len(data) - begin != int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize: return None
    return np.frombuffer(data[begin:], dtype).reshape(shape)

@fuzz(.2, 150)
@given(data=idx_files() | st.binary(max_size=40))
def test_idx_reader(folder, data):
    COUNTS['idx'] += 1
    path = folder / 'file.idx'
    path.write_bytes(data)
    before, wanted = listing(folder), by_the_book(data)
    try: found = bl.read_idx(path)
    except ValueError as error:
        one_line(error)
        assert wanted is None
    else:
        assert found.dtype == wanted.dtype.newbyteorder('=') and found.shape == wanted.shape
        assert found.astype(wanted.dtype).tobytes() == wanted.tobytes()
    assert listing(folder) == before
    path.unlink()

# --- checkpoints ---

@pytest.fixture(scope='module')
def checkpoint(folder):
    "Bytes of a sealed file, of one without a seal, of a checkpoint, and how to resume from a path"
    library = pytest.importorskip('safetensors.numpy')
    from backprop_lit.saving import Checkpoint, save
    save(MLP(3, 2, rng=0), folder / 'm')
    x, y = np.random.default_rng(0).random((12, 4), np.float32), np.arange(12) % 2
    def fit(model, epochs, *callbacks): bl.fit(model, (x, y), epochs=epochs, batch_size=4, callbacks=callbacks, progress=False)
    fit(MLP(4, 2, rng=0), 1, Checkpoint(folder / 'c'))
    files = (folder / 'm').read_bytes(), library.save(MLP(3, 2, rng=0).state_dict()), (folder / 'c').read_bytes()
    (folder / 'm').unlink(), (folder / 'c').unlink()
    def resume(path, model): fit(model, 2, Checkpoint(folder / 'target', resume=path))
    return *files, resume

def bits(model): return [a.tobytes() for a in model.state_dict().values()]

def by_hand(data):
    "The arrays in a safetensors file, cut out of its bytes"
    size = int.from_bytes(data[:8], 'little')
    kinds = dict(F64='<f8', F32='<f4', F16='<f2', I64='<i8', I32='<i4', I16='<i2', I8='i1', U64='<u8', U32='<u4', U16='<u2', U8='u1', BOOL='?')
    about = json.loads(data[8:8 + size])
    return {name: np.frombuffer(data[8 + size:][slice(*a['data_offsets'])], kinds[a['dtype']]).reshape(a['shape'])
            for name, a in about.items() if name != '__metadata__'}

JSON = st.recursive(st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.floats() | st.text(max_size=4) |
                    st.sampled_from(['F32', 'F64', 'U8', 'BF16', '__metadata__', '1.weight', [2, 3], [0, 24], [0, 4], [2**63, 2]]),
                    lambda kids: st.lists(kids, max_size=4) | st.dictionaries(st.sampled_from(
                        ['dtype', 'shape', 'data_offsets', '__metadata__', '1.weight', '1.bias', 'x']), kids, max_size=4), max_leaves=12)

@st.composite
def tensor_files(draw, files):
    kind = draw(st.integers(0, 3))
    if kind < 3: return edited(files[kind], draw(EDITS))
    head = json.dumps(draw(JSON)).encode()
    size = draw(st.sampled_from([len(head)] * 6 + [0, 1, 2**63, 2**64 - 1]))
    return size.to_bytes(8, 'little') + head + draw(st.binary(max_size=40))

@fuzz(.1, 120)
@given(drawn=st.data())
def test_checkpoint_reader(folder, checkpoint, drawn):
    COUNTS['checkpoint'] += 1
    files, path, model = checkpoint[:3], folder / 'weights', MLP(3, 2, rng=1)
    data = drawn.draw(tensor_files(files))
    path.write_bytes(data)
    before, old = listing(folder), bits(model)
    try: found = bl.load(path)
    except ValueError as error: one_line(error)
    else:
        wanted = by_hand(data)
        if data == files[2]: wanted = {n: a for n, a in wanted.items() if not n.startswith('optimizer:')}
        assert wanted.keys() == found.keys()
        for name, a in wanted.items(): assert (a.shape, a.dtype, a.tobytes()) == (found[name].shape, found[name].dtype, found[name].tobytes())
        if b'backprop_lit' in data: assert data in files
    try: bl.load(path, model)
    except ValueError as error:
        one_line(error)
        assert bits(model) == old
    assert listing(folder) == before
    path.unlink()

@st.composite
def lies(draw, about):
    "A note in which one thing, at any depth, is something else"
    about = json.loads(json.dumps(about))
    at = about
    while True:
        key = draw(st.sampled_from([*at]) if isinstance(at, dict) else st.integers(0, len(at) - 1))
        deeper = isinstance(at[key], (dict, list)) and len(at[key])
        if not deeper or draw(st.integers(0, 3)) == 0: break
        at = at[key]
    if draw(st.booleans()): at[key] = draw(JSON)
    elif isinstance(at, dict) and draw(st.booleans()): at[draw(st.text(max_size=3))] = draw(JSON)
    else: del at[key]
    return about

@fuzz(.03, 40)
@given(drawn=st.data())
def test_checkpoint_that_lies_with_a_good_seal(folder, checkpoint, drawn):
    COUNTS['lies'] += 1
    from backprop_lit.saving import _decoded, _sealed
    path, model = folder / 'lie', MLP(4, 2, rng=1)
    (folder / 'target').unlink(missing_ok=True)
    arrays, about = _decoded(path, checkpoint[2])
    about.pop('sha256')
    path.write_bytes(_sealed(arrays, drawn.draw(lies(about))))
    before, old = listing(folder), bits(model)
    try: checkpoint[3](path, model)
    except ValueError as error:
        one_line(error)
        assert 'finite loss' in str(error) or bits(model) == old
    else: assert {*listing(folder)} == {*before, folder / 'target'}
    (folder / 'target').unlink(missing_ok=True)
    assert listing(folder) == before
    path.unlink()

# --- the command ---

NAMES = ['sound', 'broken', 'a.svg', 'b.png', 'new', 'sub', 'sub/new', 'no/new', '', '.', 'digits', 'mnist', 'adam', 'sgd', 'mlp', 'conv']
NUMBERS = ['1', '0', '-1', '2', '3,4', '5,,6', '.01', '1e-3', 'nan', '-inf', '1e400', '0x3', '9' * 20, '٣', '1_0', ' 2 ']
OPTIONS = [f'--{n}' for n in 'data model hidden epochs batch optimizer lr seed plot save resume help version what dat'.split()] + ['--', '-h', '-']
TEXT = st.text(st.characters(exclude_characters='/\0\\', exclude_categories=['Cs']), max_size=6)
VALUES = st.sampled_from(NAMES + NUMBERS) | TEXT
WORDS = st.one_of(st.tuples(st.sampled_from(OPTIONS), VALUES), st.tuples(st.builds('{}={}'.format, st.sampled_from(OPTIONS), VALUES)),
                  st.tuples(VALUES))

@fuzz(.07, 60)
@given(first=st.sampled_from(['train'] * 9 + ['', 'trian', '--help']), words=st.lists(WORDS, max_size=5))
def test_command_line(folder, checkpoint, first, words):
    COUNTS['command'] += 1
    words = [first, *(w for pair in words for w in pair)]
    home = folder / 'home'
    shutil.rmtree(home, ignore_errors=True)
    (home / 'sub').mkdir(parents=True)
    (home / 'sound').write_bytes(checkpoint[2]), (home / 'broken').write_bytes(b'broken')
    before, out, err, back = listing(folder), io.StringIO(), io.StringIO(), os.getcwd()
    real = train_module.fit
    def short(model, train, test, epochs, **how): return real(model, train[:20], test[:20], 1, progress=False, **how)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(train_module, 'fit', short)
        patch.setitem(sys.modules, 'torchvision', None)       # nothing is fetched
        patch.setenv('BACKPROP_LIT_DATA', str(home)), patch.chdir(home)
        code = bl.main(words)
    assert os.getcwd() == back and 'Traceback' not in err.getvalue()
    assert (code, err.getvalue().count('\n')) in [(0, 0), (2, 1)], (code, err.getvalue())
    named = {w.rpartition('=')[2] for w in words} | {w.partition('=')[2] for w in words} | {*words}
    for p in {p for p, a in listing(folder).items() if before.get(p, 0) != a}:
        assert str(p.relative_to(home)) in {os.path.normpath(n) for n in named if n}, p
    assert before.keys() <= listing(folder).keys()
    shutil.rmtree(home)

# --- indexing ---

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
SMALL = st.integers(-5, 5)
LITTLE = hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3)
PARTS = st.one_of(SMALL, st.builds(slice, st.none() | SMALL, st.none() | SMALL, st.none() | SMALL.filter(bool)), st.just(Ellipsis),
                  st.none(), st.booleans(), SMALL.map(np.int64), SMALL.map(np.array), st.lists(SMALL, max_size=3),
                  LITTLE.flatmap(lambda s: hnp.arrays(np.int64, s, elements=st.integers(-3, 2))), LITTLE.flatmap(lambda s: hnp.arrays(bool, s)),
                  st.sampled_from([1.5, 'a', 2**70, np.array([0.5]), slice(0, 4, 0), slice('a'), np.uint8(1), [[0], [1]], [True, False]]))

@st.composite
def indices(draw, shape):
    if draw(st.booleans()) and shape and 0 not in shape:
        kind = draw(st.integers(0, 2))
        if kind == 0: return draw(hnp.basic_indices(shape, allow_newaxis=True))
        if kind == 1: return draw(hnp.integer_array_indices(shape))
        return draw(hnp.arrays(bool, shape[:draw(st.integers(1, len(shape)))]))
    parts = draw(st.lists(PARTS, max_size=4))
    return parts[0] if len(parts) == 1 and draw(st.booleans()) else tuple(parts)

def disguise(index, draw):
    "The same index with some of its arrays as tensors"
    if isinstance(index, tuple): return tuple(disguise(i, draw) for i in index)
    return Tensor(index) if isinstance(index, np.ndarray) and draw(st.booleans()) else index

def attempt(f):
    "The result of f(), or the kind of its error"
    try: return f()
    except (IndexError, TypeError, ValueError, OverflowError) as error: return type(error)

def same(ours, wanted):
    assert isinstance(ours, Tensor) and ours.shape == np.shape(wanted) and ours.dtype == wanted.dtype
    assert np.array_equal(ours.data, wanted, equal_nan=wanted.dtype.kind == 'f')

def numbers(shape, seed=0, dtype=float): return np.random.default_rng(seed).normal(size=shape).astype(dtype)

@fuzz(.17, 150)
@given(shape=SHAPES, drawn=st.data())
def test_indexing(shape, drawn):
    COUNTS['index'] += 1
    index = drawn.draw(indices(shape))
    a, hidden = numbers(shape), disguise(index, drawn.draw)
    x, wanted = Tensor(a.copy(), requires_grad=True), attempt(lambda: a[index])
    found = attempt(lambda: x[hidden])
    if isinstance(wanted, type): return same_failure(found, wanted)
    same(found, wanted)
    g = numbers(found.shape, 1)
    found.backward(g)
    scattered = np.zeros(shape)
    np.add.at(scattered, index, g)
    assert np.allclose(x.grad.data, scattered) and np.array_equal(x.data, a) and not np.shares_memory(x.grad.data, g)

def same_failure(found, wanted): assert isinstance(found, type) and issubclass(found, wanted), (found, wanted)

@fuzz(.1, 100)
@given(shape=SHAPES, drawn=st.data())
def test_writing_at_an_index(shape, drawn):
    COUNTS['write'] += 1
    index = drawn.draw(indices(shape))
    a = numbers(shape)
    inside = attempt(lambda: a[index].shape)
    assume(isinstance(inside, type) or drawn.draw(st.booleans()) or not len(inside) or inside[0] != 0)
    value_shape = () if isinstance(inside, type) or drawn.draw(st.booleans()) else inside[drawn.draw(st.integers(0, len(inside))):]
    v, b = numbers(value_shape, 2), a.copy()
    x, w = Tensor(a.copy(), requires_grad=True), Tensor(v.copy(), requires_grad=True)
    y = x * 1
    wanted = attempt(lambda: b.__setitem__(index, v))
    found = attempt(lambda: y.__setitem__(disguise(index, drawn.draw), w))
    if isinstance(wanted, type): return same_failure(found, wanted)
    assert found is None
    same(y, b)
    origin = np.arange(a.size).reshape(shape)               # of each number: in x, or behind it in w
    origin[index] = a.size + np.arange(v.size).reshape(v.shape)
    g = numbers(shape, 3)
    y.backward(g)
    wanted = np.bincount(origin.ravel(), g.ravel(), a.size + v.size)
    assert np.allclose(x.grad.data.ravel(), wanted[:a.size])
    assert np.allclose(0 if w.grad is None else w.grad.data.ravel(), wanted[a.size:])

# --- einsum ---

@st.composite
def sums(draw):
    sizes = {c: draw(st.integers(0, 3)) for c in 'abcd'}
    more = draw(st.lists(st.integers(1, 3), max_size=2))
    terms, shapes = [], []
    for _ in range(draw(st.integers(1, 3))):
        letters = draw(st.text('abcd', max_size=3))
        shape, dots = [sizes[c] for c in letters], draw(st.integers(0, 3)) == 0
        if dots:
            at, kept = draw(st.integers(0, len(letters))), draw(st.integers(0, len(more)))
            extra = [n if draw(st.booleans()) else 1 for n in more[kept:]]
            letters, shape = letters[:at] + '...' + letters[at:], shape[:at] + extra + shape[at:]
        terms.append(letters), shapes.append(tuple(shape))
    text = ','.join(terms)
    if draw(st.booleans()):
        used = sorted({*text} - {*'.,'})
        text += '->' + '...' * draw(st.booleans()) + ''.join(draw(st.permutations(used))[:draw(st.integers(0, len(used)))])
    return draw(st.just(text) | st.just(text).flatmap(misspelt)), shapes

def misspelt(text):
    return st.tuples(st.integers(0, len(text)), st.integers(0, 2), st.text('abZ.,->- 1é', max_size=2)).map(
        lambda e: text[:e[0]] + e[2] + text[e[0] + e[1]:])

@fuzz(.1, 120)
@given(case=sums())
def test_einsum(case):
    COUNTS['einsum'] += 1
    text, shapes = case
    arrays = [numbers(s, i) for i, s in enumerate(shapes)]
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    wanted, found = attempt(lambda: np.einsum(text, *arrays)), attempt(lambda: np.einsum(text, *tensors))
    text = text.replace(' ', '')            # blanks are allowed everywhere here
    if isinstance(wanted, type): wanted = attempt(lambda: np.einsum(text, *arrays))
    if isinstance(wanted, type): return same_failure(found, (wanted, ValueError))
    assert not isinstance(found, type), (text, shapes)
    assert found.shape == wanted.shape and np.allclose(found.data, wanted)
    g = numbers(wanted.shape, 5)
    found.backward(g)
    for k, t in enumerate(tensors):                     # linear in each operand, so the rule can be asked exactly
        d = numbers(t.shape, 6 + k)
        moved = np.einsum(text, *arrays[:k], d, *arrays[k + 1:])
        assert np.isclose((g * moved).sum(), (t.grad.data * d).sum())

# --- broadcasting ---

FEW = hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=4, min_side=0, max_side=3).map(lambda s: [*s.input_shapes])
BINARY = {'add': (np.add, lambda a, b: (1., 1.)), 'subtract': (np.subtract, lambda a, b: (1., -1.)), 'multiply': (np.multiply, lambda a, b: (b, a)),
          'divide': (np.divide, lambda a, b: (1 / b, -a / b**2)), 'hypot': (np.hypot, lambda a, b: (a / np.hypot(a, b), b / np.hypot(a, b))),
          'maximum': (np.maximum, lambda a, b: (a > b, b > a)), 'minimum': (np.minimum, lambda a, b: (a < b, b < a))}
DTYPES = st.sampled_from(['f4', 'f8', 'f4', 'f8', 'i8', '?', 'f2', 'u1'])

def collected(g, shape):
    "The sum of `g` over the copies of each element of `shape`"
    place = np.broadcast_to(np.arange(int(np.prod(shape))).reshape(shape), g.shape)
    return np.bincount(place.ravel(), g.ravel().astype(float), int(np.prod(shape))).reshape(shape)

@fuzz(.08, 120)
@given(shapes=FEW | st.lists(SHAPES, min_size=3, max_size=3), name=st.sampled_from([*BINARY]), kinds=st.tuples(DTYPES, DTYPES),
       plain=st.sampled_from([None, 0, 1]), how=st.integers(0, 1))
def test_broadcasting(shapes, name, kinds, plain, how):
    COUNTS['broadcast'] += 1
    f, slopes = BINARY[name]
    arrays = [(numbers(s, i) * 2 + 3).astype(k) for i, (s, k) in enumerate(zip(shapes, kinds))]
    tensors = [Tensor(a, a.dtype.kind == 'f' and plain != i) if plain != i else a for i, a in enumerate(arrays)]
    operators = dict(add='__add__', subtract='__sub__', multiply='__mul__', divide='__truediv__')
    with np.errstate(all='ignore'):
        wanted = attempt(lambda: f(*arrays))
        g = getattr(operator, operators[name].strip('_')) if how and name in operators else f
        found = attempt(lambda: g(*tensors))
        if isinstance(wanted, type): return same_failure(found, wanted)
        same(found, np.asarray(wanted))
        if not found.requires_grad: return
        up = numbers(found.shape, 4, found.dtype)
        found.backward(up)
        for t, slope in zip(tensors, slopes(*[a.astype(float) for a in arrays])):
            if not isinstance(t, Tensor) or not t.requires_grad: continue
            assert t.grad.dtype == t.dtype and t.grad.shape == t.shape
            if 'f2' in (*kinds, found.dtype.str[1:]) or not np.isfinite(slope).all(): continue
            wanted = collected(up * np.broadcast_to(slope, found.shape), t.shape)
            assert np.allclose(t.grad.data, wanted, rtol=1e-4, atol=1e-4)

AXIS = st.integers(-5, 4)
MOVES = {'reshape': lambda d: (np.reshape, d(st.lists(st.integers(-1, 4), max_size=4).map(tuple))),
         'transpose': lambda d: (np.transpose, d(st.none() | st.lists(AXIS, max_size=4).map(tuple))),
         'swapaxes': lambda d: (np.swapaxes, d(AXIS), d(AXIS)), 'moveaxis': lambda d: (np.moveaxis, d(AXIS), d(AXIS)),
         'flip': lambda d: (np.flip, d(st.none() | AXIS)), 'roll': lambda d: (np.roll, d(SMALL), d(st.none() | AXIS)),
         'repeat': lambda d: (np.repeat, d(st.integers(0, 3)), d(st.none() | AXIS)),
         'tile': lambda d: (np.tile, d(st.lists(st.integers(0, 2), max_size=3).map(tuple))),
         'expand_dims': lambda d: (np.expand_dims, d(AXIS)), 'squeeze': lambda d: (np.squeeze, d(st.none() | AXIS)),
         'broadcast_to': lambda d: (np.broadcast_to, d(st.lists(st.integers(0, 4), max_size=5).map(tuple))),
         'take': lambda d: (np.take, d(hnp.arrays(np.int64, LITTLE_FEW, elements=SMALL)), d(st.none() | AXIS)),
         'diagonal': lambda d: (np.diagonal, d(SMALL), d(AXIS), d(AXIS)), 'rot90': lambda d: (np.rot90, d(SMALL)),
         'ravel': lambda d: (np.ravel,), 'triu': lambda d: (np.triu, d(SMALL)), 'pad': lambda d: (np.pad, d(st.integers(0, 2)))}
LITTLE_FEW = hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3)

@fuzz(.05, 120)
@given(shape=SHAPES, name=st.sampled_from([*MOVES]), drawn=st.data())
def test_functions_that_only_move(shape, name, drawn):
    "Applied to the numbers of the places, a function says where each element went"
    COUNTS['move'] += 1
    f, *args = MOVES[name](drawn.draw)
    assume(name != 'take' or 0 not in shape)        # NumPy lets index 0 pass where nothing is there to take
    a = numbers(shape)
    x, wanted = Tensor(a, requires_grad=True), attempt(lambda: f(a, *args))
    found = attempt(lambda: f(x, *args))
    if isinstance(wanted, type): return same_failure(found, (wanted, ValueError, TypeError, IndexError))
    same(found, wanted)
    g = numbers(found.shape, 1)
    found.backward(g)
    place = f(np.arange(1, a.size + 1).reshape(shape), *args)       # 0 is what was put around
    assert np.allclose(x.grad.data.ravel(), np.bincount(place.ravel(), g.ravel(), a.size + 1)[1:])

# --- what was found before ---

FOUND = {'a number written into a tensor without axes': lambda: written_at_nothing(), 'an arrow without its line': lambda: bl.einsum('>cd,,b->', np.ones((2, 2)), np.ones(()), np.ones(3)),
         'a diagonal of nothing': lambda: np.einsum('abb', Tensor(np.ones((0, 0, 1)))),
         'letters of other alphabets': lambda: np.einsum('é->é', Tensor([1.])), 'an axis that is not there': lambda: np.take(Tensor(np.ones((2, 3))), [0], axis=5),
         'an axis of a number': lambda: np.take(Tensor(1.), [0], axis=1), 'a difference along no axis': lambda: np.diff(Tensor(np.ones((2, 3))), axis=4),
         'parts along no axis': lambda: np.split(Tensor(np.ones((2, 3))), [1], axis=-4), 'a sum over axes that are not there': lambda: np.tensordot(Tensor(np.ones((2, 2))), np.ones((2, 2)), ([3], [2])),
         'a length along no axis': lambda: np.linalg.norm(Tensor(np.ones((2, 3))), axis=(0, 4))}

def written_at_nothing():
    x, w = Tensor(2., requires_grad=True), Tensor(3., requires_grad=True)
    y = x * 1
    y[()] = w
    y.backward()
    assert (x.grad.item(), w.grad.item(), y.item()) == (0, 1, 3)
    raise ValueError('done')

@pytest.mark.parametrize('what', FOUND)
def test_found_before(what):
    with pytest.raises((ValueError, IndexError)): FOUND[what]()

def test_a_mistake_with_a_line_break_is_told_on_one_line(capsys):
    assert bl.main(['train', 'a\nb']) == 2 and capsys.readouterr().err.count('\n') == 1
