"MyGrad, with its guard against changed arrays switched off, which is its faster way."
import mygrad
import numpy as np
from mygrad.nnet.activations import relu
from mygrad.nnet.layers import conv_nd, max_pool
from mygrad.nnet.losses import softmax_crossentropy

import workloads

mygrad.turn_memory_guarding_off()

class Net:
    "Parameters, and the step that everybody writes"
    def __init__(self, work, variant):
        self.params = [mygrad.tensor(a) for a in self.start(work)]
        self.lr = np.float32(work['lr'])

    def step(self, x, labels):
        "One step of gradient descent; the loss before it"
        loss = softmax_crossentropy(self.logits(x), labels)
        loss.backward()
        for p in self.params: p.data -= self.lr*p.grad
        return float(loss)

    def result(self): return np.concatenate([p.data.ravel() for p in self.params])

class MLP(Net):
    def start(self, work): return workloads.start(work['sizes'])

    def logits(self, h):
        "Of an MLP"
        *inner, last = zip(self.params[::2], self.params[1::2])
        for w, b in inner: h = relu(mygrad.matmul(h, w.T) + b)
        return mygrad.matmul(h, last[0].T) + last[1]

class Conv(Net):
    def start(self, work): return workloads.conv_start(work)

    def logits(self, h):
        "Of two convolutions and a linear layer"
        for w, b, pad in ((*self.params[:2], 2), (*self.params[2:4], 0)):
            h = conv_nd(h, w, stride=1, padding=pad) + b.reshape(1, -1, 1, 1)
            h = relu(max_pool(h, (2, 2), 2))
        return mygrad.matmul(h.reshape(len(h), -1), self.params[4].T) + self.params[5]

class Chain:
    "x + a, then times b, and so on; then the gradient of the sum"
    def __init__(self, work, variant):
        x, self.a, self.b = workloads.chain_numbers(work)
        self.x, self.n = mygrad.tensor(x), work['length']//2

    def step(self):
        "Forward and backward"
        x = self.x
        for _ in range(self.n): x = (x + self.a) * self.b
        loss = x.sum()
        loss.backward()
        return loss

    def result(self): return self.x.grad

JOBS = {'mlp': MLP, 'conv': Conv, 'chain': Chain}
