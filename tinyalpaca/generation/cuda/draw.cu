#include "prelude.cuh"

// Draws tokens on the device; see draw.py. One block handles one row. Its threads each have a chunk
// of the vocabulary, in order.

constexpr int DRAW_THREADS = 256;

template <typename real> struct DrawShared {
  real scratch[8];
  int counts[8], token;
  double warps[8], through[DRAW_THREADS];
};

// A row of logits, and which tokens may be chosen: those that are not 0 in `allowed`, or all if it
// is null.
template <typename real> struct DrawRow {
  const real* logits;
  const int* allowed;
  int vocabulary;

  __device__ __forceinline__ bool may(int v) const { return !allowed || allowed[v]; }

  // e^(score - top); 0 for a logit of -infinity and for an excluded token.
  __device__ __forceinline__ real weight(int v, real factor, real top) const {
    return may(v) ? exp(logits[v] * factor - top) : real(0);
  }
};

// The first of the highest logits; -1 if a logit is NaN or the highest is not finite.
template <typename real>
__device__ __forceinline__ int draw_highest(const DrawRow<real>& row, DrawShared<real>& shared) {
  const real* logits = row.logits;
  const int vocabulary = row.vocabulary;
  real top = lowest<real>();
  int strange = 0;
  for (int v = threadIdx.x; v < vocabulary; v += blockDim.x) {
    if (!row.may(v)) continue;
    strange += !(logits[v] - logits[v] == 0) && !(logits[v] < 0);  // NaN and +infinity
    top = larger(top, logits[v]);
  }
  top = block_max(top, shared.scratch);
  int from_end = 0;  // stays 0 if all are -infinity
  for (int v = vocabulary - 1 - threadIdx.x; v >= 0; v -= blockDim.x)
    if (row.may(v) && logits[v] == top) from_end = larger(from_end, vocabulary - v);
  from_end = block_max(from_end, shared.counts);
  strange = block_sum(strange, shared.counts);
  return strange || !from_end ? -1 : vocabulary - from_end;
}

// The first token whose cumulative weight exceeds `uniform` of the total; -1 if that is not finite.
template <typename real>
__device__ __forceinline__ int draw_by_weight(const DrawRow<real>& row, real factor,
                                              double uniform, DrawShared<real>& shared) {
  const int vocabulary = row.vocabulary;
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  real top = lowest<real>();
  for (int v = threadIdx.x; v < vocabulary; v += blockDim.x)
    if (row.may(v)) top = larger(top, row.logits[v] * factor);
  top = block_max(top, shared.scratch);

  const int chunk = (vocabulary + DRAW_THREADS - 1) / DRAW_THREADS;
  const int first = smaller(vocabulary, int(threadIdx.x) * chunk);
  const int end = smaller(vocabulary, first + chunk);
  double through = 0;  // the weight of this thread's tokens, then of all tokens up to them
#pragma unroll 1  // unrolled, the compiler would need a stack for doubles
  for (int v = first; v < end; v++) through += row.weight(v, factor, top);
#pragma unroll
  for (int distance = 1; distance < WARP; distance *= 2) {
    const double before = __shfl_sync(ALL_LANES, through, lane < distance ? lane : lane - distance);
    if (lane >= distance) through += before;
  }
  if (lane == WARP - 1) shared.warps[warp] = through;
  __syncthreads();
  double base = 0;
  for (int w = 0; w < warp; w++) base += shared.warps[w];
  shared.through[threadIdx.x] = base + through;
  __syncthreads();
  const double total = shared.through[DRAW_THREADS - 1], target = uniform * total;
  if (!(total > 0 && total - total == 0)) return -1;  // for the whole block

  // The chunk that contains the target: its index is the number of chunks that end before it.
  const int owner =
      smaller(block_sum(int(base + through <= target), shared.counts), DRAW_THREADS - 1);
  if (threadIdx.x == owner) {
    double running = owner ? shared.through[owner - 1] : 0;
    int token = -1;
    for (int v = first; v < end; v++) {
      const real weight = row.weight(v, factor, top);
      running += weight;
      if (weight > 0) token = v;  // if rounding leaves a rest, the last possible token is chosen
      if (running > target) break;
    }
    shared.token = token;
  }
  __syncthreads();
  return shared.token;
}

// Chooses a token for each row, which becomes its id at the next place. `settings` (rounds + 1, N)
// has uniform numbers, one row for each round; its last row is 1/temperature, or 0 for the highest
// logit. `taken` counts the rounds, and chosen (rounds, N) gets the tokens. Rows at negative places
// are unused.
//
// Which tokens may be chosen depends on the number of tokens left after this one and on the state
// of the row's text: `allowed` (4, 8, vocabulary) has these as its first axes; a number of 3 stands
// for more. `guide` (2, N) holds the states, and the value of `taken` at which no token is left.
// `following` (8, vocabulary) is the state after a token. If these are null, all tokens may be
// chosen. Grid: rows.
template <typename real>
__global__ void __launch_bounds__(256)
    draw_tokens(const real* __restrict__ logits, const double* __restrict__ settings,
                int* __restrict__ ids, int* __restrict__ places, int* __restrict__ taken,
                int* __restrict__ chosen, const int* __restrict__ allowed,
                const int* __restrict__ following, int* __restrict__ guide, int rounds,
                int vocabulary) {
  DrawShared<real>& shared = block_shared<DrawShared<real>>();
  const int row = blockIdx.x, rows = gridDim.x;
  if (places[row] < 0) return;  // for the whole block
  const int round = taken[row] % rounds;
  const double factor = settings[size_t(rounds) * rows + row];
  const int state = allowed ? guide[row] : 0;
  DrawRow<real> own = {logits + size_t(row) * vocabulary, nullptr, vocabulary};
  if (allowed) {
    const int left = smaller(larger(guide[rows + row] - taken[row] - 1, 0), 3);
    own.allowed = allowed + size_t(left * 8 + state) * vocabulary;
  }
  const int token = factor == 0 ? draw_highest(own, shared)
                                : draw_by_weight(own, real(factor),
                                                 settings[size_t(round) * rows + row], shared);
  if (threadIdx.x == 0) {  // before the last barrier, all others have read what changes now
    chosen[size_t(round) * rows + row] = ids[row] = token;
    places[row]++;
    taken[row]++;
    if (allowed && token >= 0) guide[row] = following[size_t(state) * vocabulary + token];
  }
}
