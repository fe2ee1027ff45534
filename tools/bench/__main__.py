"""Everybody does the same work in turns, on one core: how long does each take, against PyTorch?

First all are compared: who computes something else is left out. Then rounds of short turns; the
ratio is taken inside each round, and its median over rounds is what counts."""
import argparse
import json
import sys
from pathlib import Path
from time import perf_counter

import measure
import report
import workloads

def parser():
    "The command line"
    p = argparse.ArgumentParser(prog='bench', description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--only', nargs='+', metavar='NAME', help='of: ' + ' '.join(workloads.WORKLOADS)
                   + ', or kinds of them: mlp')
    p.add_argument('--contenders', nargs='+', metavar='NAME', help='of: ' + workloads.EVERYBODY)
    p.add_argument('--rounds', type=int, default=11, help='of turns (11)')
    p.add_argument('--starts', type=int, default=3, help='rounds of what takes seconds (3)')
    p.add_argument('--turn', type=float, default=0.1, help='seconds for a turn (0.1)')
    p.add_argument('--clock', choices=['cpu', 'wall'], default='cpu',
                   help='time of the processor (cpu), which neighbours disturb less, or of the wall')
    p.add_argument('--core', type=int, default=measure.last_core(), help='where all are pinned')
    p.add_argument('--quick', action='store_true',
                   help='5 rounds of 0.06 s, nothing that takes seconds')
    p.add_argument('--tiny', action='store_true', help='tiny sizes: to test this tool')
    p.add_argument('--out', type=Path, default=Path('_bench/result'), metavar='NAME',
                   help='writes NAME.json, NAME.svg and NAME.txt (_bench/result)')
    return p

def one(name, work, options):
    "Compares and measures one workload"
    names = workloads.ENTRIES[work['kind']].split()
    if options.contenders: names = [n for n in names if n.split('-')[0] in options.contenders]
    reference = workloads.REFERENCE.get(work['kind'], 'torch')
    result = measure.KINDS.get(work['kind'], measure.steps)(names, work, reference, options)
    there = {n.split()[0] for n in result['times']}
    if reference not in there:
        reference = next((n for n in ('plain', 'limit', 'ours') if n in there), None)
    clock = ('cpu', 'wall').index(options.clock)
    return result | dict(title=work['title'], reference=reference,
                         figures=report.figures(result, reference, clock))

def main(argv=None):
    "Measures what was asked for, and writes it down"
    options, results = parser().parse_args(argv), {}
    if options.quick: options.rounds, options.turn = min(options.rounds, 5), 0.06
    began = perf_counter()
    for name, work in workloads.chosen(options.only, options.tiny).items():
        if options.quick and work['kind'] in measure.KINDS and not options.only: continue
        try: results[name] = one(name, work, options)
        except RuntimeError as error: print(f'{name}: left out: {error}\n')
        else: print(report.table(name, results[name]), '\n', flush=True)
    about = report.machine() | dict(clock=options.clock, rounds=options.rounds, turn=options.turn)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix('.json').write_text(json.dumps(about | {'workloads': results}, indent=1))
    options.out.with_suffix('.svg').write_text(report.picture(results), encoding='utf-8')
    options.out.with_suffix('.txt').write_text(report.page(results))
    print(f'{options.out}.json, .txt and .svg written after {perf_counter() - began:.0f} s')
    wrong = [n for r in results.values() for n, why in r['left_out'].items() if why.startswith('wrong')]
    return 1 if wrong else 0

if __name__ == '__main__': sys.exit(main())
