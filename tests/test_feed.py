"Feeding a training: transforms, the thread that runs ahead, folders of images, large files."
import gc
import io
import os
import re
import subprocess
import sys
import threading
import time
import traceback
import warnings
import zlib

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import numpy as np
import pytest

from backprop_lit.data import DataLoader, Dataset, digits
from backprop_lit.feed import (Ahead, Compose, Normalize, Prefetch, RandomRotate, RandomShift, _rotated, _shifted, image_folder,
                               image_split, main, to_float)
from backprop_lit.nn import MLP, manual_seed
from backprop_lit.saving import Checkpoint
from backprop_lit.train import evaluate, fit, lr_finder

TRAIN, TEST = digits()
ENV = {**os.environ, 'OPENBLAS_NUM_THREADS': '1'}
RNG = np.random.default_rng(0)

def bits(model): return {n: a.tobytes() for n, a in model.state_dict().items()}
def generator(seed=0): return np.random.default_rng(seed)

# --- transforms ---

@pytest.mark.parametrize('dtype', ['u1', 'i2', 'f4', 'f8', 'f2'])
@pytest.mark.parametrize('shape', [(6, 8, 8), (6, 5, 7), (6, 1, 8, 9), (6, 3, 4, 5), (6, 2, 1, 1)])
def test_shift_against_roll(shape, dtype):
    x = (RNG.random(shape)*100).astype(dtype)
    for most in (0, 1, 3, 20):
        out = RandomShift(most)(x, generator(most))
        assert out.shape == x.shape and out.dtype == x.dtype
        high, wide = shape[-2:]
        moves = {(d, r) for d in range(-min(most, high), min(most, high) + 1) for r in range(-min(most, wide), min(most, wide) + 1)}
        for image, moved in zip(x, out):
            def one(d, r):
                rolled = np.zeros_like(image)
                i, j = (np.arange(n) for n in (high, wide))
                i, j = i[(i >= d) & (i < high + d)], j[(j >= r) & (j < wide + r)]
                rolled[..., i[:, None], j] = image[..., (i - d)[:, None], j - r]
                return rolled
            assert any(np.array_equal(moved, one(d, r)) for d, r in moves)

def test_every_shift_is_drawn_equally_often():
    x = np.zeros((9000, 5, 5), np.float32)
    x[:, 2, 2] = 1
    mean = RandomShift(1)(x, generator()).mean(0)
    assert np.allclose(mean[1:4, 1:4], 1/9, atol=.015) and mean.sum() == pytest.approx(1)

@pytest.mark.parametrize('shape', [(3, 8, 8), (3, 7, 7), (3, 2, 9, 9), (3, 3, 6, 6)])
@pytest.mark.parametrize('dtype', ['u1', 'f4', 'f8', 'i4'])
def test_quarter_turns_against_rot90(shape, dtype):
    x = (RNG.random(shape)*200).astype(dtype)
    planes = x.reshape(3, -1, *shape[-2:])
    for k in range(-4, 5):
        out = _rotated(planes, np.full(3, 90.*k))
        assert out.dtype == x.dtype and np.allclose(out, np.rot90(planes, k, (2, 3)), atol=0 if dtype in ('u1', 'i4') else 1e-4)

def test_half_turn_of_a_rectangle_and_a_slow_rotation():
    x = RNG.random((2, 1, 5, 8))
    assert np.allclose(_rotated(x, np.full(2, 180.)), x[:, :, ::-1, ::-1])
    theta = 25.
    def value(image, i, j):             # one pixel after the other, from the definition
        total = 0
        for a in range(image.shape[0]):
            for b in range(image.shape[1]): total += image[a, b]*max(0, 1 - abs(i - a))*max(0, 1 - abs(j - b))
        return total
    image, out = x[0, 0], _rotated(x, np.full(2, theta))[0, 0]
    c, s = np.cos(np.radians(theta)), np.sin(np.radians(theta))
    for i in range(5):
        for j in range(8):
            u, v = j - 3.5, 2 - i       # to the right, and up
            assert out[i, j] == pytest.approx(value(image, 2 - (-s*u + c*v), 3.5 + c*u + s*v), abs=1e-12)

def test_rotation_range_and_types():
    x = (RNG.random((50, 8, 8))*255).astype(np.uint8)
    out = RandomRotate(15)(x, generator())
    assert out.dtype == np.uint8 and out.max() <= x.max() and not np.array_equal(out, x)
    assert np.array_equal(RandomRotate(0)(x, generator()), x)
    floats = RandomRotate(30.)(np.float32(x), generator(1))
    assert floats.dtype == np.float32 and floats.min() >= 0 and floats.max() <= 255.001

@pytest.mark.parametrize('make, error', [(lambda: RandomShift(-1), ValueError), (lambda: RandomShift(1.5), TypeError), (lambda: RandomShift('1'), TypeError),
    (lambda: RandomRotate(-1), ValueError), (lambda: RandomRotate(float('nan')), ValueError), (lambda: RandomRotate('a'), ValueError),
    (lambda: Normalize(0, 0), ValueError), (lambda: Normalize(0, [1, -1, 1]), ValueError), (lambda: Normalize(float('nan'), 1), ValueError),
    (lambda: Compose([3]), TypeError), (lambda: RandomShift(1)(np.zeros((4, 64))), ValueError), (lambda: RandomRotate(1)(np.zeros((4, 64))), ValueError),
    (lambda: RandomShift(1)(np.zeros((4, 8, 8), bool)), TypeError), (lambda: Normalize(0, 1)(np.zeros((4, 8, 8), np.uint8)), TypeError),
    (lambda: Normalize([0, 0, 0], 1)(np.zeros((4, 8, 8))), ValueError), (lambda: Normalize([0, 0], 1)(np.zeros((4, 3, 8, 8))), ValueError)])
def test_transforms_refuse(make, error):
    with pytest.raises(error, match='expected'): make()

def test_normalize_colour_by_colour():
    x = RNG.random((5, 3, 4, 4)).astype(np.float32)
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3))
    out = Normalize(mean, std)(x)
    assert out.dtype == np.float32 and np.allclose(out.mean((0, 2, 3)), 0, atol=1e-5) and np.allclose(out.std((0, 2, 3)), 1, atol=1e-5)
    assert np.allclose(Normalize((.1307,), (.3081,))(x[:, 0]), (x[:, 0] - .1307)/.3081)
    assert np.allclose(Normalize([0, 0, 0], 2)(x), x/2)

def test_inputs_are_unchanged_and_empty_batches_pass():
    x = RNG.random((4, 6, 6)).astype(np.float32)
    before = x.copy()
    for t in (RandomShift(2), RandomRotate(9), Normalize(.5, 2), Compose([RandomShift(1), to_float])):
        assert not np.shares_memory(t(x), x) or isinstance(t, Compose)
        assert np.array_equal(x, before) and t(x[:0]).shape == (0, 6, 6)

def test_default_generator_and_names():
    manual_seed(3)
    a = RandomShift(2)(TRAIN.images[:9])
    manual_seed(3)
    assert np.array_equal(a, RandomShift(2)(TRAIN.images[:9]))
    assert repr(Compose([to_float, RandomShift(2), RandomRotate(5), Normalize(.1, [.2])])) == \
        'Compose([to_float, RandomShift(2), RandomRotate(5), Normalize([0.1], [0.2])])'

CHANGE = Compose([RandomShift(1), RandomRotate(10), Normalize(.3, .4)])
def loader(seed=0, transform=CHANGE, n=150): return DataLoader(TRAIN[:n], 32, True, seed, transform=transform)

@pytest.mark.parametrize('thread', [False, True])
def test_resume_with_transforms_is_exact(tmp_path, thread):
    wrap = Prefetch if thread else lambda x: x
    def run(seed, epochs, callbacks=()):
        model = MLP(64, 8, 10, rng=seed)
        fit(model, wrap(loader(seed)), TEST[:40], epochs, callbacks=callbacks, progress=False)
        return bits(model)
    class Stop:
        def __call__(self, run): run.stop = len(run.history) == 2
    whole = run(0, 4)
    run(0, 4, [Checkpoint(tmp_path/'c'), Stop()])
    assert run(7, 4, [Checkpoint(tmp_path/'c', resume=True)]) == whole
    assert whole == (lambda m: (fit(m, loader(0), epochs=4, progress=False), bits(m))[1])(MLP(64, 8, 10, rng=0))

def test_resume_with_another_transform_is_refused(tmp_path):
    def run(transform, **more): fit(MLP(64, 8, 10, rng=0), loader(0, transform), epochs=1, callbacks=[Checkpoint(tmp_path/'c', **more)], progress=False)
    run(CHANGE)
    for other in (RandomShift(2), None, Compose([RandomShift(1)])):
        with pytest.raises(ValueError, match='expected a training with transform'): run(other, resume=True)
    run(Compose([RandomShift(1), RandomRotate(10), Normalize(.3, .4)]), resume=True)
    def own(x): return x
    run(own)
    run(own, resume=True)

# --- pairs fetched by their number ---

class Slow:
    "Pairs that are made when they are asked for"
    def __init__(self, n): self.n, self.asked = n, []
    def __len__(self): return self.n
    def __getitem__(self, i):
        if not 0 <= i < self.n: raise IndexError(i)
        self.asked.append(int(i))
        return TRAIN[i]

def by_number(pairs, n, more=None, **how):
    def fetched(rows): return np.stack([pairs[i][0] for i in rows])
    return DataLoader((np.arange(n), TRAIN.labels[:n]), 32, transform=Compose([fetched, *more]) if more else fetched, **how)

@pytest.mark.parametrize('shuffle', [False, True])
@pytest.mark.parametrize('wrap', [lambda x: x, Prefetch])
def test_fetched_pairs_are_those_of_the_whole(shuffle, wrap):
    pairs = Slow(150)
    lazy, whole = wrap(by_number(pairs, 150, shuffle=shuffle, seed=2)), DataLoader([TRAIN[i] for i in range(150)], 32, shuffle, seed=2)
    assert not pairs.asked                      # nothing is read before a pass
    for turn in range(2):
        for (x, y), (a, b) in zip(lazy, whole, strict=True): assert np.array_equal(x, a) and x.dtype == a.dtype and np.array_equal(y, b)
        assert sorted(pairs.asked[150*turn:]) == [*range(150)]

def test_fetched_pairs_come_one_batch_at_a_time():
    pairs = Slow(150)
    for n, _ in enumerate(by_number(pairs, 150, shuffle=True, seed=0), 1): assert len(pairs.asked) == min(32*n, 150)

def test_a_training_with_fetched_pairs_resumes_exactly(tmp_path):
    def run(seed, epochs, callbacks=()):
        model = MLP(64, 8, 10, rng=seed)
        fit(model, by_number(Slow(150), 150, [RandomShift(1)], shuffle=True, seed=seed), TEST[:40], epochs, callbacks=callbacks, progress=False)
        return bits(model)
    whole = run(0, 4)
    run(0, 2, [Checkpoint(tmp_path/'c')])
    assert run(7, 4, [Checkpoint(tmp_path/'c', resume=True)]) == whole

# --- the thread ---

def threads(): return [t for t in threading.enumerate() if t is not threading.main_thread()]

@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = threads()
    yield
    assert threads() == before

@pytest.mark.parametrize('room', [1, 2, 7, 1000])
@pytest.mark.parametrize('transform', [None, CHANGE])
def test_same_batches_in_the_same_order(room, transform):
    plain, ahead = loader(3, transform), Prefetch(loader(3, transform), room)
    assert len(ahead) == len(plain)
    for _ in range(3):
        for (x, y), (a, b) in zip(plain, ahead, strict=True): assert np.array_equal(x, a) and np.array_equal(y, b)
        next(iter(plain)), next(iter(ahead))        # and a pass that is broken off
    assert plain.rng.bit_generator.state == ahead.rng.bit_generator.state

def test_a_prefetching_loader_is_the_loader():
    inner = loader(1)
    ahead = Prefetch(inner)
    ahead.rng = np.random.default_rng(9)
    assert inner.rng is ahead.rng and ahead.x is inner.x and (ahead.batch_size, ahead.shuffle, ahead.drop_last) == (32, True, False)
    assert isinstance(ahead, DataLoader) and not hasattr(ahead, 'nothing')
    twice = Prefetch(Prefetch(loader(1)))
    assert all(np.array_equal(a, b) for (a, _), (b, _) in zip(twice, loader(1), strict=True))
    model = MLP(64, 10, rng=0)
    assert evaluate(model, Prefetch(DataLoader(TEST, 50))).accuracy == evaluate(model, TEST, batch_size=50).accuracy
    assert len(lr_finder(model, Prefetch(loader()), steps=9).rates) > 1

@pytest.mark.parametrize('argument, room, error', [(TRAIN, 2, TypeError), (3, 2, TypeError), (loader(), 0, ValueError), (loader(), 1.5, TypeError)])
def test_prefetch_refuses(argument, room, error):
    with pytest.raises(error, match='Prefetch'): Prefetch(argument, room)

class Counting:
    "An iterator that knows how far it was asked"
    def __init__(self, n): self.n, self.given, self.closed = n, 0, False
    def __iter__(self): return self
    def __next__(self):
        if self.given == self.n: raise StopIteration
        self.given += 1
        return self.given
    def close(self): self.closed = True

def settle(condition):
    end = time.time() + 10
    while not condition() and time.time() < end: time.sleep(.002)
    assert condition()

def test_never_further_ahead_than_allowed():
    source = Counting(100)
    ahead = Ahead(source, 3)
    settle(lambda: source.given == 4)           # three on the belt, one in hand
    time.sleep(.02)
    assert source.given == 4 and next(ahead) == 1
    settle(lambda: source.given == 5)
    ahead.close()
    assert source.closed and list(ahead) == [] and not threads()

@pytest.mark.parametrize('way', ['break', 'close', 'del', 'error', 'cycle', 'exhausted', 'unused', 'thread'])
def test_the_thread_ends(way):
    source = Counting(5 if way == 'exhausted' else 10**9)
    def use():
        ahead = Ahead(source, 2)
        if way == 'unused': return
        if way == 'cycle':
            ahead.me = ahead
            return
        if way == 'close': return ahead.close()
        for n in ahead:
            if way == 'error' and n == 3: raise KeyError
            if way != 'exhausted' and n == 3: break
    if way == 'error':
        with pytest.raises(KeyError) as info: use()
        del info
    elif way == 'thread':
        other = threading.Thread(target=use)
        other.start(), other.join()
    else: use()
    if way in ('cycle', 'error'): gc.collect()
    settle(lambda: not threads())
    assert source.closed

@pytest.mark.filterwarnings('error')
def test_collected_by_the_thread_itself():
    "The iterator dies in a cycle that its own thread happens to collect"
    def source():
        yield 1
        for n in range(10**6):
            if not gc.isenabled(): gc.collect()
            yield n
    gc.disable()
    try:
        ahead = Ahead(source(), 2)
        ahead.me = ahead
        next(ahead)
        belt = ahead.belt
        del ahead
        for _ in range(4): belt.get() if belt.things else time.sleep(.01)
        settle(lambda: not threads())
    finally: gc.enable()

def damaged(x, rng):
    if rng.random() < 2: raise ZeroDivisionError('in the thread')

def test_errors_come_with_the_lines_of_the_thread():
    ahead = iter(Prefetch(loader(0, damaged)))
    with pytest.raises(ZeroDivisionError, match='in the thread') as info: next(ahead)
    assert 'damaged' in ''.join(traceback.format_tb(info.value.__traceback__))
    with pytest.raises(StopIteration): next(ahead)
    with pytest.raises(ZeroDivisionError): fit(MLP(64, 10, rng=0), Prefetch(loader(0, damaged)), progress=False)

@pytest.mark.parametrize('error', [KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit])
def test_other_errors_too(error):
    def source():
        yield 1
        raise error
    with pytest.raises(error): list(Ahead(source()))

def test_late_errors_come_after_the_good_batches():
    def source():
        yield from range(5)
        raise ValueError('late')
    seen = []
    with pytest.raises(ValueError, match='late'):
        for n in Ahead(source(), 4): seen.append(n)
    assert seen == [0, 1, 2, 3, 4]

@pytest.mark.parametrize('end', ['pass', 'sys.exit(3)', 'raise KeyError', 'os.kill(os.getpid(), signal.SIGINT)', 'del ahead', 'ahead.me = ahead; del ahead'])
def test_a_program_ends(end):
    code = f'''
import itertools, os, signal, sys
from backprop_lit.feed import Ahead
ahead = Ahead(itertools.count(1), 2)
print(next(ahead), next(ahead), flush=True)
{end}'''
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60, env=ENV)
    assert done.stdout == '1 2\n' and ('Error' in done.stderr) == ('Key' in end) and 'Fatal' not in done.stderr
    assert done.returncode == {'p': 0, 's': 3, 'r': 1, 'o': -2, 'd': 0, 'a': 0}[end[0]]

def test_a_training_that_is_interrupted_leaves_no_thread():
    class Press:
        def __call__(self, run): raise KeyboardInterrupt
    def press(x, rng):
        if rng.random() < .2: raise KeyboardInterrupt
        return x
    history = fit(MLP(64, 10, rng=0), Prefetch(loader(0, press)), epochs=50, progress=False)
    assert history.stopped and not threads()

def test_memory_does_not_grow_with_iterators():
    def use():
        for _ in Ahead(iter(range(9))): break
    use()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(50): use()
        assert len(gc.get_objects()) < before + 50
    finally: gc.enable()

# --- folders of images ---

Image = pytest.importorskip('PIL.Image')

def write(path, pixels, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, 'PNG', **how)

@pytest.fixture
def folder(tmp_path):
    root = tmp_path/'photos'
    for label in ('cat', 'dog'):
        for i in range(3): write(root/label/f'{i}.png', np.full((4, 5), 20*i + (label == 'dog'), np.uint8))
    return root

def test_grey(folder):
    data = image_folder(folder)
    assert data.images.shape == (6, 4, 5) and data.images.dtype == np.float32 and data.labels.tolist() == [0]*3 + [1]*3
    assert data.classes == ['cat', 'dog'] and np.array_equal(data.images[:, 0, 0], np.float32(np.array([0, 20, 40, 1, 21, 41])/255))
    assert image_folder(str(folder)).images.tobytes() == data.images.tobytes()

def test_colours_palette_and_one_bit(tmp_path):
    pixels = RNG.integers(0, 255, (4, 5, 3), np.uint8)
    write(tmp_path/'a'/'a'/'1.png', pixels)
    Image.fromarray(pixels).quantize(256).save(tmp_path/'a'/'a'/'2.PNG')
    data = image_folder(tmp_path/'a')
    assert data.images.shape == (2, 3, 4, 5) and np.array_equal(data.images[0], to_float(pixels.transpose(2, 0, 1)))
    assert np.abs(data.images[1] - data.images[0]).max() < .05
    write(tmp_path/'b'/'a'/'1.png', pixels[..., 0] > 99)
    assert set(image_folder(tmp_path/'b').images.ravel()) <= {0, 1}

def test_hidden_files_and_names(folder):
    (folder/'.DS_Store').write_bytes(b'x')
    (folder/'cat'/'.thumbs').write_bytes(b'x')
    (folder/'.git').mkdir()
    assert len(image_folder(folder)) == 6
    os.rename(folder/'dog', folder/'ein Hünd: "7"')
    assert image_folder(folder).classes == ['cat', 'ein Hünd: "7"']

def bomb(tmp_path, size=(20_000, 10_000)):
    "A PNG of a few hundred kilobytes at most that unfolds to 25 MB or more"
    path = tmp_path/'bomb.png'
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try: Image.new('1', size).save(path)
    finally: Image.MAX_IMAGE_PIXELS = limit
    return path.read_bytes()

def png(tmp_path, mode, size=(5, 4), **how):
    Image.new(mode, size).save(tmp_path/'x.png', **how)
    return (tmp_path/'x.png').read_bytes()

def text_bomb(tmp_path):
    "A comment that unfolds to 200 MB"
    data, packed = png(tmp_path, 'L'), zlib.compress(bytes(200_000_000), 9)
    body = b'zTXtComment\0\0' + packed
    chunk = len(body[4:]).to_bytes(4, 'big') + body + zlib.crc32(body).to_bytes(4, 'big')
    return data[:33] + chunk + data[33:]

def jpeg(tmp_path):
    Image.new('L', (5, 4)).save(tmp_path/'x.jpg')
    return (tmp_path/'x.jpg').read_bytes()

BAD = {'empty': lambda p: b'', 'text': lambda p: b'hello', 'page': lambda p: b'<!DOCTYPE html>', 'cut': lambda p: png(p, 'L')[:-25], 'jpeg': jpeg,
       'header only': lambda p: png(p, 'L')[:33], 'rgba': lambda p: png(p, 'RGBA'), 'la': lambda p: png(p, 'LA'), '16 bits': lambda p: png(p, 'I;16'),
       'transparent': lambda p: png(p, 'L', transparency=3), 'size': lambda p: png(p, 'L', (4, 5)), 'colours': lambda p: png(p, 'RGB'),
       'bomb': bomb, 'bomb below the limit': lambda p: bomb(p, (9000, 9000)), 'bomb of Pillow': lambda p: bomb(p, (9500, 10_000)), 'text bomb': text_bomb,
       'zero': lambda p: png(p, 'L')[:16] + bytes(8) + png(p, 'L')[24:]}

@pytest.mark.parametrize('place', ['cat/9.png', 'cat/!.png'])
@pytest.mark.parametrize('kind', BAD)
def test_bad_files(folder, tmp_path, kind, place):
    "One error of one line that names a file, no warning, no time lost; also when the bad file comes first"
    (folder/place).write_bytes(BAD[kind](tmp_path))
    with warnings.catch_warnings(), pytest.raises(ValueError, match='expected a whole PNG image') as info:
        warnings.simplefilter('error')
        image_folder(folder)
    said = str(info.value)
    first = place == 'cat/!.png' and kind in ('size', 'colours')            # then the others look odd
    assert '\n' not in said and (str(folder/('cat/0.png' if first else place)) in said) and len(said) < 400

def test_every_single_damage_is_seen_or_harmless(tmp_path):
    pixels = RNG.integers(0, 255, (4, 5), np.uint8)
    write(tmp_path/'a'/'a'/'1.png', pixels)
    path = tmp_path/'a'/'a'/'1.png'
    whole = path.read_bytes()
    damaged = [whole[:n] for n in range(len(whole))]
    damaged += [whole[:i//8] + bytes([whole[i//8] ^ 1 << i % 8]) + whole[i//8 + 1:] for i in range(8*len(whole))]
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try: found = image_folder(tmp_path/'a').images
        except ValueError as error: refused += str(path) in str(error)
        else: assert np.array_equal(found[0], to_float(pixels))
    assert refused > .85*len(damaged)

def test_bombs_cost_no_memory(folder, tmp_path):
    (folder/'cat'/'!.png').write_bytes(bomb(tmp_path))
    code = f'''
import resource
from PIL import Image, PngImagePlugin
from backprop_lit.feed import image_folder
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try: image_folder({str(folder)!r})
except ValueError: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)'''
    grown = int(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, env=ENV).stdout)
    assert grown < 20_000

def add(root, what):
    if what == 'file beside the labels': (root/'read.me').touch()
    if what == 'wrong extension': (root/'cat'/'4.jpg').touch()
    if what == 'empty label': (root/'mouse').mkdir()
    if what == 'only hidden': (root/'mouse').mkdir(), (root/'mouse'/'.x').touch()
    if what == 'folder in a label': (root/'cat'/'more').mkdir()
    if what == 'folder named like an image': (root/'cat'/'4.png').mkdir()
    if what == 'pipe': os.mkfifo(root/'cat'/'4.png')
    if what == 'broken link': (root/'cat'/'4.png').symlink_to(root/'nowhere')

@pytest.mark.parametrize('what, named', [('file beside the labels', 'read.me'), ('wrong extension', '4.jpg'), ('empty label', 'mouse'), ('only hidden', 'mouse'),
                                         ('folder in a label', 'more'), ('folder named like an image', '4.png'), ('pipe', '4.png'), ('broken link', '4.png')])
def test_bad_folders(folder, what, named):
    add(folder, what)
    with pytest.raises(ValueError, match='expected') as info: image_folder(folder)
    assert named in str(info.value) and '\n' not in str(info.value)

def test_no_folder(tmp_path, folder):
    for path in (tmp_path/'none', tmp_path, folder/'cat'/'0.png', folder/'cat'):
        if path == tmp_path: (tmp_path/'void').mkdir(); path = tmp_path/'void'
        with pytest.raises(ValueError, match='expected'): image_folder(path)

def test_no_permission(folder):
    if not os.geteuid(): pytest.skip('root may read everything')
    (folder/'cat'/'0.png').chmod(0)
    with pytest.raises(ValueError, match='0.png'): image_folder(folder)

def test_without_pillow(folder):
    code = f'''
import sys
sys.modules['PIL'] = None
import backprop_lit as bl
try: bl.image_folder({str(folder)!r})
except ImportError as e: print(e)
print(bl.feed.main(['train', '--data', {str(folder)!r}]))'''
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=ENV)
    assert "pip install 'backprop_lit[images]'" in done.stdout and done.stdout.endswith('\n2\n') and done.stderr.count('\n') == 1

# --- train and test, and the command ---

def test_split(folder):
    train, test = image_split(folder, test=.34)
    assert (len(train), len(test)) == (4, 2) and train.classes == test.classes == ['cat', 'dog']
    again = image_split(folder, test=.34)
    assert np.array_equal(again[0].images, train.images) and np.array_equal(again[1].labels, test.labels)
    whole = image_folder(folder)
    assert sorted(i.tobytes() for part in (train, test) for i in part.images) == sorted(i.tobytes() for i in whole.images)
    assert any(not np.array_equal(image_split(folder, seed, .34)[1].images, test.images) for seed in range(1, 9))
    for share in (0, 1, -.5, .01, float('nan')):
        with pytest.raises(ValueError, match='expected a share'): image_split(folder, test=share)

def test_train_and_test_folders(folder, tmp_path):
    both = tmp_path/'both'
    both.mkdir()
    os.rename(folder, both/'train')
    write(both/'test'/'dog'/'1.png', np.full((4, 5), 9, np.uint8))
    (both/'.x').touch()
    train, test = image_split(both)
    assert len(train) == 6 and test.labels.tolist() == [1] and test.classes == ['cat', 'dog']
    write(both/'test'/'mouse'/'1.png', np.full((4, 5), 9, np.uint8))
    with pytest.raises(ValueError, match="expected one of the labels .*'cat', 'dog'.* found mouse"): image_split(both)

def call(capsys, *words):
    code = main(['train', *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err

def test_command(capsys, tmp_path):
    for part, data in (('train', TRAIN[:300]), ('test', TEST[:60])):
        for i, (image, label) in enumerate(data[j] for j in range(len(data))):
            write(tmp_path/'d'/part/str(label)/f'{i}.png', np.uint8(np.rint(image*255)))
    code, out, err = call(capsys, '--data', tmp_path/'d', '--epochs', 12, '--save', tmp_path/'c')
    assert (code, err) == (0, '') and out.startswith('300 images to learn from, 60 to test with') and float(out.split()[-1]) > .8
    assert call(capsys, '--resume', tmp_path/'c')[1].splitlines()[-1] == out.splitlines()[-1]
    code, out, err = call(capsys, '--data', tmp_path/'d'/'train', '--model', 'conv', '--epochs', 1)
    assert (code, err) == (0, '') and out.startswith('240 images to learn from, 60 to test with; conv')

@pytest.mark.parametrize('what', ['wrong extension', 'empty label', 'broken', 'other size in test'])
def test_command_says_what_is_wrong(capsys, folder, tmp_path, what):
    if what == 'broken': (folder/'dog'/'1.png').write_bytes(b'x')
    elif what == 'other size in test':
        (tmp_path/'both').mkdir()
        os.rename(folder, tmp_path/'both'/'train')
        write(tmp_path/'both'/'test'/'dog'/'1.png', np.zeros((9, 9), np.uint8))
        folder = tmp_path/'both'
    else: add(folder, what)
    code, out, err = call(capsys, '--data', folder)
    assert code == 2 and err.count('\n') == 1 and 'expected' in err and 'images to learn' not in out

def test_console_script_knows_all_chapters():
    from configparser import ConfigParser
    from pathlib import Path
    config = ConfigParser(delimiters=['='])
    config.read(Path(__file__).parent.parent/'settings.ini', encoding='utf-8')
    assert config['DEFAULT']['console_scripts'] == 'backprop-lit=backprop_lit.residual:main'
    code = 'import sys, backprop_lit.feed; assert not {"PIL", "matplotlib", "safetensors", "torch"} & {*sys.modules}'
    assert subprocess.run([sys.executable, '-c', code], env=ENV).returncode == 0

def test_help_tells_how_images_must_lie(capsys):
    assert main(['train', '--help']) == 0
    out = capsys.readouterr().out
    assert 'LABEL/*.png' in ' '.join(out.split()) and '--data photos' in out and 'train and' in out
