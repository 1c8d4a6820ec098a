#include "prelude.cuh"

// One position each of some rows (sequences that are being continued, or the positions of a
// prompt), with the keys and values of earlier positions kept in a cache; the maths is in
// decode.py. A row at a negative place belongs to nobody: it gets zeros, and its cache stays as it
// is.

// x[row] = tokens[id] + positions[place], a thread an element. `positions` may be null. An id
// outside of the table gives NaN, not other memory. Grid: blocks of channels, rows.
template <typename real>
__global__ void __launch_bounds__(256)
    decode_embed(const real* __restrict__ tokens, const real* __restrict__ positions,
                 const int* __restrict__ ids, const int* __restrict__ places, real* __restrict__ x,
                 int channels, int vocabulary) {
  const int row = blockIdx.x, c = blockIdx.y * blockDim.x + threadIdx.x;
  if (c >= channels) return;
  const int id = ids[row], place = places[row];
  real value = 0;
  if (place >= 0) {
    const bool inside = id >= 0 && id < vocabulary;
    value = inside ? tokens[size_t(id) * channels + c] : real(0) / real(0);
    if (positions) value += positions[size_t(place) * channels + c];
  }
  x[size_t(row) * channels + c] = value;
}

// The activations of minigrad/ops/elementwise.py, by their places in ACTIVATIONS of decode.py.
template <typename real> __device__ __forceinline__ real decode_activated(real z, int activation) {
  if (activation == 1) return z < 0 ? 0 : z;
  if (activation == 2) return real(0.5) * z * (1 + erf(z * real(0.70710678118654752440)));
  if (activation == 3) {
    const real inner = real(0.79788456080286535588) * (z + real(0.044715) * z * z * z);
    return real(0.5) * z * (1 + tanh(inner));
  }
  if (activation == 4) return z / (1 + exp(-z));
  return z;
}

// The sums over a warp of ROWS numbers a lane. A lane gets that of row lane/(32/ROWS): after each
// exchange it goes on with half of the rows. The order of additions is that of warp_sum.
template <int ROWS, typename real>
__device__ __forceinline__ real decode_warp_sums(real (&x)[ROWS]) {
  const int lane = threadIdx.x % WARP;
#pragma unroll
  for (int distance = WARP / 2; distance > 0; distance /= 2) {
    const int left = ROWS * distance / WARP;  // rows to go on with; 0: there is one already
    if (left == 0) {
      x[0] += __shfl_xor_sync(ALL_LANES, x[0], distance);
      continue;
    }
    const bool upper = lane & distance;
#pragma unroll
    for (int i = 0; i < left; i++) {
      const real given = upper ? x[i] : x[i + left], kept = upper ? x[i + left] : x[i];
      x[i] = kept + __shfl_xor_sync(ALL_LANES, given, distance);
    }
  }
  return x[0];
}

// y = activation(W [x̂ | more] + bias) + residual for ROWS rows at a time, a warp an output. x̂ is
// x, or x/√(mean(x²) + ε): a factor for each row, so x need not be normalised before. `x` is null
// if `width` is 0, `more` if `more_width` is; `residual` may be null. Grid: blocks of outputs, of
// rows.
template <typename real, int ROWS>
__global__ void __launch_bounds__(256)
    decode_linear(const real* __restrict__ x, const real* __restrict__ more,
                  const real* __restrict__ weight, const real* __restrict__ bias,
                  const real* __restrict__ residual, real* __restrict__ y, int rows, int width,
                  int more_width, int outputs, int normalised, int activation, real eps) {
  const int output = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  const int lane = threadIdx.x % WARP, first = blockIdx.y * ROWS;
  if (output >= outputs) return;  // the whole warp
  const real* factors = weight + size_t(output) * (width + more_width);

  real total = 0;
  if (width) {
    real sums[ROWS] = {}, squares[ROWS] = {};
    for (int k = lane; k < width; k += WARP) {
      const real factor = factors[k];
#pragma unroll
      for (int r = 0; r < ROWS; r++) {  // beyond the end, the last row again
        const real value = x[size_t(smaller(first + r, rows - 1)) * width + k];
        sums[r] += factor * value;
        squares[r] += value * value;
      }
    }
    total = decode_warp_sums(sums);
    if (normalised) total /= sqrt(decode_warp_sums(squares) / width + eps);
  }
  if (more_width) {
    real sums[ROWS] = {};
    for (int k = lane; k < more_width; k += WARP) {
      const real factor = factors[width + k];
#pragma unroll
      for (int r = 0; r < ROWS; r++)
        sums[r] += factor * more[size_t(smaller(first + r, rows - 1)) * more_width + k];
    }
    total += decode_warp_sums(sums);
  }
  const int row = first + lane / (WARP / ROWS);
  if (lane % (WARP / ROWS) || row >= rows) return;  // another lane has the same
  const size_t place = size_t(row) * outputs + output;
  const real value = decode_activated(total + bias[output], activation);
  y[place] = residual ? value + residual[place] : value;
}

// One head of one row: its query, key and value, and where the keys (D, S) and values (S, D) of its
// sequence are kept.
template <typename real> struct DecodeHead {
  real *q, *k, *v, *keys, *values;
  int place, room, size;
};

template <typename real>
__device__ __forceinline__ DecodeHead<real> decode_head(real* qkv, real* keys, real* values,
                                                        const int* slots, const int* places,
                                                        int room, int size, int row, int head,
                                                        int heads) {
  const size_t channels = size_t(heads) * size;
  real* q = qkv + row * 3 * channels + size_t(head) * size;
  const size_t kept = (size_t(slots[row]) * heads + head) * room * size;
  return {q, q + channels, q + 2 * channels, keys + kept, values + kept, places[row], room, size};
}

// Turns the query and the key by their position and keeps key and value. Numbers 2i and 2i + 1 turn
// by angle i, whose cosine and sine are side by side in `rotation` (L, D), which may be null.
template <typename real>
__device__ __forceinline__ void decode_keep(const DecodeHead<real>& h,
                                            const real* __restrict__ rotation, int thread,
                                            int threads) {
  for (int d = thread; d < h.size; d += threads) {
    h.values[size_t(h.place) * h.size + d] = h.v[d];
    if (!rotation) h.keys[size_t(d) * h.room + h.place] = h.k[d];
  }
  if (!rotation) return;
  const real* turns = rotation + size_t(h.place) * h.size;
  for (int d = 2 * thread; d < h.size; d += 2 * threads) {
    const real cosine = turns[d], sine = turns[d + 1];
    const real q = h.q[d], k = h.k[d];
    h.q[d] = q * cosine - h.q[d + 1] * sine;
    h.q[d + 1] = h.q[d + 1] * cosine + q * sine;
    h.keys[size_t(d) * h.room + h.place] = k * cosine - h.k[d + 1] * sine;
    h.keys[size_t(d + 1) * h.room + h.place] = h.k[d + 1] * cosine + k * sine;
  }
}

// Only that, for many positions of a sequence, before any of them looks at the others. `qkv`
// changes where it turns. Grid: rows, heads.
template <typename real>
__global__ void __launch_bounds__(256)
    decode_append(real* qkv, const real* __restrict__ rotation, real* keys, real* values,
                  const int* __restrict__ slots, const int* __restrict__ places, int room,
                  int size) {
  const DecodeHead<real> h = decode_head(qkv, keys, values, slots, places, room, size,
                                         blockIdx.x, blockIdx.y, gridDim.y);
  if (h.place >= 0) decode_keep(h, rotation, threadIdx.x, blockDim.x);
}

// out = soft-max(q·keys) values over the positions up to the row's own, which with `append` it
// keeps first. A block a row and head. `scores` (rows, H, S) is scratch; queries come scaled. No
// pointer that this kernel both writes and reads through is `__restrict__`. Grid: rows, heads.
template <typename real>
__global__ void __launch_bounds__(256)
    decode_attend(real* qkv, const real* __restrict__ rotation, real* keys, real* values,
                  const int* __restrict__ slots, const int* __restrict__ places, real* scores,
                  real* __restrict__ out, int room, int size, int append) {
  struct Shared {
    real scratch[8], partial[256];
  };
  Shared& shared = block_shared<Shared>();
  const DecodeHead<real> h = decode_head(qkv, keys, values, slots, places, room, size,
                                         blockIdx.x, blockIdx.y, gridDim.y);
  const size_t pair = size_t(blockIdx.x) * gridDim.y + blockIdx.y;
  real* mixed = out + pair * size;
  if (h.place < 0) {  // the whole block
    for (int d = threadIdx.x; d < size; d += blockDim.x) mixed[d] = 0;
    return;
  }
  if (append) {
    decode_keep(h, rotation, threadIdx.x, blockDim.x);
    __syncthreads();  // what one thread kept is read by others
  }

  // A thread a position. Of its scores a thread reads what it wrote itself until the sum is known.
  real* weights = scores + pair * room;
  real top = lowest<real>();
  for (int t = threadIdx.x; t <= h.place; t += blockDim.x) {
    real score = 0;
    for (int d = 0; d < size; d++) score += h.q[d] * h.keys[size_t(d) * room + t];
    weights[t] = score;
    top = larger(top, score);
  }
  top = block_max(top, shared.scratch);
  real sum = 0;
  for (int t = threadIdx.x; t <= h.place; t += blockDim.x) {
    const real weight = exp(weights[t] - top);
    weights[t] = weight;
    sum += weight;
  }
  sum = block_sum(sum, shared.scratch);  // ends with a barrier: all weights are there

  // `across` neighbouring threads take a position's values, the block several positions at a time.
  int across = 1;
  while (across < size && across < blockDim.x) across *= 2;
  const int groups = blockDim.x / across, group = threadIdx.x / across;
  for (int first = 0; first < size; first += across) {
    const int d = first + threadIdx.x % across;
    real part = 0;
    if (d < size)
      for (int t = group; t <= h.place; t += groups)
        part += weights[t] * h.values[size_t(t) * size + d];
    __syncthreads();  // the parts before have been added up
    shared.partial[threadIdx.x] = part;
    __syncthreads();
    if (group == 0 && d < size) {
      real total = 0;
      for (int other = 0; other < groups; other++)
        total += shared.partial[other * across + threadIdx.x];
      mixed[d] = total / sum;
    }
  }
}

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

// What the kernels above do for a token, layer after layer, in one launch: a block a row. For
// models so small that launches cost more than what the other processors could do meanwhile. A
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
