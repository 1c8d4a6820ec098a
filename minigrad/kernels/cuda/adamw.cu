#include "prelude.cuh"

// The norm of all gradients and AdamW over flat buffers; see minigrad/ops/updates/adamw.py.

struct NormScratch {
  double numbers[8];  // one a warp
};

// A thread's share of Σ x², in double precision.
template <typename real>
__device__ __forceinline__ double sum_of_squares(const real* __restrict__ x, size_t size) {
  double sum = 0;
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += size_t(gridDim.x) * blockDim.x)
    sum += double(x[i]) * double(x[i]);
  return sum;
}

// One partial sum of x² a block.
template <typename real>
__global__ void __launch_bounds__(256)
    squares_partial(const real* __restrict__ x, double* __restrict__ partial, size_t size) {
  const double sum = block_sum(sum_of_squares(x, size), block_shared<NormScratch>().numbers);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// result = {√Σ partial, what clipping to `max_norm` multiplies gradients by}, by one block.
__global__ void __launch_bounds__(256) squares_finish(const double* __restrict__ partial,
                                                      double* __restrict__ result, int parts,
                                                      double max_norm) {
  double sum = 0;
  for (int i = threadIdx.x; i < parts; i += blockDim.x) sum += partial[i];
  sum = block_sum(sum, block_shared<NormScratch>().numbers);
  if (threadIdx.x > 0) return;
  const double norm = sqrt(sum);
  const double scale = max_norm / (norm + 1e-6);
  result[0] = norm;
  result[1] = scale > 1 ? 1 : scale;  // a NaN stays one
}

// What a step of training does, decided on the device. All blocks add up squares of the gradient;
// the last one that is done adds up what all have left in `partial`, as squares_finish does, and
// decides. `done` counts blocks and is 0 before and after. `counters` holds {steps, updates, windows
// taken, whether halted}, `draw` the number that dropout masks are drawn from,
// `history` the losses and then the norms of the last `ring` steps, `rates` the learning rate of
// each group and step. If loss and norm are finite, `orders` becomes {1, the factor that clips, the
// decay of the average of the weights} and for each group {learning rate, rate, root_eps} (see
// Rule), and the counters advance. Otherwise the step is not made, nor any after it: the host has
// to look.
template <typename real>
__global__ void __launch_bounds__(256)
    step_orders(const real* __restrict__ gradient, double* partial, unsigned* done,
                const real* __restrict__ loss, long long* __restrict__ counters,
                unsigned* __restrict__ draw, double* __restrict__ history,
                const double* __restrict__ rates, double* __restrict__ orders, size_t size,
                int ring, int groups, int all_steps, int windows, int draws,
                const double loss_scale, const double max_norm, const double beta1,
                const double beta2, const double eps, const double average_decay) {
  struct Shared {
    double numbers[8];  // one a warp
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
  const double root = sqrt(1 - pow(beta2, double(update)));
  const double correction = root / (1 - pow(beta1, double(update)));
  for (int group = 0; group < groups; group++) {
    const double rate = rates[size_t(group) * all_steps + step];
    orders[3 + 3 * group] = rate;
    orders[4 + 3 * group] = rate * correction;
    orders[5 + 3 * group] = eps * root;
  }
  counters[0] = step + 1;
  counters[1] = update;
  counters[2] += windows;
  *draw += draws;
}

// The rule, for one element. `rate` and `root_eps` hold the corrections of the averages:
// rate = lr·√(1-β₂ᵗ)/(1-β₁ᵗ), root_eps = ε·√(1-β₂ᵗ).
template <typename real> struct Rule {
  real beta1, beta2, one_minus_beta1, one_minus_beta2, lr, rate, root_eps;

  __device__ __forceinline__ void apply(real& p, real gradient, real& m, real& v,
                                        real decay) const {
    m = beta1 * m + one_minus_beta1 * gradient;
    v = beta2 * v + one_minus_beta2 * (gradient * gradient);
    p = p * (1 - lr * decay) - rate * m / (sqrt(v) + root_eps);
  }
};

// p, m and v in place. `grad_scale` (one number on the device) and `decays` (a weight decay an
// element, instead of `weight_decay`) may be null.
template <typename real>
__global__ void __launch_bounds__(256) adamw_update(
    real* __restrict__ p, const real* __restrict__ g, real* __restrict__ m, real* __restrict__ v,
    const double* __restrict__ grad_scale, const real* __restrict__ decays, size_t size, real lr,
    real beta1, real beta2, real one_minus_beta1, real one_minus_beta2, real weight_decay,
    real rate, real root_eps) {
  const real scale = grad_scale ? real(*grad_scale) : 1;
  const Rule<real> rule = {beta1, beta2, one_minus_beta1, one_minus_beta2, lr, rate, root_eps};
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += size_t(gridDim.x) * blockDim.x)
    rule.apply(p[i], g[i] * scale, m[i], v[i], decays ? decays[i] : weight_decay);
}

// The same by the `orders` that step_orders has written for this group, and with them the average
// of the weights, which may be null.
template <typename real>
__global__ void __launch_bounds__(256) adamw_update_ordered(
    real* __restrict__ p, const real* __restrict__ g, real* __restrict__ m, real* __restrict__ v,
    real* __restrict__ average, const double* __restrict__ orders, size_t size, int group,
    real beta1, real beta2, real one_minus_beta1, real one_minus_beta2, real weight_decay) {
  if (orders[0] == 0) return;
  const double* mine = orders + 3 + 3 * group;
  const Rule<real> rule = {beta1,           beta2,         one_minus_beta1, one_minus_beta2,
                           real(mine[0]),   real(mine[1]), real(mine[2])};
  const real scale = real(orders[1]), decay = real(orders[2]);
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += size_t(gridDim.x) * blockDim.x) {
    rule.apply(p[i], g[i] * scale, m[i], v[i], weight_decay);
    if (average) average[i] = decay * average[i] + (1 - decay) * p[i];
  }
}
