"""Files of digits and mini-batches: nothing damaged becomes an array, and every item is handed out once."""
import gzip, math, os, struct, subprocess, sys, tracemalloc, types
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from backprop_lit import data
from backprop_lit.data import DataLoader, Dataset, digits, mnist, read_idx

CODES = {8: 'u1', 9: 'i1', 11: '>i2', 12: '>i4', 13: '>f4', 14: '>f8'}
NAMES = ['train-images-idx3-ubyte', 'train-labels-idx1-ubyte', 't10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte']
SMALL = np.array([[[0, 255, 0], [255, 0, 255]], [[255, 0, 255], [0, 255, 0]]], np.uint8)

def idx(array, code=8):
    "The bytes of an IDX file, written with struct: independent of the reader's NumPy"
    array = np.asarray(array)
    return struct.pack(f'>BBBB{array.ndim}I', 0, 0, code, array.ndim, *array.shape) + array.astype(CODES[code]).tobytes()

def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path

def four(root, sub='MNIST/raw', end='', n_train=6, n_test=4, size=(5, 4)):
    "A miniature MNIST below root; returns its arrays by file name"
    rng, arrays = np.random.default_rng(0), {}
    for name in NAMES:
        n = n_train if name.startswith('train') else n_test
        arrays[name] = rng.integers(0, 256, (n, *size), np.uint8) if 'images' in name else rng.integers(0, 10, n, np.uint8)
        content = idx(arrays[name])
        put(root/sub/(name + end), gzip.compress(content) if end else content)
    return arrays

def peak(function):
    "Most bytes that Python and NumPy held at once while function ran"
    tracemalloc.start()
    try: function()
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return most

@pytest.fixture
def no_torchvision(monkeypatch): monkeypatch.setitem(sys.modules, 'torchvision', None)

def fake_torchvision(monkeypatch, action):
    "A module torchvision whose datasets.MNIST(root, download=True) does action(root)"
    calls = []
    def MNIST(root, train=True, download=False):
        calls.append((root, download))
        action(root)
    package, datasets = types.ModuleType('torchvision'), types.ModuleType('torchvision.datasets')
    package.__path__, package.datasets, datasets.MNIST = [], datasets, MNIST
    monkeypatch.setitem(sys.modules, 'torchvision', package)
    monkeypatch.setitem(sys.modules, 'torchvision.datasets', datasets)
    return calls

# ---------------------------------------------------------------- read_idx

@settings(deadline=None)
@given(st.sampled_from(sorted(CODES)), st.lists(st.integers(1, 4), min_size=1, max_size=5), st.booleans(), st.integers(0, 99))
def test_any_array_survives_the_round_trip(tmp_path_factory, code, shape, packed, seed):
    array = np.random.default_rng(seed).integers(0, 100, shape).astype(CODES[code])
    path = tmp_path_factory.getbasetemp()/'any'
    path.write_bytes(gzip.compress(idx(array, code)) if packed else idx(array, code))
    back = read_idx(str(path))
    assert back.shape == array.shape and back.dtype == np.dtype(CODES[code]).newbyteorder('=')
    assert np.array_equal(back, array) and back.dtype.isnative and back.flags.writeable

def test_cut_anywhere_or_too_long(tmp_path):
    whole = idx(SMALL)
    for content in [whole[:n] for n in range(len(whole))] + [whole + b'\0', whole + whole]:
        path = put(tmp_path/'f', content)
        with pytest.raises(ValueError, match='expected .* found .*; replace the file') as error: read_idx(path)
        assert str(path) in str(error.value)

def test_compressed_cut_anywhere_or_too_long(tmp_path):
    packed = gzip.compress(idx(SMALL))
    contents = [packed[:n] for n in range(len(packed))] + [packed + b'x', gzip.compress(idx(SMALL) + b'\0'), gzip.compress(idx(SMALL)[:-1])]
    for content in contents:
        with pytest.raises(ValueError, match='expected') as error: read_idx(put(tmp_path/'f', content))
        assert 'None' not in str(error.value)

def test_every_change_of_one_header_byte_is_seen(tmp_path):
    whole = idx(SMALL)
    for i in range(16):
        for value in set(range(256)) - {whole[i]}:
            path = put(tmp_path/'f', whole[:i] + bytes([value]) + whole[i+1:])
            if (i, value) == (2, 9): assert read_idx(path).dtype == np.int8     # signed bytes: a valid file of its own
            else:
                with pytest.raises(ValueError, match='expected'): read_idx(path)

@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_never_gives_another_array(tmp_path_factory, data):
    "Random flips and cuts of a compressed file: the same array or a ValueError, for gzip has a checksum"
    content = bytearray(gzip.compress(idx(SMALL)))
    for at, bit in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 7)), max_size=3)): content[at] ^= 1 << bit
    path = tmp_path_factory.getbasetemp()/'flips'
    path.write_bytes(content[:data.draw(st.integers(len(content) - 3, len(content)))])
    try: assert np.array_equal(read_idx(path), SMALL)
    except ValueError as error: assert str(path) in str(error)

@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([b'', b'\0\0', b'\0\0\x08\x01', b'\0\0\x0d\x02', b'\x1f\x8b\x08\0']))
def test_any_bytes_give_a_true_array_or_a_value_error(tmp_path_factory, tail, head):
    path = tmp_path_factory.getbasetemp()/'bytes'
    path.write_bytes(head + tail)
    try: array = read_idx(path)
    except ValueError as error: assert str(path) in str(error)
    else: assert idx(array, head[2] if len(head) > 2 else tail[2 - len(head)]) == head + tail

@pytest.mark.parametrize('packed', [False, True])
@pytest.mark.parametrize('axes', [1, 3, 32])
def test_a_lying_header_costs_no_memory(tmp_path, axes, packed):
    lie = bytes([0, 0, 14, axes]) + b'\xff'*4*axes + b'abc'
    path = put(tmp_path/'f', gzip.compress(lie) if packed else lie)
    def read():
        with pytest.raises(ValueError, match='bytes behind the header'): read_idx(path)
    assert peak(read) < 1_000_000

def test_a_compressed_file_is_not_unpacked_beyond_its_header(tmp_path):
    path = put(tmp_path/'f', gzip.compress(idx(SMALL) + bytes(100_000_000)))
    def read():
        with pytest.raises(ValueError, match='and more'): read_idx(path)
    assert peak(read) < 2_000_000

def test_what_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='none: expected a file, found nothing$'): read_idx(tmp_path/'none')
    with pytest.raises(ValueError, match='a folder'): read_idx(tmp_path)
    with pytest.raises(ValueError, match='expected'): read_idx(put(tmp_path/'f', b'')/'below')
    with pytest.raises(TypeError): read_idx(3)

@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='no named pipes on this system')
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path/'pipe')
    with pytest.raises(ValueError, match='device'): read_idx(tmp_path/'pipe')

def test_no_permission(tmp_path, monkeypatch):
    def refuse(*args): raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(data, 'open', refuse, raising=False)
    with pytest.raises(ValueError, match='f: expected a file that can be read, found "Permission denied"'): read_idx(put(tmp_path/'f', idx(SMALL)))

# ---------------------------------------------------------------- Dataset and digits

def test_dataset_cuts_both_arrays_alike():
    both = Dataset(np.arange(12).reshape(6, 2), np.arange(6, dtype=np.uint8))
    assert both.labels.dtype == np.int64 and len(both) == 6 and both[2][1] == 2 and type(both[2][1]) is int
    for part in (both[1:4], both[[5, 0]], both[both.labels > 2], both[::-1]):
        assert isinstance(part, Dataset) and np.array_equal(part.images[:, 0], 2*part.labels)
    x, y = both
    assert x is both.images and y is both.labels and 'float' not in repr(both) and 'Dataset(0 images' in repr(both[:0])
    with pytest.raises(IndexError): both[6]

@pytest.mark.parametrize('images, labels, error, words', [
    (np.zeros((3, 2)), [0, 1], ValueError, '2 labels'), (np.zeros((2, 2)), [0., 1.], TypeError, 'float64'),
    (np.zeros((2, 2)), [[0], [1]], TypeError, r'\(2, 1\)'), (np.zeros((2, 2)), ['a', 'b'], TypeError, '<U1'),
    (np.float32(1), [0], ValueError, r'shape \(\)'), (np.zeros((2, 2)), [True, False], TypeError, 'bool')])
def test_dataset_refuses(images, labels, error, words):
    with pytest.raises(error, match=words): Dataset(images, labels)

def test_digits():
    train, test = digits()
    assert (len(train), len(test), train.images.shape[1:]) == (1438, 359, (8, 8))
    for part in (train, test):
        assert part.images.dtype == np.float32 and part.labels.dtype == np.int64
        assert part.images.min() == 0 and part.images.max() == 1 and set(part.labels) == set(range(10))
    both = np.concatenate([train.images, test.images])
    with np.load(files('backprop_lit')/'digits.npz', allow_pickle=False) as stored: images, labels = stored['images'], stored['labels']
    assert images.shape == (1797, 8, 8) and images.dtype == labels.dtype == np.uint8
    assert np.array_equal(np.sort(both.reshape(-1, 64), 0), np.sort(images.reshape(-1, 64)/np.float32(16), 0))
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]      # as published

def test_digits_split_is_fixed_for_ever():
    assert digits()[1].labels[:12].tolist() == PINNED
    same, other = digits(0)[1], digits(1)[1]
    assert np.array_equal(digits()[1].images, same.images) and not np.array_equal(other.images, same.images)
    assert [len(part) for part in digits(test=0.5)] == [899, 898]
    digits()[0].images[:] = 9
    assert digits()[0].images.max() == 1

PINNED = [0, 6, 3, 8, 1, 8, 4, 1, 5, 8, 9, 7]

@pytest.mark.parametrize('arguments, error', [(dict(test=0), ValueError), (dict(test=1), ValueError), (dict(test=1e-9), ValueError),
    (dict(test=float('nan')), ValueError), (dict(seed=-1), ValueError), (dict(seed=1.5), TypeError), (dict(seed='a'), TypeError)])
def test_digits_refuses(arguments, error):
    with pytest.raises(error, match='expected .*, found'): digits(**arguments)

def test_digits_are_small_and_attributed():
    folder = files('backprop_lit')
    assert len((folder/'digits.npz').read_bytes()) <= 100_000
    note = (folder/'digits.txt').read_text()
    assert 'Alpaydin' in note and 'Kaynak' in note and 'CC BY 4.0' in note and 'creativecommons.org/licenses/by/4.0' in note

# ---------------------------------------------------------------- mnist

@pytest.mark.parametrize('sub', ['MNIST/raw', '.'])
@pytest.mark.parametrize('end', ['', '.gz'])
def test_mnist_reads_both_layouts(tmp_path, no_torchvision, sub, end):
    arrays = four(tmp_path, sub, end)
    train, test = mnist(str(tmp_path))
    for part, name in ((train, 'train'), (test, 't10k')):
        assert np.array_equal(part.images, arrays[f'{name}-images-idx3-ubyte'].astype(np.float32)/np.float32(255))
        assert part.images.dtype == np.float32 and np.array_equal(part.labels, arrays[f'{name}-labels-idx1-ubyte'])

def test_pixels_are_correctly_rounded(tmp_path):
    four(tmp_path)
    put(tmp_path/'MNIST/raw'/NAMES[0], idx(np.arange(256).reshape(-1, 8, 8)))
    put(tmp_path/'MNIST/raw'/NAMES[1], idx(np.zeros(4)))
    put(tmp_path/'MNIST/raw'/NAMES[2], idx(np.arange(256).reshape(-1, 8, 8)))
    assert np.array_equal(mnist(tmp_path)[0].images.ravel(), np.float32(np.arange(256)/255))

def test_root_from_environment_and_cache(tmp_path, monkeypatch, no_torchvision):
    four(tmp_path/'env', n_train=7)
    four(tmp_path/'cache'/'backprop_lit', n_train=8)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    monkeypatch.setenv('LOCALAPPDATA', str(tmp_path/'cache'))
    monkeypatch.setenv('BACKPROP_LIT_DATA', str(tmp_path/'env'))
    assert len(mnist()[0]) == 7
    monkeypatch.setenv('BACKPROP_LIT_DATA', '')
    assert len(mnist()[0]) == 8

I, L = NAMES[2:]
@pytest.mark.parametrize('name, content, words', [
    (I, idx(np.zeros((4, 5, 4)))[:-1], 'found 79'), (I, idx(np.zeros((4, 5, 4))) + b'x', 'and more'), (I, b'', 'IDX'), (I, b'<html>', 'IDX'),
    (I, idx(np.zeros(4)), '3 axes'), (L, idx(np.zeros((4, 1))), '1 axes'), (I, idx(np.zeros((4, 5, 4)), 13), 'float32'), (L, idx([1, 2, 3, 4], 12), 'int32'),
    (L, idx([1, 2, 3]), '4 labels, as images, found 3'), (L, idx([1, 2, 3, 10]), 'labels 0 to 9, found 10'), (I, idx(np.zeros((4, 4, 5))), r'as in training, found \(4, 5\)'),
    (I, bytes([0, 0, 8, 3]) + bytes(12), 'at least 1'), (L, gzip.compress(idx([1, 2, 3, 4]))[:-5], 'whole gzip'), (I, None, 'a folder')])
def test_mnist_names_the_bad_file(tmp_path, no_torchvision, name, content, words):
    four(tmp_path)
    path = tmp_path/'MNIST/raw'/name
    if content is None: path.unlink(), path.mkdir()
    else: path.write_bytes(content)
    with pytest.raises(ValueError, match=f'{name}: expected .*{words}'): mnist(tmp_path)

@pytest.mark.parametrize('name', NAMES)
def test_a_missing_file_without_torchvision(tmp_path, no_torchvision, name):
    four(tmp_path)
    (tmp_path/'MNIST/raw'/name).unlink()
    with pytest.raises(FileNotFoundError, match=f'{name} in .*raw.*backprop_lit\\[vision\\].*BACKPROP_LIT_DATA') as error: mnist(tmp_path)
    assert 'is not installed' in str(error.value) and '\n' not in str(error.value)
    assert not any(other in str(error.value) for other in NAMES if other != name)

def test_torchvision_downloads_what_is_missing(tmp_path, monkeypatch):
    from pathlib import Path
    calls = fake_torchvision(monkeypatch, lambda root: four(Path(root)))
    assert [len(part) for part in mnist(tmp_path/'new')] == [6, 4] and calls == [(str(tmp_path/'new'), True)]
    mnist(tmp_path/'new')
    assert len(calls) == 1                                                     # nothing is fetched twice

def test_torchvision_fails(tmp_path, monkeypatch):
    def offline(root): raise RuntimeError('Error downloading')
    fake_torchvision(monkeypatch, offline)
    with pytest.raises(FileNotFoundError, match='could not fetch them .Error downloading.'): mnist(tmp_path)
    fake_torchvision(monkeypatch, lambda root: None)
    with pytest.raises(FileNotFoundError, match='left the files elsewhere'): mnist(tmp_path)
    def stop(root): raise KeyboardInterrupt
    fake_torchvision(monkeypatch, stop)
    with pytest.raises(KeyboardInterrupt): mnist(tmp_path)

def test_of_mnists_size_but_not_mnist(tmp_path, no_torchvision):
    four(tmp_path)
    put(tmp_path/'MNIST/raw'/I, idx(np.zeros((10_000, 5, 4))))
    put(tmp_path/'MNIST/raw'/L, idx(np.zeros(10_000)))
    with pytest.raises(ValueError, match=f'{I}: expected the numbers of MNIST .*e4ca5f57.*verify=False'): mnist(tmp_path)
    assert len(mnist(tmp_path, verify=False)[1]) == 10_000

REAL = os.environ.get('BACKPROP_LIT_DATA')
real = pytest.mark.skipif(not REAL, reason='BACKPROP_LIT_DATA is not set: no MNIST files here')

@real
def test_real_mnist():
    train, test = mnist()
    assert train.images.shape == (60_000, 28, 28) and test.images.shape == (10_000, 28, 28)
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4] and test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert round(float(train.images.mean(dtype=float)), 4) == .1307 and round(float(train.images.std(dtype=float)), 4) == .3081   # as published

@real
def test_exchanged_and_flipped_files_of_real_mnist(tmp_path):
    found = data._find(data._root())
    for name in NAMES: os.symlink(found[name].resolve(), tmp_path/name.replace('train', 'T').replace('t10k', 'train').replace('T', 't10k'))
    with pytest.raises(ValueError, match='train-images.*the numbers of MNIST'): mnist(tmp_path)
    flipped = tmp_path/'flipped'
    for name in NAMES: put(flipped/name, found[name].read_bytes())
    whole = bytearray((flipped/L).read_bytes())
    for at in (8, 5000, len(whole) - 1):
        (flipped/L).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at+1:])
        with pytest.raises(ValueError, match=f'{L}: expected the numbers of MNIST'): mnist(flipped)

# ---------------------------------------------------------------- DataLoader

@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 50), st.booleans(), st.booleans(), st.integers(0, 9))
def test_each_item_once_and_still_with_its_label(n, size, shuffle, drop_last, seed):
    x, y = np.arange(3*n).reshape(n, 3), np.arange(n)*7
    if drop_last and n < size:
        with pytest.raises(ValueError, match=f'found {n}'): DataLoader((x, y), size, drop_last=True)
        return
    loader = DataLoader((x, y), size, shuffle, seed, drop_last)
    for _ in range(2):
        batches = [*loader]
        assert len(batches) == len(loader) == (n//size if drop_last else math.ceil(n/size))
        assert all(len(b) == size for _, b in batches[:-1]) and all(np.array_equal(a, x[b//7]) for a, b in batches)
        items = np.concatenate([b for _, b in batches])//7
        assert len(set(items)) == len(items) == (n//size*size if drop_last else n)
        if not shuffle: assert np.array_equal(items, np.arange(len(items)))

def order(loader): return np.concatenate([y for _, y in loader]).tolist()

def test_epochs_differ_and_seeds_repeat():
    a, b, c = (DataLoader((np.arange(50), np.arange(50)), 8, shuffle=True, seed=seed) for seed in (3, 3, 4))
    first, second = order(a), order(a)
    assert first != second and [order(b), order(b)] == [first, second] and order(c) != first
    assert order(DataLoader((np.arange(50), np.arange(50)), 8, shuffle=True)) != first
    state = a.rng.bit_generator.state
    third = order(a)
    b.rng.bit_generator.state = state
    assert order(b) == third
    rng = np.random.default_rng(3)
    assert DataLoader((np.arange(5), np.arange(5)), seed=rng).rng is rng

def test_two_passes_at_once_do_not_disturb_each_other():
    make = lambda: DataLoader((np.arange(50), np.arange(50)), 8, shuffle=True, seed=3)
    once, loader = make(), make()
    one, two = iter(loader), iter(loader)
    second = np.concatenate([y for _, y in two]).tolist()
    first = np.concatenate([y for _, y in one]).tolist()
    assert [first, second] == [order(once), order(once)]

@pytest.mark.parametrize('shuffle', [False, True])
def test_batches_are_fresh(shuffle):
    x, y = np.ones((10, 2)), np.ones(10, np.int64)
    batches = [*DataLoader((x, y), 5, shuffle, 0)]
    for a, b in batches: a[:], b[:] = 7, 7
    assert (x == 1).all() and (y == 1).all()
    assert not np.shares_memory(batches[0][0], batches[1][0])

def test_arrays_keep_their_types():
    x, y = next(iter(DataLoader((np.zeros((4, 2), np.uint8), np.linspace(0, 1, 4, dtype=np.float32)), 2)))
    assert (x.dtype, y.dtype) == (np.uint8, np.float32)

class Torchlike:
    "A tensor as far as NumPy can see it"
    def __init__(self, array): self.array = np.asarray(array)
    def __array__(self, dtype=None, copy=None): return self.array if dtype is None else self.array.astype(dtype)

class Pairs:
    def __init__(self, *pairs): self.pairs, self.reads = pairs, 0
    def __len__(self): return len(self.pairs)
    def __getitem__(self, i):
        self.reads += 1
        return self.pairs[i]

def test_datasets_of_pairs_are_converted_once():
    pixels = np.array([[0, 51], [102, 255]], np.uint8)
    pairs = Pairs((pixels, 3), (Torchlike(pixels), np.int64(4)), (Torchlike(pixels), Torchlike(5)))
    loader = DataLoader(pairs, 2)
    for _ in range(3): batches = [*loader]
    x, y = batches[0]
    assert pairs.reads == 3 and x.dtype == np.float32 and y.dtype == np.int64
    assert np.array_equal(x[1], np.float32(pixels/255)) and [*batches[0][1], *batches[1][1]] == [3, 4, 5]
    floats = DataLoader([(np.ones((1, 2, 2), np.float32), 0.5)]*2)
    assert [a.dtype for a in next(iter(floats))] == [np.float32, np.float64]

def test_pil_images():
    Image = pytest.importorskip('PIL.Image')
    pairs = [(Image.fromarray(np.full((3, 2), v, np.uint8)), i) for i, v in enumerate((0, 51, 255))]
    x, y = next(iter(DataLoader(pairs)))
    assert x.shape == (3, 3, 2) and x.dtype == np.float32 and np.array_equal(x[:, 0, 0], np.float32([0, .2, 1])) and y.tolist() == [0, 1, 2]

def test_memory_mapped_arrays_are_not_loaded(tmp_path):
    np.save(tmp_path/'x.npy', np.zeros((20_000, 100), np.float32))
    x = np.load(tmp_path/'x.npy', mmap_mode='r')
    def read(): assert sum(len(b) for _, b in DataLoader((x, np.arange(20_000)), 50, shuffle=True, seed=0)) == 20_000
    assert peak(read) < 1_000_000

RESIDENT = """
import sys, numpy as np
from backprop_lit.data import DataLoader
def status(*names): return [int(line.split()[1]) for line in open('/proc/self/status') if line.startswith(names)]
def peak(): return status('VmHWM')[0]
x = np.load(sys.argv[1], mmap_mode=sys.argv[2])
before = peak()
seen = np.zeros(len(x), int)
for a, rows in DataLoader((x, np.arange(len(x))), 64, shuffle=True, seed=0):
    assert a[:, 0].astype(int).tolist() == (rows % 4096).tolist()
    seen[rows] += 1
print((seen == 1).all(), (peak() - before) // 1024, status('RssAnon')[0] // 1024)
"""

@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='asks Linux for the resident memory')
def test_a_pass_over_a_mapped_file_keeps_little_of_it_in_memory(tmp_path):
    "188 MB in a file; BACKPROP_LIT_ROWS=1000000 for 3.1 GB"
    rows = int(os.environ.get('BACKPROP_LIT_ROWS', 60_000))
    x = np.lib.format.open_memmap(tmp_path/'x.npy', 'w+', np.float32, (rows, 784))
    x[:, 0] = np.arange(rows) % 4096
    x.flush()
    del x
    env = {**os.environ, 'OPENBLAS_NUM_THREADS': '1'}
    found = subprocess.run([sys.executable, '-c', RESIDENT, tmp_path/'x.npy', 'r'], capture_output=True, text=True, check=True, env=env).stdout
    whole, grown, anonymous = found.split()
    print(f'{rows:,} rows: {grown} MB more at the peak, {anonymous} MB anonymous')
    assert whole == 'True' and int(grown) < 60

@pytest.mark.parametrize('mode', ['r', 'r+', 'c', 'w+'])
@pytest.mark.parametrize('cut', [slice(None), slice(7, None), slice(None, None, -3)])
def test_mapped_files_in_every_mode(tmp_path, monkeypatch, mode, cut):
    "What was written to the map is seen, and never lost"
    monkeypatch.setattr(data, '_LARGE', 0)
    real = np.random.default_rng(0).random((3000, 50), np.float32)
    np.save(tmp_path/'x.npy', real)
    if mode == 'w+': (x := np.lib.format.open_memmap(tmp_path/'x.npy', 'w+', np.float32, real.shape))[:] = real
    else: x = np.load(tmp_path/'x.npy', mmap_mode=mode)
    if mode != 'r':
        x[11] = real[11] = 7
        x[2000:, 3] = real[2000:, 3] = 5
    part = x[cut]
    loader = DataLoader((part, np.arange(len(part))), 64, shuffle=True, seed=0)
    for _ in range(2):
        for a, rows in loader: assert np.array_equal(a, real[cut][rows])
    assert np.array_equal(x, real) and type(a) is np.ndarray
    assert repr(Dataset(part, np.zeros(len(part), int))).startswith(f'Dataset({len(part):,} images of shape (50,), float32')

def reads(x):
    "How many rows a pass over x reads from the file"
    calls, real = [], os.preadv
    def preadv(*args):
        calls.append(args)
        return real(*args)
    os.preadv = preadv
    try:
        for a, rows in DataLoader((x, np.arange(len(x))), 16, shuffle=True, seed=0): assert (a == rows[:, None]).all()
    finally: os.preadv = real
    return len(calls)

@pytest.mark.skipif(not os.path.exists('/proc/self/maps'), reason='only Linux tells which file is mapped')
def test_the_file_behind_an_array_is_the_right_one(tmp_path, monkeypatch):
    monkeypatch.setattr(data, '_LARGE', 0)
    name = tmp_path/'a file, with blanks.npy'
    real = np.repeat(np.arange(40.)[:, None], 7, 1)
    np.save(name, real)
    x = np.load(name, mmap_mode='r')
    assert reads(x) == reads(x.reshape(40, 7)) == 40 and reads(np.load(name, mmap_mode='c')) == reads(x.copy()) == reads(x.T.copy().T) == 0
    assert reads(x[::-1][::-1]) == 40 and reads(x[:, ::-1]) == 0
    big = tmp_path/'swapped.npy'
    np.save(big, real.astype('>f8'))
    assert reads(np.load(big, mmap_mode='r')) == 40
    np.save(tmp_path/'other.npy', real + 1)
    os.replace(tmp_path/'other.npy', name)                  # the map still shows the old file
    assert reads(x) == 0
    np.save(tmp_path/'odd', real + 1)                       # Linux now calls the old file by this name:
    os.replace(tmp_path/'odd.npy', f'{name} (deleted)')
    assert reads(x) == 0
    name.unlink()
    assert reads(x) == 0

@pytest.mark.skipif(not os.path.exists('/proc/self/maps'), reason='only Linux tells which file is mapped')
def test_a_file_that_is_cut_while_in_use(tmp_path, monkeypatch):
    monkeypatch.setattr(data, '_LARGE', 0)
    np.save(tmp_path/'x.npy', np.zeros((40, 5000)))
    x = np.load(tmp_path/'x.npy', mmap_mode='r')
    os.truncate(tmp_path/'x.npy', 800_000)
    with pytest.raises(OSError, match='expected 40 rows .*found no row 19'): list(DataLoader((x, np.arange(40)), 8))

@pytest.mark.skipif(not os.path.exists('/proc/self/fd'), reason='counts open files')
def test_no_file_stays_open(tmp_path, monkeypatch):
    monkeypatch.setattr(data, '_LARGE', 0)
    np.save(tmp_path/'x.npy', np.zeros((40, 5)))
    loader = DataLoader((np.load(tmp_path/'x.npy', mmap_mode='r'), np.arange(40)), 8)
    before = len(os.listdir('/proc/self/fd'))
    for _ in range(3):
        list(loader)
        for _ in loader: break
    assert len(os.listdir('/proc/self/fd')) == before

def test_raw_memmap_and_bytes(tmp_path):
    x = np.memmap(tmp_path/'x', np.uint8, 'w+', shape=(300, 8, 8))
    x[:] = np.arange(300)[:, None, None]
    for a, rows in DataLoader((x, np.arange(300)), 32, shuffle=True, seed=1): assert a.dtype == np.uint8 and (a == rows[:, None, None] % 256).all()

def test_transform_by_seed_and_epoch():
    def noisy(x, rng): return x + rng.random(x.shape)
    make = lambda t=noisy: DataLoader((np.zeros((20, 3)), np.arange(20)), 6, shuffle=True, seed=5, transform=t)
    a, b = make(), make()
    first, second = ([x for x, _ in a] for _ in range(2))
    next(iter(b))
    again = [x for x, _ in b]
    assert all(np.array_equal(p, q) for p, q in zip(second, again)) and not np.array_equal(first[0], second[0])
    assert len(np.unique(np.concatenate(first))) == 60
    plain = make(lambda x: x - 1)
    assert all((x == -1).all() for x, _ in plain)
    assert order(make(np.sqrt)) == order(make(None))            # what does not draw does not change the order

@pytest.mark.parametrize('transform, error, words', [('flip', TypeError, "found 'flip'"), (3, TypeError, 'transform'), (lambda x: x[:1], ValueError, 'expected 4 images'),
                                                     (lambda x: 3, ValueError, r'shape \(\)'), (lambda x: 1/0, ZeroDivisionError, 'zero')])
def test_bad_transforms(transform, error, words):
    with pytest.raises(error, match=words): list(DataLoader((A, A), transform=transform))

A = np.zeros((4, 2))
@pytest.mark.parametrize('argument, options, error, words', [
    (A, {}, TypeError, r'item 0: expected a pair .*found a ndarray; .*tuple \(x, y\)'), ([A, A], {}, TypeError, 'found a ndarray'), ((A, A, A), {}, TypeError, 'found a tuple'),
    (7, {}, TypeError, 'found a int'), ({0: (A, 1)}, {}, TypeError, 'found a dict'), (iter([]), {}, TypeError, 'iterator'), ([], {}, ValueError, 'at least one item'),
    ((A, np.zeros(3)), {}, ValueError, r'\(4, 2\) and \(3,\)'), ((A[:0], A[:0]), {}, ValueError, 'at least one'), ((1, 2), {}, ValueError, r'shapes \(\)'),
    ([(A, 0), (A[:3], 1)], {}, ValueError, r'image 1: .*\(4, 2\), found float64, shape \(3, 2\)'), ([(A, 0), ('cat', 1)], {}, ValueError, 'image 1'),
    ([(A, 0), (A, 'cat')], {}, ValueError, 'label 1'), ([(A, None)], {}, ValueError, 'label 0.*object'), ([(A, 0, 0)], {}, TypeError, 'item 0'), ('ab', {}, TypeError, 'item 0'),
    ((A, A), dict(batch_size=0), ValueError, 'at least 1, found 0'), ((A, A), dict(batch_size=-2), ValueError, 'found -2'), ((A, A), dict(batch_size=2.), TypeError, 'found 2.0'),
    ((A, A), dict(batch_size=True), TypeError, 'found True'), ((A, A), dict(batch_size='8'), TypeError, "found '8'"), ((A, A), dict(batch_size=None), TypeError, 'found None'),
    ((A, A), dict(seed=-1), ValueError, 'seed: .*found -1'), ((A, A), dict(seed=.5), TypeError, 'seed: .*found 0.5'), ((A, A), dict(batch_size=5, drop_last=True), ValueError, 'expected 5 items')])
def test_loader_refuses(argument, options, error, words):
    with pytest.raises(error, match=words): DataLoader(argument, **options)

@pytest.mark.parametrize('name', ['num_workers', 'prefetch', 'prefetch_factor', 'persistent_workers', 'pin_memory', 'generator', 'sampler', 'bacth_size'])
def test_keywords_of_other_loaders_are_refused_with_advice(name):
    advice = dict(generator='Pass it as seed=', sampler='Leave it out$', bacth_size='Leave it out$').get(name, r'backprop_lit\.Prefetch\(loader\)')
    with pytest.raises(TypeError, match=f'expected batch_size, .*found {name}=2. .*{advice}') as info: DataLoader((A, A), **{name: 2})
    assert '\n' not in str(info.value)

def test_module_needs_only_numpy():
    code = "import sys, backprop_lit.data as d; d.DataLoader(d.digits()[0]); print(sorted(m for m in ('torch', 'torchvision', 'PIL', 'matplotlib') if m in sys.modules))"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'
