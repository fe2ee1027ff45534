"Sphinx: one theme, own Markdown, mathematics at build time, nothing from the network."
import sys
from configparser import ConfigParser
from pathlib import Path

here = Path(__file__).resolve().parent
root = here.parent.parent
sys.path[:0] = [str(here), str(root)]
settings = ConfigParser(delimiters=['='])
settings.read(root/'settings.ini', encoding='utf-8')
meta = settings['DEFAULT']

project = html_title = meta['title']
author, copyright = meta['author'], meta['copyright']
language = 'en'
html_baseurl = f'{meta["doc_host"]}{meta["doc_baseurl"]}/'
extensions = ['myst_parser', 'sphinx_copybutton', 'sphinx.ext.viewcode',
              'sphinx.ext.githubpages', 'katex_static', 'finish']
myst_enable_extensions = ['dollarmath', 'alert', 'colon_fence']
myst_heading_anchors = 3
exclude_patterns = ['_extra']
html_theme = 'furo'
html_math_renderer = 'katex_static'
html_static_path = [str(here/'static')]
html_css_files = ['bp.css']
html_favicon = 'static/favicon.svg'
html_extra_path = []                         # the notebooks to take away: see finish.py
html_copy_source = html_show_sphinx = html_show_search_summary = False
html_theme_options = dict(
    navigation_with_keys=True, source_repository=meta['git_url'], top_of_page_buttons=[],
    light_css_variables={'color-brand-primary': '#1d4f91', 'color-brand-content': '#1d4f91',
                         'color-brand-visited': '#6b3fa0'},
    dark_css_variables={'color-brand-primary': '#8ab4f8', 'color-brand-content': '#8ab4f8',
                        'color-brand-visited': '#c9a7f2'})
add_module_names = False
toc_object_entries_show_parents = 'hide'
python_maximum_signature_line_length = 88
copybutton_selector = 'div.highlight-python pre'
nitpicky = True                              # a link to a symbol must have a target ...
nitpick_ignore_regex = [('py:class', '.*'), ('py:data', '.*')]   # ... a type need not
