"Saving: whole files, seals, checkpoints, resuming, kills, and files that lie."
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import numpy as np
import pytest

safetensors_numpy = pytest.importorskip('safetensors.numpy')

import backprop_lit as bl
from backprop_lit import optim
from backprop_lit.data import DataLoader, digits
from backprop_lit.nn import MLP, Linear, Module, ReLU, Sequential, generator, manual_seed
from backprop_lit.saving import Checkpoint, _decoded, _opened, _sealed, load, main, save, write_whole
from backprop_lit.saving import _undisturbed as Undisturbed
from backprop_lit.train import fit

TRAIN, TEST = digits()
SMALL = TRAIN[:150]
ENV = {**os.environ, 'OPENBLAS_NUM_THREADS': '1'}
FUZZ = int(os.environ.get('BACKPROP_LIT_FUZZ', 0))

def bits(model): return {n: (a.dtype.str, a.shape, a.tobytes()) for n, a in model.state_dict().items()}

# --- save and load ---

@pytest.mark.parametrize('dtype', ['f4', 'f8', 'f2'])
def test_round_trip(tmp_path, dtype):
    model, other = MLP(5, 4, 3, rng=0).to(dtype), MLP(5, 4, 3, rng=1).to(dtype)
    save(model, tmp_path / 'm')
    assert load(tmp_path / 'm', other) is other and bits(other) == bits(model)
    assert [*load(tmp_path / 'm')] == sorted(model.state_dict())

@pytest.mark.parametrize('dtype', ['f2', 'f4', 'f8', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', '?', '>f4', '>i8'])
@pytest.mark.parametrize('shape', [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
def test_every_type_and_shape(tmp_path, dtype, shape):
    rng = np.random.default_rng(0)
    a = np.asarray(rng.integers(0, 2, shape)).astype(dtype)
    save({'a': a, 'turned': a.T, 'odd ": \\ ü\n': a}, tmp_path / 'm')
    found = load(tmp_path / 'm')
    assert all(np.array_equal(found[n], b) and found[n].shape == b.shape for n, b in [('a', a), ('turned', a.T)])
    assert found['a'].dtype == a.dtype.newbyteorder('=') and found['a'].flags.writeable

def test_nan_and_infinity_keep_their_bits(tmp_path):
    a = np.array([np.nan, -np.inf, -0., 5e-324])
    save({'a': a}, tmp_path / 'm')
    assert load(tmp_path / 'm')['a'].tobytes() == a.tobytes()

def test_same_bytes_each_time(tmp_path):
    for name in 'ab': save(MLP(5, 4, 3, rng=0), tmp_path / name)
    assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()
    assert load(tmp_path / 'a')['1.weight'].base is None or load(tmp_path / 'a')['1.weight'].flags.owndata

@pytest.mark.parametrize('what', [None, 3, [1], {'a': None}, {'a': 'text'}, {1: np.ones(2)}, {'a': np.ones(2, complex)},
                                  {'a': np.ones(2, np.longdouble)}, {'__metadata__': np.ones(2)}])
def test_what_cannot_be_saved(tmp_path, what):
    with pytest.raises(TypeError, match='save: expected'): save(what, tmp_path / 'm')
    assert not [*tmp_path.iterdir()]

def test_file_of_another_program(tmp_path):
    model = MLP(5, 4, 3, rng=0)
    for note in (None, {'format': 'pt'}):
        safetensors_numpy.save_file(model.state_dict(), tmp_path / 'm', note)
        assert bits(load(tmp_path / 'm', MLP(5, 4, 3, rng=1))) == bits(model)

def test_wrong_models(tmp_path):
    save(MLP(5, 4, 3, rng=0), tmp_path / 'm')
    for model, said in [(MLP(5, 6, 3), r'float32 of shape \(6, 5\)'), (MLP(5, 4, 3).to('f8'), 'float64'), (MLP(5, 3), 'found'),
                        (MLP(5, 4, 3, 3), 'found nothing')]:
        before = bits(model)
        with pytest.raises(ValueError, match=said): load(tmp_path / 'm', model)
        assert bits(model) == before
    for path in (tmp_path, tmp_path / 'none'):
        with pytest.raises(FileNotFoundError, match='expected a file'): load(path)

def test_without_the_library():
    code = '''
import sys
sys.modules['safetensors'] = None
import backprop_lit as bl
for f in (lambda: bl.save(bl.MLP(2, 2), 'x'), lambda: bl.load(sys.executable)):
    try: f()
    except ImportError as e: print(e)
print(bl.main(['train', '--save', 'x']))'''
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=ENV)
    assert run.stdout.count("pip install 'backprop_lit[save]'") == 2 and run.stdout.endswith('\n2\n'), run
    assert run.stderr.count('\n') == 1 and 'backprop_lit[save]' in run.stderr

# --- whole files ---

def test_links_and_permissions(tmp_path):
    real, link = tmp_path / 'real', tmp_path / 'link'
    real.write_bytes(b'old')
    link.symlink_to(real)
    write_whole(link, b'new')
    assert link.is_symlink() and real.read_bytes() == b'new'
    os.mkfifo(tmp_path / 'pipe')
    for odd in (tmp_path, tmp_path / 'pipe', '/dev/null'):
        with pytest.raises(ValueError, match='something else'): write_whole(odd, b'x')
    with pytest.raises(FileNotFoundError): load(tmp_path / 'pipe')

@pytest.mark.parametrize('step', ['write', 'fsync', 'replace'])
def test_failure_at_each_step(tmp_path, monkeypatch, step):
    path = tmp_path / 'm'
    write_whole(path, b'old')
    def fail(*args): raise OSError(28, 'No space left on device')
    if step == 'write':
        path2 = tmp_path / 'no' / 'm'
        with pytest.raises(OSError, match='kept'): write_whole(path2, b'new')
    else:
        monkeypatch.setattr(os, step, fail)
        with pytest.raises(OSError, match='No space left.*kept'): write_whole(path, b'new')
    assert path.read_bytes() == b'old' and [*tmp_path.iterdir()] == [path]

def test_disk_full(tmp_path):
    "The last good checkpoint is kept, and the command says so"
    path = tmp_path / 'c'
    assert main(['train', '--epochs', '1', '--hidden', '4', '--save', str(path)]) == 0
    old = path.read_bytes()
    code = f'''
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
from backprop_lit.saving import main
sys.exit(main(['train', '--epochs', '2', '--save', {str(path)!r}]))'''
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=ENV)
    assert run.returncode == 2 and run.stderr.count('\n') == 1, run
    assert 'expected to write' in run.stderr and 'File too large' in run.stderr and 'kept' in run.stderr
    assert f'Now {path} holds 1 epochs' in run.stderr
    assert path.read_bytes() == old and [*tmp_path.iterdir()] == [path]

@pytest.fixture
def small_disk(tmp_path):
    "A file system of 64 kB, where this user may mount one"
    place = tmp_path / 'disk'
    place.mkdir()
    if sys.platform != 'linux' or os.geteuid(): pytest.skip('only root on Linux may mount a file system')
    done = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', str(place)], capture_output=True, text=True)
    if done.returncode: pytest.skip(f'no file system of 64 kB: {done.stderr.strip()}')
    yield place
    subprocess.run(['umount', str(place)], check=True)

def test_disk_that_is_really_full(small_disk, capsys):
    "A checkpoint that fitted, and then no room for the next one"
    path = small_disk / 'c'
    assert call(capsys, '--epochs', 1, '--hidden', 8, '--save', path)[0] == 0
    old = path.read_bytes()
    room = (64 << 10) - len(old)
    (small_disk / 'other').write_bytes(bytes(room // 4096 * 4096 - 4096))
    code, out, err = call(capsys, '--resume', path)
    assert code == 2 and 'No space left on device' in err and f'Now {path} holds 1 epochs' in err and err.count('\n') == 1
    assert path.read_bytes() == old and {p.name for p in small_disk.iterdir()} == {'c', 'other'}
    (small_disk / 'other').unlink()
    assert call(capsys, '--resume', path)[0] == 0

def test_disk_full_in_the_middle_of_a_training(small_disk):
    "Epochs are saved as long as there is room; the last one that was saved can be resumed"
    path, filler = small_disk / 'c', small_disk / 'filler'
    def fill(run):
        if len(run.history) == 3: filler.write_bytes(bytes(45_000))
    model = MLP(64, 32, 10, rng=0)
    with pytest.raises(OSError, match=f'No space left.*Now {path} holds 3 epochs'):
        fit(model, SMALL, epochs=6, optimizer=optim.SGD, callbacks=[Checkpoint(path), fill], progress=False)
    assert len(_opened(path)[1]['history']) == 3
    filler.unlink()
    again = MLP(64, 32, 10, rng=1)
    fit(again, SMALL, epochs=6, optimizer=optim.SGD, callbacks=[Checkpoint(path, resume=True)], progress=False)
    whole = MLP(64, 32, 10, rng=0)
    fit(whole, SMALL, epochs=6, optimizer=optim.SGD, progress=False)
    assert bits(again) == bits(whole)

# --- resuming ---

class Noise(Module):
    "Dropout with a generator of its own, or the default one"
    def __init__(self, own): self.rng = np.random.default_rng(3) if own else None
    def forward(self, x):
        if not self.training: return x
        return x * (generator(self.rng).random(x.shape) < 0.5).astype(np.float32)

def noisy(seed): return Sequential(MLP(64, 12, rng=seed), ReLU(), Noise(True), Noise(False), Linear(12, 10, rng=seed))

OPTIMISERS = {name: getattr(optim, name) for name in ('Adam', 'AdamW', 'RMSprop', 'Adagrad') if hasattr(optim, name)}
OPTIMISERS |= {'SGD': lambda p, lr: optim.SGD(p, lr), 'nesterov': lambda p, lr: optim.SGD(p, lr, momentum=.9, nesterov=True)}
SCHEDULES = {'none': None, 'one': lambda o, n: optim.OneCycleLR(o, .01, n), 'cosine': optim.CosineAnnealingLR,
             'step': lambda o, n: optim.StepLR(o, 5), 'linear': optim.LinearLR}

class Stop:
    "Ctrl-C in the middle of an epoch, after so many steps"
    def __init__(self, optimizer, after): self.real, self.left, self.__dict__['optimizer'] = optimizer.step, after, optimizer
    def __call__(self):
        self.left -= 1
        if self.left < 0: raise KeyboardInterrupt
        self.real()

@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize('name', OPTIMISERS)
@pytest.mark.parametrize('after', [4, 14])
def test_resume_is_exact(tmp_path, name, schedule, after):
    def run(seed, callbacks=(), stop=None):
        manual_seed(seed)
        model = noisy(seed)
        optimizer = OPTIMISERS[name](model.parameters(), lr=.01)
        if stop is not None: optimizer.step = Stop(optimizer, stop)
        history = fit(model, SMALL, TEST[:50], 4, optimizer=optimizer, schedule=SCHEDULES[schedule], batch_size=32,
                      accumulate=1 + (schedule == 'one'), seed=seed, callbacks=callbacks, progress=False)
        return bits(model), repr(history), history.stopped
    path = tmp_path / 'c'
    whole = run(0)
    half = run(0, [Checkpoint(path)], after * (1 if schedule != 'one' else .5))
    assert half[2] and half[0] != whole[0]
    assert run(9, [Checkpoint(path, resume=True)]) == whole

def test_resume_with_early_stopping(tmp_path):
    def run(callbacks=(), model=None):
        model = model or MLP(64, 30, 10, rng=0)
        return repr(fit(model, SMALL, TEST, 60, lr=1e-2, early_stopping=3, callbacks=callbacks, progress=False)), bits(model)
    class After:
        def __call__(self, run): run.stop = len(run.history) == 4
    whole = run()
    run([Checkpoint(tmp_path / 'c'), After()])
    assert run([Checkpoint(tmp_path / 'c', resume=True)], MLP(64, 30, 10, rng=5)) == whole

def test_resume_with_exact_capture(tmp_path):
    capture = lambda step: bl.capture(step, exact=True)
    def run(seed, epochs=3, callbacks=()):
        model = MLP(64, 12, 10, rng=seed)
        fit(model, SMALL, epochs=epochs, callbacks=callbacks, capture=capture, progress=False)
        return bits(model)
    run(0, 2, [Checkpoint(tmp_path / 'c')])
    assert run(5, 3, [Checkpoint(tmp_path / 'c', resume=True)]) == run(0)

@pytest.mark.parametrize('change', ['batch', 'shuffle', 'data', 'labels', 'optimizer', 'schedule', 'length', 'model', 'dtype',
                                    'groups', 'weights'])
def test_resume_of_something_else(tmp_path, change):
    def run(callback, c=None):
        model = MLP(64, 9 if c == 'model' else 8, 10, rng=1)
        if c == 'dtype': model.to('f8')
        x, y = SMALL.images.copy(), SMALL.labels.copy()
        if c == 'data': x[0, 3, 3] += .5
        if c == 'labels': y[7] = 9 - y[7]
        params = [*model.parameters()]
        kind = optim.SGD if c == 'optimizer' else optim.Adam
        optimizer = kind([{'params': params[:1]}, {'params': params[1:]}] if c == 'groups' else params, lr=.01)
        make = optim.CosineAnnealingLR if c == 'schedule' else lambda o, n: optim.OneCycleLR(o, .01, n)
        before, state, loader = bits(model), None, DataLoader((x, y), 31 if c == 'batch' else 32, shuffle=c != 'shuffle', seed=1)
        rng = loader.rng.bit_generator.state
        try: fit(model, loader, epochs=3 if c == 'length' else 2, optimizer=optimizer, schedule=make, callbacks=[callback],
                 progress=False)
        except ValueError as e: return str(e), bits(model) == before, loader.rng.bit_generator.state == rng, not optimizer.state
    path = tmp_path / 'c'
    assert run(Checkpoint(path)) is None
    if change == 'weights': save(MLP(64, 8, 10, rng=1), path)
    old = path.read_bytes()
    said, *unchanged = run(Checkpoint(path, resume=True), change)
    assert 'expected' in said and 'found' in said and '\n' not in said and all(unchanged) and path.read_bytes() == old

# --- files that lie ---

def small_checkpoint(path):
    model = MLP(4, 2, rng=0)
    x = np.random.default_rng(0).random((12, 4), np.float32)
    fit(model, (x, np.arange(12) % 2), epochs=1, batch_size=4, callbacks=[Checkpoint(path)], progress=False)
    def resume():
        other = MLP(4, 2, rng=1)
        before = bits(other)
        try: fit(other, (x, np.arange(12) % 2), epochs=2, batch_size=4, callbacks=[Checkpoint(f'{path}.x', resume=path)],
                 progress=False)
        except ValueError as e:
            assert bits(other) == before and '\n' not in str(e) and 'expected' in str(e)
            return str(e)
    return resume

def test_cut_at_every_byte_and_every_bit_flipped(tmp_path):
    path = tmp_path / 'c'
    resume = small_checkpoint(path)
    data = path.read_bytes()
    assert resume() is None
    damaged = [data[:n] for n in range(len(data))]
    for bit in range(8 * len(data)):
        turned = bytearray(data)
        turned[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(turned))
    for i, bad in enumerate(damaged):
        with pytest.raises(ValueError, match='expected'): _decoded(path, bad)
        if i % 50: continue
        path.write_bytes(bad)
        assert resume(), i
    for more in (b'\0', b'x' * 100, data):
        path.write_bytes(data + more)
        assert resume()

def test_random_damage(tmp_path):
    "The reader alone, many times: bytes changed, moved, cut out, doubled; also where there is no seal"
    inputs = FUZZ // 10 or 10_000     # with BACKPROP_LIT_FUZZ a tenth of them, see test_fuzz.py
    seed = random.randrange(2**32) if FUZZ else 0
    rng, path = random.Random(seed), tmp_path / 'm'
    save(MLP(3, 2, rng=0), path)
    sealed = path.read_bytes()
    bare = safetensors_numpy.save(MLP(3, 2, rng=0).state_dict())
    seen = 0
    while seen < inputs:
        for source in (sealed, bare):
            data = bytearray(source)
            for _ in range(rng.randrange(1, 4)):
                i, j = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
                kind = rng.randrange(5)
                if kind == 0: data[i:i + 1] = bytes([rng.randrange(256)])
                elif kind == 1: del data[i:j]
                elif kind == 2: data[i:i] = data[i:j]
                elif kind == 3: data[i:j] = rng.randbytes(j - i)
                else: data[:8] = rng.choice([0, 1, 2**63, 2**64 - 1, len(data), max(len(data) - 8, 0), 2]).to_bytes(8, 'little')
                if not data: break
            seen += 1
            try: found, _ = _decoded(path, bytes(data))
            except ValueError as e: assert '\n' not in str(e) and 'expected' in str(e), (seed, seen)
            else: assert data == sealed or source is bare and all(isinstance(a, np.ndarray) for a in found.values()), (seed, seen)
    print(f'{seen:,} inputs from seed {seed}')

def test_a_refusal_names_the_cause_and_a_longer_training_goes_on(tmp_path):
    "Another batch size changes the schedule too, but is what should be named; more epochs change nothing without a schedule"
    def run(epochs, schedule=None, **how):
        model = MLP(64, 8, 10, rng=0)
        fit(model, SMALL, epochs=epochs, schedule=schedule, seed=0, progress=False, **how)
        return bits(model)
    def cycle(optimizer, steps): return optim.OneCycleLR(optimizer, .1, steps)
    run(2, cycle, batch_size=32, callbacks=[Checkpoint(tmp_path/'c')])
    with pytest.raises(ValueError, match='expected a training with batch_size = 16, found 32'):
        run(2, cycle, batch_size=16, callbacks=[Checkpoint(tmp_path/'x', resume=tmp_path/'c')])
    with pytest.raises(ValueError, match='expected a training with curve'): run(3, cycle, batch_size=32, callbacks=[Checkpoint(tmp_path/'x', resume=tmp_path/'c')])
    run(2, callbacks=[Checkpoint(tmp_path/'d')])
    assert run(4, callbacks=[Checkpoint(tmp_path/'x', resume=tmp_path/'d')]) == run(4)

LIES = {'deep': b'[' * 100_000, 'text': b'{}', 'number': b'3', 'digits': b'{"__metadata__":{"x":' + b'9' * 10_000 + b'}}', 'nul': b'\0' * 50,
        'list': b'[]', 'meta': b'{"__metadata__":3}', 'utf8': b'{"\xff":1}',
        'huge': b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}',
        'overflow': b'{"a":{"dtype":"F32","shape":[18446744073709551615,18446744073709551615],"data_offsets":[0,4]}}',
        'past': b'{"a":{"dtype":"F32","shape":[100],"data_offsets":[0,400]}}', 'negative': b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
        'overlap': b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}',
        'dtype': b'{"a":{"dtype":"OBJECT","shape":[],"data_offsets":[0,4]}}', 'bf16': b'{"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}',
        'note': b'{"__metadata__":{"note":"backprop_lit"}}'}

@pytest.mark.parametrize('name', LIES)
def test_hostile_headers(tmp_path, name):
    path, head, data = tmp_path / 'm', LIES[name], bytes(4)
    path.write_bytes(len(head).to_bytes(8, 'little') + head + data)
    with pytest.raises(ValueError, match='expected'): load(path, MLP(3, 2))

def lie(about, *where, value):
    for key in where[:-1]: about = about[key]
    about[where[-1]] = value

NESTED = {}
for _ in range(200): NESTED = {'a': NESTED}

@pytest.mark.parametrize('where, value', [
    (('version',), 2), (('kind',), 'state'), (('frame',), None), (('frame', 'batch_size'), 5), (('history',), 3), (('history',), [[1]]),
    (('history', 0, 0), 7), (('history', 0, 1), 'low'), (('memory',), []), (('memory', '0'), 3), (('memory', '0', 'step'), 'one'),
    (('memory', '0', 'step'), None), (('memory', '77'), {}), (('memory', 'x'), {}), (('memory', '0'), {}), (('groups',), []), (('groups', 0), 3),
    (('groups', 0, 'lr'), 'big'), (('groups', 0, 'lr'), None), (('groups', 0, 'betas'), 3), (('groups', 0, 'betas'), [1]),
    (('groups', 0, 'params'), [0]), (('groups', 0, 'new'), 1), (('generators',), {}), (('generators', 'loader'), 3),
    (('generators', 'loader', 'state'), {}), (('generators', 'loader', 'state', 'state'), 2 ** 200),
    (('generators', 'loader', 'state', 'state'), -1), (('generators', 'loader', 'bit_generator'), 'MT19937'), (('groups', 0, 'lr'), NESTED)])
def test_lies_with_a_good_seal(tmp_path, where, value):
    "Somebody who computes the seal anew can change numbers, but not more"
    path = tmp_path / 'c'
    resume = small_checkpoint(path)
    arrays, about = _opened(path)
    lie(about, *where, value=value)
    about.pop('sha256')
    path.write_bytes(_sealed(arrays, about))
    assert resume()

@pytest.mark.parametrize('change', ['missing', 'extra', 'dtype', 'shape', 'number', 'name'])
def test_lies_among_the_arrays(tmp_path, change):
    path = tmp_path / 'c'
    resume = small_checkpoint(path)
    arrays, about = _opened(path)
    name = 'optimizer:0:exp_avg'
    a = arrays[name]
    if change == 'missing': del arrays[name]
    if change == 'extra': arrays['optimizer:9:exp_avg'] = a
    if change == 'dtype': arrays[name] = a.astype('f8')
    if change == 'shape': arrays[name] = a[:1]
    if change == 'number': arrays['optimizer:x:exp_avg'] = a
    if change == 'name': arrays['optimizer:exp_avg'] = a
    about.pop('sha256')
    path.write_bytes(_sealed(arrays, about))
    assert resume()

# --- the command ---

def call(capsys, *words):
    code = main(['train', *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err

def test_resume_needs_no_other_words(capsys, tmp_path):
    a, b = tmp_path / 'a', tmp_path / 'b'
    words = '--epochs 3 --hidden 8 --seed 4 --batch 50 --optimizer sgd --lr .2'.split()
    assert call(capsys, *words, '--save', a)[0] == 0
    code, out, err = call(capsys, '--resume', a, '--save', b)
    assert (code, err) == (0, '') and out.splitlines()[-1].startswith('test accuracy') and load(a).keys() == load(b).keys()
    for odd, said in [(['--lr', '.1'], 'expected 0.2'), (['--hidden', '9'], 'expected 8'), (['--epochs', '5'], 'expected 3'),
                      (['--optimizer=adam'], 'expected sgd')]:
        code, out, err = call(capsys, '--resume', a, *odd)
        assert code == 2 and said in err and err.count('\n') == 1 and out == ''
    assert call(capsys, '--resume', a, *words)[0] == 0

def test_mistakes(capsys, tmp_path):
    save(MLP(64, 10), tmp_path / 'weights')
    (tmp_path / 'text').write_text('hello')
    (tmp_path / 'empty').touch()
    for words in [('--resume', tmp_path / 'none'), ('--resume', tmp_path), ('--resume', tmp_path / 'text'), ('--save', tmp_path),
                  ('--resume', tmp_path / 'empty'), ('--resume', tmp_path / 'weights'), ('--save', tmp_path / 'no' / 'file'), ('--save',)]:
        code, out, err = call(capsys, *words)
        assert code == 2 and err.count('\n') == 1 and 'expected' in err, (words, err)

@pytest.mark.parametrize('settings', [{'plot': '/x'}, {'hidden': 'a'}, {'data': 'nowhere'}, {'epochs': '-1'}, {'lr': 'nan'}, {}, 3,
                                      {'hidden': '900000000,900000000'}, {'save': 'x'}, {'model': 3}])
def test_hostile_settings(capsys, tmp_path, settings):
    path = tmp_path / 'c'
    assert call(capsys, '--epochs', 1, '--hidden', 2, '--save', path)[0] == 0
    arrays, about = _opened(path)
    about.pop('sha256')
    path.write_bytes(_sealed(arrays, {**about, 'settings': settings}))
    code, _, err = call(capsys, '--resume', path)
    assert code == 2 and err.count('\n') == 1, err
    assert [*tmp_path.iterdir()] == [path]

COMMAND = [sys.executable, '-c', 'import sys; from backprop_lit.saving import main; sys.exit(main())', 'train']
LONG = '--epochs 12 --hidden 24 --batch 8 --seed 3'.split()

def test_ctrl_c_keeps_the_checkpoint(tmp_path):
    path = tmp_path / 'c'
    process = subprocess.Popen([*COMMAND, '--epochs', '100000', '--save', str(path)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=ENV)
    for _ in range(3): process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    found = re.fullmatch(rf'backprop-lit: interrupted; {path} holds (\d+) epochs\n', err)
    assert process.returncode == 130 and found and len(_opened(path)[1]['history']) == int(found[1]) >= 1

def pressed_after(function, times=1):
    "`function`, and then Ctrl-C at once"
    def wrapped(*args, **kwargs):
        found = function(*args, **kwargs)
        for _ in range(times): signal.raise_signal(signal.SIGINT)
        return found
    return wrapped

def test_second_ctrl_c_while_the_first_is_cleaned_up(tmp_path, monkeypatch):
    real = type(tmp_path).unlink
    def unlink(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        return real(*args, **kwargs)
    monkeypatch.setattr(os, 'fsync', pressed_after(os.fsync))
    monkeypatch.setattr(type(tmp_path), 'unlink', unlink)
    with pytest.raises(KeyboardInterrupt): write_whole(tmp_path / 'm', b'new')
    assert [*tmp_path.iterdir()] == [tmp_path / 'm'] and (tmp_path / 'm').read_bytes() == b'new'

@pytest.mark.parametrize('times', [1, 2])
@pytest.mark.parametrize('step', ['open', 'fsync', 'replace', 'close'])
def test_ctrl_c_while_the_file_is_written(tmp_path, monkeypatch, step, times):
    "The message tells what the file holds, and nothing else is left, whenever the signal comes"
    path = tmp_path / 'c'
    real, calls = getattr(os, step), []
    def sometimes(*args, **kwargs):
        calls.append(args)
        return (pressed_after(real, times) if len(calls) == 4 else real)(*args, **kwargs)
    monkeypatch.setattr(os, step, sometimes)
    checkpoint = Checkpoint(path)
    history = fit(MLP(64, 4, 10, rng=0), SMALL, epochs=50, callbacks=[checkpoint], progress=False)
    monkeypatch.undo()
    held = len(_opened(path)[1]['history'])
    assert history.stopped and held == len(history) < 50 and str(checkpoint) == f'{path} holds {held} epochs'
    assert [*tmp_path.iterdir()] == [path] and signal.getsignal(signal.SIGINT) is signal.default_int_handler

def test_ctrl_c_after_the_renaming_and_the_message_of_the_command(tmp_path, monkeypatch, capsys):
    path, calls, real = tmp_path / 'c', [], os.replace
    def replace(*args):
        real(*args)
        calls.append(args)
        if len(calls) == 3: signal.raise_signal(signal.SIGINT)
    monkeypatch.setattr(os, 'replace', replace)
    code, out, err = call(capsys, '--hidden', 4, '--save', path)
    assert (code, err) == (130, f'backprop-lit: interrupted; {path} holds 2 epochs\n') and out.count('epoch') == 2
    assert len(_opened(path)[1]['history']) == 2

LINES = {sys.modules[Checkpoint.__module__].__file__, sys.modules[fit.__module__].__file__}

def interrupted_at(number, action):
    "Ctrl-C at the line `number` of those that `action` runs in this library's training and saving. Was it reached?"
    count = 0
    def trace(frame, event, arg):
        nonlocal count
        if frame.f_code.co_filename not in LINES: return None
        if event == 'line':
            count += 1
            if count == number:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return trace
    before = sys.gettrace()
    sys.settrace(trace)
    try: action()
    finally: sys.settrace(before)
    return count >= number

def test_ctrl_c_at_any_line(tmp_path):
    "A history, a file that can be read, a message that is true, and no other file"
    path, x = tmp_path / 'c', np.random.default_rng(0).random((12, 4), np.float32)
    data, kept = (x, np.arange(12) % 2), []
    def train():
        history = fit(MLP(4, 2, rng=0), data, data, 2, batch_size=6, callbacks=[Checkpoint(path)], progress=False)
        kept.append((len(history), history.stopped))
    step, number, escaped = int(os.environ.get('BACKPROP_LIT_LINES', 7)), 1, 0
    while True:
        kept.clear()
        path.unlink(missing_ok=True)
        try: reached = interrupted_at(number, train)
        except KeyboardInterrupt:           # before the first epoch, or at the very end
            reached, escaped = True, escaped + 1
        held = len(_opened(path)[1]['history']) if path.exists() else None
        told = str(Checkpoint(path))
        assert told == (f'there is no file {path}' if held is None else f'{path} holds {held} epochs')
        assert {*tmp_path.iterdir()} <= {path} and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if not reached: break
        if kept: assert kept[0][1] and held in (kept[0][0], kept[0][0] - 1), (number, kept, held)
        number += step
    assert number > 300 and kept == [(2, False)] and held == 2
    print(f'{number} lines, {escaped} of the interrupts left fit')

def test_ctrl_c_at_any_line_of_resuming(tmp_path):
    "Either all of the saved training has been taken over, or nothing"
    path, x = tmp_path / 'c', np.random.default_rng(0).random((12, 4), np.float32)
    data = (x, np.arange(12) % 2)
    fit(MLP(4, 2, rng=0), data, epochs=1, batch_size=6, callbacks=[Checkpoint(path)], progress=False)
    saved, old, number = bits(load(path, MLP(4, 2, rng=0))), bits(MLP(4, 2, rng=1)), 1
    while True:
        model = MLP(4, 2, rng=1)
        checkpoint, optimizer = Checkpoint(path, resume=True), optim.Adam(model.parameters())
        def resume(): fit(model, data, epochs=1, batch_size=6, optimizer=optimizer, callbacks=[checkpoint], progress=False)
        try: reached = interrupted_at(number, resume)
        except KeyboardInterrupt: reached = True
        assert (bits(model), len(optimizer.state)) in ((saved, 2), (old, 0)) and len(_opened(path)[1]['history']) == 1 and [*tmp_path.iterdir()] == [path]
        if not reached: break
        number += int(os.environ.get('BACKPROP_LIT_LINES', 7))
    assert bits(model) == saved and number > 100

@pytest.mark.parametrize('place', ['_measure', '_canvas', '_draw', 'History.plot', '_read'])
def test_ctrl_c_elsewhere_in_the_command(tmp_path, capsys, monkeypatch, place):
    pytest.importorskip('matplotlib', reason='--plot needs it')
    from backprop_lit import train as module
    owner, name = (module.History, 'plot') if '.' in place else (module, place)
    path = tmp_path / 'c'
    monkeypatch.setattr(owner, name, pressed_after(getattr(owner, name)))
    code, out, err = call(capsys, '--epochs', 2, '--hidden', 4, '--save', path, '--plot', tmp_path / 'a.svg')
    held = {'_read': None, '_canvas': None, '_measure': 0}.get(place, 2)
    told = f'there is no file {path}' if held is None else f'{path} holds {held} epochs'
    assert (code, err) == (130, f'backprop-lit: interrupted; {told}\n')

def test_message_when_the_file_is_gone_or_something_else(tmp_path):
    path = tmp_path / 'c'
    resume = small_checkpoint(path)
    assert str(Checkpoint(path)) == f'{path} holds 1 epochs'
    save(MLP(2, 2), tmp_path / 'm')
    (tmp_path / 'text').write_text('hello')
    for name in ('m', 'text'): assert str(Checkpoint(tmp_path / name)) == f'{tmp_path / name} holds no checkpoint'
    path.unlink()
    assert str(Checkpoint(path)) == f'there is no file {path}' and str(Checkpoint(tmp_path)) == f'there is no file {tmp_path}'

def test_ctrl_c_outside_the_main_thread_and_with_another_handler(tmp_path):
    import threading
    worker = threading.Thread(target=write_whole, args=(tmp_path / 'a', b'x'))
    worker.start(), worker.join()
    assert (tmp_path / 'a').read_bytes() == b'x'
    seen = []
    for handler in (signal.SIG_IGN, lambda *args: seen.append(args[0])):
        old = signal.signal(signal.SIGINT, handler)
        try:
            write_whole(tmp_path / 'b', b'y')
            assert signal.getsignal(signal.SIGINT) is handler
            with Undisturbed(): signal.raise_signal(signal.SIGINT)
        finally: signal.signal(signal.SIGINT, old)
    assert seen == [signal.SIGINT]

def test_killed_writers_leave_nothing_for_long(tmp_path):
    "The next training deletes what a killed one left half written, and what others write it leaves alone"
    path = tmp_path / 'c*'
    child = subprocess.Popen([sys.executable, '-c', f"""
import os, signal
from backprop_lit import saving
def kill(*args): os.kill(os.getpid(), signal.SIGKILL)
os.replace = kill
saving.write_whole({str(path)!r}, b'half')"""], env=ENV)
    assert child.wait() == -9
    left = tmp_path / f'.c*.{child.pid}.part'
    others = {tmp_path / f'.{name}.part' for name in ('c*.x', 'c*.99999999999999999999', f'c*.{os.getppid()}', f'cc.{child.pid}', 'c*')}
    for other in others: other.touch()
    assert left.exists()
    small_checkpoint(path)
    assert {*tmp_path.iterdir()} == others | {path}

def test_killed_at_random_moments(tmp_path):
    "BACKPROP_LIT_KILLS=50 for the long version"
    rng, path = random.Random(), tmp_path / 'c'
    whole = tmp_path / 'whole'
    began = time.time()
    assert subprocess.run([*COMMAND, *LONG, '--save', str(whole)], capture_output=True, env=ENV).returncode == 0
    length = time.time() - began
    wanted, kills, rounds, at = int(os.environ.get('BACKPROP_LIT_KILLS', 3)), 0, 0, []
    while kills < wanted:
        words = ['--resume', str(path)] if path.exists() else [*LONG, '--save', str(path)]
        process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV)
        try: _, err = process.communicate(timeout=rng.uniform(.1, .9) * length)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            if path.exists(): at.append(len(_opened(path)[1]['history']))      # never unreadable
            continue
        assert process.returncode == 0, err
        assert same(path, whole)
        rounds += 1
        path.unlink()
    words = ['--resume', str(path)] if path.exists() else [*LONG, '--save', str(path)]
    assert subprocess.run([*COMMAND, *words], capture_output=True, env=ENV).returncode == 0
    assert same(path, whole)
    print(f'{kills} kills, {rounds + 1} trainings, epochs at the kills {at}')

def same(path, other):
    a, b = load(path), load(other)
    return a.keys() == b.keys() and all(a[n].tobytes() == b[n].tobytes() for n in a)

def test_model_conv(capsys, tmp_path):
    code, out, err = call(capsys, '--model', 'conv', '--epochs', 6, '--save', tmp_path / 'c')
    assert (code, err) == (0, '') and float(out.split()[-1]) > .85
    assert call(capsys, '--resume', tmp_path / 'c')[1].splitlines()[-1] == out.splitlines()[-1]

def test_with_pytorch(tmp_path):
    torch, flavour = pytest.importorskip('torch'), pytest.importorskip('safetensors.torch')
    model = MLP(5, 4, 3, rng=0)
    save(model, tmp_path / 'm')
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
    net.load_state_dict(flavour.load_file(tmp_path / 'm'))
    flavour.save_file(net.state_dict(), tmp_path / 'back')
    assert bits(load(tmp_path / 'back', MLP(5, 4, 3, rng=2))) == bits(model)
