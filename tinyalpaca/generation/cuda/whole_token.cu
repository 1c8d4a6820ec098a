#include "prelude.cuh"
#include "decode.cuh"

// A token of a small model in one launch; the maths is in decode.py.

// y = activation(W [x̂ | more] + bias) + residual for one row, by the whole block: a warp takes
// eight outputs at a time. As decode_linear otherwise.
template <typename real>
__device__ __forceinline__ void whole_product(const real* x, int width, const real* more,
                                              int more_width, const real* __restrict__ weight,
                                              const real* residual, real* y, int outputs,
                                              bool normalised, int activation, real eps) {
  constexpr int TOGETHER = 8;
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  const int inputs = width + more_width;
  const real* bias = weight + size_t(outputs) * inputs;
  real scale = 1;
  if (normalised) {
    real squares = 0;
    for (int k = lane; k < width; k += WARP) squares += x[k] * x[k];
    scale = 1 / sqrt(warp_sum(squares) / width + eps);
  }
  for (int first = warp * TOGETHER; first < outputs; first += warps * TOGETHER) {
    real sums[TOGETHER] = {};
    for (int k = lane; k < inputs; k += WARP) {
      const real value = k < width ? x[k] * scale : more[k - width];
#pragma unroll
      for (int i = 0; i < TOGETHER; i++)
        sums[i] += value * weight[size_t(smaller(first + i, outputs - 1)) * inputs + k];
    }
    const real total = decode_warp_sums(sums);
    const int output = first + lane / (WARP / TOGETHER);
    if (lane % (WARP / TOGETHER) == 0 && output < outputs) {
      const real value = decode_activated(total + bias[output], activation);
      y[output] = residual ? value + residual[output] : value;
    }
  }
  __syncthreads();
}

// decode_attend for all heads of a row, by the whole block.
template <typename real>
__device__ __forceinline__ void whole_attend(real* qkv, const real* __restrict__ rotation,
                                             real* keys, real* values, const int* slots,
                                             const int* places, real* scores, real* mixed,
                                             real* partial, int room, int size, int heads) {
  const int row = blockIdx.x, threads = blockDim.x;
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = threads / WARP;
  const int share = larger(1, threads / heads);  // threads of a head
  for (int head = threadIdx.x / share; head < heads; head += threads / share)
    decode_keep(decode_head(qkv, keys, values, slots, places, room, size, row, head, heads),
                rotation, threadIdx.x % share, share);
  __syncthreads();

  const DecodeHead<real> h =
      decode_head(qkv, keys, values, slots, places, room, size, row, 0, heads);
  const int count = h.place + 1;
  for (int i = threadIdx.x; i < heads * count; i += threads) {
    const int head = i / count, t = i % count;
    const real* q = h.q + head * size;
    const real* k = h.keys + size_t(head) * size * room + t;
    real score = 0;
    for (int d = 0; d < size; d++) score += q[d] * k[size_t(d) * room];
    scores[size_t(head) * room + t] = score;
  }
  __syncthreads();
  for (int head = warp; head < heads; head += warps) {
    real* weights = scores + size_t(head) * room;
    real top = lowest<real>(), sum = 0;
    for (int t = lane; t < count; t += WARP) top = larger(top, weights[t]);
    top = warp_max(top);
    for (int t = lane; t < count; t += WARP) sum += weights[t] = exp(weights[t] - top);
    const real share_of_one = 1 / warp_sum(sum);
    for (int t = lane; t < count; t += WARP) weights[t] *= share_of_one;
  }
  __syncthreads();

  const int channels = heads * size;
  int across = 1;
  while (across < channels && across < threads) across *= 2;
  const int groups = threads / across, group = threadIdx.x / across;
  for (int first = 0; first < channels; first += across) {
    const int c = first + threadIdx.x % across;
    real part = 0;
    if (c < channels) {
      const real* weights = scores + size_t(c / size) * room;
      const real* v = h.values + size_t(c / size) * room * size + c % size;
      for (int t = group; t < count; t += groups) part += weights[t] * v[size_t(t) * size];
    }
    partial[threadIdx.x] = part;
    __syncthreads();
    if (group == 0 && c < channels) {
      real total = 0;
      for (int other = 0; other < groups; other++) total += partial[other * across + threadIdx.x];
      mixed[c] = total;
    }
    __syncthreads();
  }
}

// What the kernels of decode.cu do for a token, layer after layer, in one launch: a block a row.
// For models so small that launches cost more than what the other processors could do meanwhile. A
// layer's weights lie one after another: qkv, out, fc1, fc2, each W and then its bias. Grid: rows.
template <typename real>
__global__ void __launch_bounds__(512, 1)
    decode_whole(const real* __restrict__ tokens, const real* __restrict__ positions,
                 const real* __restrict__ rotation, const real* __restrict__ layers,
                 const real* __restrict__ head, real* keys, real* values,
                 const int* __restrict__ ids, const int* __restrict__ places,
                 const int* __restrict__ slots, real* x, real* other, real* qkv, real* mixed,
                 real* hidden, real* scores, real* logits, int num_layers, int heads, int size,
                 int width, int vocabulary, int room, int slot_count, int pre_norm, int activation,
                 real eps) {
  struct Shared {
    real partial[512];
  };
  Shared& shared = block_shared<Shared>();
  const int row = blockIdx.x, place = places[row], c = heads * size;
  if (place < 0) {  // the whole block
    for (int v = threadIdx.x; v < vocabulary; v += blockDim.x)
      logits[size_t(row) * vocabulary + v] = 0;
    return;
  }
  real *from = x + size_t(row) * c, *to = other + size_t(row) * c;
  real* own_qkv = qkv + size_t(row) * 3 * c;
  real *own_mixed = mixed + size_t(row) * c, *own_hidden = hidden + size_t(row) * width;
  const int id = ids[row];
  for (int i = threadIdx.x; i < c; i += blockDim.x) {
    const bool inside = id >= 0 && id < vocabulary;
    const real value = inside ? tokens[size_t(id) * c + i] : real(0) / real(0);
    from[i] = positions ? value + positions[size_t(place) * c + i] : value;
  }
  __syncthreads();

  const int through = pre_norm ? 0 : c;  // of x, as part of the products that end a block
  const real* weight = layers;
  for (int layer = 0; layer < num_layers; layer++) {
    const real* none = nullptr;
    const bool first_norm = pre_norm || layer;
    const size_t kept = size_t(layer) * slot_count * room * c;
    whole_product(from, c, none, 0, weight, none, own_qkv, 3 * c, first_norm, 0, eps);
    weight += size_t(c + 1) * 3 * c;
    whole_attend(qkv, rotation, keys + kept, values + kept, slots, places,
                 scores + size_t(row) * heads * room, own_mixed, shared.partial, room, size, heads);
    whole_product(from, through, own_mixed, c, weight, pre_norm ? from : none, to, c,
                  !pre_norm && first_norm, 0, eps);
    weight += size_t(through + c + 1) * c;
    whole_product(to, c, none, 0, weight, none, own_hidden, width, true, activation, eps);
    weight += size_t(c + 1) * width;
    whole_product(to, through, own_hidden, width, weight, pre_norm ? to : none, from, c, !pre_norm,
                  0, eps);
    weight += size_t(through + width + 1) * c;
  }
  const real* none = nullptr;
  real* own_logits = logits + size_t(row) * vocabulary;
  whole_product(from, c, none, 0, head, none, own_logits, vocabulary, true, 0, eps);
}
