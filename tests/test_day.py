"A day of work in one process: training after training, and memory stays as it is, with the garbage collector off. BACKPROP_LIT_DAY=2000 for the long version"
import gc
import os
import tracemalloc

import pytest

import backprop_lit as bl

LONG = int(os.environ.get('BACKPROP_LIT_DAY', 0))
TRAIN, TEST = (part[:128] for part in bl.digits())

def training(i, path):
    "Eager with dropout, or captured; every fifth saved after each epoch"
    captured = i % 2
    middle = [] if captured else [bl.Dropout(.2, rng=i)]
    model = bl.Sequential(bl.Flatten(), bl.Linear(64, 16, rng=i), bl.ReLU(), *middle, bl.Linear(16, 10, rng=i))
    how = dict(capture=lambda step: bl.capture(step, exact=True)) if captured else {}
    calls = [] if i % 5 else [bl.Checkpoint(path)]
    schedule = [None, lambda o, n: bl.OneCycleLR(o, .003, n)][i % 3 == 0]
    bl.fit(model, TRAIN, TEST, epochs=2, optimizer=bl.Adam(model.parameters(), .003), schedule=schedule, seed=i,
           callbacks=calls, progress=False, **how)

@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()

def resident():
    with open('/proc/self/statm') as f: return int(f.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')

def test_trainings_leave_nothing_behind(no_collector, tmp_path):
    pytest.importorskip('safetensors.numpy')
    n = LONG or 100
    if not LONG: tracemalloc.start()         # its own tables would count among what is resident
    for i in range(max(60, n // 10)): training(i, tmp_path / 'c')
    known, before = len(gc.get_objects()), resident() if LONG else 0
    begin = tracemalloc.get_traced_memory()[0]
    for i in range(n - 40): training(i, tmp_path / 'c')
    grown = tracemalloc.get_traced_memory()[0] - begin
    tracemalloc.stop()
    assert len(gc.get_objects()) - known < 50, 'objects that nobody can reach any more are kept by rings'
    assert grown < 150_000
    if LONG:
        print(f'{n:,} trainings: {(resident() - before) / 2**20:.2f} MB more resident')
        assert resident() - before < 2**20

@pytest.mark.parametrize('how', [{}, {'capture': bl.capture}, {'capture': lambda step: bl.capture(step, exact=True)}], ids=['eager', 'captured', 'exact'])
def test_a_training_makes_no_ring(no_collector, how):
    "What a training needed is gone when it returns, without the collector"
    def once():
        model = bl.MLP(64, 8, 10, rng=0)
        bl.fit(model, TRAIN, TEST, epochs=2, progress=False, seed=0, **how)
    once()
    gc.collect()
    once()
    assert gc.collect() == 0
