"""Matplotlib's SVG pictures, made small and fit to live in a page that is light or dark."""
import re
import xml.etree.ElementTree as ET

SVG, XLINK = 'http://www.w3.org/2000/svg', 'http://www.w3.org/1999/xlink'
FONT = "font-family: 'DejaVu Sans', Verdana, sans-serif"
NUMBER = re.compile(r'-?\d+\.\d{3,}')
ROUNDED = ('d', 'x', 'y', 'width', 'height', 'points', 'cx', 'cy')

def made_by_matplotlib(text): return 'figure_1' in text and '*{stroke-linejoin' in text

def slim(text, key):
    "The same picture: no black of its own, short numbers, only the ids that are used"
    root = ET.fromstring(re.sub(r'<!DOCTYPE[^>]*>|<\?xml[^>]*\?>', '', text))
    parents = {child: parent for parent in root.iter() for child in parent}
    for node in [*root.iter()]:
        if node.tag in (f'{{{SVG}}}style', f'{{{SVG}}}metadata'): parents[node].remove(node)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    short = {name: f'{key}-{n}' for n, name in enumerate(sorted(used))}
    for node in root.iter(): tidy(node, short)
    while unwrap(root): pass
    root.set('style', f'stroke-linejoin: round; stroke-linecap: butt; {FONT}')
    ET.register_namespace('', SVG)
    text = ET.tostring(root, encoding='unicode', short_empty_elements=True)
    text = text.replace(' xmlns:ns1="http://www.w3.org/1999/xlink"', '')
    return text.replace(' />', '/>').replace('ns1:href', 'href')

def tidy(node, short):
    "Attributes of one element"
    node.text = (node.text or '').strip() or None if len(node) else node.text
    node.tail = (node.tail or '').strip() or None if 'tspan' not in node.tag else node.tail
    for name, value in [*node.items()]:
        value = re.sub(r'(#)([^")]+)(?=["\)]|$)',
                       lambda m: m[1] + short.get(m[2], m[2]), value)
        if name == 'id':
            value = short.get(value, '')
            if not value: del node.attrib['id']; continue
        if name in ROUNDED:
            value = NUMBER.sub(lambda m: f'{float(m[0]):.2f}'.rstrip('0').rstrip('.'), value)
            value = ' '.join(value.split())
        if name == 'style': value = style(node, value)
        if value or name != 'style': node.set(name, value)
        else: del node.attrib[name]

def style(node, text):
    if node.tag.endswith('path'): text = text.replace('fill: #ffffff', 'fill: none')
    text = re.sub(r"font-family:[^;]*;? ?|stroke-linejoin: round;? ?", '', text)
    text = re.sub(r"(font: [\d.]+px)[^;]*'DejaVu Sans'[^;]*", r"\1 'DejaVu Sans', sans-serif", text)
    return text.replace('#000000', 'currentColor').strip('; ')

def unwrap(root):
    "Take away groups that say nothing; how many"
    found = 0
    for parent in [*root.iter()]:
        for n, child in enumerate([*parent]):
            if child.tag != f'{{{SVG}}}g' or child.attrib or (child.text or child.tail): continue
            at = [*parent].index(child)
            parent.remove(child)
            for m, grandchild in enumerate([*child]): parent.insert(at + m, grandchild)
            found += 1
    return found
