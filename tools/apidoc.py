"""Public names of the package as blocks of Sphinx's Python domain, and links to them."""
import ast
import importlib
import inspect
import re
import textwrap

import numpy as np
from fastcore.docments import docments

SYMBOL = re.compile(r'(?<![`\\\[{}])`([A-Za-z_][\w.]*)(\(\))?`(?!`)')
FENCED = re.compile(r'(^ {0,3}(?:```+|~~~+)[^\n]*\n.*?^ {0,3}(?:```+|~~~+)\s*?$'
                    r'|^\$\$\n.*?^\$\$$|\[[^\]]*\]\([^)\n]*\)|^#+ [^\n]*$)', re.M | re.S)

class Library:
    "The public names of each module, in the order in which the book defines them"
    def __init__(self, package, modules): # modules: name -> number of its chapter
        self.package, self.order = package, dict(modules)
        self.modules = {m: importlib.import_module(f'{package}.{m}') for m in modules}
        self.names = {m: public(mod) for m, mod in self.modules.items()}

    def find(self, name, here=None):
        "(module, path) of `name` as the page of module `here` means it, or None"
        parts = name.removeprefix(f'{self.package}.').split('.')
        if parts[0] in self.modules and len(parts) > 1:
            return self._in(parts[0], parts[1:])
        near = self.order.get(here, 1e9)
        ours = sorted(self.modules, key=lambda m: (m != here, self.order[m] > near,
                                                  abs(self.order[m] - near)))
        for module in ours:
            later = self.order[module] > near
            if later and hasattr(np, parts[0]): continue     # it means NumPy's there
            if found := self._in(module, parts): return found

    def _in(self, module, parts):
        if parts[0] not in self.names[module] or len(parts) > 2: return
        if len(parts) == 2:
            owner = getattr(self.modules[module], parts[0])
            if not inspect.isclass(owner) or parts[1] not in members(owner): return
        return module, '.'.join(parts)

    def link(self, text, here=None):
        "Markdown in which symbols in backticks lead to their place in the reference"
        def one(match):
            found = self.find(match[1], here)
            if not found: return match[0]
            shown = match[1] + (match[2] or '')
            return f'{{py:obj}}`{shown} <{self.package}.{".".join(found)}>`'
        parts = FENCED.split(text)
        return ''.join(p if n % 2 else SYMBOL.sub(one, p) for n, p in enumerate(parts))

    def block(self, module, name, index=True, ticks=9):
        "The block of a public name: signature, docstring, parameters, methods"
        obj = getattr(self.modules[module], name)
        kind = self.kind(obj)
        body = self._body(obj, kind, module)
        if kind == 'class':
            body += [self._method(obj, n, module, index, ticks - 2) for n in members(obj)]
        head = name + (signature(obj) if kind != 'data' else '')
        options = self._options(module, index)
        if kind == 'data': options.append(f':value: {shortened(obj)}')
        return directive(kind, head, options, body, ticks)

    def kind(self, obj):
        "What Sphinx calls `obj`; a class or function of another package is only a value"
        ours = (getattr(obj, '__module__', '') or '').split('.')[0] == self.package
        if inspect.isclass(obj): return 'class' if ours else 'data'
        return 'function' if callable(obj) and (ours or not inspect.isroutine(obj)) else 'data'

    def _options(self, module, index):
        "In the reference a block is a target with its source; elsewhere it is only shown"
        return [f':module: {self.package}.{module}' if index else ':no-index:']

    def _method(self, cls, name, module, index, ticks):
        raw = inspect.getattr_static(cls, name)
        kind, options = 'method', self._options(module, index)
        for wrapper in ('classmethod', 'staticmethod'):
            if type(raw).__name__ == wrapper: options.append(f':{wrapper}:')
        if is_property(raw): kind = 'property'
        target = getattr(raw, 'fget', None) or getattr(raw, 'func', None) or \
            getattr(raw, '__func__', raw)
        head = name + (signature(target) if kind == 'method' else '')
        node = parsed(target) if kind == 'property' else None
        if getattr(node, 'returns', None):
            options.append(f':type: {ast.unparse(node.returns)}')
        return directive(kind, head, options, self._body(target, kind, module), ticks)

    def _body(self, obj, kind, module):
        parts = ('', '') if kind == 'data' else (docstring(obj), table(obj))
        return [self.link(part, module) for part in parts if part]

def directive(kind, head, options, body, ticks):
    fence = '`' * ticks
    return '\n'.join([f'{fence}{{py:{kind}}} {head}', *options, '',
                      '\n\n'.join(body), fence])

def public(module):
    "The names that the module exports, in the order of their definitions"
    names = [n for n in dict.fromkeys(getattr(module, '__all__', []))
             if not n.startswith('_') and hasattr(module, n)]
    source = inspect.getsource(module).split('__all__', 1)[-1].split(']', 1)[-1]
    def place(name):
        found = re.search(rf'^(?:(?:async )?def |class )?{name}\b', source, re.M)
        return found.start() if found else len(source)
    return sorted(names, key=place)

def docstring(obj):
    "The docstring; of one in NumPy's manner, taken over with the function, the summary"
    doc = inspect.getdoc(obj) or ''
    if not inspect.isclass(obj) and doc == inspect.getdoc(type(obj)): return ''
    if not re.search(r'\n-{4,}\n', doc) and not re.match(r'\w+\([^\n]*\)\n\n', doc): return doc
    parts = [p for p in doc.split('\n\n') if not re.match(r'\w+\(', p)]
    return ' '.join(parts[0].split()) if parts else ''

def is_property(raw):
    return isinstance(raw, property) or type(raw).__name__ == 'cached_property'

def members(cls):
    "Methods and properties that the class itself adds and the reference should list"
    def wanted(name, raw):
        if inspect.isclass(raw): return False
        if not name.startswith('_'):
            return callable(raw) or is_property(raw) or \
                isinstance(raw, (classmethod, staticmethod))
        written = getattr(raw, '__qualname__', '') == f'{cls.__name__}.{name}'
        return (name.endswith('__') and name != '__init__' and inspect.isfunction(raw)
                and written and bool(raw.__doc__))
    return [n for n, raw in vars(cls).items() if wanted(n, raw)]

def parsed(obj):
    "The definition of `obj` as a syntax tree, or None where there is no source"
    try: node = ast.parse(textwrap.dedent(inspect.getsource(obj))).body[0]
    except (OSError, TypeError, SyntaxError, IndentationError): return None
    return node if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else None

def signature(obj):
    "Parameters and result as written in the source"
    node, result = parsed(obj), True
    if inspect.isclass(obj):
        if '__dataclass_fields__' in vars(obj) and node:
            fields = [ast.unparse(n) for n in node.body if isinstance(n, ast.AnnAssign)]
            return f'({", ".join(fields)})'
        if obj.__init__ is object.__init__: return '()'
        node, obj, result = parsed(obj.__init__), obj.__init__, False
    if not isinstance(node, ast.FunctionDef): return called(obj)
    first = node.args.posonlyargs or node.args.args
    if first and first[0].arg in ('self', 'cls'): first.pop(0)
    returns = f' -> {ast.unparse(node.returns)}' if result and node.returns else ''
    return f'({ast.unparse(node.args)}){returns}'

def called(obj):
    "Parameters of an object without a definition of its own: those of what it wraps"
    inner = getattr(obj, 'f', None) or getattr(obj, '__wrapped__', None) or obj
    if isinstance(inner, np.ufunc): return '(x)' if inner.nin == 1 else '(x, y)'
    try: text = str(inspect.signature(inner))
    except (TypeError, ValueError): return '(...)'
    return re.sub(r' at 0x\w+', '', text).replace('(self, /, ', '(').replace('(self, ', '(')

def table(obj):
    "Parameters and what they mean, where the source says it"
    if not parsed(obj) or re.search(r'\n-{4,}\n', inspect.getdoc(obj) or ''): return ''
    found = docments(obj, full=True)
    rows = [('*returns*' if k == 'return' else f'`{k}`',
             ' '.join(str(v['docment']).split()).replace('|', r'\|'))
            for k, v in found.items() if k not in ('self', 'cls') and v.get('docment')]
    if not rows: return ''
    return '\n'.join(['| Parameter | Meaning |', '|:--|:--|',
                      *(f'| {name} | {text} |' for name, text in rows)])

def shortened(obj, most=60):
    "The value on one line"
    text = f'{obj.__module__}.{obj.__name__}' if inspect.isroutine(obj) \
        or inspect.isclass(obj) else repr(obj)
    text = ' '.join(re.sub(r' at 0x\w+', '', text).split())
    return text if len(text) <= most else text[:most - 1] + '…'
