"""How the cost of a step grows with batch, width and depth.

usage: python tools/bench/scaling.py [rounds]      prints the numbers that chapter 20 draws"""
import sys

import measure
import numpy as np

import workloads

NAMES = 'ours', 'captured', 'limit', 'torch'
GROW = {'batch': [(b, (784, 100, 200, 10), b) for b in (1, 4, 16, 64, 256, 1024)],
        'width': [(h, (784, h, h, 10), 64) for h in (8, 32, 128, 512, 1024)],
        'depth': [(d, (784, *[64]*d, 10), 64) for d in (1, 2, 4, 8, 16, 32)]}

def microseconds(sizes, batch, rounds):
    "Median time of a step for each contender, in turns"
    work = workloads.mlp('', sizes, batch)[1]
    with measure.Team(NAMES, work, measure.last_core()) as team:
        count = {k: team.ask(k, 'calibrate', 0.06) for k in [*team.there]}
        times = {k: [] for k in team.there}
        for _ in range(rounds):
            for k in team.there: times[k].append(team.ask(k, 'turn', count[k])[0])
    return {k: round(float(np.median(t))*1e6) for k, t in times.items()}

def main(rounds=7):
    for name, cases in GROW.items():
        for n, sizes, batch in cases:
            found = microseconds(sizes, batch, rounds)
            print(f'{name} {n:5}', *(f'{found.get(k, "-"):>6}' for k in NAMES), flush=True)

if __name__ == '__main__': main(*map(int, sys.argv[1:]))
