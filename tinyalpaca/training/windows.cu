#include "prelude.cuh"

// Batches for a language model from tokens that lie on the device.

// x[b, t] = tokens[s + t] and y[b, t] = tokens[s + t + 1] with s = starts[*cursor + first + b]. The
// cursor lies on the device, so that a captured graph takes the next batch at each replay. A start
// that is out of range gives ids of -1, which no kernel takes for a token.
__global__ void __launch_bounds__(256)
    gather_windows(const int* __restrict__ tokens, const long long* __restrict__ starts,
                   const long long* __restrict__ cursor, long long* __restrict__ x,
                   long long* __restrict__ y, size_t count, size_t windows, int first, int rows,
                   int time) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= rows * time) return;
  const size_t window = size_t(*cursor) + first + i / time;
  const size_t place = window < windows ? size_t(starts[window]) + i % time : count;
  const bool inside = place < count && place + 1 < count;  // a place before the first is huge
  x[i] = inside ? tokens[place] : -1;
  y[i] = inside ? tokens[place + 1] : -1;
}
