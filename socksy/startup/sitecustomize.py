"""Patch the Python that starts, or end it: `socksy run` has put this folder on PYTHONPATH.

Python imports the first `sitecustomize` that it finds, before the program. This one steps aside
afterwards, for the one that would have been found without it. It has to be understood by older
Pythons too, to tell them that they cannot be patched.
"""

import os
import sys

CANNOT = 2  # the exit code


def patch():
    """Patch this process as `socksy run` was told.

    The socksy that is next to this file does it, whatever this Python has installed.
    """
    if sys.version_info < (3, 10):  # noqa: UP036 - it is not our Python that runs this
        raise RuntimeError("it is older than 3.10")
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    package = os.path.dirname(HERE)
    spec = PathFinder.find_spec("socksy", [os.path.dirname(package)])
    sys.modules["socksy"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["socksy"])
    from socksy.patch.children import patch_as_told

    patch_as_told(HERE)


def give_way():
    """Import the `sitecustomize` that this one hides, if there is one."""
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != HERE]
    ours = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # noqa: F401
    except ImportError as exc:
        if getattr(exc, "name", None) != "sitecustomize":
            raise
        if ours is not None:
            sys.modules["sitecustomize"] = ours


HERE = os.path.dirname(os.path.abspath(__file__))
try:
    patch()
except BaseException as exc:
    # Not by raising it: `site` would report that and run the program all the same.
    text = "socksy: %s cannot be patched, and does not run: %s: %s\n"
    sys.stderr.write(text % (sys.executable, type(exc).__name__, exc))
    sys.stderr.flush()
    os._exit(CANNOT)
give_way()
