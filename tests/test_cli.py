"The command backprop-lit, as a user meets it: in a terminal, in a pipe, with mistakes."
import os
import re
import shutil
import signal
import subprocess
import sys

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')      # two threads on small products wait for each other

import numpy as np
import pytest

from backprop_lit import train as module
from backprop_lit.saving import main

COMMAND = [sys.executable, '-W', 'error', '-c', 'import sys; from backprop_lit.saving import main; sys.exit(main())']
LINE = r'epoch +\d+/\d+   loss \d+\.\d{4}   train [01]\.\d{4}   test [01]\.\d{4}   \d+\.\d s'

BUFFERED = {k: v for k, v in os.environ.items() if k != 'PYTHONUNBUFFERED'}

def run(*words, **options):
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=120, **options)

def call(capsys, *words):
    code = main(list(words))
    out, err = capsys.readouterr()
    return code, out, err

def test_plain_lines_in_a_pipe():
    result = run('train')
    lines = result.stdout.splitlines()
    assert result.returncode == 0 and result.stderr == '' and len(lines) == 22
    assert all(re.fullmatch(LINE, line) for line in lines[1:-1])
    found = re.fullmatch(r'test accuracy (0\.\d{4})', lines[-1])
    assert float(found[1]) >= 0.96
    assert run('train').stdout.splitlines()[-1] == lines[-1]

@pytest.mark.parametrize('seed', range(1, 5))
def test_floor_for_other_seeds(capsys, seed):
    code, out, _ = call(capsys, 'train', '--seed', str(seed))
    assert code == 0 and float(out.split()[-1]) >= 0.96

def test_sgd_and_other_choices(capsys):
    code, out, _ = call(capsys, 'train', '--optimizer', 'sgd')
    assert code == 0 and float(out.split()[-1]) >= 0.96
    code, out, _ = call(capsys, 'train', '--hidden', '', '--epochs', '2', '--batch', '7', '--lr', '.01', '--seed', '3')
    assert code == 0 and '650 weights' in out and out.count('epoch') == 2

def on_terminal(*words, keys=b'', after=b'\xff'):
    "What a pseudo-terminal shows, and the exit code"
    pty = pytest.importorskip('pty')
    pid, fd = pty.fork()
    if pid == 0: os.execvpe(COMMAND[0], [*COMMAND, *words], {**os.environ, 'PYTHONUTF8': '1', 'COLUMNS': '100'})
    shown, sent = b'', False
    while True:
        try: data = os.read(fd, 65536)
        except OSError: break
        if not data: break
        shown += data
        if keys and not sent and after in shown:
            os.write(fd, keys)
            sent = True
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(fd)
    return shown.decode(), code

def test_bar_on_a_terminal():
    shown, code = on_terminal('train', '--epochs', '6', '--batch', '2')
    assert code == 0 and shown.splitlines()[-1].startswith('test accuracy 0.')
    assert re.search(r'\repoch \d+/6 ━*╌* +\d+%   [\d,]+ images/s   \d+:\d\d left   loss \d', shown)
    lines = [line.split('\r')[-1] for line in shown.replace('\r\n', '\n').split('\n')]
    assert sum(bool(re.fullmatch(LINE, line)) for line in lines) == 6

def test_ctrl_c_on_a_terminal():
    shown, code = on_terminal('train', '--epochs', '100000', keys=b'\x03', after=b'epoch      2/100000   ')
    assert code == 130 and 'Traceback' not in shown and shown.rstrip().endswith('interrupted')

def test_interrupted_in_a_pipe():
    process = subprocess.Popen([*COMMAND, 'train', '--epochs', '100000'], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    for _ in range(3): process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == 'backprop-lit: interrupted\n' and 'accuracy' not in out

def test_reader_gone():
    process = subprocess.Popen([*COMMAND, 'train', '--epochs', '3000'], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=BUFFERED)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 1 and process.stderr.read() == ''

@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs /dev/full')
def test_full_disk():
    for words in ('train', '--epochs', '1'), ('train', '--help'):
        with open('/dev/full', 'w') as full:
            result = subprocess.run([*COMMAND, *words], stdout=full, stderr=subprocess.PIPE, text=True, env=BUFFERED)
        assert result.returncode == 2 and result.stderr.count('\n') == 1 and 'No space left' in result.stderr

@pytest.mark.parametrize('locale', ['C', 'C.UTF-8'])
def test_locales(locale):
    env = {**os.environ, 'LC_ALL': locale, 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}
    result = run('train', '--epochs', '1', env=env)
    assert result.returncode == 0 and result.stderr == ''
    result = run('train', '--data', 'näßlich', env=env)
    assert result.returncode == 2 and result.stderr.count('\n') == 1 and 'Traceback' not in result.stderr

MISTAKES = [('--epochs -1', "--epochs: expected a whole number ≥ 1, got '-1'"), ('--epochs 0', "got '0'"), ('--epochs 1.5', "'1.5'"),
            ('--epochs ten', "'ten'"), ('--batch 0', '--batch'), ('--batch -64', '--batch'), ('--batch', 'expected one argument'),
            ('--lr 0', '--lr: expected a number > 0'), ('--lr -0.1', '--lr'), ('--lr nan', '--lr'), ('--lr inf', '--lr'), ('--lr x', "'x'"),
            ('--seed -1', '--seed'), ('--hidden 10,-1', '--hidden'), ('--hidden 1,,2', '--hidden'), ('--hidden 9999999999', '--hidden'),
            ('--optimizer adamw', "'adam', 'sgd'|adam, sgd"), ('--model conv5', '--model'), ('--data digit', "got 'digit'"),
            ('--data', 'expected one argument'), ('--what 3', '--what'), ('--dat digits', '--dat'), ('extra', 'extra'),
            ('--plot curve.txt', 'curve.txt'), ('--plot curve', "got 'curve'"), ('--plot nowhere/a.svg', 'nowhere'),
            ('--lr 1e30 --optimizer sgd --epochs 2', 'finite loss'), ('--hidden 900000000,900000000', 'allocate')]

@pytest.mark.parametrize('words, expected', MISTAKES)
def test_mistakes(capsys, words, expected):
    code, _, err = call(capsys, 'train', *words.split())
    assert code == 2 and err.count('\n') == 1 and err.startswith('backprop-lit') and re.search(expected, err)

def test_mistakes_without_traceback_in_a_process():
    for words in [('train', '--epochs', '-1'), ('train', '--data', 'nowhere'), (), ('trian',), ('--wrong',)]:
        result = run(*words)
        assert result.returncode == 2 and result.stderr.count('\n') == 1 and result.stdout == '', words

def test_help_and_version(capsys):
    code, out, err = call(capsys, 'train', '--help')
    assert code == 0 and err == '' and 'backprop-lit train --data mnist' in out and 'BACKPROP_LIT_DATA' in out
    assert all(f'--{name}' in out for name in 'data model hidden epochs batch optimizer lr seed plot'.split())
    assert call(capsys, '--help')[0] == 0
    assert re.fullmatch(r'backprop-lit \d+\.\d+\.\d+\n', call(capsys, '--version')[1])

@pytest.mark.parametrize('kind', ['svg', 'png', 'pdf'])
def test_plot(capsys, tmp_path, kind):
    pytest.importorskip('matplotlib')
    path = tmp_path / f'curve.{kind}'
    assert call(capsys, 'train', '--epochs', '2', '--plot', str(path))[0] == 0
    assert path.stat().st_size > 1000

def test_plot_where_nothing_can_be_written(capsys, tmp_path):
    pytest.importorskip('matplotlib')
    (tmp_path / 'folder.svg').mkdir()
    for path in [tmp_path / 'folder.svg', tmp_path / 'no' / 'a.svg', tmp_path / 'file' / 'a.svg']:
        (tmp_path / 'file').touch()
        code, out, err = call(capsys, 'train', '--plot', str(path))
        assert code == 2 and out == '' and err.count('\n') == 1

def test_plot_without_matplotlib(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
    code, out, err = call(capsys, 'train', '--plot', 'a.svg')
    assert code == 2 and out == '' and 'backprop_lit[plot]' in err and err.count('\n') == 1

def write_idx(path, array):
    head = bytes([0, 0, 8, array.ndim]) + b''.join(n.to_bytes(4, 'big') for n in array.shape)
    path.write_bytes(head + array.tobytes())

@pytest.fixture
def folder(tmp_path):
    "A small data set in torchvision's layout"
    raw = tmp_path / 'data' / 'MNIST' / 'raw'
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, n in (('train', 60), ('t10k', 20)):
        labels = np.arange(n, dtype=np.uint8) % 10
        images = (rng.integers(0, 60, (n, 6, 6)) + 19 * labels[:, None, None]).astype(np.uint8)
        write_idx(raw / f'{part}-images-idx3-ubyte', images)
        write_idx(raw / f'{part}-labels-idx1-ubyte', labels)
    return tmp_path / 'data'

def test_folder(capsys, folder):
    for path in (folder, folder / 'MNIST' / 'raw'):
        code, out, err = call(capsys, 'train', '--data', str(path))
        assert (code, err) == (0, '') and out.startswith('60 images to learn from, 20 to test with') and out.count('epoch') == 5

@pytest.mark.parametrize('name', ['train-images-idx3-ubyte', 't10k-labels-idx1-ubyte'])
@pytest.mark.parametrize('damage', ['cut', 'foreign', 'empty', 'longer', 'folder'])
def test_damaged_files(capsys, folder, name, damage):
    path = folder / 'MNIST' / 'raw' / name
    whole = path.read_bytes()
    if damage == 'folder': path.unlink(), path.mkdir()
    else: path.write_bytes({'cut': whole[:-3], 'foreign': b'GIF89a' + whole, 'empty': b'', 'longer': whole + b'0'}[damage])
    code, out, err = call(capsys, 'train', '--data', str(folder))
    assert code == 2 and out == '' and err.count('\n') == 1 and name in err

def test_missing_files(capsys, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torchvision', None)
    monkeypatch.setitem(sys.modules, 'torchvision.datasets', None)
    (folder / 'MNIST' / 'raw' / 't10k-labels-idx1-ubyte').unlink()
    code, out, err = call(capsys, 'train', '--data', str(folder))
    assert code == 2 and err.count('\n') == 1 and 't10k-labels-idx1-ubyte' in err and 'torchvision' in err
    code, out, err = call(capsys, 'train', '--data', str(tmp_path))
    assert code == 2 and err.count('\n') == 1 and 'train-images-idx3-ubyte' in err
    monkeypatch.setenv('BACKPROP_LIT_DATA', str(tmp_path / 'empty'))
    code, out, err = call(capsys, 'train', '--data', 'mnist')
    assert code == 2 and err.count('\n') == 1 and 'BACKPROP_LIT_DATA' in err

def test_starts_without_heavy_imports():
    code = ('import sys; from backprop_lit.saving import main\ntry: main(["train", "--help"])\nexcept SystemExit: pass\n'
            'assert not {"torch", "torchvision", "matplotlib", "IPython", "nbdev", "safetensors"} & set(sys.modules)')
    assert subprocess.run([sys.executable, '-c', code], capture_output=True).returncode == 0

def test_console_script():
    script = shutil.which('backprop-lit', path=os.path.dirname(sys.executable))
    if not script: pytest.skip('the package is not installed')
    assert subprocess.run([script, '--version'], capture_output=True, text=True).stdout.startswith('backprop-lit ')

def test_mnist(capsys):
    if not os.environ.get('BACKPROP_LIT_DATA'): pytest.skip('BACKPROP_LIT_DATA names no folder with MNIST')
    code, out, _ = call(capsys, 'train', '--data', 'mnist', '--epochs', '2')
    assert code == 0 and float(out.split()[-1]) >= 0.965
