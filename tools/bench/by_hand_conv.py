"""Two convolutions by hand: images as (rows, channels, columns, batch), so that the rows under
a kernel are one matrix, and only its columns are ever copied."""
import numpy as np
from by_hand import Surprise, flat
from numpy.lib.stride_tricks import sliding_window_view

import workloads

def slabs(rows, count, kernel=5):
    "For each of `count` results, the `kernel` rows it sees as one matrix: a view"
    K, M = rows.shape[1:]
    return sliding_window_view(rows, kernel, 0).transpose(0, 3, 1, 2)[:count].reshape(
        count, kernel*K, M, copy=False)

class Layer:
    "One convolution (5 × 5), pooling (2 × 2) and ReLU, with all its memory"
    def __init__(self, C, O, height, width, N, last):
        new = lambda *shape: np.zeros(shape, np.float32)
        self.shape, self.h, self.w, self.last = (O, C), height - 4, width - 4, last
        self.cols = new(height, 5*C, self.w*N)
        self.parts = self.cols.reshape(height, 5, C, self.w, N)
        self.seen = slabs(self.cols, self.h)
        self.z, self.tall = new(self.h, O, self.w*N), new(self.h//2, O, self.w*N)
        self.pairs = self.z.reshape(self.h//2, 2, O, self.w*N)
        halves = self.tall.reshape(self.h//2, O, self.w//2, 2, N)
        self.left, self.right = halves[..., 0, :], halves[..., 1, :]
        self.out, self.zeros = (new(self.h//2, O, self.w//2, N) for _ in range(2))
        self.mask = np.empty(self.out.shape, bool)
        self.first = np.empty(self.tall.shape, bool)
        self.dz = new(self.h + 8, O, self.w*N)        # four rows of zeros at either end
        self.inner = self.dz[4:-4].reshape(self.h//2, 2, O, self.w*N)
        self.dtall = new(*self.tall.shape)
        self.dhalves = self.dtall.reshape(halves.shape)
        self.dw, self.dslabs = new(self.h, 25*C, O), slabs(self.dz, height)
        self.dcols, self.dx = new(height, 5*C, self.w*N), new(height, C, width, N)

    def forward(self, x, weight, bias):
        "From the padded images (rows, C, columns, N) to the pooled ones"
        for j in range(5): self.parts[:, j] = x[:, :, j:j + self.w]
        np.matmul(weight, self.seen, out=self.z)
        np.maximum(self.pairs[:, 0], self.pairs[:, 1], out=self.tall)
        np.maximum(self.left, self.right, out=self.out)
        np.add(self.out, bias[:, None, None], out=self.out)
        return np.maximum(self.out, self.zeros, out=self.out)

    def backward(self, g, dweight, dbias, turned):
        "Fills the gradients of kernel and bias; returns that of the padded images"
        np.multiply(g, np.greater(self.out, self.zeros, out=self.mask), out=g)
        np.add.reduce(g, (0, 2, 3), out=dbias)
        np.greater_equal(self.left, self.right, out=self.mask)
        np.multiply(g, self.mask, out=self.dhalves[..., 0, :])
        np.subtract(g, self.dhalves[..., 0, :], out=self.dhalves[..., 1, :])
        np.greater_equal(self.pairs[:, 0], self.pairs[:, 1], out=self.first)
        np.multiply(self.dtall, self.first, out=self.inner[:, 0])
        np.subtract(self.dtall, self.inner[:, 0], out=self.inner[:, 1])
        np.matmul(self.seen, self.dz[4:-4].transpose(0, 2, 1), out=self.dw)
        np.add.reduce(self.dw, 0, out=dweight)
        if self.last: return None
        np.matmul(turned, self.dslabs, out=self.dcols)
        self.dx.fill(0)
        parts = self.dcols.reshape(self.parts.shape)
        for j in range(5): self.dx[:, :, j:j + self.w] += parts[:, j]
        return self.dx

class Limit:
    "A LeNet-like network's step without a single new array"
    def __init__(self, work, variant):
        N, side = work['batch'], work['side']
        k1, b1, k2, b2, w, b = workloads.conv_start(work)
        self.half, self.N, self.lr = side//2, N, np.float32(work['lr'])
        self.p, (self.k1, self.b1, self.k2, self.b2, self.w, self.b) = flat(
            [(25, 8), (8,), (200, 16), (16,), w.shape, (10,)])
        self.g, self.grads = flat([a.shape for a in (self.k1, b1, self.k2, b2, w, b)])
        for ours, theirs in ((self.k1, k1), (self.k2, k2)):      # (kH, kW, C, O)
            ours[...] = theirs.transpose(2, 3, 1, 0).reshape(ours.shape)
        q = (self.half - 4)//2
        self.w[...] = w.reshape(10, 16, q, q).transpose(0, 2, 1, 3).reshape(w.shape)
        self.b1[...], self.b2[...], self.b[...] = b1, b2, b
        self.x = np.zeros((side + 4, 1, side + 4, N), np.float32)
        self.one = Layer(1, 8, side + 4, side + 4, N, True)
        self.two = Layer(8, 16, self.half, self.half, N, False)
        self.loss, self.ones = Surprise(10, N), np.ones(N, np.float32)
        self.gh, self.q = np.empty(self.two.out.shape, np.float32), q

    def step(self, x, labels):
        "One step of gradient descent; the loss before it"
        dk1, db1, dk2, db2, dw, db = self.grads
        self.x[2:-2, 0, 2:-2] = x[:, 0].transpose(1, 2, 0)
        h = self.one.forward(self.x, self.k1.T, self.b1)
        h = self.two.forward(h, self.k2.T, self.b2).reshape(-1, self.N)
        np.add(np.dot(self.w, h, self.loss.z), self.b[:, None], out=self.loss.z)
        loss = self.loss(labels)
        np.dot(self.loss.z, h.T, dw)
        np.dot(self.loss.z, self.ones, db)
        np.dot(self.w.T, self.loss.z, self.gh.reshape(h.shape))
        turned = self.k2.reshape(5, 5, 8, 16)[::-1].transpose(1, 2, 0, 3).reshape(40, 80)
        g = self.two.backward(self.gh, dk2, db2, turned)
        self.one.backward(g, dk1, db1, None)
        self.p -= np.multiply(self.g, self.lr, out=self.g)
        return loss

    def result(self):
        k1, k2 = (a.reshape(5, 5, -1, a.shape[1]).transpose(3, 2, 0, 1)
                  for a in (self.k1, self.k2))
        w = self.w.reshape(10, self.q, 16, self.q).transpose(0, 2, 1, 3)
        return np.concatenate([a.ravel() for a in (k1, self.b1, k2, self.b2, w, self.b)])
