"PyTorch in its eager mode, as its tutorials write it."
import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import workloads

torch.set_num_threads(1)

class Net:
    "A network, its optimiser, and the step that everybody writes"
    def __init__(self, work, variant):
        layers, start = self.build(work)
        self.model = nn.Sequential(*layers)
        with torch.no_grad():
            for p, a in zip(self.model.parameters(), start): p.copy_(torch.from_numpy(a))
        self.optimizer = self.choose(work)

    def choose(self, work): return torch.optim.SGD(self.model.parameters(), lr=work['lr'])

    def prepare(self, batch): return tuple(map(torch.from_numpy, batch))

    def step(self, x, labels):
        "One step of gradient descent; the loss before it"
        loss = cross_entropy(self.model(x), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def result(self):
        return torch.cat([p.detach().ravel() for p in self.model.parameters()]).numpy()

def linear_layers(sizes):
    "Linear layers with ReLU between them"
    pairs = [(nn.Linear(D, H), nn.ReLU()) for D, H in zip(sizes, sizes[1:])]
    return [layer for pair in pairs for layer in pair][:-1]

class MLP(Net):
    def build(self, work):
        return linear_layers(work['sizes']), workloads.start(work['sizes'], work.get('seed', 1))

class Conv(Net):
    def build(self, work):
        size = 16*((work['side']//2 - 4)//2)**2
        return [nn.Conv2d(1, 8, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(),
                nn.Conv2d(8, 16, 5), nn.MaxPool2d(2), nn.ReLU(),
                nn.Flatten(), nn.Linear(size, 10)], workloads.conv_start(work)

class Chain:
    "x + a, then times b, and so on; then the gradient of the sum"
    def __init__(self, work, variant):
        self.x, self.a, self.b = map(torch.from_numpy, workloads.chain_numbers(work))
        self.x.requires_grad_()
        self.n = work['length']//2

    def step(self):
        "Forward and backward"
        x, a, b = self.x, self.a, self.b
        x.grad = None
        for _ in range(self.n): x = (x + a) * b
        loss = x.sum()
        loss.backward()
        return loss

    def result(self): return self.x.grad.numpy()

class Pictures(torch.utils.data.Dataset):
    "What torchvision's MNIST, ToTensor and Normalize do with one image after the other"
    def __init__(self, images, labels):
        from PIL import Image
        self.images, self.labels = torch.from_numpy(images), torch.from_numpy(labels)
        self.convert = Image.fromarray

    def __len__(self): return len(self.images)
    def __getitem__(self, i):
        image, label = self.convert(self.images[i].numpy()), int(self.labels[i])
        x = torch.from_numpy(np.array(image, copy=True)).view(28, 28, 1)
        x = x.permute((2, 0, 1)).contiguous().to(torch.float32).div(255)
        mean, std = torch.as_tensor([0.0])[:, None, None], torch.as_tensor([1.0])[:, None, None]
        return x.clone().sub_(mean).div_(std), label

class Batch:
    "The next batch from a loader, or by indexing"
    def __init__(self, work, variant):
        images, labels = workloads.pictures(work)
        self.data, self.size = Pictures(images, labels), work['batch']
        if variant != 'torch-loader':
            images, labels = torch.from_numpy(images).float().div(255), torch.from_numpy(labels)
            self.data = TensorDataset(images, labels)
        self.batches = iter(self.loader(False))
        if variant == 'torch': self.batches = self.indexed(torch.arange(len(images)))
        self.again = (lambda: self.indexed(torch.randperm(len(images)))) if variant == 'torch' \
            else (lambda: iter(self.loader(True)))

    def loader(self, mix): return DataLoader(self.data, self.size, shuffle=mix, drop_last=True)

    def indexed(self, order):
        "Batches cut from tensors by their row numbers"
        x, y = self.data.tensors
        for i in range(0, len(order) - self.size + 1, self.size):
            rows = order[i:i + self.size]
            yield x[rows], y[rows]

    def step(self):
        "The next batch"
        try: self.x, self.y = next(self.batches)
        except StopIteration:
            self.batches = self.again()
            self.x, self.y = next(self.batches)

    def result(self): return self.x.numpy()

class Train(MLP):
    "Adam on MNIST, images by row number or through a loader"
    def __init__(self, work, variant):
        super().__init__(work, variant)
        self.loading = variant == 'torch-loader'

    def choose(self, work): return torch.optim.Adam(self.model.parameters(), lr=work['lr'])

    def load(self):
        "Read the files"
        parts = [np.fromfile(p, np.uint8) for p in workloads.mnist_files()]
        images = [p[16:].reshape(-1, 28, 28) for p in parts[::2]]
        self.y, self.answers = (torch.from_numpy(p[8:].astype(np.int64)) for p in parts[1::2])
        self.test = torch.from_numpy(images[1]).float().div(255).view(-1, 784)
        if self.loading: self.data = Pictures(images[0], self.y.numpy())
        else: self.x = torch.from_numpy(images[0]).float().div(255).view(-1, 784)
        self.once, self.step = self.step, self.from_loader if self.loading else self.by_rows

    def by_rows(self, rows):
        rows = torch.from_numpy(rows)
        return self.once(self.x[rows], self.y[rows])

    def from_loader(self, rows):
        x, y = torch.utils.data.default_collate([self.data[i] for i in rows])
        return self.once(x.view(len(x), -1), y)

    def accuracy(self):
        "Share of right answers on the test part"
        with torch.no_grad(): right = self.model(self.test).argmax(1) == self.answers
        return right.float().mean().item()

class Growth:
    "A chain of additions and products of single numbers, as long as asked for"
    def __init__(self, work, variant):
        self.x = torch.ones(1, requires_grad=True)
        self.a, self.b = torch.full((1,), 1e-7), torch.full((1,), 1 - 1e-7)

    def forward(self, n):
        "The end of a chain of n operations"
        x, a, b = self.x, self.a, self.b
        for _ in range(n//2): x = (x + a) * b
        return x

    def backward(self, end):
        "The gradient of the chain's start"
        self.x.grad = None
        end.backward()
        return self.x.grad.numpy()

JOBS = {'mlp': MLP, 'conv': Conv, 'chain': Chain, 'batch': Batch, 'train': Train, 'growth': Growth}
