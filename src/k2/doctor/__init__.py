"""``k2 doctor``: settings in; what was seen of everything k2 depends on out, with the fix.

``*_look`` modules go and see; ``*_judgement`` modules are PURE and say what it means; ``checks``
joins them, ``examination`` runs them side by side.
"""
