#include "prelude.cuh"
#include "tensor_cores.cuh"
#include "tiles.cuh"
#include "tensor_tiles.cuh"

// Matmuls c = a·b + bias, optionally followed by ReLU. c (M, N) is C-contiguous; a (M, K) and b (K,
// N) are C-contiguous or the transpose of such an array, so one of the two strides of each is 1.
//
// blockIdx is a tile of rows, a tile of columns and a part of K. With several parts, block z writes
// its partial sum to c[z], and column_sums.cu adds these up. Weight gradients need this, because
// they have few elements and a very long K. `k_a_part` is a multiple of 32.

template <class Way, typename real = typename Way::real>
__device__ __forceinline__ void product(const real* __restrict__ a, const real* __restrict__ b,
                                        const real* __restrict__ bias, real* __restrict__ c, int m,
                                        int n, int k, int a_row, int a_column, int b_row,
                                        int b_column, int k_a_part, int relu) {
  const int top = blockIdx.x * TILE, side = blockIdx.y * TILE;
  const int depth = blockIdx.z * k_a_part;
  const int last = k - depth < k_a_part ? k : depth + k_a_part;
  const bool a_along = a_column == 1, b_along = b_row == 1;
  const Factor<real> left = {a, nullptr, m, a_along ? a_row : a_column, a_along, top};
  const Factor<real> right = {b, nullptr, n, b_along ? b_column : b_row, b_along, side};
  typename Way::Loaded loaded;
  Way::run(left, right, depth, last, loaded, [&](int row, int column, real value) {
    row += top;
    column += side;
    if (row >= m || column >= n) return;
    if (bias) value += bias[column];
    c[(size_t(blockIdx.z) * m + row) * n + column] = relu && value < 0 ? 0 : value;
  });
}

template <typename real>
__global__ void __launch_bounds__(Fma<real>::THREADS, 2)
    gemm_fma(const real* __restrict__ a, const real* __restrict__ b,
             const real* __restrict__ bias, real* __restrict__ c, int m, int n, int k, int a_row,
             int a_column, int b_row, int b_column, int k_a_part, int relu) {
  product<Fma<real>>(a, b, bias, c, m, n, k, a_row, a_column, b_row, b_column, k_a_part, relu);
}

__global__ void __launch_bounds__(Tensor<Tf32, TILE>::THREADS, 2)
    gemm_tf32(const float* __restrict__ a, const float* __restrict__ b,
              const float* __restrict__ bias, float* __restrict__ c, int m, int n, int k, int a_row,
              int a_column, int b_row, int b_column, int k_a_part, int relu) {
  product<Tensor<Tf32, TILE>>(a, b, bias, c, m, n, k, a_row, a_column, b_row, b_column, k_a_part, relu);
}

__global__ void __launch_bounds__(Tensor<Bf16, TILE>::THREADS, 2)
    gemm_bf16(const float* __restrict__ a, const float* __restrict__ b,
              const float* __restrict__ bias, float* __restrict__ c, int m, int n, int k, int a_row,
              int a_column, int b_row, int b_column, int k_a_part, int relu) {
  product<Tensor<Bf16, TILE>>(a, b, bias, c, m, n, k, a_row, a_column, b_row, b_column, k_a_part, relu);
}
