#include "prelude.cuh"

// Softmax and cross-entropy in one; see minigrad/ops/cross_entropy.py. A block computes one row of
// logits (V), or several short rows, one per warp. The same code serves V = 50,257 and V = 65.

struct RowScratch {
  double numbers[8];  // one per warp, for sums and maxima in either precision
  bool last;
};

// loss = ln Σ e^z - Σ q·z, 0 where the target is `ignored`. Saves ln Σ e^z. If `result` is not
// null, the last block to finish writes {Σ loss, number of targets that are not ignored} to it,
// summed in a fixed order; `mean` divides the sum by the number. `done` counts finished blocks and
// is 0 before and after. A row is computed by a whole block, or by one warp if `a_warp`.
template <typename real, typename id_type>
__global__ void __launch_bounds__(256) cross_entropy_forward(
    const real* __restrict__ logits, const id_type* __restrict__ targets, real* loss,
    real* __restrict__ log_sum, real* __restrict__ result, unsigned* done, int rows, int vocabulary,
    int a_warp, int ignored, int mean, real smoothing) {
  RowScratch& shared = block_shared<RowScratch>();
  real* scratch = reinterpret_cast<real*>(shared.numbers);
  const int threads = a_warp ? WARP : blockDim.x, first = threadIdx.x % threads;
  const int row = a_warp ? blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP : blockIdx.x;
  const int columns = row < rows ? vocabulary : 0;
  const real* z = logits + size_t(row) * vocabulary;

  // One pass: each thread's maximum and its sum of e^(z - maximum), rescaled when the maximum
  // grows.
  real top = lowest<real>(), sum = 0, total = 0;
  for (int v = first; v < columns; v += threads) {
    const real value = z[v];
    total += value;
    if (value > top) {
      sum = sum * exp(top - value) + 1;
      top = value;
    } else {
      sum += exp(value - top);
    }
  }
  const real row_top = a_warp ? warp_max(top) : block_max(top, scratch);
  sum *= exp(top - row_top);
  const real row_sum = a_warp ? warp_sum(sum) : block_sum(sum, scratch);
  real row_total = 0;
  if (smoothing > 0) row_total = a_warp ? warp_sum(total) : block_sum(total, scratch);
  if (first == 0 && row < rows) {
    const real normaliser = row_top + log(row_sum);
    log_sum[row] = normaliser;
    const id_type target = targets[row];
    if (target == ignored) {
      loss[row] = 0;
    } else if (target < 0 || target >= vocabulary) {
      loss[row] = real(0) / real(0);  // NaN, instead of reading outside of the row
    } else {
      loss[row] = normaliser - (1 - smoothing) * z[target] - smoothing * (row_total / vocabulary);
    }
  }
  if (!result || !last_of_blocks(done, gridDim.x, shared.last)) return;
  sum = 0;
  real count = 0;
#pragma unroll 8  // so that eight loads are in flight at once
  for (int other = threadIdx.x; other < rows; other += blockDim.x) {
    sum += __ldcg(loss + other);
    count += real(targets[other] != ignored);
  }
  sum = block_sum(sum, scratch);
  count = block_sum(count, scratch);
  if (threadIdx.x > 0) return;
  result[0] = mean ? sum / count : sum;
  result[1] = count;
}

// dz = (softmax(z) - q)·dloss. dloss is dy (one number for all rows, or one per row), divided by
// *count unless `count` is null.
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
