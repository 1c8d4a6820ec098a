"""How optimizers change parameters: one page for each update rule.

    step(xp, p, g, *state, **settings) -> new p, *new state

`p` is a parameter, `g` its gradient. `state` holds averages of earlier gradients, which start as
zeros. All arrays have the same shape, and a page writes to none of them. `xp` is NumPy or CuPy. A
rule is not an op: nothing is differentiated through it. See `minigrad.ops.updates.rule`.
"""
