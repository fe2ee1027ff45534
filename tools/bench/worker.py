"""One contender in a process of its own: it takes orders as lines of JSON and answers in kind.

usage: python worker.py CONTENDER WORKLOAD-AS-JSON      (started by bench, not by people)"""
import importlib
import json
import os
import sys
from contextlib import redirect_stdout
from time import perf_counter, process_time

import numpy as np

import workloads

MODULES = {'captured': 'ours', 'plain': 'by_hand', 'limit': 'by_hand', 'jax': 'with_jax',
           'autograd': 'with_autograd', 'mygrad': 'with_mygrad'}
BY_HAND = {'chain': 'Chain', 'batch': 'Batch', 'train': 'Train'}

def job_class(contender, kind):
    "The class that does this kind of work for a contender"
    if contender == 'limit' and kind == 'conv': return importlib.import_module('by_hand_conv').Limit
    if contender == 'ours' or contender.startswith('torch'):
        module = 'ours' if contender == 'ours' else 'with_torch'
    else: module = MODULES[contender]
    module = importlib.import_module(module)
    if module.__name__ != 'by_hand': return module.JOBS[kind]
    return getattr(module, BY_HAND.get(kind, contender.capitalize()))

def number(loss):
    "A loss as a Python number"
    return loss.item() if hasattr(loss, 'item') else float(loss)

class Clock:
    "Seconds of processor time and of the wall, inside a with block"
    def __enter__(self):
        self.cpu, self.wall = process_time(), perf_counter()
        return self
    def __exit__(self, *error):
        self.cpu, self.wall = process_time() - self.cpu, perf_counter() - self.wall

class Steps:
    "Work that is done again and again: steps of training, chains, batches"
    def __init__(self, job, work):
        self.job, self.at, self.args = job, 0, [()]
        if work['kind'] in ('mlp', 'conv'):
            prepare = getattr(job, 'prepare', lambda batch: batch)
            self.args = [prepare(b) for b in workloads.batches(work)]
        self.wait, self.each = getattr(job, 'wait', lambda: None), work['kind'] == 'batch'

    def check(self, file, steps):
        "Takes some steps and writes down losses and what they led to"
        losses, results = [], []
        for i in range(steps):
            loss = self.job.step(*self.args[i % len(self.args)])
            losses.append(0.0 if self.each else number(loss))
            if self.each: results.append(np.array(self.job.result()).reshape(-1))
        result = np.concatenate(results) if self.each else np.asarray(self.job.result())
        np.savez(file, losses=losses, result=result)

    def turn(self, steps):
        "Seconds for one step, over so many"
        args, n, step = self.args, len(self.args), self.job.step
        with Clock() as clock:
            for i in range(self.at, self.at + steps): step(*args[i % n])
            self.wait()
        self.at += steps
        return clock.cpu/steps, clock.wall/steps

    def calibrate(self, seconds):
        "How many steps take this long"
        steps = 1
        while True:
            _, one = self.turn(steps)
            if one*steps > seconds/4 or steps > 1e7: return max(1, round(seconds/one))
            steps *= 2

class Training:
    "A training on MNIST, a stretch of steps at a time"
    def __init__(self, job, work):
        self.job, self.size = job, work['batch']
        self.rng, self.rows = np.random.default_rng(work['seed']), []

    def load(self):
        "Seconds for reading the data"
        with Clock() as clock: self.job.load()
        return clock.cpu, clock.wall

    def stretch(self, steps):
        "Seconds for so many steps, the accuracy after them, and their losses"
        losses = []
        with Clock() as clock:
            for _ in range(steps):
                if not self.rows:
                    order = self.rng.permutation(60_000)
                    self.rows = [order[i:i + self.size] for i in range(0, 60_000, self.size)][::-1]
                losses.append(number(self.job.step(self.rows.pop())))
        return clock.cpu, clock.wall, float(self.job.accuracy()), losses

def resident():
    "Bytes of memory in use by this process"
    with open('/proc/self/statm') as file: pages = int(file.read().split()[1])
    return pages*os.sysconf('SC_PAGE_SIZE')

class Growing:
    "Graphs of many nodes, walked once"
    def __init__(self, job, work): self.job = job

    def grow(self, n):
        "Seconds and bytes for one node of a graph of n, and the gradient"
        copies, before = max(1, 100_000//n), resident()
        with Clock() as forward: ends = [self.job.forward(n) for _ in range(copies)]
        used = resident() - before
        with Clock() as back:
            for i in range(copies):
                g = self.job.backward(ends[i])
                ends[i] = None
        nodes = n*copies
        return (forward.cpu + back.cpu)/nodes, (forward.wall + back.wall)/nodes, used/nodes, float(g[0])

def main(contender, work):
    "Builds the job, says what it is, and follows orders until they end"
    work = json.loads(work)
    sort = {'train': Training, 'growth': Growing}.get(work['kind'], Steps)
    answers = sys.stdout
    with redirect_stdout(sys.stderr):
        try: worker, said = sort(job_class(contender, work['kind'])(work, contender), work), None
        except Exception as error: worker, said = None, f'{type(error).__name__}: {error}'
        print(json.dumps({'failed': said}), file=answers, flush=True)
        for line in sys.stdin if worker else ():
            order, *args = json.loads(line)
            try: answer = {'answer': getattr(worker, order)(*args)}
            except Exception as error: answer = {'failed': f'{type(error).__name__}: {error}'}
            print(json.dumps(answer), file=answers, flush=True)

if __name__ == '__main__': main(*sys.argv[1:])
