"""What one habit costs: the hand-written step with one thing done otherwise, in turns with it.

usage: python tools/bench/habits.py [rounds]      prints the numbers that chapter 20 shows"""
import os
import sys
from time import process_time

for name in ('OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ[name] = '1'

import numpy as np
from by_hand import Limit

import workloads

class Doubles(Limit):
    "Everything in double precision"
    def __init__(self, work):
        super().__init__(work)
        self.weights = [w.astype(float) for w in self.weights]
        self.biases = [b.astype(float) for b in self.biases]

    def step(self, x, labels): return plain_step(self, x, labels, float)

class Stray(Limit):
    "One float64 number in the gradient of the loss"
    def step(self, x, labels): return plain_step(self, x, labels, np.float64)

class Fresh(Limit):
    "Every result a new array"
    def step(self, x, labels): return plain_step(self, x, labels, np.float32)

def plain_step(net, x, labels, kind):
    "A step with new arrays; the mean is taken with a number of this kind"
    x = x.astype(net.weights[0].dtype, copy=False)
    layers = [x]
    for w, b in zip(net.weights[:-1], net.biases): layers.append(np.maximum(layers[-1] @ w + b, 0))
    z = layers[-1] @ net.weights[-1] + net.biases[-1]
    e = np.exp(z - z.max(1, keepdims=True))
    g = e/e.sum(1, keepdims=True)
    g[np.arange(len(x)), labels] -= 1
    g = g*kind(1/len(x))
    for w, b, h in zip(net.weights[::-1], net.biases[::-1], layers[::-1]):
        dw, db = h.T @ g, g.sum(0)
        if h is not x: g = g @ w.T*(h > 0)
        w -= net.lr*dw
        b -= net.lr*db

class Cleared(Limit):
    "Gradients set to zero, then added to"
    def gradients(self, x, labels):
        "As before, with one pass of zeros and one of additions more"
        loss = super().gradients(x, labels)
        if not hasattr(self, 'total'): self.total = np.empty_like(self.g)
        self.total.fill(0)
        self.total += self.g
        return loss

class Apart(Limit):
    "Each parameter updated by itself"
    def step(self, x, labels):
        "The same step in as many updates as there are parameters"
        loss = self.gradients(x, labels)
        for p, g in zip(self.weights + self.biases, self.dw + self.db):
            p -= np.multiply(g, self.lr, out=g)
        return loss

class Masked(Limit):
    "The slope of ReLU by np.where"
    def through_relu(self, g, h, zero, mask): return np.where(h > zero, g, np.float32(0))

HABITS = {'as it is': Limit, 'new arrays': Fresh, 'one float64': Stray, 'all float64': Doubles,
          'zero, then add': Cleared, 'mask by where': Masked, 'update apart': Apart}

def seconds(net, batches, n):
    "For one step"
    began = process_time()
    for i in range(n): net.step(*batches[i % len(batches)])
    return (process_time() - began)/n

def ratios(work, rounds):
    "Median of each habit's time over the base, inside a round"
    nets, batches = {k: make(work) for k, make in HABITS.items()}, workloads.batches(work)
    count = {k: max(2, int(0.06/max(seconds(net, batches, 20), 1e-6))) for k, net in nets.items()}
    times = np.array([[seconds(net, batches, count[k]) for k, net in nets.items()]
                      for _ in range(rounds)])
    return dict(zip(nets, np.median(times/times[:, :1], axis=0).round(2).tolist()))

def main(rounds=9):
    "The table, with an allocator that keeps what it was given"
    np.empty(2**25 - 2**16, np.uint8)[:0].sum()      # freed at once: raises its thresholds
    if hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for name in ('mlp-2', 'mlp-64', 'mlp-512'): print(name, ratios(workloads.WORKLOADS[name], rounds))

if __name__ == '__main__': main(*map(int, sys.argv[1:]))
