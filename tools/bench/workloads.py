"What is measured: sizes, the same numbers for everybody, and who takes part."
import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))      # the package, unless installed

EVERYBODY = 'ours captured limit plain torch jax autograd mygrad'

def mlp(name, sizes, batch):
    title = '-'.join(map(str, sizes)) + f', batch {batch}'
    return name, dict(kind='mlp', sizes=sizes, batch=batch, title=title, lr=0.05)

WORKLOADS = dict([
    mlp('mlp-2', (784, 100, 200, 10), 2),
    mlp('mlp-64', (784, 100, 200, 10), 64),
    mlp('mlp-512', (784, 100, 200, 10), 512),
    mlp('small-64', (784, 32, 10), 64),
    mlp('square-512', (784, 64, 64, 10), 512),
    ('conv-64', dict(kind='conv', side=28, batch=64, lr=0.05, title='LeNet-like step, batch 64')),
    ('chain', dict(kind='chain', length=1000, shape=64, title='chain of 1,000 operations on (64,)')),
    ('batch', dict(kind='batch', images=60_000, batch=64, title='one batch of 64 images')),
    ('train', dict(kind='train', sizes=(784, 256, 10), batch=128, lr=1e-3, goal=0.97,
                   title='784-256-10, Adam, batch 128: to 97 % on MNIST')),
    ('growth', dict(kind='growth', lengths=(1000, 1_000_000), title='graphs of 1e3 and 1e6 nodes'))])

ENTRIES = {
    'mlp': EVERYBODY, 'conv': 'ours captured limit torch jax mygrad',
    'chain': 'ours captured limit torch jax autograd mygrad',
    'batch': 'ours limit torch torch-tensors torch-loader',
    'train': 'ours captured limit torch torch-loader', 'growth': 'ours torch'}

# whose time is 1: of the data batch, PyTorch's loader that asks for one item after the other
REFERENCE = {'batch': 'torch-loader'}

TINY = {'mlp': dict(sizes=(12, 6, 5, 3), batch=4), 'conv': dict(side=16, batch=3),
        'chain': dict(length=10, shape=4), 'batch': dict(images=40, batch=8),
        'growth': dict(lengths=(10, 100))}

def chosen(only, tiny):
    "The workloads asked for by name or kind, made small for a test of the tool itself"
    for word in only or ():
        if not any(word in (name, w['kind']) for name, w in WORKLOADS.items()):
            raise SystemExit(f'--only: expected names among {" ".join(WORKLOADS)}, got {word!r}')
    found = {name: w for name, w in WORKLOADS.items() if not only or {name, w['kind']} & {*only}}
    if not tiny: return found
    return {name: w | TINY[w['kind']] for name, w in found.items() if w['kind'] in TINY}

# the same numbers for everybody ---------------------------------------------------------------
def batches(work, count=16):
    "Images that are mostly black, and labels, in `count` batches"
    rng, shape = np.random.default_rng(0), (count, work['batch'])
    if work['kind'] == 'conv': size, classes = (1, work['side'], work['side']), 10
    else: size, classes = work['sizes'][:1], work['sizes'][-1]
    x = np.maximum(rng.normal(0, 1, (*shape, *size)), 0).astype(np.float32)
    return list(zip(x, rng.integers(0, classes, shape)))

def start(sizes, seed=1):
    "A list of weight (out, in) and bias (out,), layer by layer"
    rng = np.random.default_rng(seed)
    def draw(fan, *shape): return rng.uniform(-1, 1, shape).astype(np.float32)/np.float32(fan**.5)
    return [a for D, H in zip(sizes, sizes[1:]) for a in (draw(D, H, D), draw(D, H))]

def conv_start(work):
    "Kernels and biases of two convolutions 1 → 8 → 16, then a linear layer"
    rng, side = np.random.default_rng(1), (work['side']//2 - 4)//2
    def draw(*shape):
        fan = np.prod(shape[1:]) or 1
        return rng.uniform(-1, 1, shape).astype(np.float32)/np.float32(fan**.5)
    shapes = (8, 1, 5, 5), (8,), (16, 8, 5, 5), (16,), (10, 16*side*side), (10,)
    return [draw(*shape) for shape in shapes]

def chain_numbers(work):
    "Where a chain starts, what it adds, and what it multiplies by"
    rng = np.random.default_rng(2)
    x, a = rng.normal(size=(2, work['shape'])).astype(np.float32)
    return x, a*np.float32(0.1), rng.uniform(0.99, 1.01, work['shape']).astype(np.float32)

def pictures(work):
    "Bytes as in a file of images, (N, 28, 28), and labels"
    rng = np.random.default_rng(3)
    n = work['images']
    return rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), rng.integers(0, 10, n)

def mnist_files():
    "The four files of MNIST, or an error that says where they should be"
    root = Path(os.environ.get('BACKPROP_LIT_DATA', '.'))/'MNIST'/'raw'
    names = 'train-images-idx3', 'train-labels-idx1', 't10k-images-idx3', 't10k-labels-idx1'
    paths = [root/f'{name}-ubyte' for name in names]
    if all(p.is_file() for p in paths): return paths
    raise RuntimeError('no MNIST: set BACKPROP_LIT_DATA to the folder that holds MNIST/raw')
