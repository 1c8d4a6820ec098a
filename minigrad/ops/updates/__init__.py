"""How optimizers change parameters: one page a rule.

    step(xp, p, g, *state, **settings) -> new p, *new state

`p` is a parameter, `g` its gradient, `state` what the rule remembers of earlier gradients, which
starts as zeros. The arrays have one shape, and none is written to. `xp` is NumPy or CuPy. A rule is
no op of the graph: nothing is differentiated through it. See `minigrad.ops.updates.rule`.
"""
