"""Windows that slide over the spatial axes of (B, C, *size): what convolution and pooling share.

A window covers the positions p of a kernel, `dilation` apart. Windows are `stride` apart.
"""

from collections.abc import Iterator, Sequence
from itertools import product

from minigrad.op import Shape


def output_size(size: Sequence[int], kernel: Shape, stride: Shape, dilation: Shape) -> Shape:
    """How many windows fit along each spatial axis, of an x that has its borders already.

    It is ⌊(size - dilation·(kernel - 1) - 1)/stride⌋ + 1, and 0 or less where none fits.
    """
    return tuple(
        (n - d * (k - 1) - 1) // s + 1
        for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)
    )


def positions(
    kernel: Shape, out: Shape, stride: Shape, dilation: Shape
) -> Iterator[tuple[Shape, tuple[slice, ...]]]:
    """Each position of the kernel, and the index of the elements of x that it multiplies."""
    for position in product(*map(range, kernel)):
        met = tuple(
            slice(p * d, p * d + s * (n - 1) + 1, s)
            for p, n, s, d in zip(position, out, stride, dilation, strict=True)
        )
        yield position, (slice(None), slice(None), *met)
