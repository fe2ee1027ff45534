"HIPS autograd: gradients of functions written with its NumPy."
import autograd.numpy as anp
import numpy as np
from autograd import value_and_grad

import workloads

class MLP:
    "An MLP's loss as a function of its parameters"
    def __init__(self, work, variant):
        self.params, self.lr = workloads.start(work['sizes']), np.float32(work['lr'])
        self.grad = value_and_grad(self.loss)

    @staticmethod
    def loss(params, h, labels):
        "Mean cross-entropy"
        for w, b in zip(params[:-2:2], params[1:-2:2]):
            h = anp.maximum(anp.dot(h, w.T) + b, np.float32(0))
        z = anp.dot(h, params[-2].T) + params[-1]
        z = z - anp.max(z, axis=1, keepdims=True)
        log_p = z - anp.log(anp.sum(anp.exp(z), axis=1, keepdims=True))
        return -anp.mean(log_p[np.arange(len(labels)), labels])

    def step(self, x, labels):
        "One step of gradient descent; the loss before it"
        loss, grads = self.grad(self.params, x, labels)
        for p, g in zip(self.params, grads): p -= self.lr*g
        return loss

    def result(self): return np.concatenate([p.ravel() for p in self.params])

class Chain:
    "x + a, then times b, and so on; then the gradient of the sum"
    def __init__(self, work, variant):
        self.x, self.a, self.b = workloads.chain_numbers(work)
        def walk(x):
            for _ in range(work['length']//2): x = (x + self.a) * self.b
            return anp.sum(x)
        self.walk = value_and_grad(walk)

    def step(self):
        "Forward and backward"
        loss, self.g = self.walk(self.x)
        return loss

    def result(self): return self.g

JOBS = {'mlp': MLP, 'chain': Chain}
