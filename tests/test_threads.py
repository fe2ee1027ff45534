"A thousand rounds of two threads in each other's way, and a million nodes"
import subprocess
import sys
import threading

import numpy as np

from backprop_lit.ops import enable_grad, no_grad
from backprop_lit.tensor import Tensor

def together(*functions, rounds=1000):
    "Run the functions in threads, each so many times; return what they complain about"
    wrong, gate = [], threading.Barrier(len(functions))
    def run(f):
        gate.wait()
        for _ in range(rounds):
            if complaint := f(): wrong.append(complaint)
    threads = [threading.Thread(target=run, args=(f,)) for f in functions]
    for t in threads: t.start()
    for t in threads: t.join()
    return wrong

shared = Tensor([1.0, 2.0, 3.0], requires_grad=True)

def evaluates():
    with no_grad():
        y = shared * 2
        with enable_grad(): z = shared * 2
        return 'recorded under no_grad' * y.tracked or 'not recorded again' * (not z.tracked)

def differentiates():
    x = Tensor([2.0, 3.0], requires_grad=True)
    y = x * x
    y += x                                   # in place: advances the clock for everybody
    (y * x).sum().backward()
    return None if np.allclose(x.grad.data, 3 * x.data ** 2 + 2 * x.data) else f'{x.grad}'

def walks_a_shared_leaf():
    g = Tensor(shared.data, requires_grad=True)
    (g * shared.detach()).sum().backward()
    return None if g.grad.tolist() == [1.0, 2.0, 3.0] else f'{g.grad}'

def test_one_inside_no_grad_the_other_not(): assert not together(evaluates, differentiates)
def test_two_that_differentiate(): assert not together(differentiates, walks_a_shared_leaf, differentiates)

MILLION = '''
import ctypes, gc, os
gc.disable()
import numpy as np
from backprop_lit.tensor import Tensor
def resident(): return int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
x = Tensor(np.ones(1, 'f4'), requires_grad=True)
for n in (1_000, 1_000_000):                 # the first round warms up
    start, y = resident(), x
    for _ in range(n): y = y + 1.0
    size = (resident() - start) / n
    y.backward()
    del y
    ctypes.CDLL(None).malloc_trim(0)         # what was freed, to the system
    left = resident() - start
assert x.grad.item() == 2.0
print(size, left / n)
'''

def test_a_million_nodes():
    if not sys.platform.startswith('linux'): import pytest; pytest.skip('memory is read from /proc')
    done = subprocess.run([sys.executable, '-c', MILLION], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    size, left = map(float, done.stdout.split())
    assert size <= 400, f'{size:.0f} bytes a node'
    assert left <= 20, f'{left:.0f} bytes a node were not given back'
