"""Make backprop_lit/digits.npz from the table that scikit-learn ships: 1,797 lines of 64 counts (0 to 16) and a label.

    pip download --no-deps scikit-learn && unzip -j scikit_learn-*.whl sklearn/datasets/data/digits.csv.gz
    python tools/make_digits.py digits.csv.gz            # --check: compare with the file that is there, write nothing
"""
import argparse, hashlib
from pathlib import Path

import numpy as np

SHA256 = '09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22'   # of digits.csv.gz in scikit-learn 1.9.1
TARGET = Path(__file__).resolve().parents[1]/'backprop_lit'/'digits.npz'

def read(csv):
    "The table as `(1797, 8, 8)` counts and `(1797,)` labels, both uint8"
    found = hashlib.sha256(csv.read_bytes()).hexdigest()
    if found != SHA256: raise SystemExit(f'{csv}: expected sha256 {SHA256}, found {found}')
    table = np.loadtxt(csv, delimiter=',', dtype=np.int64)
    images, labels = table[:, :64].reshape(-1, 8, 8), table[:, 64]
    assert table.shape == (1797, 65) and images.min() == 0 and images.max() == 16 and set(labels) == {*range(10)}
    return images.astype(np.uint8), labels.astype(np.uint8)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('csv', type=Path)
    parser.add_argument('--check', action='store_true')
    args = parser.parse_args()
    images, labels = read(args.csv)
    if args.check:
        with np.load(TARGET) as there: same = all(np.array_equal(there[k], v) for k, v in dict(images=images, labels=labels).items())
        raise SystemExit(None if same else f'{TARGET} differs from {args.csv}')
    np.savez_compressed(TARGET, images=images, labels=labels)
    print(f'{TARGET}: {TARGET.stat().st_size:,} bytes')

if __name__ == '__main__': main()
