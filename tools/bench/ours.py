"This library: as one writes it (ours), and recorded and replayed (captured)."
import numpy as np

import backprop_lit as bl
import workloads

def recorded(step, variant):
    "The step itself, or its recording"
    if variant != 'captured': return step
    from backprop_lit.program import capture
    return capture(step)

class Net:
    "A network, its optimiser, and the step that everybody writes"
    def __init__(self, work, variant):
        self.model, start = self.build(work)
        for p, a in zip(self.model.parameters(), start): p.data = a.copy()
        self.optimizer = self.choose(work)
        self.step = recorded(self.train_step, variant)

    def choose(self, work): return bl.SGD(self.model.parameters(), lr=work['lr'])

    def train_step(self, x, labels):
        "One step of gradient descent; the loss before it"
        loss = bl.cross_entropy(self.model(bl.Tensor(x)), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def result(self): return np.concatenate([p.data.ravel() for p in self.model.parameters()])

class MLP(Net):
    def build(self, work):
        sizes = work['sizes']
        return bl.MLP(*sizes), workloads.start(sizes, work.get('seed', 1))

class Conv(Net):
    def build(self, work):
        return bl.LeNet((work['side'], work['side']), rng=0), workloads.conv_start(work)

class Chain:
    "x + a, then times b, and so on; then the gradient of the sum"
    def __init__(self, work, variant):
        x, a, b = workloads.chain_numbers(work)
        self.x, self.n = bl.Tensor(x, requires_grad=True), work['length']//2
        self.a, self.b = bl.Tensor(a), bl.Tensor(b)
        self.step = recorded(self.walk, variant)

    def walk(self):
        "Forward and backward"
        x, a, b = self.x, self.a, self.b
        x.grad = None
        for _ in range(self.n): x = (x + a) * b
        loss = x.sum()
        loss.backward()
        return loss

    def result(self): return self.x.grad.data

class Batch:
    "A loader over arrays"
    def __init__(self, work, variant):
        images, labels = workloads.pictures(work)
        images = np.divide(images, np.float32(255), dtype=np.float32)
        self.in_order, self.mixed = (bl.DataLoader((images, labels), work['batch'], shuffle=mix,
                                                   seed=0, drop_last=True) for mix in (False, True))
        self.batches = iter(self.in_order)

    def step(self):
        "The next batch"
        try: self.x, self.y = next(self.batches)
        except StopIteration:
            self.batches = iter(self.mixed)
            self.x, self.y = next(self.batches)

    def result(self): return self.x

class Train(MLP):
    "Adam on MNIST"
    def choose(self, work): return bl.Adam(self.model.parameters(), lr=work['lr'])

    def load(self):
        "Read the files"
        (self.x, self.y), (self.test, self.answers) = bl.mnist()
        self.once = self.step
        self.step = lambda rows: self.once(self.x.take(rows, 0), self.y.take(rows, 0))

    def accuracy(self): return bl.evaluate(self.model, (self.test, self.answers)).accuracy

class Growth:
    "A chain of additions and products of single numbers, as long as asked for"
    def __init__(self, work, variant):
        self.x = bl.Tensor(np.ones(1, np.float32), requires_grad=True)
        self.a = bl.Tensor(np.full(1, 1e-7, np.float32))
        self.b = bl.Tensor(np.full(1, 1 - 1e-7, np.float32))

    def forward(self, n):
        "The end of a chain of n operations"
        x, a, b = self.x, self.a, self.b
        for _ in range(n//2): x = (x + a) * b
        return x

    def backward(self, end):
        "The gradient of the chain's start"
        self.x.grad = None
        end.backward()
        return self.x.grad.data

JOBS = {'mlp': MLP, 'conv': Conv, 'chain': Chain, 'batch': Batch, 'train': Train, 'growth': Growth}
