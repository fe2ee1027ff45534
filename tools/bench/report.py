"Times become ratios, and ratios a table, a file and a picture."
import html
import platform
from importlib.metadata import PackageNotFoundError, version

import numpy as np

PACKAGES = 'numpy torch jax autograd mygrad'.split()
COLOURS = {'ours': '#3b6fb6', 'captured': '#1d3f73', 'limit': '#8a8a8a', 'plain': '#b5b5b5'}

def machine():
    "Where and with what this was measured"
    name = platform.processor() or platform.machine()
    try:
        with open('/proc/cpuinfo') as file:
            name = next((line.split(':')[1].strip() for line in file if 'model name' in line), name)
    except OSError: pass
    found = {'python': platform.python_version()}
    for package in PACKAGES:
        try: found[package] = version(package)
        except PackageNotFoundError: pass
    return dict(processor=name, system=platform.system(), versions=found, threads=1)

def quartiles(times, base, clock):
    "First quartile, median and third of the ratios inside each round"
    a, b = (np.array(t)[:, clock] for t in (times, base))
    n = min(len(a), len(b))
    return [float(q) for q in np.quantile(a[:n]/b[:n], (0.25, 0.5, 0.75))]

def figures(result, reference, clock):
    "For each contender the median time, and its ratios to the reference and to the limit"
    times, rows = result['times'], {}
    for name, t in times.items():
        length = name.partition(' ')[2]
        row = rows[name] = dict(seconds=float(np.median(np.array(t)[:, clock])))
        for kind, other in (('ratio', reference), ('to_limit', 'limit')):
            other = f'{other} {length}'.strip()
            if other in times: row[kind] = quartiles(t, times[other], clock)
    return rows

def duration(seconds):
    "Seconds as people say them"
    for unit, size in (('s', 1), ('ms', 1e-3), ('µs', 1e-6)):
        if seconds >= size: return f'{seconds/size:.3g} {unit}'
    return f'{seconds*1e9:.0f} ns'

def row(name, f, more):
    "One line of the table"
    low, middle, high = f.get('ratio', [float('nan')]*3)
    to = f'{f["to_limit"][1]:6.2f}' if 'to_limit' in f else ' '*6
    time, spread = duration(f['seconds']), f'({low:.3f}–{high:.3f})'
    return f'  {name:18}{time:>9}   {middle:7.3f}  {spread}  {to}  {more}'

def table(name, result):
    "One workload as lines of text"
    apart, left, memory = result['apart'], result['left_out'], result.get('bytes', {})
    reference = result['reference']
    lines = [f'{name}: {result["title"]}',
             f'  {"":18}{"time":>9}   /{reference:<8} quartiles      /limit  apart']
    for contender, f in result['figures'].items():
        more = f'{apart[contender]:.0e}' if contender in apart else ''
        if contender in memory: more = f'{memory[contender]:.0f} bytes a node'
        lines.append(row(contender, f, more))
    return '\n'.join(lines + [f'  {n:18}left out: {why:.90}' for n, why in left.items()])

def page(results):
    "The median ratios as a table for chapter 20, and how far the quartiles are from them"
    names = list(dict.fromkeys(n for r in results.values() for n in r['figures']))
    lines, spread = [f'{"":12}' + ''.join(f'{n:>18}' for n in names)], []
    for name, result in results.items():
        ratios = {n: f['ratio'] for n, f in result['figures'].items() if 'ratio' in f}
        spread += [(b - a)/2/middle for a, middle, b in ratios.values()]
        cells = (f'{ratios[n][1]:18.3g}' if n in ratios else f'{"-":>18}' for n in names)
        lines.append(f'{name:12}' + ''.join(cells))
    return '\n'.join([*lines, f'quartiles: ± {100*np.median(spread or [0]):.1f} % (median)', ''])

def bars(results):
    "(workload, contender, median ratio, quartiles) for all that have a ratio"
    for name, result in results.items():
        for contender, f in result['figures'].items():
            if 'ratio' in f and contender != result['reference']:
                yield result['title'], contender, f['ratio']

def picture(results, width=720, left=190):
    "The ratios as an SVG: a bar each, on a logarithmic axis, 1 is the reference"
    rows, y, last, out = list(bars(results)), 30, None, []
    low = min([r[2][1] for r in rows] + [0.1])
    scale = lambda v: left + (width - left - 60)*(np.log10(min(v, 10)/low)/np.log10(10/low))
    for title, contender, (a, middle, b) in rows:
        if title != last:
            y += 22
            out.append(f'<text x="8" y="{y + 2}" font-weight="bold">{html.escape(title)}</text>')
            y, last = y + 8, title
        x, colour = scale(middle), COLOURS.get(contender.split()[0], '#9a7fb0')
        out.append(f'<text x="{left - 8}" y="{y + 10}" text-anchor="end">{html.escape(contender)}</text>'
                   f'<rect x="{left}" y="{y}" width="{x - left:.1f}" height="12" fill="{colour}"/>'
                   f'<path d="M{scale(a):.1f} {y + 6}H{scale(b):.1f}" stroke="currentColor"/>'
                   f'<text x="{max(x, scale(b)) + 5:.1f}" y="{y + 10}">{middle:.3g}</text>')
        y += 16
    one = scale(1)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y + 20}" '
            f'fill="currentColor" font-family="sans-serif" font-size="11">'
            f'<title>Time against the reference</title>'
            f'<text x="{one:.0f}" y="14" text-anchor="middle">1 = reference</text>'
            f'<path d="M{one:.1f} 20V{y}" stroke="currentColor" stroke-dasharray="3 3"/>'
            + ''.join(out) + '</svg>\n')
