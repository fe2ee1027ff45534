"Workers are started, compared with each other, and take turns."
import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import workloads

HERE = Path(__file__).resolve().parent
NEEDS = {'torch': 'torch', 'jax': 'jax', 'autograd': 'autograd', 'mygrad': 'mygrad'}
ONE_THREAD = {name: '1' for name in '''OPENBLAS_NUM_THREADS OMP_NUM_THREADS MKL_NUM_THREADS
    NUMEXPR_NUM_THREADS VECLIB_MAXIMUM_THREADS'''.split()} | {
    'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': '--xla_cpu_multi_thread_eigen=false'}
UNSET = 'OPENBLAS_CORETYPE', 'OPENBLAS_L2_SIZE'      # a BLAS that was told what it runs on
TOLERANCE = {'mlp': 2e-5, 'conv': 2e-5, 'chain': 1e-5, 'batch': 1e-6, 'train': 1e-3}
# few: in time a kink is passed by a rounding error here and not there, and paths part
COMPARED = {'mlp': 8, 'conv': 4, 'chain': 1, 'batch': 4}

def last_core():
    "A core that this process may use"
    return max(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else None

class Left(Exception):
    "Why a contender does not take part"

class Worker:
    "A contender's process"
    def __init__(self, name, work, core=None):
        needs = NEEDS.get(name.split('-')[0])
        if needs and not find_spec(needs): raise Left(f'{needs} is not installed')
        env = {k: v for k, v in os.environ.items() if k not in UNSET} | ONE_THREAD
        self.process = subprocess.Popen(
            [sys.executable, '-W', 'ignore', str(HERE/'worker.py'), name, json.dumps(work)],
            text=True, cwd=HERE.parents[1], env=env, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if core is not None and hasattr(os, 'sched_setaffinity'):
            os.sched_setaffinity(self.process.pid, {core})
        self.answer()

    def answer(self):
        "What the process says next"
        line = self.process.stdout.readline()
        said = json.loads(line) if line else {'failed': f'ended with {self.process.wait()}'}
        if said.get('failed'): raise Left(said['failed'].splitlines()[0])
        return said.get('answer')

    def __call__(self, order, *args):
        self.process.stdin.write(json.dumps([order, *args]) + '\n')
        self.process.stdin.flush()
        return self.answer()

    def close(self):
        "Let it end"
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

class Team:
    "The contenders of one workload; whoever fails is left out with a reason"
    def __init__(self, names, work, core):
        self.there, self.left_out = {}, {}
        for name in names:
            try: self.there[name] = Worker(name, work, core)
            except Left as reason: self.left_out[name] = str(reason)

    def ask(self, name, order, *args):
        "The worker's answer; None if it failed, and from then on it is left out"
        try: return self.there[name](order, *args)
        except Left as reason:
            self.leave(name, str(reason))

    def leave(self, name, reason):
        "Send a worker home"
        self.left_out[name] = reason
        self.there.pop(name).close()

    def __enter__(self): return self
    def __exit__(self, *error):
        for worker in self.there.values(): worker.close()

def difference(a, b):
    "The largest difference of two arrays, against the largest number in them"
    if a.shape != b.shape or not np.isfinite(a).all(): return float('inf')
    return float(np.abs(a - b).max()/max(np.abs(b).max(), 1e-30))

def compared(team, work, reference, steps):
    "How far each contender is from the reference after so many steps; who is wrong must leave"
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in [*team.there]:
            file = str(Path(folder)/f'{name}.npz')
            team.ask(name, 'check', file, steps)
            if name in team.there:
                with np.load(file) as stored: found[name] = dict(stored)
    if not found: raise RuntimeError(f'nobody is there: {team.left_out}')
    base = found[reference if reference in found else next(iter(found))]
    apart = {name: max(difference(f[k].astype(float).ravel(), base[k].astype(float).ravel())
                       for k in base) for name, f in found.items()}
    for name, error in apart.items():
        if error > TOLERANCE[work['kind']]: team.leave(name, f'wrong: {error:.1e} away from the others')
    return apart

def turning(names, round):
    "The contenders in another order each round"
    names = [*names]
    k = round % len(names) if names else 0
    return names[k:] + names[:k]

def steps(names, work, reference, options):
    "Work in turns of about a tenth of a second"
    with Team(names, work, options.core) as team:
        apart = compared(team, work, reference, COMPARED[work['kind']])
        number = {name: team.ask(name, 'calibrate', options.turn) for name in [*team.there]}
        times = {name: [] for name in team.there}
        for round in range(options.rounds):
            for name in turning(team.there, round):
                times[name].append(team.ask(name, 'turn', number[name]))
        times = {name: times[name] for name in team.there}
        return dict(times=times, apart=apart, left_out=team.left_out, unit='step')

def training(names, work, reference, options):
    "From the first step to the goal, fifty steps at a time; one round for each start"
    workloads.mnist_files()
    times, left, apart, reached = {}, {}, {}, {}
    for seed in range(1, 1 + min(options.rounds, options.starts)):
        if seed > 1: names = [n for n in names if n != 'torch-loader']     # tens of seconds
        with Team(names, work | {'seed': seed}, options.core) as team:
            spent = {name: np.array(team.ask(name, 'load')) for name in [*team.there]}
            losses = race(team, spent, work['goal'], reached)
            base = losses.get(reference, next(iter(losses.values())))
            for name in team.there:
                times.setdefault(name, []).append(spent[name].tolist())
                apart[name] = max(apart.get(name, 0), difference(losses[name], base))
            left |= team.left_out
    return dict(times=times, apart=apart, left_out=left, unit='training', steps=reached)

def race(team, spent, goal, reached):
    "Everybody trains until the goal is reached; losses of the first stretch"
    first, running, taken = {}, [*team.there], 0
    while running:
        taken += 50
        for name in [*running]:
            answer = team.ask(name, 'stretch', 50)
            if answer is None:
                running.remove(name)
                continue
            spent[name] += answer[:2]
            first.setdefault(name, np.array(answer[3]))
            if answer[2] >= goal:
                running.remove(name)
                reached.setdefault(name, []).append(taken)
    return first

def growing(names, work, reference, options):
    "One graph of each length, in a new process every time"
    times, left, nodes = {}, {}, {}
    for round in range(min(options.rounds, options.starts)):
        for n in work['lengths']:
            with Team(names, work, options.core) as team:
                for name in [*team.there]:
                    answer = team.ask(name, 'grow', n)
                    if answer is None: continue
                    times.setdefault(f'{name} {n:,}', []).append(answer[:2])
                    nodes.setdefault(f'{name} {n:,}', []).append(answer[2])
                left |= team.left_out
    memory = {name: float(np.median(b)) for name, b in nodes.items()}
    return dict(times=times, apart={}, left_out=left, unit='operation', bytes=memory)

KINDS = {'train': training, 'growth': growing}
