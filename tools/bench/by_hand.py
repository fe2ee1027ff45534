"Hand-written NumPy: as one writes it at first (plain), and with every buffer fixed (limit)."
import numpy as np

import workloads

class Plain:
    "An MLP's step as a good student writes it: every result a new array"
    def __init__(self, work, variant):
        self.lr, start = work['lr'], workloads.start(work['sizes'])
        self.weights = [w.T.copy() for w in start[::2]]
        self.biases = start[1::2]

    def step(self, x, labels):
        "One step of gradient descent; the loss before it"
        hidden = [x]
        for w, b in zip(self.weights, self.biases):
            hidden.append(np.maximum(hidden[-1] @ w + b, 0))
        rows, z = np.arange(len(x)), hidden[-2] @ self.weights[-1] + self.biases[-1]
        z -= z.max(1, keepdims=True)
        e = np.exp(z)
        total = e.sum(1, keepdims=True)
        loss = (np.log(total[:, 0]) - z[rows, labels]).mean()
        g = e/total
        g[rows, labels] -= 1
        self.descend(hidden[:-1], g/np.float32(len(x)))
        return loss

    def descend(self, hidden, g):
        "Back through the layers, each updated as soon as its gradient is known"
        for w, b, h in zip(self.weights[::-1], self.biases[::-1], hidden[::-1]):
            dw, db = h.T @ g, g.sum(0)
            if h is not hidden[0]: g = g @ w.T*(h > 0)
            w -= self.lr*dw
            b -= self.lr*db

    def result(self):
        pairs = zip(self.weights, self.biases)
        return np.concatenate([a.ravel() for w, b in pairs for a in (w.T, b)])

class Surprise:
    "Softmax and cross-entropy, classes first, in fixed memory"
    def __init__(self, classes, batch):
        new = lambda *shape: np.empty(shape, np.float32)
        self.z, self.top, self.total = new(classes, batch), new(batch), new(batch)
        self.picked, self.mask, self.scale = new(batch), new(batch, classes), np.float32(1/batch)
        self.place, self.at = np.arange(batch), np.empty(batch, np.int64)
        self.eye, self.flat = np.eye(classes, dtype=np.float32), self.z.reshape(-1)

    def __call__(self, labels):
        "The mean loss of the logits in `z`; afterwards `z` is its gradient"
        z, total = self.z, self.total
        np.subtract(z, np.maximum.reduce(z, 0, out=self.top), out=z)
        np.add(np.multiply(labels, len(total), out=self.at), self.place, out=self.at)
        self.flat.take(self.at, 0, self.picked, 'clip')
        np.exp(z, out=z)
        np.add.reduce(z, 0, out=total)
        np.multiply(np.divide(self.scale, total, out=self.top), z, out=z)
        self.eye.take(labels, 0, self.mask, 'clip')
        np.subtract(z, np.multiply(self.mask, self.scale, out=self.mask).T, out=z)
        np.subtract(np.log(total, out=total), self.picked, out=total)
        return np.add.reduce(total)*self.scale

def flat(shapes):
    "Zeros in one row, and views of them in these shapes"
    ends = np.cumsum([int(np.prod(s)) for s in shapes])
    row = np.zeros(ends[-1], np.float32)
    return row, [part.reshape(s) for part, s in zip(np.split(row, ends[:-1]), shapes)]

def adam(w, g, m, v, room, t, lr):
    "One step of Adam on flat arrays, in place"
    whole = (1 - 0.999**t)**.5
    m += np.multiply(np.subtract(g, m, out=room), 0.1, out=room)
    v *= 0.999
    v += np.multiply(np.multiply(g, g, out=room), 1 - 0.999, out=room)
    root = np.add(np.sqrt(v, out=room), 1e-8*whole, out=room)
    w -= np.multiply(np.divide(m, root, out=room), lr*whole/(1 - 0.9**t), out=room)

class Limit:
    "An MLP's step without a single new array: parameters in one row, gradients in another"
    def __init__(self, work, variant=None):
        start, self.work, self.t = workloads.start(work['sizes'], work.get('seed', 1)), work, 0
        self.made, shapes = {}, [a.T.shape for a in start]
        (self.p, views), (self.g, grads) = flat(shapes), flat(shapes)
        for view, a in zip(views, start): view[...] = a.T
        self.weights, self.biases, self.turned = views[::2], views[1::2], [w.T for w in views[::2]]
        self.dw, self.db = grads[::2], grads[1::2]
        self.m, self.v, self.room = (np.zeros_like(self.p) for _ in range(3))
        self.lr = np.float32(work['lr'])

    def memory(self, B):
        "What a batch of B needs: layers, their gradients, masks, zeros, ones, the loss"
        sizes = self.work['sizes'][1:]
        layers, grads, zeros = ([np.zeros((B, n), np.float32) for n in sizes] for _ in range(3))
        masks = [np.empty((B, n), bool) for n in sizes]
        surprise = Surprise(sizes[-1], B)
        return layers, grads, masks, zeros, np.ones(B, np.float32), surprise

    def gradients(self, x, labels):
        "The loss, with all gradients in `self.g`"
        if len(x) not in self.made: self.made[len(x)] = self.memory(len(x))
        layers, grads, masks, zeros, ones, surprise = self.made[len(x)]
        h, last = x, len(layers) - 1
        for i, (w, b, z) in enumerate(zip(self.weights, self.biases, layers)):
            np.add(np.dot(h, w, z), b, out=z)
            if i < last: h = np.maximum(z, zeros[i], out=z)
        np.copyto(surprise.z, z.T)
        loss = surprise(labels)
        g = grads[last]
        np.copyto(g, surprise.z.T)
        for i in range(last, -1, -1):
            h = layers[i - 1] if i else x
            np.dot(h.T, g, self.dw[i])
            np.dot(ones, g, self.db[i])
            if not i: return loss
            below = np.dot(g, self.turned[i], grads[i - 1])
            g = self.through_relu(below, h, zeros[i - 1], masks[i - 1])

    def through_relu(self, g, h, zero, mask):
        "The gradient where the layer's output is above zero"
        return np.multiply(g, np.greater(h, zero, out=mask), out=g)

    def step(self, x, labels):
        "One step of gradient descent; the loss before it"
        loss = self.gradients(x, labels)
        self.p -= np.multiply(self.g, self.lr, out=self.g)
        return loss

    def result(self):
        pairs = zip(self.weights, self.biases)
        return np.concatenate([a.ravel() for w, b in pairs for a in (w.T, b)])

class Chain:
    "The calls that a chain and its gradient need, into a fixed list of buffers"
    def __init__(self, work, variant):
        self.x, self.a, self.b = workloads.chain_numbers(work)
        self.n, self.out = work['length']//2, np.empty((work['length'], work['shape']), np.float32)
        self.rows, self.g = list(self.out), np.empty_like(self.x)

    def step(self):
        "Forward into the rows, backward in one buffer"
        x, a, b, add, mul = self.x, self.a, self.b, np.add, np.multiply
        for i in range(0, 2*self.n, 2):
            x = mul(add(x, a, self.rows[i]), b, self.rows[i + 1])
        loss = np.add.reduce(x)
        self.g.fill(1)
        for i in range(self.n): mul(self.g, b, self.g)
        return loss

    def result(self): return self.g

class Batch:
    "Rows of one array, by number, into one buffer"
    def __init__(self, work, variant):
        images, self.labels = workloads.pictures(work)
        self.images = np.divide(images, np.float32(255), dtype=np.float32)
        self.size, self.rng = work['batch'], np.random.default_rng(0)
        self.x, self.y = np.empty((self.size, 28, 28), np.float32), np.empty(self.size, np.int64)
        self.at, self.order = 0, np.arange(len(images))

    def step(self):
        "The next batch"
        if self.at + self.size > len(self.order):
            self.at, self.order = 0, self.rng.permutation(len(self.order))
        rows = self.order[self.at:self.at + self.size]
        self.at += self.size
        self.images.take(rows, 0, self.x, 'clip')
        self.labels.take(rows, 0, self.y, 'clip')

    def result(self): return self.x

class Train(Limit):
    "Adam on MNIST, all in memory"
    def load(self):
        "Read the files"
        images, labels = ([np.fromfile(p, np.uint8) for p in workloads.mnist_files()[i::2]]
                          for i in (0, 1))
        def scaled(a): return np.divide(a[16:], np.float32(255), dtype=np.float32).reshape(-1, 784)
        self.x, self.test = map(scaled, images)
        self.y, self.answers = (a[8:].astype(np.int64) for a in labels)

    def step(self, rows):
        "One step on the images with these numbers"
        self.t += 1
        loss = self.gradients(self.x.take(rows, 0), self.y.take(rows))
        adam(self.p, self.g, self.m, self.v, self.room, self.t, self.work['lr'])
        return loss

    def accuracy(self):
        "Share of right answers on the test part"
        h = self.test
        for w, b in zip(self.weights[:-1], self.biases): h = np.maximum(h @ w + b, 0)
        return ((h @ self.weights[-1] + self.biases[-1]).argmax(1) == self.answers).mean()
