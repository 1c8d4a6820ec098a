"""An op of your own, a check of its gradient, and faster kernels compared with it.

Run it: python examples/your_own_op.py
"""

import numpy as np

import minigrad as mg


class smooth_step(mg.Op):
    """y = 3x² - 2x³;  dx = dy·6x(1 - x)"""

    def forward(xp, x):
        return x * x * (3 - 2 * x), x

    def backward(xp, dy, x, needs):
        return (dy * 6 * x * (1 - x),)


@mg.kernel(smooth_step, "cpu")
class fast_smooth_step:
    def forward(x):
        return np.multiply(x * x, 3 - 2 * x), x

    def backward(dy, x, needs):
        return ((x - x * x) * (6 * dy),)


mg.cuda_kernel(smooth_step, forward="y = x*x*(3 - 2*x);", backward="dx = dy*6*x*(1 - x);")

x = mg.Tensor(np.linspace(0, 1, 5), requires_grad=True)
gradient = mg.grad(smooth_step(x).sum(), x, create_graph=True)
print("gradient", gradient.numpy(), "and second", mg.grad(gradient.sum(), x).numpy())
mg.gradcheck(smooth_step, [x])
for backend in ["cpu", "gpu"] if mg.gpu_available() else ["cpu"]:
    mg.check_kernel(smooth_step, np.random.default_rng(0).standard_normal(9), backend=backend)
print("the gradient and the kernel are right")
