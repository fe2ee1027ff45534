"The benchmark at tiny sizes: everybody who is there agrees, and who does not is left out."
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parent.parent/'tools'/'bench'
NAMES = ['mlp-2', 'conv-64', 'chain', 'batch']

@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    "What one tiny run writes"
    out = tmp_path_factory.mktemp('bench')/'result'
    done = subprocess.run(
        [sys.executable, BENCH, '--tiny', '--rounds', '2', '--turn', '0.001', '--out', out,
         '--contenders', 'ours', 'captured', 'limit', 'plain', '--only', *NAMES],
        capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.with_suffix('.json').read_text()), done.stdout, out

@pytest.mark.parametrize('name', NAMES)
def test_all_agree(measured, name):
    result = measured[0]['workloads'][name]
    assert not any(why.startswith('wrong') for why in result['left_out'].values())
    assert {'ours', 'limit'} <= {*result['apart']}
    assert max(result['apart'].values()) < 1e-5

@pytest.mark.parametrize('name', NAMES)
def test_every_round_is_there(measured, name):
    result = measured[0]['workloads'][name]
    assert {len(t) for t in result['times'].values()} == {2}
    for f in result['figures'].values():
        low, middle, high = f['ratio']
        assert 0 < low <= middle <= high

def test_table_and_picture(measured):
    results, said, out = measured
    assert all(result['title'] in said for result in results['workloads'].values())
    assert out.with_suffix('.svg').read_text(encoding='utf-8').startswith('<svg')
    assert 'numpy' in results['versions']

@pytest.fixture
def measure(monkeypatch):
    "The module that compares and measures"
    monkeypatch.syspath_prepend(str(BENCH))
    import measure
    return measure

class Fake:
    "A worker that says what it is told to"
    def __init__(self, loss): self.loss = loss
    def __call__(self, order, file, steps):
        np.savez(file, losses=[self.loss], result=np.ones(2))
    def close(self): pass

def test_wrong_contender_is_left_out(measure):
    team = measure.Team([], {}, None)
    team.there = {'torch': Fake(1.0), 'ours': Fake(1.0 + 1e-7), 'fast': Fake(1.1)}
    measure.compared(team, {'kind': 'mlp'}, 'torch', 1)
    assert [*team.there] == ['torch', 'ours']
    assert team.left_out['fast'].startswith('wrong: 1.0e-01')

@pytest.mark.parametrize('loss', [float('nan'), float('inf')])
def test_what_is_not_a_number_is_wrong(measure, loss):
    team = measure.Team([], {}, None)
    team.there = {'torch': Fake(1.0), 'ours': Fake(loss)}
    measure.compared(team, {'kind': 'mlp'}, 'torch', 1)
    assert [*team.there] == ['torch']

def test_missing_package_is_named(measure, monkeypatch):
    monkeypatch.setattr(measure, 'find_spec', lambda name: None)
    team = measure.Team(['torch', 'jax'], {'kind': 'mlp'}, None)
    assert team.left_out == {'torch': 'torch is not installed', 'jax': 'jax is not installed'}

def test_child_gets_one_thread_and_no_advice_about_its_core(measure, monkeypatch):
    seen = {}
    def start(*args, env, **kwargs):
        seen.update(env)
        raise measure.Left('enough')
    monkeypatch.setattr(measure.subprocess, 'Popen', start)
    for name in measure.UNSET: monkeypatch.setenv(name, 'Haswell')
    with pytest.raises(measure.Left): measure.Worker('ours', {'kind': 'mlp'})
    assert not {*measure.UNSET} & {*seen}
    assert seen['OPENBLAS_NUM_THREADS'] == seen['OMP_NUM_THREADS'] == '1'

def test_unknown_workload(measure):
    import workloads
    with pytest.raises(SystemExit, match='mlp-2.*got .nonsense'): workloads.chosen(['nonsense'], False)
