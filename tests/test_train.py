"Training loop, evaluation, records, progress."
import io
import math
import os
import re
import subprocess
import sys
import threading

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')      # two threads on small products wait for each other

import numpy as np
import pytest

import backprop_lit as bl
from backprop_lit.data import DataLoader, Dataset, digits
from backprop_lit.loss import cross_entropy, mse_loss
from backprop_lit.nn import MLP, Linear, Module
from backprop_lit.ops import is_grad_enabled
from backprop_lit.optim import SGD, Adam, AdamW, CosineAnnealingLR, LRScheduler, OneCycleLR, StepLR
from backprop_lit.tensor import Tensor
from backprop_lit.train import Bar, Epoch, History, Score, accuracy, evaluate, fit, predict, train_step

TRAIN, TEST = digits()
SMALL = TRAIN[:200]

def weights(model): return [p.data.copy() for p in model.parameters()]
def same(a, b): return all(x.tobytes() == y.tobytes() for x, y in zip(weights(a), weights(b)))

def test_the_five_lines():
    "As the book has them, with the digits, in a process of its own"
    code = '''
import backprop_lit as bl
train, test = bl.digits()
model = bl.MLP(64, 100, 200, 10)
bl.fit(model, train, test, epochs=5)
'''
    run = subprocess.run([sys.executable, '-W', 'error', '-c', code], capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert len(lines) == 5 and run.stderr == ''
    assert re.fullmatch(r'epoch 5/5   loss \d\.\d{4}   train 0\.\d{4}   test 0\.9\d{3}   \d+\.\d s', lines[-1])

def mnist_or_skip():
    if not os.environ.get('BACKPROP_LIT_DATA'): pytest.skip('BACKPROP_LIT_DATA names no folder with MNIST')
    return bl.mnist()

def test_mnist():
    train, test = mnist_or_skip()
    history = fit(MLP(784, 100, 200, 10, rng=0), train, test, epochs=1, progress=False)
    assert history[-1].test_accuracy > 0.94

def test_digits_floor_and_same_seed():
    one_cycle = lambda o, n: OneCycleLR(o, 3e-3, n)
    models = [MLP(64, 100, 200, 10, rng=3) for _ in range(2)]
    runs = [fit(m, TRAIN, TEST, 20, schedule=one_cycle, seed=5, progress=False) for m in models]
    assert runs[0][-1].test_accuracy > 0.96
    assert repr(runs[0]) == repr(runs[1]) and same(*models)
    other = MLP(64, 100, 200, 10, rng=3)
    fit(other, TRAIN, TEST, 1, schedule=one_cycle, seed=6, progress=False)
    assert not same(other, models[0])

def test_fit_is_the_loop_by_hand():
    a, b = (MLP(64, 20, 10, rng=0) for _ in range(2))
    fit(a, SMALL, epochs=3, lr=0.01, batch_size=32, seed=7, progress=False)
    optimizer, loader = Adam(b.parameters(), lr=0.01), DataLoader(SMALL, 32, shuffle=True, seed=7)
    for _ in range(3):
        for x, y in loader:
            loss = cross_entropy(b(Tensor(x)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert same(a, b)

def test_ways_to_name_optimiser_and_schedule():
    a, b, c = (MLP(64, 10, rng=0) for _ in range(3))
    fit(a, SMALL, optimizer=SGD, lr=0.2, progress=False)
    fit(b, SMALL, optimizer=SGD(b.parameters(), 0.2), progress=False)
    fit(c, SMALL, optimizer=lambda p, lr: SGD(p, lr), lr=0.2, batch=64, progress=False)
    assert same(a, b) and same(a, c)
    opt = AdamW(a.parameters())
    ready = StepLR(opt, 2)
    fit(a, SMALL, optimizer=opt, schedule=ready, batch_size=50, progress=False)
    assert ready.last_epoch == 4 and ready.get_last_lr() == pytest.approx([1e-5])
    fit(a, SMALL, schedule=CosineAnnealingLR, progress=False)

def test_kinds_of_data():
    x, y = SMALL
    models = [MLP(64, 10, rng=0) for _ in range(4)]
    for m, data in zip(models, [SMALL, (x, y), list(zip(x, y)), DataLoader(SMALL, 64, shuffle=True, seed=0)]):
        fit(m, data, progress=False)
    assert all(same(models[0], m) for m in models[1:])

def test_float32_stays_and_inputs_are_unchanged():
    before = SMALL.images.copy(), SMALL.labels.copy()
    model = MLP(64, 20, 10, rng=0)
    fit(model, SMALL, SMALL, progress=False)
    assert all(p.dtype == np.float32 for p in model.parameters())
    np.testing.assert_array_equal(SMALL.images, before[0])
    np.testing.assert_array_equal(SMALL.labels, before[1])

def test_first_loss_and_mean_over_short_batches():
    model = MLP(64, 100, 10, rng=0)
    steps = 200 // 64 + 1
    history = fit(model, SMALL, lr=1e-12, optimizer=SGD, progress=False)
    assert steps == 4 and history[0].loss == pytest.approx(evaluate(model, SMALL).loss, abs=1e-5)
    assert history[0].train_accuracy == pytest.approx(evaluate(model, SMALL).accuracy)
    assert history[0].loss == pytest.approx(math.log(10), abs=0.1)

class Modes(Module):
    "Notes in which mode it is called, and whether a graph is being built"
    def __init__(self): self.inner, self.seen = Linear(64, 10, rng=0), []
    def forward(self, x):
        self.seen.append((self.training, is_grad_enabled()))
        return self.inner(Tensor(x.value.reshape(-1, 64)))

def test_modes():
    model = Modes()
    fit(model, SMALL, TEST, epochs=2, batch_size=100, progress=False)
    assert model.seen == [(True, True)] * 2 + [(False, False)] + [(True, True)] * 2 + [(False, False)]
    assert model.training and model.inner.training
    model.inner.eval()
    evaluate(model, TEST), predict(model, TEST.images)
    assert model.training and not model.inner.training

def test_trains_in_training_mode():
    model = Modes().eval()
    fit(model, SMALL, progress=False)
    assert model.seen == [(True, True)] * 4

def test_modes_come_back_after_an_error():
    model = Modes()
    with pytest.raises(IndexError): evaluate(model, (SMALL.images, SMALL.labels + 5))
    assert model.training and is_grad_enabled()

@pytest.mark.parametrize('batch_size', [1, 7, 64, 1000])
def test_evaluate(batch_size):
    model = MLP(64, 10, rng=0)
    fit(model, SMALL, epochs=3, progress=False)
    logits = model(Tensor(TEST.images)).data
    shares = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(1, keepdims=True)
    score = evaluate(model, TEST, batch_size=batch_size)
    assert isinstance(score, Score)
    assert score.accuracy == (logits.argmax(1) == TEST.labels).mean()
    assert score.loss == pytest.approx(-np.log(shares[np.arange(len(TEST)), TEST.labels]).mean(), rel=1e-5)
    np.testing.assert_array_equal(predict(model, TEST.images, batch_size), logits.argmax(1))
    np.testing.assert_array_equal(predict(model, Tensor(TEST.images), batch_size), logits.argmax(1))

def test_regression():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 3)).astype(np.float32)
    y = (x @ np.array([[2], [3], [4]], np.float32)) + 5
    model = Linear(3, 1, rng=0)
    history = fit(model, (x, y), (x, y), epochs=30, optimizer=SGD, lr=0.1, loss=mse_loss, progress=False)
    assert history[-1].loss < 1e-3 and math.isnan(history[-1].test_accuracy) and 'nan' not in repr(history)

def test_accuracy():
    assert accuracy(np.eye(4), [0, 1, 2, 0]) == 0.75
    assert accuracy(Tensor(np.eye(4)), Tensor(np.arange(4))) == 1
    for logits, labels in [(np.eye(3), np.eye(3)), (np.eye(3), [0, 1]), (np.zeros((0, 3)), []), ([1., 2.], [0, 1])]:
        with pytest.raises(ValueError, match='accuracy: expected'): accuracy(logits, labels)

BAD = [(dict(epochs=0), ValueError, 'epochs.*0'), (dict(epochs=-2), ValueError, '-2'), (dict(epochs=1.5), ValueError, '1.5'),
       (dict(batch_size=0), ValueError, '0'), (dict(batch=-1), ValueError, '-1'), (dict(batch=0), ValueError, '0'),
       (dict(lr=-1), ValueError, 'lr'), (dict(lr=float('nan')), ValueError, 'nan'), (dict(optimizer='adam'), TypeError, "'adam'"),
       (dict(schedule=3), TypeError, '3'), (dict(seed=-1), ValueError, 'seed'),
       (dict(optimizer=SGD(MLP(64, 10, rng=0).parameters(), 1), lr=1), ValueError, 'lr')]

@pytest.mark.parametrize('options, error, words', BAD)
def test_errors(options, error, words):
    model = MLP(64, 10, rng=0)
    before = weights(model)
    with pytest.raises(error, match=words): fit(model, SMALL, **{'progress': False, **options})
    for a, b in zip(before, weights(model)): np.testing.assert_array_equal(a, b)

def test_more_errors():
    with pytest.raises(TypeError, match='Module'): fit(None, SMALL)
    with pytest.raises(TypeError): fit(MLP(64, 10, rng=0), None)
    with pytest.raises(ValueError, match='64 features'): fit(MLP(64, 10, rng=0), (np.ones((5, 9), np.float32), np.zeros(5, int)))
    with pytest.raises(IndexError, match='from 0 to 9'): fit(MLP(64, 10, rng=0), (SMALL.images, SMALL.labels + 1))
    with pytest.raises(RuntimeError, match='expected gradients'):
        fit(MLP(64, 10, rng=0), SMALL, optimizer=Adam(MLP(64, 10, rng=0).parameters()))
    with pytest.raises(ValueError, match='at least one'): predict(MLP(64, 10, rng=0), TEST.images[:0])

@pytest.mark.filterwarnings('error')
def test_divergence_stops_with_one_message():
    with pytest.raises(RuntimeError, match='finite loss, got nan with lr=1e'):
        fit(MLP(64, 50, 10, rng=0), SMALL, epochs=5, optimizer=SGD, lr=1e30, progress=False)
    bad = SMALL.images.copy()
    bad[150, 3, 3] = np.nan
    with pytest.raises(RuntimeError, match='inputs'): fit(MLP(64, 10, rng=0), (bad, SMALL.labels), progress=False)

def test_ctrl_c_keeps_the_history(capsys):
    class Stop(LRScheduler):
        def step(self):
            super().step()
            if self.last_epoch == 10: raise KeyboardInterrupt
    history = fit(MLP(64, 10, rng=0), SMALL, SMALL, epochs=9, schedule=lambda o, n: Stop(o))
    assert history.stopped and [e.epoch for e in history] == [1, 2]
    assert len(capsys.readouterr().out.splitlines()) == 2

def test_lines_and_silence(capsys):
    fit(MLP(64, 10, rng=0), SMALL, epochs=12)
    out, err = capsys.readouterr()
    assert err == '' and len(out.splitlines()) == 12 and out.splitlines()[0].startswith('epoch  1/12   loss 2.')
    assert 'test' not in out and 'nan' not in out
    fit(MLP(64, 10, rng=0), SMALL, progress=False)
    assert capsys.readouterr() == ('', '')
    fit(MLP(64, 10, rng=0), SMALL, progress=True)
    assert 'images/s' in capsys.readouterr().err

def test_history():
    history = History([Epoch(1, 0.5, 0.8, math.nan, 1.)])
    assert repr(history).splitlines() == ['epoch     loss    train     test', '    1   0.5000   0.8000        -']
    assert repr(History()) == 'epoch     loss    train     test'

def test_history_plot(tmp_path):
    figure = pytest.importorskip('matplotlib.figure').Figure()
    history = fit(MLP(64, 10, rng=0), SMALL, SMALL, epochs=3, progress=False)
    ax = history.plot(figure.add_subplot())
    assert [len(line.get_xdata()) for line in ax.lines] == [3] and ax.get_ylim()[0] == 0
    figure.savefig(tmp_path / 'a.svg')

class Terminal(io.StringIO):
    encoding = 'utf-8'
    def isatty(self): return True

def test_bar(monkeypatch):
    monkeypatch.setenv('COLUMNS', '60')
    out = Terminal()
    bar = Bar(1000, out)
    bar.add(500, 'epoch 1/2', 'x' * 200)
    shown = out.getvalue().strip('\r')
    assert len(shown) == 59 and shown.startswith('epoch 1/2 ' + '━' * 10 + '╌' * 10 + '  50%')
    bar.add(1, 'epoch 1/2')
    assert out.getvalue().count('\r') == 2          # not ten times a second
    bar.clear()
    assert out.getvalue().endswith('\r' + ' ' * 59 + '\r')
    assert not Bar(10, io.StringIO()).on and not Bar(10, Terminal(), on=False).on

def test_a_step_needs_no_graph_afterwards():
    import gc, weakref
    gc.disable()
    try:
        model = MLP(64, 10, rng=0)
        opt = Adam(model.parameters())
        seen = []
        def loss(out, y):
            seen.append(weakref.ref(out))
            return cross_entropy(out, y)
        train_step(model, SMALL.images, SMALL.labels, opt, loss)
        assert seen[0]() is None
    finally: gc.enable()

def test_threads_train_apart():
    models = [MLP(64, 20, 10, rng=0) for _ in range(3)]
    def work(m): fit(m, SMALL, SMALL, epochs=3, progress=False)
    threads = [threading.Thread(target=work, args=(m,)) for m in models[1:]]
    for t in threads: t.start()
    work(models[0])
    for t in threads: t.join()
    assert same(models[0], models[1]) and same(models[0], models[2])

# --- company: callbacks, early stopping, larger steps, the finder, capture ---

def test_callbacks_see_and_stop():
    seen = []
    class Beginner:
        def begin(self, run): seen.append(('begin', len(run.history)))
        def __call__(self, run): seen.append(len(run.history))
    def stop(run): run.stop = len(run.history) == 3
    history = fit(MLP(64, 10, rng=0), SMALL, epochs=9, callbacks=[Beginner(), stop], progress=False)
    assert len(history) == 3 and not history.stopped and seen == [('begin', 0), 1, 2, 3]

def test_callbacks_change_nothing_by_themselves():
    a, b = MLP(64, 10, rng=0), MLP(64, 10, rng=0)
    fit(a, SMALL, epochs=2, progress=False)
    fit(b, SMALL, epochs=2, callbacks=[lambda run: None], early_stopping=None, accumulate=1, progress=False)
    assert same(a, b)

def test_ctrl_c_in_a_callback_keeps_the_epoch():
    def press(run): raise KeyboardInterrupt
    history = fit(MLP(64, 10, rng=0), SMALL, epochs=9, callbacks=[press], progress=False)
    assert len(history) == 1 and history.stopped

def test_early_stopping():
    history = fit(MLP(64, 100, 10, rng=0), SMALL, TEST, 200, lr=1e-2, early_stopping=2, progress=False)
    losses = [e.test_loss for e in history]
    assert len(losses) == int(np.argmin(losses)) + 3 < 200
    for wrong in (0, -1, 1.5, 'x'):
        with pytest.raises((ValueError, TypeError)): fit(MLP(64, 10), SMALL, TEST, early_stopping=wrong)
    with pytest.raises(ValueError, match='test data'): fit(MLP(64, 10), SMALL, early_stopping=2)

@pytest.mark.parametrize('n', [1, 3, 5, 64])
def test_accumulated_steps_are_steps_on_all_at_once(n):
    x, y = np.asarray(SMALL.images, np.float64), SMALL.labels
    def run(**more):
        model = MLP(64, 8, 10, rng=0).to('f8')
        rates = []
        class Count(CosineAnnealingLR):
            def step(self):
                super().step()
                rates.append(self.last_epoch)
        history = fit(model, DataLoader((x, y), **more['loader']), epochs=2, optimizer=SGD, lr=.1, progress=False,
                      schedule=Count, accumulate=more['accumulate'])
        return model, len(rates), history[-1].loss
    one, steps, loss = run(loader=dict(batch_size=7 * n), accumulate=1)
    two, same_steps, other = run(loader=dict(batch_size=7), accumulate=n)
    assert steps == same_steps and loss == pytest.approx(other, rel=1e-12)
    assert all(np.allclose(a, b, rtol=1e-12, atol=1e-14) for a, b in zip(weights(one), weights(two)))

def test_lr_finder_leaves_everything():
    from backprop_lit.train import lr_finder
    model, before = MLP(64, 30, 10, rng=0), MLP(64, 30, 10, rng=0)
    sweep = lr_finder(model, TRAIN, high=1e6)
    assert same(model, before) and all(p.grad is None for p in model.parameters())
    assert len(sweep.rates) == len(sweep.losses) == len(sweep.smooth) < 150 and np.isfinite(sweep.losses).all()
    assert sweep.rates == sorted(sweep.rates) and 1e-4 < sweep.best < .1
    assert 1e-3 < lr_finder(model, TRAIN, optimizer=SGD).best < 1
    for low, high, steps in [(0, 1, 9), (1, 1, 9), (1, .1, 9), (.1, 1, 1)]:
        with pytest.raises(ValueError, match='low < high'): lr_finder(model, TRAIN, low, high, steps)

def test_capture():
    def run(**more):
        model = MLP(64, 20, 10, rng=0)
        return model, repr(fit(model, SMALL, TEST, epochs=3, progress=False, **more))
    plain, fast = run(), run(capture=lambda step: bl.capture(step, exact=True))
    assert same(plain[0], fast[0]) and plain[1] == fast[1]

def top3(logits, labels): return (np.argsort(logits, 1)[:, -3:] == labels[:, None]).any(1).mean()

def test_metrics(capsys):
    shapes = []
    def whole(outputs, labels):
        shapes.append((type(outputs), outputs.shape, labels.shape))
        return Tensor(np.float32(2.5))
    model = MLP(64, 30, 10, rng=0)
    history = fit(model, TRAIN, TEST, 2, metrics={'top3': top3, 'a longer name': whole})
    assert shapes == [(np.ndarray, (len(TEST), 10), (len(TEST),))]*2
    assert history[-1].metrics == {'top3': float(top3(model(Tensor(TEST.images)).data, TEST.labels)), 'a longer name': 2.5}
    lines = repr(history).splitlines()
    assert lines[0].split() == ['epoch', 'loss', 'train', 'test', 'top3', 'a', 'longer', 'name'] and len({*map(len, lines)}) == 1
    assert capsys.readouterr().out.count('top3 0.') == 2
    plain = MLP(64, 30, 10, rng=0)
    other = fit(plain, TRAIN, TEST, 2, progress=False)
    assert [e[:4] for e in other] == [e[:4] for e in history] and other[0].metrics == {}

@pytest.mark.parametrize('metrics, test, error, words', [({'a': lambda out, y: out}, TEST, TypeError, "number from 'a'"), ({'a': 3}, TEST, TypeError, 'names and functions'),
                                                         ([top3], TEST, TypeError, 'names and functions'), ({'a': top3}, None, ValueError, 'expected test data'),
                                                         ({'a': lambda out, y: None}, TEST, TypeError, 'got None'), ({'a': lambda out, y: 1/0}, TEST, ZeroDivisionError, 'zero')])
def test_metrics_refused(metrics, test, error, words):
    with pytest.raises(error, match=words): fit(MLP(64, 10, rng=0), TRAIN[:64], test, metrics=metrics, progress=False)

def test_a_table_of_a_resumed_training_with_and_without_a_metric():
    record = History([Epoch(1, 1, .5, .5, 1, 1), Epoch(2, 1, .5, .5, 1, 1, {'f1': .25})])
    assert repr(record).splitlines()[1].split()[-1] == '-' and repr(record).endswith('0.2500')

@pytest.mark.parametrize('place', ['model', 'evaluate', 'print', 'metric'])
def test_ctrl_c_anywhere_in_an_epoch(monkeypatch, place, capsys):
    "The epochs that were completed are kept, and modules are back in their modes"
    from backprop_lit import train as module
    calls = []
    def press(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3: raise KeyboardInterrupt
    model = MLP(64, 10, rng=0)
    if place == 'evaluate':
        real = module._measure
        monkeypatch.setattr(module, '_measure', lambda *args: (press(), real(*args))[1])
    if place == 'print': monkeypatch.setattr(module, '_line', lambda e, n: press() or 'epoch')
    if place == 'model':
        real = type(model).forward
        monkeypatch.setattr(type(model), 'forward', lambda self, x: (press(), real(self, x))[1])
    metrics = {'n': lambda out, y: press() or 0} if place == 'metric' else None
    history = fit(model, TRAIN, TEST, 50, metrics=metrics)
    assert history.stopped and len(history) == {'model': 0, 'evaluate': 2, 'print': 3, 'metric': 2}[place]
    assert all(m.training for m in model.modules())
