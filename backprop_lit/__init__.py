"Backpropagation from the chain rule to a network that reads handwriting"
__version__ = "0.1.0"

# In the order of the book. A name is looked for in one after the other, and stays here once it is found.
MODULES = '''derivative data byhand graph order backprop ops tensor nn loss optim train conv calculus program
    insight saving feed linter elementwise shapes linalg layers init residual'''.split()

def __getattr__(name):
    "The module or public name `name`, imported when it is first asked for (PEP 562)"
    from importlib import import_module
    from importlib.util import find_spec
    if name.startswith('_'): raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    if name in MODULES or find_spec(f'{__name__}.{name}'): return import_module(f'{__name__}.{name}')
    for module in MODULES:
        if find_spec(f'{__name__}.{module}') is None: continue
        module = import_module(f'{__name__}.{module}')
        if name in getattr(module, '__all__', ()):
            globals()[name] = getattr(module, name)
            return globals()[name]
    raise AttributeError(f'{__name__} has no {name!r}; dir({__name__}) lists what it has')

def __dir__():
    from importlib import import_module
    from importlib.util import find_spec
    found = [import_module(f'{__name__}.{m}') for m in MODULES if find_spec(f'{__name__}.{m}')]
    return sorted({*globals(), *MODULES, *(n for m in found for n in getattr(m, '__all__', ()))})
