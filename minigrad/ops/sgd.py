"""SGD: gradient descent with momentum (Sutskever et al., "On the importance of initialization and
momentum in deep learning", 2013), in the form of `torch.optim.SGD`.

With gradient g, learning rate η, decay λ, momentum μ, dampening τ and the velocity b:

    g' = g + λp
    b' = μb + (1 - τ)g'    (b' = g' at the first step: nothing is dampened)
    p' = p - η·b', or with Nesterov's look ahead p' = p - η·(g' + μb')

Without momentum there is no velocity: p' = p - η·g'.

Not an op of the graph: nothing is differentiated through it. `step` is the specification of
`minigrad.optim.SGD`, which does the same in place.
"""


def step(p, g, velocity, *, lr, momentum, dampening, weight_decay, nesterov):
    """One update of arrays of one shape; returns the new p and velocity.

    The velocity is None before the first step, and stays None without momentum.
    """
    g = g + weight_decay * p
    if momentum == 0:
        return p - lr * g, None
    velocity = g if velocity is None else momentum * velocity + (1 - dampening) * g
    direction = g + momentum * velocity if nesterov else velocity
    return p - lr * direction, velocity
