"The glossary of the page on notation leads where it says: each word stands on the page it links to."
import json, re
from pathlib import Path
import pytest

NBS = Path(__file__).parent.parent/'nbs'

def prose(name):
    "The text of a page, Markdown and code, in small letters"
    cells = json.loads((NBS/name).read_text())['cells']
    return '\n'.join(''.join(cell['source']) for cell in cells).lower()

def rows():
    "(word, page) for each row of a table whose last column is a link"
    found = re.findall(r'^\| ([^|]+) \|.*\[\d\d\]\((\d\d_\w+\.ipynb)\) \|$',
                       glossary_cells(), re.M)
    return [(word.strip(), page) for line, page in found for word in line.split(',')]

def glossary_cells():
    "The Markdown of the tables that have the column of meanings and that of pages"
    cells = json.loads((NBS/'notation.ipynb').read_text())['cells']
    return '\n'.join(source for cell in cells
                     if '| taught in |' in (source := ''.join(cell['source'])))

def test_there_are_many_words(): assert len(rows()) > 70

@pytest.mark.parametrize('word, page', rows())
def test_word_stands_on_its_page(word, page):
    assert word.lower() in prose(page), f'{page} does not say {word!r}'
