#pragma once

// Loads the rows of a head into tiles in shared memory. The next tile is loaded to registers while
// the current one is used. attention_tiles.cuh says how a tile is laid out.

// The rows of one head: q, k, v or dy.
struct HeadRows {
  const float* __restrict__ from;
  size_t stride;  // from one row to the next
  int time, size;
  bool aligned;  // whether four floats can be read at once

  // Channels d...d+3 of a row, zeros beyond the head and beyond the last row.
  template <bool ALIGNED> __device__ __forceinline__ FourFloats four(int row, int d) const {
    FourFloats result = {};
    const float* place = from + row * stride + d;
    if (ALIGNED) {
      if (row < time && d < size) result = *reinterpret_cast<const FourFloats*>(place);
    } else {
#pragma unroll
      for (int e = 0; e < 4; e++)
        if (row < time && d + e < size) result.x[e] = place[e];
    }
    return result;
  }
  __device__ __forceinline__ FourFloats four(int row, int d) const {
    return aligned ? four<true>(row, d) : four<false>(row, d);
  }
};

// A tile in registers, before it is written to shared memory: ROWS rows, spread over THREADS
// threads. A part is four floats of two neighbouring rows.
template <int HEAD, int ROWS, int THREADS> struct Fetched {
  static constexpr int ACROSS = HEAD / 4, PARTS = ROWS / 2 * ACROSS;
  static constexpr int EACH = (PARTS + THREADS - 1) / THREADS;
  FourFloats upper[EACH], lower[EACH];

  static __device__ __forceinline__ bool has(int i) {  // whether this thread has an i-th part
    return EACH * THREADS == PARTS || i * THREADS + threadIdx.x < PARTS;
  }
  static __device__ __forceinline__ int pair_of(int i) {
    return (i * THREADS + threadIdx.x) / ACROSS;
  }
  static __device__ __forceinline__ int channel_of(int i) {
    return (i * THREADS + threadIdx.x) % ACROSS * 4;
  }
  template <bool ALIGNED>
  __device__ __forceinline__ void fetch_as(const HeadRows& rows, int first) {
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      if (!has(i)) continue;
      upper[i] = rows.four<ALIGNED>(first + 2 * pair_of(i), channel_of(i));
      lower[i] = rows.four<ALIGNED>(first + 2 * pair_of(i) + 1, channel_of(i));
    }
  }
  __device__ __forceinline__ void fetch(const HeadRows& rows, int first) {
    if (rows.aligned)
      fetch_as<true>(rows, first);
    else
      fetch_as<false>(rows, first);
  }
};

// Memory for tiles: two of them where 48 KB suffice, so that one is written while the other is
// read.
template <typename Tiles> struct Places {
  static constexpr int COUNT = 2 * sizeof(Tiles) <= 48 * 1024 ? 2 : 1;
  Tiles tiles[COUNT];
};

// For the tiles that begin at rows `first`, first + ROWS, ... below `end`: `fetch(row)` loads a
// tile to registers, `put(tiles)` writes it to shared memory, `use(tiles, row)` computes with it.
// The next tile is fetched before the current one is used, so that the load takes no time of its
// own.
template <int ROWS, typename Tiles, typename Fetch, typename Put, typename Use>
__device__ __forceinline__ void through_tiles(Places<Tiles>& places, int first, int end,
                                              const Fetch& fetch, const Put& put, const Use& use) {
  if (first >= end) return;
  fetch(first);
  put(places.tiles[0]);
  __syncthreads();  // the first tile is complete
  int place = 0;
  for (; first < end; first += ROWS) {
    const bool last = first + ROWS >= end;
    if (!last) fetch(first + ROWS);
    use(places.tiles[place], first);
    if (last) break;
    if (places.COUNT == 1)
      __syncthreads();  // all threads have used the tile
    else
      place = 1 - place;
    put(places.tiles[place]);
    __syncthreads();  // the next tile is complete
  }
}
