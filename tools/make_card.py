"Draw the picture that a link to the site shows elsewhere: tools/docs/static/card.png, 1200 x 630"
from pathlib import Path

import matplotlib
matplotlib.use('svg')
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch

VALUE, SLOPE, INK, PAPER = '#3b6fb6', '#d1662a', '#1c2430', '#f7f8fa'
BOXES = {'x': (130, 210, '−2', '−4'), 'y': (130, 80, '5', '−4'), 'q': (420, 160, '3', '−4'),
         'z': (420, 40, '−4', '3'), 'f': (720, 110, '−12', '1')}
EDGES = [('x', 'q'), ('y', 'q'), ('q', 'f'), ('z', 'f')]

def draw():
    "The worked example of the book under its title"
    fig = plt.figure(figsize=(12, 6.3), dpi=100, facecolor=PAPER)
    ax = fig.add_axes([0, 0, 1, 1], xlim=(0, 1200), ylim=(0, 630))
    ax.axis('off')
    ax.text(80, 520, 'backprop_lit', fontsize=58, weight='bold', color=INK, va='center')
    ax.text(80, 430, 'Backpropagation, from the slope of a curve\nto a network that reads handwriting',
            fontsize=27, color=INK, va='center')
    for a, b in EDGES:
        ax.annotate('', (BOXES[b][0] - 4, BOXES[b][1] + 45), (BOXES[a][0] + 184, BOXES[a][1] + 45),
                    arrowprops=dict(arrowstyle='-|>', color=INK, linewidth=2))
    for name, (left, low, value, slope) in BOXES.items():
        ax.add_patch(FancyBboxPatch((left, low), 180, 92, boxstyle='round,pad=0,rounding_size=14',
                                    facecolor='#e6edf7', edgecolor=INK, linewidth=2))
        ax.text(left + 90, low + 62, f'{name} = {value}', fontsize=22, color=VALUE, ha='center', va='center')
        ax.text(left + 90, low + 28, f'grad {slope}', fontsize=19, color=SLOPE, ha='center', va='center')
    return fig

if __name__ == '__main__':
    place = Path(__file__).resolve().parent/'docs'/'static'/'card.png'
    draw().savefig(place, metadata={'Software': None})
    print(place)
