#include "prelude.cuh"

// Soft-max and cross-entropy in one; see minigrad/ops/cross_entropy.py. A block takes a row of
// logits (V), so that V = 50,257 and V = 65 run the same lines.

struct RowScratch {
  double numbers[4];  // one a warp, for sums and maxima in either precision
};

// loss = ln Σ e^z - Σ q·z, 0 where the target is `ignored`. Saves ln Σ e^z.
template <typename real, typename id_type>
__global__ void __launch_bounds__(128) cross_entropy_forward(
    const real* __restrict__ logits, const id_type* __restrict__ targets, real* __restrict__ loss,
    real* __restrict__ log_sum, int vocabulary, int ignored, real smoothing) {
  real* scratch = reinterpret_cast<real*>(block_shared<RowScratch>().numbers);
  const int row = blockIdx.x;
  const real* z = logits + size_t(row) * vocabulary;

  // One pass: each thread's maximum and its sum of e^(z - maximum), corrected when that grows.
  real top = lowest<real>(), sum = 0, total = 0;
  for (int v = threadIdx.x; v < vocabulary; v += blockDim.x) {
    const real value = z[v];
    total += value;
    if (value > top) {
      sum = sum * exp(top - value) + 1;
      top = value;
    } else {
      sum += exp(value - top);
    }
  }
  const real row_top = block_max(top, scratch);
  const real row_sum = block_sum(sum * exp(top - row_top), scratch);
  const real row_total = smoothing > 0 ? block_sum(total, scratch) : 0;
  if (threadIdx.x > 0) return;
  const real normaliser = row_top + log(row_sum);
  log_sum[row] = normaliser;
  const id_type target = targets[row];
  if (target == ignored) {
    loss[row] = 0;
  } else if (target < 0 || target >= vocabulary) {
    loss[row] = real(0) / real(0);  // a fault of the caller becomes a NaN, not other memory
  } else {
    loss[row] = normaliser - (1 - smoothing) * z[target] - smoothing * (row_total / vocabulary);
  }
}

// result = {Σ loss, number of rows that count}, by one block. `mean` divides the sum by the number.
template <typename real, typename id_type>
__global__ void __launch_bounds__(128)
    cross_entropy_total(const real* __restrict__ loss, const id_type* __restrict__ targets,
                        real* __restrict__ result, int rows, int ignored, int mean) {
  real* scratch = reinterpret_cast<real*>(block_shared<RowScratch>().numbers);
  real sum = 0, count = 0;
  for (int row = threadIdx.x; row < rows; row += blockDim.x) {
    sum += loss[row];
    count += real(targets[row] != ignored);
  }
  sum = block_sum(sum, scratch);
  count = block_sum(count, scratch);
  if (threadIdx.x > 0) return;
  result[0] = mean ? sum / count : sum;
  result[1] = count;
}

// dz = (softmax(z) - q)·dloss, where dloss is dy (one for all rows, or one a row), divided by
// *count unless that is null.
template <typename real, typename id_type>
__global__ void __launch_bounds__(128) cross_entropy_backward(
    const real* __restrict__ logits, const id_type* __restrict__ targets,
    const real* __restrict__ log_sum, const real* __restrict__ dy, const real* __restrict__ count,
    real* __restrict__ dlogits, int vocabulary, int ignored, real smoothing, int dy_per_row) {
  const int row = blockIdx.x;
  const size_t start = size_t(row) * vocabulary;
  const id_type target = targets[row];
  const real upstream = dy[dy_per_row ? row : 0];
  const real dloss = target == ignored ? 0 : count ? upstream / *count : upstream;
  const real normaliser = log_sum[row];
  const real everywhere = smoothing / vocabulary;
  for (int v = threadIdx.x; v < vocabulary; v += blockDim.x) {
    const real q = everywhere + (v == target ? 1 - smoothing : 0);
    const real difference = exp(logits[start + v] - normaliser) - q;
    dlogits[start + v] = target == ignored ? 0 : difference * dloss;
  }
}
