#include "prelude.cuh"

// A training step whose numbers lie in device arrays; see orders.py.

// A thread's part of Σ x², in double precision.
template <typename real>
__device__ __forceinline__ double sum_of_squares(const real* __restrict__ x, size_t size) {
  double sum = 0;
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += size_t(gridDim.x) * blockDim.x)
    sum += double(x[i]) * double(x[i]);
  return sum;
}

// Computes the gradient's norm and writes the numbers of the update. All blocks sum squares of the
// gradient to `partial`; the last block to finish adds these up in a fixed order and does the rest.
// `done` counts finished blocks and is 0 before and after.
//
//   counters  {steps, updates, windows used, whether training has stopped}
//   draw      the counter from which dropout masks are drawn
//   history   the losses of the last `ring` steps, then their norms
//   rates     the learning rate of each group and step
//   orders    {whether to update, the factor of clipping, the decay of the weights' average, the
//             number of the update}, then each group's learning rate
//
// If loss and norm are finite, `orders` is written and the counters advance. Otherwise orders[0] is
// 0 and counters[3] becomes 1: no later step is made either, until the host sets it back.
template <typename real>
__global__ void __launch_bounds__(256)
    step_orders(const real* __restrict__ gradient, double* partial, unsigned* done,
                const real* __restrict__ loss, long long* __restrict__ counters,
                unsigned* __restrict__ draw, double* __restrict__ history,
                const double* __restrict__ rates, double* __restrict__ orders, size_t size,
                int ring, int groups, int all_steps, int windows, int draws,
                const double loss_scale, const double max_norm, const double average_decay) {
  struct Shared {
    double numbers[8];  // one per warp
    bool last;
  };
  Shared& shared = block_shared<Shared>();
  double sum = block_sum(sum_of_squares(gradient, size), shared.numbers);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
  if (!last_of_blocks(done, gridDim.x, shared.last)) return;
  sum = 0;
#pragma unroll 4
  for (int i = threadIdx.x; i < gridDim.x; i += blockDim.x) sum += __ldcg(partial + i);
  sum = block_sum(sum, shared.numbers);
  if (threadIdx.x > 0 || counters[3]) {
    if (threadIdx.x == 0) orders[0] = 0;
    return;
  }
  const double norm = sqrt(sum), total = double(*loss) * loss_scale;
  const long long step = counters[0], update = counters[1] + 1;
  history[step % ring] = total;
  history[ring + step % ring] = norm;
  const bool finite = norm - norm == 0 && total - total == 0;
  orders[0] = finite;
  if (!finite) {
    counters[3] = 1;
    return;
  }
  const double scale = max_norm / (norm + 1e-6);
  orders[1] = scale > 1 ? 1 : scale;
  const double early = double(step + 2) / double(step + 11);  // after update t: (1 + t)/(10 + t)
  orders[2] = average_decay < early ? average_decay : early;
  orders[3] = double(update);
  for (int group = 0; group < groups; group++)
    orders[4 + group] = rates[size_t(group) * all_steps + step];
  counters[0] = step + 1;
  counters[1] = update;
  counters[2] += windows;
  *draw += draws;
}

// average = decay * average + (1 - decay) * p, if `orders` says that the update is made.
template <typename real>
__global__ void __launch_bounds__(256)
    average_ordered(const real* __restrict__ p, real* __restrict__ average,
                    const double* __restrict__ orders, size_t size) {
  if (orders[0] == 0) return;
  const real decay = real(orders[2]);
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += size_t(gridDim.x) * blockDim.x)
    average[i] = decay * average[i] + (1 - decay) * p[i];
}
